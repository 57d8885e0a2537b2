"""Attention of a whole packed batch in one kernel, on NVIDIA GPUs: torch's variable-length FlashAttention."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from embrief.engine import attention
from embrief.engine.batch import Packed, pack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.engine.description import LayerKind, TextModel
    from embrief.engine.prefix import Prefix


_KEYS = 2**18
"""Keys in one kernel call, prefixes repeated for each sequence; batches with more go group by group."""


def fits(batch: Packed) -> bool:
    """Return whether keys and values of a batch with its prefixes may be laid out at once."""
    return sum(group.count * group.keys for group in batch.groups) <= _KEYS


def works(device: str, dtype: torch.dtype, model: TextModel, kind: LayerKind) -> bool:
    """Return whether the kernel is there for layers of this kind and agrees with the plain computation."""
    if not device.startswith("cuda") or dtype not in (torch.bfloat16, torch.float16):
        return False
    return _agrees(device, dtype, model.heads, kind.kv_heads, kind.head_dim, model.causal)


@lru_cache
def _agrees(device: str, dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int, causal: bool) -> bool:
    layout = Layout(pack([np.zeros(9, np.int32)], [None], device))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(9, count, head_dim, generator=generator).to(device, dtype) for count in (heads, kv_heads, kv_heads)
    )
    q = q * head_dim**-0.5
    for window in (None, 4):
        # All queries, and the last one alone.
        for asked in (q, q[-1:]):
            expected = torch.empty_like(asked)
            try:
                found = attend(asked, k, v, layout, 0, causal=causal, window=window)
            except (RuntimeError, ImportError, NotImplementedError, TypeError, ValueError):
                return False
            attention.attend(asked[None], k[None], v[None], causal=causal, window=window, out=expected[None])
            if not torch.allclose(found.float(), expected.float(), atol=0.05):
                return False
    return True


@dataclass(frozen=True, slots=True)
class _Starts:
    """Where sequences begin, (n + 1,) on the device, and the length of the longest."""

    places: torch.Tensor
    longest: int


class Layout:
    """Where the sequences of a batch begin and which keys each sees: the same in every layer, so made once.

    A table that is copied to the GPU makes the processor wait for all that runs there; in each layer, that would cost
    more than the layer.
    """

    def __init__(self, batch: Packed) -> None:
        """Lay out keys and queries.

        Args:
            batch: What will run.
        """
        groups, device = batch.groups, batch.ids.device
        counts = np.array([group.count for group in groups])

        def starts(lengths: list[int]) -> _Starts:
            places = np.concatenate([[0], np.repeat(lengths, counts).cumsum()]).astype(np.int32)
            return _Starts(torch.from_numpy(places).to(device), max(lengths))

        self.count = int(counts.sum())
        """Sequences."""
        self.seen = starts([group.keys for group in groups])
        self.asked = starts([group.length for group in groups])
        self.last = starts([1] * len(groups))
        found = {id(group.prefix): group.prefix for group in groups if group.prefix is not None}
        self.prefixes: tuple[Prefix, ...] = tuple(found.values())
        self.gathered = torch.from_numpy(_gathered(batch, self.prefixes)).to(device) if found else None
        """(keys of all sequences,) where each key is among those of the prefixes and, behind them, of the batch."""


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, layer: int, *, causal: bool, window: int | None
) -> torch.Tensor:
    """Return the attention of all sequences, shaped as the queries; arguments as in `attention.attend`, but packed.

    Where there are as many queries as sequences, they are those of the last tokens.
    """
    from torch.nn.attention.varlen import varlen_attn

    asked = layout.last if len(q) == layout.count else layout.asked
    if layout.gathered is not None:
        k = torch.cat([*(prefix.keys[layer] for prefix in layout.prefixes), k])[layout.gathered]
        v = torch.cat([*(prefix.values[layer] for prefix in layout.prefixes), v])[layout.gathered]
    reach = -1 if window is None else window - 1
    found = varlen_attn(
        q, k, v, asked.places, layout.seen.places, asked.longest, layout.seen.longest,
        scale=1.0, window_size=(reach, 0 if causal else reach), enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    assert isinstance(found, torch.Tensor)
    return found


def _gathered(batch: Packed, prefixes: tuple[Prefix, ...]) -> NDArray[np.int64]:
    first: dict[int, int] = {}
    own = 0
    for prefix in prefixes:
        first[id(prefix)] = own
        own += prefix.length
    parts: list[NDArray[np.int64]] = []
    for group in batch.groups:
        rows = own + group.start + np.arange(group.count * group.length).reshape(group.count, group.length)
        if group.prefix is not None:
            shared = first[id(group.prefix)] + np.arange(group.prefix.length)
            rows = np.concatenate([np.broadcast_to(shared, (group.count, len(shared))), rows], 1)
        parts.append(rows.ravel())
    return np.concatenate(parts)
