"""What happens to a vector between the model and the user: checked, cut, normalised, in this order and in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embrief.errors import BackendError, NonFiniteVectorError

Matrix = NDArray[np.float32]
Vector = NDArray[np.float32]


def check_finite(values: NDArray[Any], what: str) -> None:
    """Refuse NaN and infinity.

    Args:
        values: One row per text.
        what: Name of the model, for the message.

    Raises:
        NonFiniteVectorError: Some value is NaN or infinite; it names the first such row.
    """
    bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if bad.any():
        index = int(np.argmax(bad))
        raise NonFiniteVectorError(
            f"{what} returned NaN or infinity for the text at index {index} ({int(bad.sum())} of {len(values)} texts). "
            "This is usually a number format that is too narrow: use dtype='float32' or 'bfloat16'",
            index=index,
        )


def finish(raw: NDArray[Any], *, count: int, dim: int, normalize: bool, what: str) -> Matrix:
    """Turn a model's pooled output into the vectors that users get.

    Args:
        raw: The model's output, (count, width) with width >= dim.
        count: Number of texts that were asked for.
        dim: Width of the result. Cutting comes before normalising, else the result would not have unit length.
        normalize: Whether rows get unit length. A row of zeros stays as it is.
        what: Name of the model, for messages.

    Returns:
        float32, (count, dim), C-contiguous.

    Raises:
        BackendError: The shape is not the expected one.
        NonFiniteVectorError: Some value is NaN or infinite.
    """
    if raw.ndim != 2 or len(raw) != count or raw.shape[1] < dim:
        raise BackendError(f"{what} returned an array of shape {raw.shape}; expected ({count}, {dim}) or wider rows")
    check_finite(raw, what)
    vectors = np.ascontiguousarray(raw[:, :dim], dtype=np.float32)
    if normalize and count:
        # float64 for the sum: the squares of an unnormalised 4096-wide vector lose digits in float32.
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        norms[norms == 0] = 1
        vectors = (vectors / norms[:, None]).astype(np.float32)
    return vectors
