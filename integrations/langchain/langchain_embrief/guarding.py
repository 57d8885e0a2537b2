"""The space guard for LangChain's store in memory, which knows nothing about its embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from langchain_core.vectorstores import InMemoryVectorStore

from embrief import ArgumentTypeError, SpaceMismatchError
from embrief.stores import note, require_each, require_same, require_width, stamp, tell_precision
from langchain_embrief.base import EmbriefEmbeddings

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings

    from embrief import VectorSpace

_WHERE = "this InMemoryVectorStore"


class GuardedStore(InMemoryVectorStore):
    """What `guard` makes of a store: writes and queries go through embeddings of one space, and records are stamped."""

    _space: VectorSpace

    # `from_texts` and `from_documents`, also called on a guarded store, make one of the same class.
    def __init__(self, embedding: Embeddings) -> None:
        """Make an empty store.

        Raises:
            SpaceMismatchError: The embeddings are none of ours.
        """
        self._space = space_of(embedding)
        super().__init__(embedding)

    @classmethod
    def load(cls, path: str, embedding: Embeddings, **kwargs: Any) -> InMemoryVectorStore:
        """Load what `dump` wrote, and guard it.

        Raises:
            SpaceMismatchError: As `guard` without `adopt`.
        """
        return guard(InMemoryVectorStore.load(path, embedding, **kwargs))

    @property
    def embedding(self) -> Embeddings:
        """The embeddings, compared each time they are asked for.

        Raises:
            SpaceMismatchError: They are of another space than the stored vectors.
        """
        embeddings: Embeddings = self.__dict__["embedding"]
        require_same(self._space, space_of(embeddings), where=_WHERE)
        return embeddings

    @embedding.setter
    def embedding(self, embeddings: Embeddings) -> None:
        require_same(self._space, space_of(embeddings), where=_WHERE)
        self.__dict__["embedding"] = embeddings

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        """Embed and store documents, each with the stamp of its vector, and a note on what made it."""
        return self._stamped(super().add_documents(documents, ids, **kwargs))

    async def aadd_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        """`add_documents` without blocking the event loop."""
        return self._stamped(await super().aadd_documents(documents, ids, **kwargs))

    def _stamped(self, ids: list[str]) -> list[str]:
        self._stamp(ids, note(_ours(self.embedding).embedder))
        return ids

    def _stamp(self, ids: Iterable[str], made_by: dict[str, str]) -> None:
        own = {**stamp(self._space), **made_by}
        for id_ in ids:
            # Beside the metadata: `dump` and `load` keep it, and no search returns it.
            self.store[id_].update(own)

    # All searches come here, with a vector of the embeddings or of the caller.
    def _similarity_search_with_score_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: Callable[[Document], bool] | None = None,
    ) -> list[tuple[Document, float, list[float]]]:
        require_width(len(embedding), self._space, where=_WHERE)
        return super()._similarity_search_with_score_by_vector(embedding, k, filter)


def guard(store: InMemoryVectorStore, *, adopt: bool = False) -> InMemoryVectorStore:
    """Let a store in memory refuse vectors and embeddings of another space or width, also after `dump` and `load`.

    A stamp is kept beside each vector. What is not seen: vectors of the same width that a caller hands to a search by
    vector.

    Args:
        store: A store whose embeddings are ours. It is changed, and returned.
        adopt: Stamp vectors that are there without a stamp: you say that these embeddings made them. The width is
            compared all the same.

    Returns:
        The same store.

    Raises:
        SpaceMismatchError: It holds vectors of another space or width, or of an unknown space without `adopt`; or its
            embeddings are none of ours.
        ArgumentTypeError: It is no `InMemoryVectorStore`.

    Examples:
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> from langchain_embrief import Qwen3Embeddings, guard
        >>> embeddings = Qwen3Embeddings("embrief/hash", dim=64)
        >>> store = guard(InMemoryVectorStore(embeddings))
        >>> ids = store.add_texts(["Mars is the Red Planet."])
        >>> store.embedding = embeddings.with_dim(32)
        Traceback (most recent call last):
        embrief.errors.SpaceMismatchError: this InMemoryVectorStore holds vectors of ...
    """
    if type(store) not in (InMemoryVectorStore, GuardedStore):
        raise ArgumentTypeError(
            f"guard takes an InMemoryVectorStore, not {type(store).__name__}; the packages chroma_embrief and "
            "qdrant_embrief guard the collections of those stores"
        )
    space = space_of(store.embedding)
    require_each(_vectors(store), space, where=_WHERE, adopt=adopt)
    store.__dict__["_space"] = space
    store.__class__ = GuardedStore
    # No note: who made the vectors that are there is in theirs, if anywhere.
    cast("GuardedStore", store)._stamp(store.store, {})
    tell_precision(_ours(store.embedding).embedder)
    return store


def space_of(embeddings: Embeddings) -> VectorSpace:
    """Return the space of ours, also inside a `CacheBackedEmbeddings`.

    Raises:
        SpaceMismatchError: They are of no known space.
    """
    return _ours(embeddings).embedder.space


def _ours(embeddings: Embeddings) -> EmbriefEmbeddings:
    inner = getattr(embeddings, "underlying_embeddings", embeddings)
    if not isinstance(inner, EmbriefEmbeddings):
        raise SpaceMismatchError(
            f"{type(inner).__name__} is none of embrief's embeddings, so nothing says of which space its vectors are; "
            "use Qwen3Embeddings or GemmaEmbeddings"
        )
    return inner


def _vectors(store: InMemoryVectorStore) -> Iterable[tuple[dict[str, Any], int]]:
    return ((record, len(record["vector"])) for record in store.store.values())
