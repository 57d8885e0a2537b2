"""The space guard for LlamaIndex's index in memory, which knows nothing about its embedding model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llama_index.core import VectorStoreIndex
from llama_index.core.vector_stores import SimpleVectorStore

from embrief import ArgumentTypeError, SpaceMismatchError, VectorSpace
from embrief.stores import note, require_each, require_same, tell_precision
from llama_index_embrief.base import EmbriefEmbedding
from llama_index_embrief.guarded_store import WHERE, GuardedStore

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding


class GuardedIndex(VectorStoreIndex):
    """What `guard` makes of an index: writes and queries use an embedding model of one space."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: LlamaIndex's constructors, also called on a guarded index, would make one that guards nothing.

        Raises:
            ArgumentTypeError: Always.
        """
        raise ArgumentTypeError(
            "a guarded index is made by guard alone; use VectorStoreIndex, or its from_documents, and hand the new "
            "index to guard(index, adopt=True)"
        )

    # `VectorStoreIndex` and its retrievers take the model from here at each use.
    @property
    def _embed_model(self) -> BaseEmbedding:
        model: BaseEmbedding = self.__dict__["_embed_model"]
        self._require(model)
        return model

    @_embed_model.setter
    def _embed_model(self, model: BaseEmbedding) -> None:
        self._require(model)
        self.__dict__["_embed_model"] = model
        if isinstance(self._vector_store, GuardedStore):
            self._vector_store.note(note(_ours(model).embedder))

    def as_retriever(self, **kwargs: Any) -> BaseRetriever:
        """Return a retriever, also under query and chat engines.

        Raises:
            SpaceMismatchError: `embed_model` is of another space than the stored vectors.
        """
        if (model := kwargs.get("embed_model")) is not None:
            self._require(model)
        return super().as_retriever(**kwargs)

    def _require(self, model: BaseEmbedding) -> None:
        require_same(self.__dict__["_space"], space_of(model), where=WHERE)


def guard(index: VectorStoreIndex, *, adopt: bool = False) -> VectorStoreIndex:
    """Let an index in memory refuse vectors and models of another space or width, also after it was persisted.

    A stamp is kept beside each vector. What is not seen: nodes and queries that bring a vector of the same width, and a
    `VectorIndexRetriever` that is made by hand with a model of its own.

    Args:
        index: An index on a `SimpleVectorStore`, LlamaIndex's default, with an embedding model of ours. It is changed,
            and returned.
        adopt: Stamp vectors that are there without a stamp: you say that this model made them, as for an index that
            was just built. The width is compared all the same.

    Returns:
        The same index.

    Raises:
        SpaceMismatchError: It holds vectors of another space or width, or of an unknown space without `adopt`; or its
            embedding model is none of ours.
        ArgumentTypeError: It is no `VectorStoreIndex`, or its vectors are in another store, also one derived from
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
    if type(index) not in (VectorStoreIndex, GuardedIndex):
        raise ArgumentTypeError(f"guard takes a VectorStoreIndex, not {type(index).__name__}")
    store = index.vector_store
    # No subclass: what replaces the store would not do what the subclass does.
    if not (type(store) is SimpleVectorStore or isinstance(store, GuardedStore)):
        raise ArgumentTypeError(
            f"guard takes an index on a SimpleVectorStore itself, not on a {type(store).__name__}; the packages "
            "chroma_embrief and qdrant_embrief guard the collections of those stores"
        )
    space = space_of(index._embed_model)
    require_each(_vectors(store), space, where=WHERE, adopt=adopt)
    guarded = GuardedStore.over(store, space)
    guarded.note(note(_ours(index._embed_model).embedder))
    index._vector_store = guarded
    for name, other in index.storage_context.vector_stores.items():
        if other is store:
            index.storage_context.add_vector_store(guarded, name)
    index.__dict__["_space"] = space
    index.__class__ = GuardedIndex
    tell_precision(_ours(index._embed_model).embedder)
    return index


def space_of(model: BaseEmbedding) -> VectorSpace:
    """Return the space of a model of ours.

    Raises:
        SpaceMismatchError: It is of no known space.
    """
    return _ours(model).embedder.space


def _ours(model: BaseEmbedding) -> EmbriefEmbedding:
    if not isinstance(model, EmbriefEmbedding):
        raise SpaceMismatchError(
            f"{type(model).__name__} is none of embrief's embedding models, so nothing says of which space its vectors "
            "are; use Qwen3Embedding or GemmaEmbedding"
        )
    return model


def _vectors(store: SimpleVectorStore) -> Iterable[tuple[Mapping[str, Any], int]]:
    metadata = store.data.metadata_dict or {}
    return ((metadata.get(id_, {}), len(vector)) for id_, vector in store.data.embedding_dict.items())
