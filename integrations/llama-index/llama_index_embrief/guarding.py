"""The space guard for LlamaIndex's indexes in memory, which know nothing about their embedding models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core import VectorStoreIndex
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.vector_stores import SimpleVectorStore

from embrief import ArgumentTypeError
from embrief.stores import note, require_each, tell_precision
from llama_index_embrief.guarded_index import Guarded, GuardedIndex, GuardedMultiModalIndex, ours
from llama_index_embrief.guarded_store import GuardedStore

if TYPE_CHECKING:
    from embrief import Embedder

X = TypeVar("X", bound=VectorStoreIndex)
_GUARDED: Mapping[type, type[GuardedIndex]] = {
    VectorStoreIndex: GuardedIndex,
    GuardedIndex: GuardedIndex,
    MultiModalVectorStoreIndex: GuardedMultiModalIndex,
    GuardedMultiModalIndex: GuardedMultiModalIndex,
}


def guard(index: X, *, adopt: bool = False) -> X:
    """Let an index in memory refuse vectors and models of another space or width, also after it was persisted.

    A stamp is kept beside each vector. What is not seen: nodes and queries that bring a vector of the same width, and a
    `VectorIndexRetriever` that is made by hand with a model of its own.

    Args:
        index: A `VectorStoreIndex` on a `SimpleVectorStore`, LlamaIndex's default, with an embedding model of ours; or
            a `MultiModalVectorStoreIndex` on two, with two models, each of which is compared with its own store. It is
            changed, and returned.
        adopt: Stamp vectors that are there without a stamp: you say that this model made them, as for an index that
            was just built. The width is compared all the same.

    Returns:
        The same index.

    Raises:
        SpaceMismatchError: It holds vectors of another space or width, or of an unknown space without `adopt`; or its
            embedding model is none of ours.
        ArgumentTypeError: It is neither, or its vectors are in another store, also one derived from
            `SimpleVectorStore`.

    Examples:
        >>> from llama_index.core import Document, VectorStoreIndex
        >>> from llama_index_embrief import Qwen3Embedding, guard
        >>> embed_model = Qwen3Embedding("embrief/hash", dim=64)
        >>> index = guard(VectorStoreIndex([], embed_model=embed_model))
        >>> index.insert(Document(text="Mars is the Red Planet."))
        >>> index.as_retriever(embed_model=embed_model.with_dim(32))
        Traceback (most recent call last):
        embrief.errors.SpaceMismatchError: this VectorStoreIndex holds vectors of ...
    """
    if (kind := _GUARDED.get(type(index))) is None:
        raise ArgumentTypeError(
            f"guard takes a VectorStoreIndex or a MultiModalVectorStoreIndex, not {type(index).__name__}"
        )
    parts = kind.guarded
    # All are compared before anything is changed.
    for part in parts:
        store = getattr(index, part.store)
        # No subclass: what replaces the store would not do what the subclass does.
        if not (type(store) is SimpleVectorStore or isinstance(store, GuardedStore)):
            raise ArgumentTypeError(
                f"guard takes an index on a SimpleVectorStore itself, not on a {type(store).__name__}; the packages "
                "chroma_embrief and qdrant_embrief guard the collections of those stores"
            )
        require_each(_vectors(store), _embedder(index, part).space, where=part.where, adopt=adopt)
    for part in parts:
        _guard_store(index, part, _embedder(index, part))
    index.__class__ = kind  # type: ignore[assignment] # a subclass of its own class
    for part in parts:
        tell_precision(_embedder(index, part))
    return index


def _embedder(index: VectorStoreIndex, part: Guarded) -> Embedder:
    return ours(getattr(index, part.name)).embedder


def _guard_store(index: VectorStoreIndex, part: Guarded, embedder: Embedder) -> None:
    store = getattr(index, part.store)
    guarded = GuardedStore.over(store, embedder.space, part.where)
    guarded.note(note(embedder))
    setattr(index, part.store, guarded)
    for name, other in index.storage_context.vector_stores.items():
        if other is store:
            index.storage_context.add_vector_store(guarded, name)
    part.hold(index, embedder.space)


def _vectors(store: SimpleVectorStore) -> Iterable[tuple[Mapping[str, Any], int]]:
    metadata = store.data.metadata_dict or {}
    return ((metadata.get(id_, {}), len(vector)) for id_, vector in store.data.embedding_dict.items())
