"""Writing documents in batches that the store takes, so that nothing is embedded and then refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chromadb.api.types import validate_ids, validate_metadatas

from chroma_embrief.guard import require_same_space
from chroma_embrief.opening import claim
from embrief import ArgumentError, ArgumentTypeError
from embrief.errors import placed

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

    from chroma_embrief.base import EmbriefEmbeddingFunction


def add_documents(
    client: ClientAPI,
    collection: Collection,
    documents: Sequence[str],
    *,
    ids: Sequence[str],
    metadatas: Sequence[Mapping[str, Any] | None] | None = None,
    titles: Sequence[str | None] | None = None,
    embedding_function: EmbriefEmbeddingFunction | None = None,
    batch_size: int = 256,
) -> None:
    """Embed documents and store them batch by batch; an interruption costs one batch.

    Everything is checked before the first text is embedded. A document whose id is there is replaced, where
    Chroma's `add` would embed it and drop it without a word.

    Args:
        client: The client of the collection; it knows the largest batch.
        collection: The collection.
        documents: The texts.
        ids: One id per document, each once.
        metadatas: One mapping or `None` per document.
        titles: One title or `None` per document, for models with a place for them. Needs
            `embedding_function`.
        embedding_function: The function to embed with; by default the collection's own.
        batch_size: Documents per write, and per call of the model; never more than the client takes.

    Raises:
        ArgumentError: Lengths differ, or `titles` comes without `embedding_function`.
        ArgumentTypeError: A document is no string; the error has the index.
        SpaceMismatchError: `embedding_function` does not make vectors of the collection's space, or nothing says
            which it is.
        ValueError: Chroma refuses an id or a metadata value; an id that comes twice is its `DuplicateIDError`.
    """
    _check(documents, ids=ids, metadatas=metadatas, titles=titles)
    if batch_size < 1:
        raise ArgumentError(f"batch_size={batch_size} must be at least 1")
    if titles is not None and embedding_function is None:
        raise ArgumentError(
            "titles need embedding_function=...: Chroma hands only texts to a collection's own function"
        )
    if embedding_function is not None:
        # Fetched again: the caller's object knows the metadata of the moment it was made.
        claim(client.get_collection(collection.name, embedding_function=None), embedding_function)
        require_same_space(client.get_collection(collection.name, embedding_function=None), embedding_function)
    size = min(batch_size, client.get_max_batch_size())
    for start in range(0, len(documents), size):
        part = slice(start, start + size)
        texts = list(documents[part])
        embeddings = None
        if embedding_function is not None:
            with placed(range(start, start + size)):
                embeddings = embedding_function.embed_documents(
                    texts, titles=titles[part] if titles is not None else None
                )
        collection.upsert(
            ids=list(ids[part]),
            documents=texts,
            embeddings=embeddings,
            metadatas=list(metadatas[part]) if metadatas is not None else None,  # type: ignore[arg-type]  # None is allowed per item
        )


def _check(documents: Sequence[str], **columns: Sequence[Any] | None) -> None:
    for name, values in {"documents": documents, **columns}.items():
        if isinstance(values, str):
            raise ArgumentTypeError(f"{name} is a list with one item per document, not one string")
        if values is not None and len(values) != len(documents):
            raise ArgumentError(f"there are {len(values)} {name} for {len(documents)} documents; give one each")
    for index, text in enumerate(documents):
        if not isinstance(text, str):
            raise ArgumentTypeError(f"documents[{index}] is {type(text).__name__}; it must be a string", index=index)
    if len(documents):
        # Over all batches: an id that comes twice would otherwise overwrite itself.
        validate_ids(list(columns["ids"] or []))
        if columns["metadatas"] is not None:
            validate_metadatas(list(columns["metadatas"]))
