"""Keys and values of token runs that many texts begin with: an instruction's prompt, or a reranker's head and query.

In a causal model they do not depend on what follows, so they are computed once. A prefix is always a run of token ids
that the whole text has, never a part that was tokenised by itself: byte pairs may merge across the seam.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

MAX_TOKENS = 2048
"""Tokens whose keys and values are kept; of a longer prefix the rest runs with each text."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A computed run of tokens."""

    ids: NDArray[np.int32]
    keys: tuple[torch.Tensor, ...]
    """Per layer: (length, kv_heads, head_dim)."""
    values: tuple[torch.Tensor, ...]

    @property
    def length(self) -> int:
        """Return the number of tokens."""
        return len(self.ids)

    def cut(self, length: int) -> Prefix:
        """Return the first tokens."""
        if length == self.length:
            return self
        # Copies: a view would hold on to the whole.
        keys, values = (tuple(part[:length].clone() for part in side) for side in (self.keys, self.values))
        return Prefix(self.ids[:length], keys, values)

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of one layer."""
        return self.keys[index], self.values[index]


def common_run(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Return how many ids two rows have in common at the start."""
    shorter = min(len(a), len(b))
    differ = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(differ[0]) if len(differ) else shorter


def common_run_of_all(rows: Sequence[NDArray[np.int32]]) -> int:
    """Return how many ids all rows have in common at the start."""
    return min(common_run(rows[0], row) for row in rows)


class PrefixCache:
    """The prefixes used last, bounded by their tokens. Used by one thread."""

    def __init__(self, compute: Callable[[NDArray[np.int32], Prefix | None], Prefix]) -> None:
        """Start empty.

        Args:
            compute: Runs token ids after a prefix and returns the whole as a prefix.
        """
        self._compute = compute
        self._known: OrderedDict[bytes, Prefix] = OrderedDict()

    def get(self, ids: NDArray[np.int32]) -> Prefix:
        """Return the prefix of these ids, computed if it is new, after the longest run that is known already."""
        key = ids.tobytes()
        prefix = self._known.get(key)
        if prefix is None:
            runs = {common_run(known.ids, ids): known for known in self._known.values()}
            shared = max(runs, default=0)
            if shared == len(ids):
                prefix = runs[shared].cut(shared)
            else:
                prefix = self._compute(ids[shared:], runs[shared].cut(shared) if shared else None)
            self._known[key] = prefix
        self._known.move_to_end(key)
        while sum(known.length for known in self._known.values()) > MAX_TOKENS and len(self._known) > 1:
            self._known.popitem(last=False)
        return prefix
