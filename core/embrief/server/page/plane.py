"""Vectors as points of a plane: the two directions in which they differ most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.facts.vectors import Matrix

_SAME = 1e-10
"""Share of the squared lengths below which what vectors differ in is rounding."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Points, and how much of the vectors they show."""

    points: NDArray[np.float64]
    """(n, 2), around 0; finite whatever the vectors are."""
    explained: tuple[float, float]
    """Share of the variance that each axis shows, 0 to 1; both 0 where nothing varies."""


def on_plane(vectors: Matrix) -> Plane:
    """Return the first two principal components of vectors.

    Args:
        vectors: (n, dim), any number of them, also none. One that is not finite counts as the mean of the others.
    """
    rows = np.asarray(vectors, np.float64)
    points = np.zeros((len(rows), 2))
    finite = np.isfinite(rows).all(axis=1)
    kept = rows[finite]
    if len(kept) < 2:
        return Plane(points, (0.0, 0.0))
    centred = kept - kept.mean(axis=0)
    total = float((centred**2).sum())
    if total <= _SAME * float((kept**2).sum()):
        return Plane(points, (0.0, 0.0))
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    lengths[lengths**2 <= _SAME * total] = 0.0
    shown = np.zeros((len(kept), 2))
    count = min(2, len(lengths))
    shown[:, :count] = left[:, :count] * lengths[:count]
    # A component may point either way: the same vectors give the same picture.
    far = np.abs(shown).argmax(axis=0)
    shown *= np.where(shown[far, (0, 1)] < 0, -1.0, 1.0)
    points[finite] = shown
    shares = np.zeros(2)
    shares[:count] = lengths[:count] ** 2 / total
    return Plane(points, (float(shares[0]), float(shares[1])))
