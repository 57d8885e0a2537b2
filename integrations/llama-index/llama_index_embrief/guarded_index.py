"""LlamaIndex's indexes in memory that take embedding models of the space of their vectors alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core import VectorStoreIndex
from llama_index.core.indices import MultiModalVectorStoreIndex

from embrief import ArgumentTypeError, SpaceMismatchError, VectorSpace
from embrief.stores import note, require_same
from llama_index_embrief.base import EmbriefEmbedding
from llama_index_embrief.guarded_store import GuardedStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding


class Guarded:
    """A model of an index, compared each time it is asked for: a descriptor in the place of the attribute."""

    def __init__(self, store: str, where: str) -> None:
        """Say which store it is for.

        Args:
            store: The attribute of the index that holds the store.
            where: What messages call the store.
        """
        self.store, self.where = store, where

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self._space = name, f"{name}_space"

    # `Any`: the image model is of a narrower class.
    def __get__(self, index: Any, owner: type) -> Any:
        model: BaseEmbedding = index.__dict__[self.name]
        self.require(index, model)
        return model

    def __set__(self, index: Any, model: BaseEmbedding) -> None:
        self.require(index, model)
        index.__dict__[self.name] = model
        if isinstance(store := getattr(index, self.store), GuardedStore):
            store.note(note(ours(model).embedder))

    def require(self, index: Any, model: BaseEmbedding) -> None:
        """Raise `SpaceMismatchError` if a model is not of the space of the store."""
        require_same(index.__dict__[self._space], ours(model).embedder.space, where=self.where)

    def hold(self, index: Any, space: VectorSpace) -> None:
        """Set the space of the store, before the index becomes one that is guarded."""
        index.__dict__[self._space] = space


_TEXTS = Guarded("_vector_store", "this VectorStoreIndex")
_IMAGES = Guarded("_image_vector_store", "the image store of this MultiModalVectorStoreIndex")


class _Emptiness:
    """Whether a store is empty, whatever the index notes down: a descriptor in the place of the attribute."""

    def __init__(self, part: Guarded) -> None:
        self._part = part

    def __get__(self, index: Any, owner: type) -> bool:
        return not getattr(index, self._part.store).data.embedding_dict

    def __set__(self, index: Any, empty: bool) -> None:
        """Keep nothing."""


class GuardedIndex(VectorStoreIndex):
    """What `guard` makes of an index: writes and queries use an embedding model of one space."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: LlamaIndex's constructors, also called on a guarded index, would make one that guards nothing.

        Raises:
            ArgumentTypeError: Always.
        """
        kind = "MultiModalVectorStoreIndex" if isinstance(self, MultiModalVectorStoreIndex) else "VectorStoreIndex"
        raise ArgumentTypeError(
            f"a guarded index is made by guard alone; use {kind}, or its from_documents, and hand the new "
            "index to guard(index, adopt=True)"
        )

    # The index and its retrievers take the model from here at each use.
    _embed_model = _TEXTS
    guarded: ClassVar[Sequence[Guarded]] = (_TEXTS,)

    def as_retriever(self, **kwargs: Any) -> BaseRetriever:
        """Return a retriever, also under query and chat engines.

        Raises:
            SpaceMismatchError: `embed_model` is of another space than the stored vectors.
        """
        if (model := kwargs.get("embed_model")) is not None:
            _TEXTS.require(self, model)
        return super().as_retriever(**kwargs)


class GuardedMultiModalIndex(GuardedIndex, MultiModalVectorStoreIndex):  # type: ignore[misc] # returns what that does
    """The same for an index with a store of images beside that of texts: each store has its space.

    LlamaIndex takes a store for empty, and never searches it again, after a call that had nothing for it. Here a store
    is empty when it holds nothing.
    """

    _image_embed_model = _IMAGES
    _is_text_vector_store_empty = _Emptiness(_TEXTS)
    _is_image_vector_store_empty = _Emptiness(_IMAGES)
    guarded: ClassVar[Sequence[Guarded]] = (_TEXTS, _IMAGES)


def ours(model: BaseEmbedding) -> EmbriefEmbedding:
    """Return a model of ours.

    Raises:
        SpaceMismatchError: It is none, so its space is not known.
    """
    if not isinstance(model, EmbriefEmbedding):
        raise SpaceMismatchError(
            f"{type(model).__name__} is none of embrief's embedding models, so nothing says of which space its vectors "
            "are; use Qwen3Embedding, GemmaEmbedding or Qwen3VLEmbedding"
        )
    return model
