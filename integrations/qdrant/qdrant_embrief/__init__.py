"""embrief in Qdrant: `models.Document` embedded locally with the model's prompts, and guarded collections.

Examples:
    >>> from embrief import Embedder
    >>> from qdrant_client import QdrantClient
    >>> from qdrant_embrief import create_collection, query_texts, upsert_texts
    >>> client, embedder = QdrantClient(":memory:"), Embedder("embrief/hash", dim=64)
    >>> create_collection(client, "planets", embedder)
    True
    >>> ids = upsert_texts(client, "planets", embedder, ["Mars is the Red Planet.", "Venus is bright."])
    >>> query_texts(client, "planets", embedder, "Which planet is red?", limit=1)[0].text
    'Mars is the Red Planet.'
    >>> client.close()
"""

from embrief.wrapping import missing_framework

try:
    import qdrant_client as _qdrant_client  # noqa: F401 - only asks whether it is there
except ImportError as error:
    raise missing_framework("qdrant_embrief", "qdrant-client", extra="qdrant", error=error) from error

from qdrant_embrief.attach import attach
from qdrant_embrief.collections import (
    acheck_collection,
    acreate_collection,
    check_collection,
    create_collection,
)
from qdrant_embrief.hits import Hit
from qdrant_embrief.points import point_id
from qdrant_embrief.schema import space_metadata, vectors_config
from qdrant_embrief.search import aquery_texts, query_texts
from qdrant_embrief.upsert import aupsert_texts, upsert_texts

__all__ = [
    "Hit",
    "acheck_collection",
    "acreate_collection",
    "aquery_texts",
    "attach",
    "aupsert_texts",
    "check_collection",
    "create_collection",
    "point_id",
    "query_texts",
    "space_metadata",
    "upsert_texts",
    "vectors_config",
]
