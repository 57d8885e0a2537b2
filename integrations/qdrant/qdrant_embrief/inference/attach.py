"""`attach`: local inference for `models.Document` and `models.Image` in a client that exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_embrief.inference.seam import check_client

if TYPE_CHECKING:
    from embrief import Embedder

Client = TypeVar("Client", QdrantClient, AsyncQdrantClient)

BATCH_SIZE = 64
"""Points per inference batch unless the client was made with a number; Qdrant's own 8 is slow."""


def attach(client: Client, embedders: Embedder | Mapping[str, Embedder] | None = None) -> Client:
    """Let a client embed `models.Document(text=..., model=...)` locally, with the prompts of each side.

    Points get the document prompt, queries and prefetches the query prompt. `options` of a document may hold
    `instruction` (queries), `task`, `title` (points) and `mrl`, the number of values to cut the vector to.
    Names that are not attached go where they went before: to fastembed, or to the server's BM25. Attaching
    again adds names; a name that is taken goes to the new embedder. Each document is compared with the vector
    field it is for: another space or width is refused, and for a stamped field also a name that is not attached.

    For models that take pictures, `models.Image(image=..., model=...)` holds an `embrief.Image`, a `Path`, the bytes of
    a file, an image of Pillow, a uint8 array or, in a string, base64; and `models.InferenceObject(object=...)` holds
    what `embed_documents` takes, such as a mapping with "text" and "image". Addresses are refused:
    `Image.from_url(url, fetch=...)` gets one with a fetcher of yours.

    Args:
        client: A `QdrantClient` or `AsyncQdrantClient`, embedded or connected to a server.
        embedders: An `Embedder`, known by its model's name; a mapping of any name to an `Embedder`; or
            `None` for all recorded embedding models, each made at its first use. Names are compared without
            regard to case, and win over equal names of fastembed.

    Returns:
        The same client.

    Raises:
        ArgumentTypeError: The client or the embedders are something else.
        ArgumentError: The client was made with `cloud_inference=True`.
        UnsupportedVersionError: The installed qdrant-client is not supported; the message names the versions
            that are.

    Examples:
        >>> from embrief import Embedder
        >>> from qdrant_client import QdrantClient, models
        >>> from qdrant_embrief import attach, create_collection
        >>> embedder = Embedder("embrief/hash", dim=64)
        >>> client = attach(QdrantClient(":memory:"), embedder)
        >>> create_collection(client, "planets", embedder)
        True
        >>> mars = models.Document(text="Mars is the Red Planet.", model="embrief/hash")
        >>> client.upsert("planets", [models.PointStruct(id=1, vector=mars)]).status.value
        'completed'
        >>> red = models.Document(text="red planet", model="embrief/hash")
        >>> client.query_points("planets", query=red).points[0].id
        1
        >>> client.close()
    """
    check_client(client)
    # Imported late: with another qdrant-client these modules may not load, and the check above says why.
    from qdrant_embrief.inference.clients import attached_class
    from qdrant_embrief.inference.model_embedder import LocalModelEmbedder

    current: Any = client._model_embedder
    ours = current if isinstance(current, LocalModelEmbedder) else None
    if ours is None:
        ours = LocalModelEmbedder(current, client._inference_inspector.parser)
    ours.models.add(embedders)
    if ours is not current:
        if client.local_inference_batch_size is None:
            client.local_inference_batch_size = BATCH_SIZE
        client._model_embedder = ours
        kind: Any = type(client)
        cast("Any", client).__class__ = attached_class(kind)
    return client
