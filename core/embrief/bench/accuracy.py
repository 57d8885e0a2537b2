"""How far a result is from the oracle: sentence-transformers in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from embrief.bench.runners import Result


def compare_to(oracle: Result, found: Result) -> dict[str, float]:
    """Return how far a result is from the oracle's.

    Args:
        oracle: (n, dim) vectors or (n,) probabilities.
        found: The same of another run.

    Returns:
        For vectors the least and the mean cosine, for probabilities the largest and the mean difference.
    """
    expected, values = oracle.astype(np.float64), found.astype(np.float64)
    if expected.ndim == 1:
        away = np.abs(expected - values)
        return {"difference_max": float(away.max()), "difference_mean": float(away.mean())}
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(values, axis=1)
    cosines = (expected * values).sum(axis=1) / lengths
    return {"cosine_min": float(cosines.min()), "cosine_mean": float(cosines.mean())}
