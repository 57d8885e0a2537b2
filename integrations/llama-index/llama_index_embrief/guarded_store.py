"""LlamaIndex's store in memory, with a stamp of the vector space, and a note, beside each vector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.vector_stores import SimpleVectorStore

from embrief.stores import require_width, stamp

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryResult

    from embrief import VectorSpace


class GuardedStore(SimpleVectorStore):
    """A `SimpleVectorStore` that keeps a stamp beside each vector and takes vectors of one width."""

    _space: VectorSpace = PrivateAttr()
    _where: str = PrivateAttr()
    _made_by: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def over(cls, store: SimpleVectorStore, space: VectorSpace, where: str) -> GuardedStore:
        """Return a store on the same data, all of whose vectors are of this space; `where` names it in messages."""
        guarded = cls(data=store.data)
        guarded._fs, guarded._space, guarded._where = store._fs, space, where
        # No note: who made the vectors that are there is in theirs, if anywhere.
        guarded._stamp(store.data.embedding_dict, {})
        return guarded

    def note(self, made_by: dict[str, str]) -> None:
        """Take the note for vectors to come."""
        self._made_by = made_by

    # What LlamaIndex's constructors read, also called on a guarded store, is a plain store: the space is the index's.
    @classmethod
    def from_persist_path(cls, persist_path: str, fs: Any = None) -> SimpleVectorStore:
        """Load a plain store; `guard` the index on it."""
        return SimpleVectorStore.from_persist_path(persist_path, fs)

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> SimpleVectorStore:  # type: ignore[override]
        """Return a plain store; `guard` the index on it."""
        return SimpleVectorStore.from_dict(data, **kwargs)

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Store nodes, none if one has a vector of another width."""
        for node in nodes:
            require_width(len(node.get_embedding()), self._space, where=self._where)
        ids = super().add(nodes, **add_kwargs)
        self._stamp(ids, self._made_by)
        return ids

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find nodes by a vector of the right width."""
        if query.query_embedding is not None:
            require_width(len(query.query_embedding), self._space, where=self._where)
        return super().query(query, **kwargs)

    def _stamp(self, ids: Iterable[str], made_by: dict[str, str]) -> None:
        own = {**stamp(self._space), **made_by}
        for id_ in ids:
            # Persisted with the vectors, and part of no text.
            self.data.metadata_dict.setdefault(id_, {}).update(own)
