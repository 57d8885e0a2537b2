"""What a model gives for its inputs, one row each, by kind. The scheduler takes rows apart and puts them together.

A kind is another answer to the same text: one dense vector, a sparse one, a vector per token, or a score of a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from embrief.facts.vectors import check_finite, keep

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Values(Protocol):
    """Rows of one kind."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def take(self, rows: Sequence[int]) -> Self:
        """Return some of the rows, in this order."""

    def gather(self, count: int, dim: int | None) -> Gathered:
        """Return room for `count` rows like these, of which `dim` values will be kept where that means something."""

    def check(self, what: str) -> None:
        """Refuse NaN and infinity.

        Args:
            what: Name of the model, for the message.

        Raises:
            NonFiniteVectorError: Some value is; the error has the row.
        """


class Gathered(Protocol):
    """Rows that come a few at a time, in any order."""

    def put(self, places: Sequence[int], rows: Any) -> None:
        """Take the rows of these places."""

    def whole(self) -> Any:
        """Return all rows, once all have come."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of an array: dense vectors, (n, width), or scores, (n,)."""

    array: NDArray[Any]

    def __len__(self) -> int:
        return len(self.array)

    def take(self, rows: Sequence[int]) -> Self:
        """Return some of the rows, in this order."""
        return type(self)(self.array[rows])

    def gather(self, count: int, dim: int | None) -> Gathered:
        """Return room for `count` rows; of dense vectors only the first `dim` values are kept."""
        return _Filled(type(self), count, dim)

    def check(self, what: str) -> None:
        """Refuse NaN and infinity."""
        check_finite(self.array, what)


class Dense(Rows):
    """One vector per input, pooled; neither cut nor normalised. The caller's from now on: it may change them."""

    __slots__ = ()


class Scores(Rows):
    """The log-odds of relevance of each pair."""

    __slots__ = ()


class _Filled:
    """An array that is filled in place: a corpus takes no more than its result."""

    def __init__(self, kind: type[Rows], count: int, dim: int | None) -> None:
        self._kind, self._count, self._dim = kind, count, dim
        self._array: NDArray[Any] | None = None

    def put(self, places: Sequence[int], rows: Rows) -> None:
        values = keep(rows.array, self._dim)
        if self._array is None:
            self._array = np.empty((self._count, *values.shape[1:]), values.dtype)
        self._array[places] = values

    def whole(self) -> Rows:
        return self._kind(np.empty(0, np.float32) if self._array is None else self._array)


@dataclass(frozen=True, slots=True)
class _Ragged:
    """Rows of different lengths, one after the other."""

    offsets: NDArray[np.int64]
    """(n + 1,) where each row begins, and where the last one ends."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def gather(self, count: int, dim: int | None) -> Gathered:
        """Return room for `count` rows. They are never cut."""
        return _Collected(count)

    def _places(self, rows: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the offsets of some rows alone, and where their values are."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        starts = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return offsets, starts + np.arange(offsets[-1])


@dataclass(frozen=True, slots=True)
class Sparse(_Ragged):
    """One sparse vector per input."""

    indices: NDArray[np.int32]
    """(values,) the dimensions that are not zero, row after row."""
    weights: NDArray[np.float32]
    """(values,)"""

    def take(self, rows: Sequence[int]) -> Self:
        """Return some of the rows, in this order."""
        offsets, places = self._places(rows)
        return type(self)(offsets, self.indices[places], self.weights[places])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of several parts, one part after the other."""
        return cls(
            _joined_offsets(parts),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.weights for part in parts]),
        )

    def check(self, what: str) -> None:
        """Refuse NaN and infinity."""
        _check_ragged(self.offsets, self.weights, what)


@dataclass(frozen=True, slots=True)
class Multi(_Ragged):
    """Several vectors per input, such as one per token."""

    array: NDArray[Any]
    """(vectors, width), row after row."""

    def take(self, rows: Sequence[int]) -> Self:
        """Return some of the rows, in this order."""
        offsets, places = self._places(rows)
        return type(self)(offsets, self.array[places])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of several parts, one part after the other."""
        return cls(_joined_offsets(parts), np.concatenate([part.array for part in parts]))

    def check(self, what: str) -> None:
        """Refuse NaN and infinity."""
        _check_ragged(self.offsets, self.array.reshape(len(self.array), -1).sum(axis=1), what)


def _joined_offsets(parts: Sequence[_Ragged]) -> NDArray[np.int64]:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _check_ragged(offsets: NDArray[np.int64], values: NDArray[Any], what: str) -> None:
    bad = np.concatenate(([0], np.cumsum(~np.isfinite(values))))
    check_finite(np.where(bad[offsets[1:]] > bad[offsets[:-1]], np.nan, 0.0), what)


class _Collected:
    """Rows of different lengths, put in order at the end."""

    def __init__(self, count: int) -> None:
        self._order = np.empty(count, np.int64)
        self._parts: list[Any] = []
        self._taken = 0

    def put(self, places: Sequence[int], rows: _Ragged) -> None:
        self._order[list(places)] = range(self._taken, self._taken + len(rows))
        self._taken += len(rows)
        self._parts.append(rows)

    def whole(self) -> Any:
        return type(self._parts[0]).joined(self._parts).take(self._order)
