"""The guard that Chroma lacks: it compares the names of functions, never the models behind them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from chroma_embrief import config as stored
from chroma_embrief.arguments import checked_space, embedder_of, require_sync
from chroma_embrief.functions import FUNCTIONS
from embrief import ArgumentError, NewerFormatError, SpaceMismatchError
from embrief.stores import read_stamp, require_same, tell_precision

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.AsyncCollection import AsyncCollection
    from chromadb.api.models.Collection import Collection

    from chroma_embrief.base import EmbriefEmbeddingFunction
    from embrief import VectorSpace

_OURS = {kind.name(): kind for kind in FUNCTIONS}


def require_same_space(collection: Collection | AsyncCollection, embedding_function: EmbriefEmbeddingFunction) -> None:
    """Refuse a collection whose vectors are not known to be of the function's space.

    An empty collection that says nothing passes: nothing is mixed yet.

    Args:
        collection: A collection of any client, just fetched: it knows whether it had vectors then.
        embedding_function: One of ours.

    Raises:
        SpaceMismatchError: The spaces differ, the collection belongs to a function of another kind, or it has vectors
            and says nothing about them.
        NewerFormatError: A newer release wrote the configuration.
        ArgumentError: The persisted configuration is not of our format.
        ArgumentTypeError: The embedding function is not ours.
    """
    space, where = checked_space(embedding_function), where_is(collection)
    stamped = read_stamp(collection.metadata, where=where)
    require_same(stamped, space, where=where)
    # Of an asynchronous client this runs on its event loop, and choosing a number format may import torch.
    if not inspect.iscoroutinefunction(collection.count) and (embedder := embedder_of(embedding_function)) is not None:
        tell_precision(embedder)
    name, config = kept_function(collection)
    if name is None:
        if stamped is None and (width := collection.get_model().dimension) is not None:
            raise unknown_vectors(collection, embedding_function, width)
        return
    if name not in _OURS:
        raise SpaceMismatchError(
            f"{where} belongs to the embedding function {name!r}, whose vectors cannot be compared with "
            f"those of {embedding_function!r}; embed its documents again into a new collection"
        )
    try:
        kept = _OURS[name].build_from_config(config)
    except ArgumentError as error:
        raise type(error)(
            f"{where} keeps a configuration that cannot be used: {error}{_remedy(error, stamped)}"
        ) from error
    if stored.identity(kept.get_config()) == stored.identity(embedding_function.get_config()):
        return
    if stamped is not None and kept.space != space:
        raise SpaceMismatchError(
            f"{where} holds vectors of the space {space.id}, but its configuration was replaced by one for "
            f"{kept.space.id} (collection.modify stores before it checks), so that reopening it without an "
            "embedding function would ask with the wrong model; put it right with restore_configuration"
        )
    require_same(kept.space, space, where=where)


def _remedy(error: ArgumentError, stamped: VectorSpace | None) -> str:
    if isinstance(error, NewerFormatError):
        return ""
    if stamped is not None:
        return "; put it right with restore_configuration"
    return (
        ". Nor is there a stamp that says which function made its vectors: put the database back from a copy, or embed "
        "the documents again into a new collection"
    )


def where_is(collection: Collection | AsyncCollection) -> str:
    """Return how messages call a collection."""
    return f"the collection {collection.name!r}"


def kept_function(collection: Collection | AsyncCollection) -> tuple[str | None, dict[str, Any]]:
    """Return name and configuration of the function that a collection keeps; no name if it says nothing.

    `"default"` says nothing: Chroma notes it where no function was given, also for vectors that were brought along.
    """
    kept = collection.configuration_json.get("embedding_function") or {}
    name = kept.get("name")
    return (None if name == "default" else name), kept.get("config") or {}


def unknown_vectors(
    collection: Collection | AsyncCollection, embedding_function: EmbriefEmbeddingFunction, width: int | None
) -> SpaceMismatchError:
    """Return the error for a collection that has vectors and says nothing about them."""
    where, own = where_is(collection), embedding_function.space.dim
    if width is not None and width != own:
        return SpaceMismatchError(
            f"{where} holds vectors of {width} values that were made without embrief, and {embedding_function!r} makes "
            f"{own}; use an embedding function of that width, or embed the documents again into a new collection"
        )
    return SpaceMismatchError(
        f"{where} holds vectors and nothing says which model made them (Chroma notes its 'default' function also where "
        f"none was given). If you are sure that it was {embedding_function!r}, open it once with "
        "open_collection(..., adopt=True), which stamps it; otherwise embed the documents again into a new collection"
    )


def require_same_function(collection: Collection, embedding_function: EmbriefEmbeddingFunction) -> None:
    """Refuse another of our classes: Chroma compares names, and its message does not say what to do.

    Raises:
        ArgumentError: The collection keeps another class's name.
    """
    kept, _ = kept_function(collection)
    if kept in _OURS and kept != embedding_function.name():  # type: ignore[attr-defined]  # the framework's classes add it
        raise ArgumentError(
            f"the collection {collection.name!r} was made with {_OURS[kept].__name__}; use that class, with the same "
            "arguments, instead of a " + type(embedding_function).__name__
        )


def restore_configuration(client: ClientAPI, name: str, embedding_function: EmbriefEmbeddingFunction) -> None:
    """Put the right function back into a collection whose configuration was replaced.

    Args:
        client: A synchronous client.
        name: Name of the collection, one that `open_collection` created.
        embedding_function: The function that embedded the documents.

    Raises:
        SpaceMismatchError: The stamp says that another space's function embedded them, or there is no stamp.
        ArgumentTypeError: The embedding function is not ours, or the client is asynchronous.
    """
    require_sync(client, "restore_configuration")
    collection = client.get_collection(name, embedding_function=None)
    where = where_is(collection)
    stamped = read_stamp(collection.metadata, where=where)
    if stamped is None:
        raise SpaceMismatchError(f"{where} has no stamp, so nothing proves which function embedded its documents")
    require_same(stamped, checked_space(embedding_function), where=where)
    keep_function(collection, embedding_function)
    require_same_space(client.get_collection(name, embedding_function=None), embedding_function)


def keep_function(collection: Collection, embedding_function: EmbriefEmbeddingFunction) -> None:
    """Let a collection keep a function, whatever it kept before."""
    try:
        collection.modify(configuration={"embedding_function": embedding_function})  # type: ignore[arg-type]  # subclasses implement the protocol
    except ValueError:
        # Chroma has stored it and now compares it with what was there; what counts is what is there now.
        pass
