"""Exact search: every document is compared, so that a figure says something about vectors, not about an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.facts.vectors import Matrix

_SCORES = 2**24
"""Similarities in memory at a time."""


def search(queries: Matrix, documents: Matrix, count: int) -> NDArray[np.int64]:
    """Return the documents with the largest inner products, best first; of equal ones, the earlier first.

    Args:
        queries: float32, (q, dim).
        documents: float32, (n, dim).
        count: How many to return per query at most.

    Returns:
        Rows of `documents`, (q, min(count, n)).
    """
    count = min(count, len(documents))
    found = np.empty((len(queries), count), np.int64)
    block = max(1, _SCORES // max(1, len(documents)))
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ documents.T
        # A stable order of all: what argpartition leaves out at the border would depend on the machine.
        found[start : start + block] = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return found
