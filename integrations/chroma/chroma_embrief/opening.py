"""Opening a collection: made if it is missing, and compared with the embedding function before it is used."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from chromadb.errors import InternalError, NotFoundError

from chroma_embrief.arguments import checked_space, embedder_of, require_sync
from chroma_embrief.guard import (
    keep_function,
    kept_function,
    require_same_function,
    require_same_space,
    unknown_vectors,
    where_is,
)
from embrief import ArgumentError, SpaceMismatchError
from embrief.stores import note, read_stamp, stamp
from embrief.wrapping import unicode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chromadb.api import ClientAPI
    from chromadb.api.collection_configuration import CreateCollectionConfiguration
    from chromadb.api.models.Collection import Collection
    from chromadb.api.types import DataLoader

    from chroma_embrief.base import EmbriefEmbeddingFunction


def open_collection(
    client: ClientAPI,
    name: str,
    embedding_function: EmbriefEmbeddingFunction,
    *,
    metadata: Mapping[str, Any] | None = None,
    configuration: CreateCollectionConfiguration | None = None,
    adopt: bool = False,
    data_loader: DataLoader[Any] | None = None,
) -> Collection:
    """Get a collection or create it; refuse one of another vector space before anything is embedded.

    A collection that is there, is empty and says nothing about its vectors is stamped like a new one.

    Args:
        client: A synchronous client.
        name: Name of the collection.
        embedding_function: One of ours.
        metadata: For a new collection; a stamp of the vector space is added.
        configuration: Index settings for a new collection. The distance is cosine unless it says otherwise.
        adopt: Stamp a collection that has vectors and does not say which model made them: you say that it was this
            function. The width is compared all the same.
        data_loader: What loads the pictures of `uris=`, such as an `ImageLoader`; the collection does not keep it.

    Raises:
        SpaceMismatchError: The collection holds vectors of another model, revision, width or document prompt, or of an
            unknown one without `adopt`; or its stamp cannot be read.
        ArgumentError: `configuration` has an embedding function too, or the collection was made with another of
            our classes, whose name it keeps.
        ArgumentTypeError: The embedding function is not ours, or the client is asynchronous.
    """
    require_sync(client, "open_collection")
    if configuration is not None and configuration.get("embedding_function") is not None:
        raise ArgumentError("configuration has an embedding_function too; pass it once, as the third argument")
    checked_space(embedding_function)
    unicode(metadata, "metadata")
    try:
        # Without a function: with one, Chroma would complain about its name before we can say what differs.
        existing = client.get_collection(name, embedding_function=None)
    except NotFoundError:
        existing = None
    except InternalError as error:
        raise SpaceMismatchError(
            f"Chroma cannot read what the collection {name!r} keeps ({error}), so nothing is known about its vectors; "
            "put the database back from a copy, or embed the documents again into a new one"
        ) from error
    if existing is not None:
        claim(existing, embedding_function, adopt=adopt)
        require_same_space(client.get_collection(name, embedding_function=None), embedding_function)
        require_same_function(existing, embedding_function)
        return client.get_collection(
            name,
            embedding_function=embedding_function,  # type: ignore[arg-type]  # subclasses implement the protocol
            data_loader=data_loader,
        )
    collection = client.get_or_create_collection(
        name,
        # A second witness: `modify` replaces the persisted configuration even where it is refused.
        metadata={**(metadata or {}), **_stamped(embedding_function)},
        # A copy, since Chroma writes into it.
        configuration=copy.deepcopy(configuration),
        embedding_function=embedding_function,  # type: ignore[arg-type]  # subclasses implement the protocol
        data_loader=data_loader,
    )
    # Another process may have created it in the meantime.
    require_same_space(collection, embedding_function)
    return collection


def require_known(collection: Collection, embedding_function: EmbriefEmbeddingFunction, *, adopt: bool = False) -> None:
    """Refuse a collection that `claim` or `require_same_space` would refuse. Writes nothing.

    Args:
        collection: The collection, just fetched.
        embedding_function: One of ours.
        adopt: Whether the caller says that the function made the vectors that are there.

    Raises:
        SpaceMismatchError: It holds vectors of another or an unknown space, or the stamp cannot be read.
        ArgumentError: The persisted configuration is not of our format.
        ArgumentTypeError: The embedding function is not ours.
    """
    if not _says_nothing(collection):
        require_same_space(collection, embedding_function)
        return
    width = collection.get_model().dimension
    # An emptied collection still takes no other width.
    if width not in (None, checked_space(embedding_function).dim) or (collection.count() and not adopt):
        raise unknown_vectors(collection, embedding_function, width)


def claim(collection: Collection, embedding_function: EmbriefEmbeddingFunction, *, adopt: bool = False) -> None:
    """Stamp a collection that says nothing about its vectors, if it is empty or adopted; leave any other as it is.

    Args:
        collection: The collection, just fetched.
        embedding_function: One of ours.
        adopt: Whether the caller says that the function made the vectors that are there.

    Raises:
        SpaceMismatchError: See `require_known`.
        ArgumentError: See there.
    """
    require_known(collection, embedding_function, adopt=adopt)
    if _says_nothing(collection):
        # Chroma refuses to write a distance again, even the same. It is in the configuration, which decides.
        lasting = {key: value for key, value in (collection.metadata or {}).items() if key != "hnsw:space"}
        collection.modify(metadata={**lasting, **_stamped(embedding_function)})
    if kept_function(collection)[0] is None:
        keep_function(collection, embedding_function)


def _stamped(embedding_function: EmbriefEmbeddingFunction) -> dict[str, str]:
    embedder = embedder_of(embedding_function)
    return {**stamp(embedding_function.space), **({} if embedder is None else note(embedder))}


def _says_nothing(collection: Collection) -> bool:
    stamped = read_stamp(collection.metadata, where=where_is(collection))
    return stamped is None and kept_function(collection)[0] is None
