"""Writing texts and pictures in batches that the store takes, so that nothing is embedded and then refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from chromadb.api.types import validate_ids, validate_metadatas
from chromadb.utils.embedding_functions import DefaultEmbeddingFunction

from chroma_embrief.arguments import require_sync
from chroma_embrief.base import EmbriefEmbeddingFunction
from chroma_embrief.guard import require_same_space
from chroma_embrief.opening import claim, require_known
from chroma_embrief.pictures import as_inputs
from embrief import ArgumentError, ArgumentTypeError
from embrief.wrapping import count, inputs, listed, storing, text_of, texts, unicode

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

    from chroma_embrief.base import Inputs


def add_documents(
    client: ClientAPI,
    collection: Collection,
    documents: Inputs,
    *,
    ids: Sequence[str],
    metadatas: Sequence[Mapping[str, Any] | None] | None = None,
    uris: Sequence[str | None] | None = None,
    titles: Sequence[str | None] | None = None,
    embedding_function: EmbriefEmbeddingFunction | None = None,
    batch_size: int = 256,
) -> None:
    """Embed documents and store them batch by batch; an interruption costs one batch.

    Everything is checked before the first is embedded, pictures are read and decoded for it. A document whose id is
    there is replaced, where Chroma's `add` would embed it and drop it without a word.

    Args:
        client: The client of the collection; it knows the largest batch.
        collection: The collection.
        documents: The texts; for a model that takes pictures also `Image`s, uint8 arrays (height, width, 3), sequences
            of texts and `Image`s, and mappings with "text" and "image", which Chroma itself takes nowhere. The
            collection keeps the texts, and of pictures the vectors alone. `Image(Path(...))` holds no pixels for
            longer than needed.
        ids: One id per document, each once.
        metadatas: One mapping or `None` per document.
        uris: One string or `None` per document, kept with it: where its picture is, for the collection's data loader.
            Nothing is loaded from there.
        titles: One title or `None` per document, for models with a place for them. Needs
            `embedding_function`.
        embedding_function: The function to embed with; by default the collection's own.
        batch_size: Documents per write, and per call of the model; never more than the client takes.

    Raises:
        ArgumentError: Lengths differ; `titles` comes without `embedding_function`, or pictures or `uris` come without
            a function of ours; or a picture cannot be read, with its index. Nothing was stored.
        ArgumentTypeError: `documents` is no list of texts and pictures, or has pictures and the model takes texts only
            (the error has the index); a uri is no string; or the client is asynchronous.
        InputTooLongError: A document is too long and the embedder has `truncate="error"`. Nothing was stored.
        PartlyStoredError: The model or the store failed half-way; the error has the ids that are stored.
        SpaceMismatchError: `embedding_function`, or the collection's own if it is one of ours, does not make vectors
            of the collection's space, or nothing says which it is.
        ValueError: Chroma refuses an id or a metadata value; an id that comes twice is its `DuplicateIDError`.
    """
    require_sync(client, "add_documents")
    items = inputs(as_inputs(documents, "documents"), "documents")
    embeds = embedding_function if embedding_function is not None else _own_function(collection)
    if embeds is None:
        # Chroma embeds them, with a function that is not ours.
        texts(items, "documents")
    keys = _column(ids, "ids", len(items)) or []
    extras, names = _column(metadatas, "metadatas", len(items)), _column(titles, "titles", len(items))
    places = _column(uris, "uris", len(items))
    size = min(count(batch_size, "batch_size"), client.get_max_batch_size())
    if titles is not None and embedding_function is None:
        raise ArgumentError(
            "titles need embedding_function=...: Chroma hands only texts to a collection's own function"
        )
    if places is not None:
        _check_uris(places, embeds)
    if items:
        # Over all batches: an id that comes twice would otherwise overwrite itself.
        validate_ids(keys)
        if extras is not None:
            validate_metadatas(extras)
    if embeds is not None:
        # Fetched again: the caller's object knows the metadata of the moment it was made.
        require_known(client.get_collection(collection.name, embedding_function=None), embeds)
        embeds.embedder.check_documents(items, titles=names)
        # Only now: a call that is refused for its texts leaves the collection as it was.
        claim(client.get_collection(collection.name, embedding_function=None), embeds)
        require_same_space(client.get_collection(collection.name, embedding_function=None), embeds)
    for start in range(0, len(items), size):
        part = slice(start, start + size)
        with storing(keys, start, where=f"the collection {collection.name!r}"):
            embeddings = None
            if embeds is not None:
                embeddings = embeds.embed_documents(items[part], titles=names[part] if names is not None else None)
            collection.upsert(
                ids=keys[part],
                # Chroma takes None for a record that brings its vector.
                documents=cast("list[str]", [text_of(item) for item in items[part]]),
                embeddings=embeddings,
                metadatas=extras[part] if extras is not None else None,
                uris=places[part] if places is not None else None,
            )


def _check_uris(places: Sequence[object], embeds: EmbriefEmbeddingFunction | None) -> None:
    if embeds is None:
        # With a loader Chroma would choose by chance which of text and uri it embeds.
        raise ArgumentError("uris= need an embedding function of ours; pass embedding_function=")
    for index, place in enumerate(places):
        if place is not None and not isinstance(place, str):
            raise ArgumentTypeError(
                f"uris[{index}] is {type(place).__name__}; it must be a string or None", index=index
            )


def _own_function(collection: Collection) -> EmbriefEmbeddingFunction | None:
    """Return the function that Chroma embeds the collection's documents with, if it is one of ours."""
    function = getattr(collection, "_embedding_function", None)
    if function is None or isinstance(function, DefaultEmbeddingFunction):
        # Then Chroma asks the one that the collection keeps.
        function = collection.configuration.get("embedding_function")
    return function if isinstance(function, EmbriefEmbeddingFunction) else None


def _column(values: object, name: str, due: int) -> list[Any] | None:
    if values is None:
        return None
    items = listed(values, name)
    if len(items) != due:
        raise ArgumentError(f"there are {len(items)} {name} for {due} documents; give one each")
    for index, item in enumerate(items):
        unicode(item, f"{name}[{index}]", index)
    return items
