"""embrief in Qdrant: `models.Document` and `models.Image` embedded locally with their prompts, and guarded collections.

`inference/` holds `attach` and all that it puts into a client, `helpers/` every other name: what works without it.
Neither room knows the other; both compare vectors by `guard.py`.

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

from qdrant_embrief.helpers.arguments import point_id
from qdrant_embrief.helpers.collections import (
    acheck_collection,
    acreate_collection,
    check_collection,
    create_collection,
    space_metadata,
    vectors_config,
)
from qdrant_embrief.helpers.search import Hit, aquery_texts, query_texts
from qdrant_embrief.helpers.upsert import aupsert_texts, upsert_texts
from qdrant_embrief.inference.attach import attach

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
