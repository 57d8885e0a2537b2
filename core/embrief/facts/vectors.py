"""What happens to a vector between the model and the user: checked, cut, normalised, in this order and in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embrief.errors import BackendError, NonFiniteVectorError

Matrix = NDArray[np.float32]
Vector = NDArray[np.float32]
_BLOCK = 1024
_BLOCK_VALUES = 1 << 15


def check_finite(values: NDArray[Any], what: str) -> None:
    """Refuse NaN and infinity.

    Args:
        values: One row per text.
        what: Name of the model, for the message.

    Raises:
        NonFiniteVectorError: Some value is NaN or infinite; it names the first such row.
    """
    bad = np.empty(len(values), np.bool_)
    for block in row_blocks(len(values)):
        part = values[block]
        bad[block] = ~np.isfinite(part).all(axis=tuple(range(1, part.ndim)))
    if bad.any():
        index = int(np.argmax(bad))
        raise NonFiniteVectorError(
            f"{what} returned NaN or infinity for the text at index {index} ({int(bad.sum())} of {len(values)} texts). "
            "This is usually a number format that is too narrow: use dtype='float32' or 'bfloat16'",
            index=index,
        )


def row_blocks(count: int, width: int = 0) -> Iterator[slice]:
    """Yield the rows of a large array a few at a time, so that what is made of them stays small.

    Args:
        count: The number of rows.
        width: Values of each, where a block is gone through several times: it fits a processor's second cache then.
    """
    rows = max(1, min(_BLOCK, _BLOCK_VALUES // width)) if width else _BLOCK
    return (slice(start, start + rows) for start in range(0, count, rows))


def keep(values: NDArray[Any], dim: int | None) -> NDArray[Any]:
    """Return what is kept of one batch, `values[:, :dim]`, so that a corpus takes no more than its result.

    A row with NaN or infinity in what is cut off is NaN in what is kept: `check_finite` finds it later.
    """
    if dim is None or values.ndim != 2 or values.shape[1] <= dim:
        return values
    kept = values[:, :dim].copy()
    kept[~np.isfinite(values[:, dim:]).all(axis=1)] = np.nan
    return kept


def spread(vectors: Matrix, order: NDArray[np.int64]) -> Matrix:
    """Return `vectors[order]`, in the memory of `vectors` where that can grow.

    Args:
        vectors: One row per distinct text, (distinct, dim). Not to be used afterwards.
        order: The row of each text, (n,); rows come for the first time in ascending order.
    """
    if not vectors.flags.owndata:
        return vectors[order]
    vectors.resize((len(order), vectors.shape[1]), refcheck=False)
    # Backwards: a text's row is never behind the text, so it is read before it is overwritten.
    for block in reversed(list(row_blocks(len(order)))):
        vectors[block] = vectors[order[block]]
    return vectors


def finish(raw: NDArray[Any], *, count: int, dim: int, normalize: bool, what: str) -> Matrix:
    """Turn a model's pooled output into the vectors that users get.

    Args:
        raw: The model's output, (count, width) with width >= dim. Changed in place where it can become the result.
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
    whole = raw.shape[1] == dim and raw.dtype == np.float32 and raw.flags.carray and raw.flags.owndata
    if not (whole and normalize):
        check_finite(raw, what)
    vectors = raw if whole else np.array(raw[:, :dim], np.float32, order="C")
    if normalize:
        for block in row_blocks(count, dim):
            _normalize(vectors, block, what)
    return vectors


def _normalize(vectors: Matrix, block: slice, what: str) -> None:
    """Give some rows unit length.

    Raises:
        NonFiniteVectorError: Some value of theirs is NaN or infinite.
    """
    part = vectors[block]
    # float64: the squares of an unnormalised 4096-wide vector lose digits in float32, or overflow. Converted once:
    # numpy would do it for each operation.
    wide = part.astype(np.float64)
    # Not `einsum`, with which the last bit of very wide rows depends on how many there are.
    norms = np.sqrt(np.square(wide).sum(axis=1))
    # Finite only where all values are, so that they need no pass of their own.
    if not np.isfinite(norms).all():
        check_finite(vectors, what)
    norms[norms == 0] = 1
    wide /= norms[:, None]
    part[:] = wide
