"""Attention against its formula in float64: masks at their borders, heads that share keys, long sequences, blocks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from embrief.engine import attention  # noqa: E402
from embrief.engine.attention import attend  # noqa: E402


def formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool, window: int | None) -> torch.Tensor:
    keys, fold = k.shape[1], q.shape[2] // k.shape[2]
    k, v = (one.double().repeat_interleave(fold, 2) for one in (k, v))
    scores = torch.einsum("nqhd,nkhd->nhqk", q.double(), k)
    away = torch.arange(keys)[-q.shape[1] :, None] - torch.arange(keys)
    if causal:
        scores = scores.masked_fill(away < 0, -torch.inf)
    if window is not None:
        scores = scores.masked_fill(away.abs() >= window, -torch.inf)
    return torch.einsum("nhqk,nkhd->nqhd", scores.softmax(-1), v)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize(
    ("queries", "keys", "causal", "window"),
    [
        (37, 37, False, None),
        (1, 37, False, None),
        (37, 37, True, None),
        (1, 37, True, None),
        # The last that sees all, and the first that does not.
        (37, 37, False, 37),
        (37, 37, False, 36),
        (1, 37, False, 36),
        (37, 37, True, 8),
        (300, 300, False, 8),
    ],
)
def test_attention_is_its_formula(heads: tuple[int, int], queries: int, keys: int, causal: bool, window: int | None):
    generator = torch.Generator().manual_seed(5)
    q = torch.randn(3, queries, heads[0], 16, generator=generator) / 4
    k, v = (torch.randn(3, keys, heads[1], 16, generator=generator) for _ in range(2))
    expected = formula(q, k, v, causal=causal, window=window)
    for dtype, off in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        found = torch.empty_like(q, dtype=dtype)
        attend(q.to(dtype), k.to(dtype), v.to(dtype), causal=causal, window=window, out=found)
        torch.testing.assert_close(found.double(), expected, atol=off, rtol=0)


@pytest.mark.parametrize("keys", [attention._LONG - 1, attention._LONG + 5])
def test_long_sequences_with_nothing_hidden(keys: int):
    generator = torch.Generator().manual_seed(6)
    q, k, v = (torch.randn(1, keys, 2, 8, generator=generator) for _ in range(3))
    found = torch.empty_like(q)
    attend(q, k, v, causal=False, window=None, out=found)
    torch.testing.assert_close(found.double(), formula(q, k, v, causal=False, window=None), atol=1e-5, rtol=0)


def test_without_torchs_fusion_scores_are_not_all_in_memory(monkeypatch: pytest.MonkeyPatch):
    """A program may switch it off for all its threads; what torch takes instead is not bounded."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    generator = torch.Generator().manual_seed(7)
    q, k, v = (torch.randn(2, 40, 4, 16, generator=generator) for _ in range(3))
    found = torch.empty_like(q)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)
    with sdpa_kernel(SDPBackend.MATH):
        attend(q, k, v, causal=False, window=None, out=found)
    torch.testing.assert_close(found.double(), formula(q, k, v, causal=False, window=None), atol=1e-5, rtol=0)


def test_alone_and_among_others_a_sequence_gets_the_same(monkeypatch: pytest.MonkeyPatch):
    q, k, v = (torch.randn(5, 50, 4, 16) for _ in range(3))
    together = torch.empty_like(q)
    attend(q, k, v, causal=False, window=None, out=together)
    # Two at a time.
    monkeypatch.setattr(attention, "_COPIED", 2 * 50 * 4 * 16)
    apart = torch.empty_like(q)
    attend(q, k, v, causal=False, window=None, out=apart)
    assert torch.equal(apart, together)
    alone = torch.empty_like(q[:1])
    attend(q[3:4], k[3:4], v[3:4], causal=False, window=None, out=alone)
    assert torch.equal(alone[0], together[3])
