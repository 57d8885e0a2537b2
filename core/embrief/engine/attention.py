"""Attention over packed sequences without padding: each group of equally long sequences is one batched product."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

_SCORES = 2**21
"""Attention scores in memory at a time; more are computed in blocks of queries, so that long inputs stay bounded."""
_ROWS = 128
"""Queries per block where only earlier keys count: what lies beyond the block's last query is not computed."""
_CUDA_SCORES, _CUDA_ROWS = 2**26, 2048
"""The same on an NVIDIA GPU, where small blocks leave most of it idle."""
_COPIED = 2**23
"""Values of queries, keys, or values that are laid out anew at a time; prefixes are repeated for each sequence."""
_KEPT_MASK = 2**16
"""Entries of the largest mask that is kept for the next batch."""
_LONG = 2048
"""Keys from which on torch's fusion takes a fifth less time if each head's are next to each other."""
_LANE = 32
"""Keys are filled up to a multiple of this: on CPUs the softmax of other widths takes two to eight times as long."""


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool,
    window: int | None,
    out: torch.Tensor,
    before: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """Write softmax(q k^T) v of a group of sequences to `out`.

    Queries belong to the last positions of the keys: with a prefix, or where only the last token counts, there are
    fewer queries than keys.

    Args:
        q: (n, queries, heads, head_dim), scaled.
        k: (n, own keys, kv_heads, head_dim).
        v: (n, own keys, kv_heads, head_dim).
        causal: Whether a token sees no later ones.
        window: A token sees those less than this many places away; `None`: all.
        out: (n, queries, heads, head_dim).
        before: Keys and values of a prefix that all have, (length, kv_heads, head_dim) each.
    """
    n, queries, heads, _ = q.shape
    # On CPUs in float32: for bfloat16 oneDNN makes code for every shape and keeps it, up to a gigabyte.
    cpu = q.device.type == "cpu"
    all_seen = not causal and before is None and (window is None or k.shape[1] <= window)
    # What torch takes instead of its fusion would keep all scores at once.
    if cpu and all_seen and torch.backends.cuda.flash_sdp_enabled():  # type: ignore[no-untyped-call] # it has no types
        _unmasked(q, k, v, out)
        return
    dtype = torch.float32 if cpu else q.dtype
    keys = k.shape[1] + (len(before[0]) if before is not None else 0)
    first = keys - queries
    most, height = (_CUDA_SCORES, _CUDA_ROWS) if q.is_cuda else (_SCORES, _ROWS)
    span = keys if window is None else min(keys, height + 2 * window)
    rows = max(1, min(height if causal or window is not None else queries, most // (heads * span)))
    together = max(1, min(most // (heads * min(rows, queries) * span), _COPIED // (keys * k[0, 0].numel())))
    for start in range(0, n, together):
        part = slice(start, start + together)
        own_k = _by_head(k[part], before[0] if before is not None else None, dtype)
        own_v = _by_head(v[part], before[1] if before is not None else None, dtype)
        for a in range(0, queries, rows):
            b = min(queries, a + rows)
            low = 0 if window is None else max(0, first + a - window + 1) // _LANE * _LANE
            high = first + b if causal else keys if window is None else min(keys, first + b + window - 1)
            high += -high % _LANE
            make = _mask if (b - a) * (high - low) <= _KEPT_MASK else _mask.__wrapped__
            mask = make(b - a, high - low, first + a - low, keys - low, causal, window, dtype, q.device)
            block = q[part, a:b].to(dtype), own_k[:, :, low:high], own_v[:, :, low:high]
            out[part, a:b] = _products(*block, mask) if cpu else _fused(*block, mask)


def _by_head(own: torch.Tensor, before: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Return (n, kv_heads, keys, head_dim) with the prefix in front, filled up with zeros at the end."""
    n, count, heads, dim = own.shape
    first = len(before) if before is not None else 0
    keys = first + count
    filled = own.new_empty(n, heads, keys + -keys % _LANE, dim, dtype=dtype)
    if before is not None:
        filled[:, :, :first] = before.transpose(0, 1)
    filled[:, :, first:keys] = own.transpose(1, 2)
    filled[:, :, keys:] = 0
    return filled


def _products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Two matrix products per key head, its query heads folded into rows; with masks faster than torch's fusion."""
    n, rows, heads, dim = q.shape
    kv_heads, width = k.shape[1:3]
    fold = heads // kv_heads
    folded = (n * kv_heads, fold * rows, dim)
    queries = q.reshape(n, rows, kv_heads, fold, dim).permute(0, 2, 3, 1, 4).reshape(folded)
    scores = torch.bmm(queries, k.flatten(0, 1).transpose(1, 2))
    if mask is not None:
        scores.view(-1, rows, width).add_(mask)
    mixed = torch.bmm(scores.softmax(-1), v.flatten(0, 1))
    return mixed.view(n, kv_heads, fold, rows, dim).permute(0, 3, 1, 2, 4).reshape(n, rows, heads, dim)


def _unmasked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
    """By torch's fusion, where nothing is hidden: faster on CPUs than two products, and without filling."""
    together = max(1, _COPIED // max(q[0].numel(), k[0].numel()))
    for start in range(0, len(q), together):
        part = slice(start, start + together)
        asked, keys, values = (_floats(one[part].transpose(1, 2), apart=k.shape[1] >= _LONG) for one in (q, k, v))
        found = F.scaled_dot_product_attention(asked, keys, values, scale=1.0, enable_gqa=q.shape[2] != k.shape[2])
        out[part] = found.transpose(1, 2)


def _floats(x: torch.Tensor, *, apart: bool) -> torch.Tensor:
    """Return x in float32, where the heads are to lie apart in a copy."""
    return torch.empty(x.shape, dtype=torch.float32).copy_(x) if apart else x.float()


def _fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    found = F.scaled_dot_product_attention(
        q.transpose(1, 2), k, v, attn_mask=mask, scale=1.0, enable_gqa=q.shape[2] != k.shape[1]
    )
    return found.transpose(1, 2)


@lru_cache(maxsize=256)
def _mask(
    rows: int,
    width: int,
    first: int,
    keys: int,
    causal: bool,
    window: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor | None:
    """Return 0 or -inf for each query and key; `None` if all see all.

    Args:
        rows: Number of queries.
        width: Number of keys, filled up.
        first: Place of the first query among the keys.
        keys: Number of keys that are there; the others are filling.
        causal: Whether later keys are hidden.
        window: Keys this many places away are hidden.
        dtype: Number format of the scores.
        device: Where it is needed.
    """
    places = torch.arange(width)
    away = (first + torch.arange(rows))[:, None] - places
    hidden = (places >= keys).expand(rows, width)
    if causal:
        hidden = hidden | (away < 0)
    if window is not None:
        hidden = hidden | (away.abs() >= window)
    if not hidden.any():
        return None
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf")).to(device)
