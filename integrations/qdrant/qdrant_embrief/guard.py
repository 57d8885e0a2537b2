"""The space guard: which vectors a collection holds, and whether an embedder's belong there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from qdrant_client import models

from embrief.errors import ArgumentError, SpaceMismatchError
from embrief.stores import KEY, note, read_stamp, require_same, stamp, tell_precision, unreadable

if TYPE_CHECKING:
    from embrief import Embedder, VectorSpace

NAMED_KEY = "embrief_vectors"
"""Metadata key under which a collection with named vectors keeps one stamp per name."""


def stamped(embedder: Embedder) -> dict[str, Any]:
    """Return the stamp of one vector field, and the note beside it."""
    return {**stamp(embedder.space), **note(embedder)}


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
                f"{self.where} holds vectors of {self.width} values, and {embedder.settings.model} gives others: "
                f"stored: dim={self.width}, this embedder: dim={embedder.dim}. Use dim={self.width} (or the option "
                f"mrl={self.width}) if the model has it, or another collection"
            )
        tell_precision(embedder)


def _misplaced(where: str, key: str, why: str) -> SpaceMismatchError:
    # Another stamp beside it would change nothing: Qdrant merges metadata, so what is in the way has to go.
    return SpaceMismatchError(
        f"{where} has a vector space stamp that cannot be read: {why}. Nothing is known about its vectors. If you are "
        "sure which embedder made them, remove the stamp with "
        f"client.update_collection(name, metadata={{{key!r}: None}}) and call check_collection(client, name, "
        "embedder, adopt=True); otherwise embed the documents again into a new collection"
    )


class Stored:
    """The dense vector fields of one collection, by name; `""` is the unnamed one.

    Raises:
        SpaceMismatchError: A stamp is there and cannot be read.
    """

    def __init__(self, name: str, info: models.CollectionInfo) -> None:
        self.name = name
        self.max_batch: int | None = getattr(info.config.strict_mode_config, "upsert_max_batchsize", None)
        self.sparse = set(info.config.params.sparse_vectors or {})
        vectors, metadata = info.config.params.vectors or {}, info.config.metadata or {}
        where = f"the Qdrant collection {name!r}"
        if isinstance(vectors, models.VectorParams):
            # None: removed, which the in-memory client before 1.20 writes down.
            if metadata.get(NAMED_KEY) is not None:
                raise _misplaced(where, NAMED_KEY, "it is for named vectors, and the collection has an unnamed one")
            self.vectors = {"": StoredVector(where, vectors.size, read_stamp(metadata, where=where))}
            return
        if metadata.get(KEY) is not None:
            why = f"it is for an unnamed vector, and the collection has named ones: {list(vectors)}"
            raise _misplaced(where, KEY, why)
        self._stamps = metadata.get(NAMED_KEY, {})
        if not isinstance(self._stamps, Mapping):
            raise unreadable(where, f"{NAMED_KEY} is a mapping of vector names, not {type(self._stamps).__name__}")
        self.vectors = {}
        for using, params in vectors.items():
            at = f"{where} (vector {using!r})"
            space = read_stamp(self._stamps.get(using), where=at)
            if space is None and using in self._stamps:
                raise unreadable(at, f"there is no {KEY!r} in it")
            self.vectors[using] = StoredVector(at, params.size, space)

    def unstamped(self, embedders: Mapping[str, Embedder]) -> dict[str, Embedder]:
        """Return the embedders whose fields do not say which model made their vectors."""
        return {using: item for using, item in embedders.items() if self.field(using).space is None}

    def stamped(self, embedders: Mapping[str, Embedder]) -> dict[str, Any]:
        """Return metadata that stamps the fields of these embedders, beside the stamps that are there."""
        if "" in self.vectors:
            return stamped(embedders[""])
        return {NAMED_KEY: {**self._stamps, **{using: stamped(item) for using, item in embedders.items()}}}

    def unknown(self, using: str) -> SpaceMismatchError:
        """Return the error for a field that has vectors and does not say which model made them."""
        return SpaceMismatchError(
            f"{self.field(using).where} holds vectors and nothing says which model made them. If you are sure that it "
            "was this embedder's, call check_collection(client, name, embedder, adopt=True) once, which stamps it; "
            "otherwise embed the documents again into a new collection"
        )

    def field(self, using: str) -> StoredVector:
        """Return a vector field.

        Raises:
            ArgumentError: There is none of this name.
        """
        if using in self.vectors:
            return self.vectors[using]
        asked = f"no vector named {using!r}" if using else "no unnamed vector"
        if using in self.sparse:
            asked = f"only a sparse vector named {using!r}, and embrief's models make dense ones"
        there = ", ".join(repr(name) for name in self.vectors) or "no dense vectors"
        remedy = "only the unnamed one: leave the name out" if "" in self.vectors else f"{there}: name it"
        raise ArgumentError(f"the Qdrant collection {self.name!r} has {asked}; it has {remedy}")

    def require(self, embedders: Mapping[str, Embedder]) -> None:
        """Refuse embedders whose vectors do not belong into the fields of these names."""
        for using, embedder in embedders.items():
            self.field(using).require(embedder)

    def refuse_stranger(self, using: str, model: str, *, attached: str) -> None:
        """Refuse a model of which no space is known, unless the field is sparse or has no stamp.

        Args:
            using: The field.
            model: The name that is not attached.
            attached: Names that are, for the message.
        """
        stored = self.vectors.get(using)
        if stored is not None and stored.space is not None:
            raise SpaceMismatchError(
                f"{stored.where} holds vectors of the space {stored.space.id}, and {model!r} is not attached to this "
                f"client: its vectors are of no known space. Attached: {attached}. Use one of these, or another vector "
                "or collection"
            )
