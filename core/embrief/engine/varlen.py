"""Attention of a whole packed batch in one kernel, on NVIDIA GPUs: torch's variable-length FlashAttention."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from embrief.engine import attention
from embrief.engine.batch import Packed, Sequences, pack

if TYPE_CHECKING:
    from embrief.engine.description import LayerKind, TextModel


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
    import numpy as np

    batch = pack([np.zeros(9, np.int32)], [None], device)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(9, count, head_dim, generator=generator).to(device, dtype) for count in (heads, kv_heads, kv_heads)
    )
    q = q * head_dim**-0.5
    for window in (None, 4):
        expected, found = torch.empty_like(q), torch.empty_like(q)
        try:
            attend(q, k, v, batch, 0, causal=causal, window=window, out=found)
        except (RuntimeError, ImportError, NotImplementedError, TypeError, ValueError):
            return False
        attention.attend(q[None], k[None], v[None], causal=causal, window=window, out=expected[None])
        if not torch.allclose(found.float(), expected.float(), atol=0.05):
            return False
    return True


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, batch: Packed, layer: int, *,
    causal: bool, window: int | None, out: torch.Tensor,
) -> None:  # fmt: skip
    """Write the attention of all sequences to `out`; arguments as in `attention.attend`, but packed.

    Where there are as many queries as sequences, they are those of the last tokens.
    """
    from torch.nn.attention.varlen import varlen_attn

    single = len(q) == sum(group.count for group in batch.groups)
    keys, values = _with_prefixes(k, v, batch, layer)
    seen = [group.keys for group in batch.groups for _ in range(group.count)]
    asked = [1 if single else group.length for group in batch.groups for _ in range(group.count)]
    reach = -1 if window is None else window - 1
    found = varlen_attn(
        q, keys, values, _starts(asked, q.device), _starts(seen, q.device), max(asked), max(seen),
        scale=1.0, window_size=(reach, 0 if causal else reach), enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    assert isinstance(found, torch.Tensor)
    out.copy_(found)


def _with_prefixes(k: torch.Tensor, v: torch.Tensor, batch: Packed, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    if all(group.prefix is None for group in batch.groups):
        return k, v

    def joined(group: Sequences, own: torch.Tensor, fixed: torch.Tensor | None) -> torch.Tensor:
        rows = own[group.tokens].view(group.count, group.length, *own.shape[1:])
        if fixed is not None:
            rows = torch.cat([fixed.expand(group.count, -1, -1, -1), rows], 1)
        return rows.flatten(0, 1)

    keys = [joined(group, k, group.prefix.keys[layer] if group.prefix else None) for group in batch.groups]
    values = [joined(group, v, group.prefix.values[layer] if group.prefix else None) for group in batch.groups]
    return torch.cat(keys), torch.cat(values)


def _starts(lengths: list[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
