"""Attention of a whole packed batch in one kernel, on NVIDIA GPUs: torch's two kernels for sequences of many lengths.

They are behind `scaled_dot_product_attention` for nested tensors, and private as operators: the public form of one of
them takes no float32, and other arguments in each release. Each is tried once against the plain computation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embrief.engine import attention
from embrief.engine.batch import Packed, Sequences, pack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.engine.description import LayerKind, TextModel
    from embrief.engine.prefix import Prefix


_KEYS = 2**18
"""Keys in one kernel call, prefixes repeated for each sequence; batches with more go group by group."""
_LAST_IS_LAST = 2
"""The operator's name for a causal mask in which the last query sees all keys."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One of torch's kernels."""

    run: Callable[..., torch.Tensor]
    """Takes queries, keys and values of all sequences, where they start, `causal` and `window`."""
    formats: tuple[torch.dtype, ...]
    windows: bool
    """Whether it can hide what is too far away; if not, it runs sequences that are no longer than the window."""


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, asked: _Starts, seen: _Starts, causal: bool, window: int | None
) -> torch.Tensor:
    reach = None if window is None else window - 1
    operator: Any = torch.ops.aten._flash_attention_forward
    found: torch.Tensor = operator(
        q, k, v, asked.places, seen.places, asked.longest, seen.longest, 0.0, causal and window is None, False,
        scale=1.0, window_size_left=reach, window_size_right=0 if causal and window is not None else reach,
    )[0]  # fmt: skip
    return found


def _efficient(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, asked: _Starts, seen: _Starts, causal: bool, window: int | None
) -> torch.Tensor:
    if (fold := q.shape[1] // k.shape[1]) > 1:
        # It knows no heads that share keys.
        k, v = (part.repeat_interleave(fold, 1) for part in (k, v))
    operator: Any = torch.ops.aten._efficient_attention_forward
    found: torch.Tensor = operator(
        q[None], k[None], v[None], None, asked.places, seen.places, asked.longest, seen.longest, 0.0,
        _LAST_IS_LAST if causal else 0, scale=1.0,
    )[0]  # fmt: skip
    return found[0]


KERNELS = (
    # Only from Ampere on.
    Kernel(_flash, (torch.bfloat16, torch.float16), windows=True),
    Kernel(_efficient, (torch.bfloat16, torch.float16, torch.float32), windows=False),
)
"""The fastest first."""


def find(device: str, dtype: torch.dtype, model: TextModel, kind: LayerKind) -> Kernel | None:
    """Return the first kernel that is there for layers of this kind and agrees with the plain computation."""
    if not device.startswith("cuda"):
        return None
    return _first_that_agrees(device, dtype, model.heads, kind.kv_heads, kind.head_dim, model.causal)


@lru_cache
def _first_that_agrees(
    device: str, dtype: torch.dtype, heads: int, kv_heads: int, head_dim: int, causal: bool
) -> Kernel | None:
    layout = Layout(pack([np.zeros(9, np.int32)], [None], device))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(9, count, head_dim, generator=generator).to(device, dtype) for count in (heads, kv_heads, kv_heads)
    )
    q = q * head_dim**-0.5

    def agrees(kernel: Kernel) -> bool:
        for window in (None, 4) if kernel.windows else (None,):
            # All queries, and the last one alone.
            for asked in (q, q[-1:]):
                expected = torch.empty_like(asked)
                attention.attend(asked[None], k[None], v[None], causal=causal, window=window, out=expected[None])
                try:
                    found = attend(kernel, asked, k, v, layout, 0, single=len(asked) == 1, causal=causal, window=window)
                except (RuntimeError, AttributeError, NotImplementedError, TypeError, ValueError):
                    return False
                off = 1e-4 if dtype == torch.float32 else 0.05
                if not torch.allclose(found.float(), expected.float(), atol=off):
                    return False
        return True

    return next((kernel for kernel in KERNELS if dtype in kernel.formats and agrees(kernel)), None)


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
            batch: What will run; of its groups there may be the first ones only.
        """
        groups, device = batch.groups, batch.ids.device
        counts = np.array([group.count for group in groups])

        def starts(lengths: list[int]) -> _Starts:
            places = np.concatenate([[0], np.repeat(lengths, counts).cumsum()]).astype(np.int32)
            return _Starts(torch.from_numpy(places).to(device), max(lengths))

        self.groups, self.count, self.tokens = len(groups), int(counts.sum()), groups[-1].tokens.stop
        """Groups, sequences, and their tokens without prefixes."""
        self.seen = starts([group.keys for group in groups])
        self.asked = starts([group.length for group in groups])
        self.last = starts([1] * len(groups))
        found = {id(group.prefix): group.prefix for group in groups if group.prefix is not None}
        self.prefixes: tuple[Prefix, ...] = tuple(found.values())
        self.gathered = torch.from_numpy(_gathered(batch, self.prefixes)).to(device) if found else None
        """(keys of all sequences,) where each key is among those of the prefixes and, behind them, of the batch."""


def layouts(batch: Packed, kernels: Mapping[LayerKind, Kernel | None]) -> dict[LayerKind, Layout | None]:
    """Return for each kind of layer what its kernel runs of a batch: all, the first groups, or nothing."""
    whole: Layout | None = None
    found: dict[LayerKind, Layout | None] = dict.fromkeys(kernels)
    for kind, kernel in kernels.items():
        if kernel is None or sum(group.count * group.keys for group in batch.groups) > _KEYS:
            continue
        window = None if kernel.windows else kind.window
        first = batch.groups
        if window is not None:
            first = tuple(itertools.takewhile(partial(_is_within, window), batch.groups))
        if first == batch.groups:
            found[kind] = whole = whole or Layout(batch)
        elif first:
            found[kind] = Layout(replace(batch, groups=first))
    return found


def _is_within(window: int, group: Sequences) -> bool:
    return group.keys <= window


def attend(
    kernel: Kernel, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, layer: int, *,
    single: bool, causal: bool, window: int | None,
) -> torch.Tensor:  # fmt: skip
    """Return the attention of all sequences of a layout, shaped as the queries.

    Args:
        kernel: What computes it.
        q: (tokens, heads, head_dim), scaled, or (n, heads, head_dim) of the last tokens.
        k: (tokens, kv_heads, head_dim) without prefixes.
        v: The same.
        layout: Where sequences begin.
        layer: Whose keys and values of the prefixes are taken.
        single: Whether the queries are those of the last tokens.
        causal: Whether a token sees no later ones.
        window: A token sees those less than this many places away; `None`: all.
    """
    asked = layout.last if single else layout.asked
    if layout.gathered is not None:
        k = torch.cat([*(prefix.keys[layer] for prefix in layout.prefixes), k])[layout.gathered]
        v = torch.cat([*(prefix.values[layer] for prefix in layout.prefixes), v])[layout.gathered]
    return kernel.run(q, k, v, asked, layout.seen, causal, window)


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
