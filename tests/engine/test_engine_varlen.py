"""The layout of a packed batch for the kernels of GPUs, with a plain computation in the kernel's place."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Reranker

torch = pytest.importorskip("torch")

QUERIES = ["which planet is red?", "copy a tree", "x", "", "copy a file", "123456789" * 9, "1234567", "7654321"]


def plain(q, k, v, asked, seen, causal, window):
    """What the kernels compute, sequence by sequence: queries belong to the last keys."""
    assert asked.longest == asked.places.diff().max()
    assert seen.longest == seen.places.diff().max()
    k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], 1) for part in (k, v))
    out = torch.full_like(q, torch.nan)
    for place in range(len(asked.places) - 1):
        rows = slice(asked.places[place], asked.places[place + 1])
        keys = slice(seen.places[place], seen.places[place + 1])
        count, all_keys = rows.stop - rows.start, keys.stop - keys.start
        away = (all_keys - count + torch.arange(count))[:, None] - torch.arange(all_keys)
        hidden = away < 0 if causal else torch.zeros_like(away, dtype=torch.bool)
        if window is not None:
            hidden = hidden | (away.abs() >= window)
        scores = torch.einsum("qhd,khd->hqk", q[rows], k[keys])
        out[rows] = torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v[keys])
    return out


@pytest.fixture(params=["with windows", "without windows"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Let the plain computation stand for a kernel; return the window of each call."""
    from embrief.engine import varlen

    calls: list[int | None] = []

    def noted(q, k, v, asked, seen, causal, window):
        calls.append(window)
        if request.param == "without windows":
            assert window is None or seen.longest <= window
            window = None
        return plain(q, k, v, asked, seen, causal, window)

    found = varlen.Kernel(noted, (torch.float32,), windows=request.param == "with windows")
    monkeypatch.setattr(varlen, "find", lambda *args: found)
    return calls


@pytest.fixture(params=["qwen3", "gemma"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.getfixturevalue(f"{request.param}_folder"), tmp_path / request.param))


def test_vectors_are_those_of_group_by_group(
    folder: Path, kernel: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
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
    reranker_folder: Path, tmp_path: Path, kernel: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [*(("copy a tree", text) for text in QUERIES), *(("which planet?", text) for text in QUERIES), ("y", "z")]
    found = Reranker(shutil.copytree(reranker_folder, tmp_path / "one"), dtype="float32", device="cpu")
    scores = found.score_pairs(pairs)
    assert kernel
    monkeypatch.undo()
    other = Reranker(shutil.copytree(reranker_folder, tmp_path / "two"), dtype="float32", device="cpu")
    np.testing.assert_allclose(scores, other.score_pairs(pairs), atol=1e-5)
