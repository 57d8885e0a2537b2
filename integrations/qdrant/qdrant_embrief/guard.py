"""The space guard: which vectors a collection holds, and whether an embedder's belong there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from qdrant_client import models

from embrief.errors import ArgumentError, SpaceMismatchError
from embrief.stores import read_stamp, require_same

if TYPE_CHECKING:
    from embrief import Embedder, VectorSpace

NAMED_KEY = "embrief_vectors"
"""Metadata key under which a collection with named vectors keeps one stamp per name."""


class StoredVector(NamedTuple):
    """One vector field of a collection."""

    where: str
    width: int
    space: VectorSpace | None

    def require(self, embedder: Embedder) -> None:
        """Refuse an embedder whose vectors do not belong into this field.

        Raises:
            SpaceMismatchError: The field is stamped with another space, or has another width.
        """
        require_same(self.space, embedder.space, where=self.where)
        if self.width != embedder.dim:
            raise SpaceMismatchError(
                f"{self.where} holds vectors of {self.width} values, but {embedder.settings.model} gives "
                f"{embedder.dim}; use dim={self.width} (or the option mrl={self.width}) if the model has it, "
                "or another collection"
            )


class Stored:
    """The dense vector fields of one collection, by name; `""` is the unnamed one."""

    def __init__(self, name: str, info: models.CollectionInfo) -> None:
        self.name = name
        self.max_batch: int | None = getattr(info.config.strict_mode_config, "upsert_max_batchsize", None)
        vectors, metadata = info.config.params.vectors or {}, info.config.metadata or {}
        stamps = metadata.get(NAMED_KEY) or {}
        where = f"the Qdrant collection {name!r}"
        if isinstance(vectors, models.VectorParams):
            self.vectors = {"": StoredVector(where, vectors.size, read_stamp(metadata, where=where))}
            return
        self.vectors = {}
        for using, params in vectors.items():
            at = f"{where} (vector {using!r})"
            self.vectors[using] = StoredVector(at, params.size, read_stamp(stamps.get(using), where=at))

    def field(self, using: str) -> StoredVector:
        """Return a vector field.

        Raises:
            ArgumentError: There is none of this name.
        """
        if using in self.vectors:
            return self.vectors[using]
        asked = f"no vector named {using!r}" if using else "no unnamed vector"
        there = ", ".join(repr(name) for name in self.vectors) or "no dense vectors"
        remedy = "only the unnamed one: leave the name out" if "" in self.vectors else f"{there}: name it"
        raise ArgumentError(f"the Qdrant collection {self.name!r} has {asked}; it has {remedy}")

    def require(self, embedders: Mapping[str, Embedder]) -> None:
        """Refuse embedders whose vectors do not belong into the fields of these names."""
        for using, embedder in embedders.items():
            self.field(using).require(embedder)

    def require_any(self, embedder: Embedder) -> None:
        """Refuse an embedder whose vectors belong into none of the fields."""
        problems: list[SpaceMismatchError] = []
        for stored in self.vectors.values():
            try:
                return stored.require(embedder)
            except SpaceMismatchError as error:
                problems.append(error)
        if len(problems) == 1:
            raise problems[0]
        raise SpaceMismatchError(
            f"no vector of the Qdrant collection {self.name!r} takes those of {embedder.settings.model}: "
            f"{'; '.join(map(str, problems)) or 'it has no dense vectors'}"
        )


_reader: ContextVar[Callable[[], Stored] | None] = ContextVar("collection", default=None)


@contextmanager
def collection_in_use(read: Callable[[], Stored]) -> Iterator[None]:
    """Let `check_current` compare with the collection that `read` returns, asked for at most once."""
    known: list[Stored] = []

    def once() -> Stored:
        if not known:
            known.append(read())
        return known[0]

    token = _reader.set(once)
    try:
        yield
    finally:
        _reader.reset(token)


def check_current(embedder: Embedder) -> None:
    """Refuse an embedder whose vectors do not belong into the collection of the client call under way."""
    if (read := _reader.get()) is not None:
        read().require_any(embedder)
