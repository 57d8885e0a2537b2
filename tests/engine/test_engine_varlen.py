"""The layout of a packed batch for the kernel of GPUs, with a plain computation in the kernel's place."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Reranker

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.attention.varlen")

QUERIES = ["which planet is red?", "copy a tree", "x", "", "copy a file", "123456789" * 9, "1234567", "7654321"]


def plain(q, k, v, q_starts, k_starts, longest_q, longest_k, *, scale, window_size, enable_gqa):
    """torch's `varlen_attn`, sequence by sequence: queries belong to the last keys."""
    assert enable_gqa == (q.shape[1] != k.shape[1])
    assert longest_q == q_starts.diff().max()
    assert longest_k == k_starts.diff().max()
    k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], 1) for part in (k, v))
    out = torch.full_like(q, torch.nan)
    left, right = window_size
    for place in range(len(q_starts) - 1):
        rows = slice(q_starts[place], q_starts[place + 1])
        keys = slice(k_starts[place], k_starts[place + 1])
        count, seen = rows.stop - rows.start, keys.stop - keys.start
        away = (seen - count + torch.arange(count))[:, None] - torch.arange(seen)
        hidden = torch.zeros(count, seen, dtype=torch.bool)
        if left >= 0:
            hidden |= away > left
        if right >= 0:
            hidden |= -away > right
        scores = torch.einsum("qhd,khd->hqk", q[rows], k[keys]) * scale
        out[rows] = torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v[keys])
    return out


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the plain computation stand for the kernel; return how many queries each call had."""
    from torch.nn.attention import varlen as torch_varlen

    from embrief.engine import varlen

    calls: list[int] = []

    def noted(q, *args, **options):
        calls.append(len(q))
        return plain(q, *args, **options)

    monkeypatch.setattr(torch_varlen, "varlen_attn", noted)
    monkeypatch.setattr(varlen, "works", lambda *args: True)
    return calls


@pytest.fixture(params=["qwen3", "gemma"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.getfixturevalue(f"{request.param}_folder"), tmp_path / request.param))


def test_vectors_are_those_of_group_by_group(folder: Path, kernel: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    found = Embedder(folder, dtype="float32", device="cpu").load()
    vectors = found.embed_queries(QUERIES), found.embed_documents(QUERIES), found.embed_query(QUERIES[4])
    assert kernel
    made = len(kernel)
    monkeypatch.undo()
    other = Embedder(shutil.copytree(folder, folder.with_name("other")), dtype="float32", device="cpu")
    np.testing.assert_allclose(vectors[0], other.embed_queries(QUERIES), atol=1e-5)
    np.testing.assert_allclose(vectors[1], other.embed_documents(QUERIES), atol=1e-5)
    np.testing.assert_allclose(vectors[2], other.embed_query(QUERIES[4]), atol=1e-5)
    assert len(kernel) == made


def test_pairs_with_different_heads_share_a_batch(
    reranker_folder: Path, tmp_path: Path, kernel: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [*(("copy a tree", text) for text in QUERIES), *(("which planet?", text) for text in QUERIES), ("y", "z")]
    found = Reranker(shutil.copytree(reranker_folder, tmp_path / "one"), dtype="float32", device="cpu")
    scores = found.score_pairs(pairs)
    assert kernel
    monkeypatch.undo()
    other = Reranker(shutil.copytree(reranker_folder, tmp_path / "two"), dtype="float32", device="cpu")
    np.testing.assert_allclose(scores, other.score_pairs(pairs), atol=1e-5)
