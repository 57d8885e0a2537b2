"""Opening a collection: made if it is missing, and compared with the embedding function before it is used."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

from chromadb.errors import NotFoundError

from chroma_embrief.guard import checked_space, require_same_function, require_same_space
from embrief import ArgumentError, ArgumentTypeError
from embrief.stores import stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chromadb.api import ClientAPI
    from chromadb.api.collection_configuration import CreateCollectionConfiguration
    from chromadb.api.models.Collection import Collection

    from chroma_embrief.base import EmbriefEmbeddingFunction


def open_collection(
    client: ClientAPI,
    name: str,
    embedding_function: EmbriefEmbeddingFunction,
    *,
    metadata: Mapping[str, Any] | None = None,
    configuration: CreateCollectionConfiguration | None = None,
) -> Collection:
    """Get a collection or create it; refuse one of another vector space before anything is embedded.

    Args:
        client: A synchronous client.
        name: Name of the collection.
        embedding_function: One of ours.
        metadata: For a new collection; a stamp of the vector space is added.
        configuration: Index settings for a new collection. The distance is cosine unless it says otherwise.

    Raises:
        SpaceMismatchError: The collection holds vectors of another model, revision, width or document prompt.
        ArgumentError: `configuration` has an embedding function too, or the collection was made with the other of
            our classes, whose name it keeps.
        ArgumentTypeError: The embedding function is not ours, or the client is asynchronous.
    """
    if inspect.iscoroutinefunction(client.get_collection):
        raise ArgumentTypeError(
            "open_collection takes a synchronous client; with an asynchronous one, await "
            "client.get_or_create_collection(...) and check the result with require_same_space"
        )
    if configuration is not None and configuration.get("embedding_function") is not None:
        raise ArgumentError("configuration has an embedding_function too; pass it once, as the third argument")
    space = checked_space(embedding_function)
    try:
        # Without a function: with one, Chroma would complain about its name before we can say what differs.
        existing = client.get_collection(name, embedding_function=None)
    except NotFoundError:
        existing = None
    if existing is not None:
        require_same_space(existing, embedding_function)
        require_same_function(existing, embedding_function)
        return client.get_collection(name, embedding_function=embedding_function)  # type: ignore[arg-type]  # subclasses implement the protocol
    collection = client.get_or_create_collection(
        name,
        # A second witness: `modify` replaces the persisted configuration even where it is refused.
        metadata={**(metadata or {}), **stamp(space)},
        # A copy, since Chroma writes into it.
        configuration=copy.deepcopy(configuration),
        embedding_function=embedding_function,  # type: ignore[arg-type]  # subclasses implement the protocol
    )
    # Another process may have created it in the meantime.
    require_same_space(collection, embedding_function)
    return collection
