"""Whole numbers on processors that add them up in few bits: right or refused, by fakes here and held back for real."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embrief import ArgumentError, Embedder, Reranker

torch = pytest.importorskip("torch")

HANGS = 600
"""Seconds after which a process counts as hanging; a busy machine may take minutes."""


def cut_off(bits: float) -> Callable[..., object]:
    """Return oneDNN's product as a processor computes it that adds pairs of products in so many bits."""
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def product(x, x_scale, x_zero, weight, scale, zero, bias, y_scale, y_zero, dtype, *rest):
        pairs = (x.float()[:, None] * weight.float()).unflatten(2, (-1, 2)).sum(3).clamp_(least, most)
        whole = pairs.sum(2) - x_zero * weight.float().sum(1)
        return (whole * scale).to(dtype)

    return product


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[..., object]], None]]:
    """Return a function that puts another product in the place of oneDNN's."""
    from embrief.engine import linear

    def use(product: Callable[..., object]) -> None:
        monkeypatch.setattr(torch.ops.onednn, "qlinear_prepack", lambda weight, shape: weight, raising=False)
        monkeypatch.setattr(torch.ops.onednn, "qlinear_pointwise", product, raising=False)
        monkeypatch.setattr(linear, "processor", lambda: "Abacus 3000")
        linear._int8_that_adds_up.cache_clear()

    yield use
    linear._int8_that_adds_up.cache_clear()


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_weight_is_not_changed_by_quantising_it(dtype: str) -> None:
    from embrief.engine.linear import INT8_LEVELS, Int8Linear

    weight = torch.randn(32, 64).to(getattr(torch, dtype))
    before = weight.clone()
    for levels in INT8_LEVELS.values():
        Int8Linear(weight, levels)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 7, 64, 500])
def test_large_equal_values_are_added_up_right_here(dtype: str, rows: int) -> None:
    from embrief.engine.linear import Int8Linear, int8_format

    try:
        int8_format(getattr(torch, dtype))
    except ArgumentError as error:
        pytest.skip(str(error))
    for sign in (1.0, -1.0):
        weight = torch.full((96, 256), sign, dtype=getattr(torch, dtype))
        found = Int8Linear(weight)(torch.ones(rows, 256, dtype=weight.dtype)).float()
        assert (found / (256 * sign) - 1).abs().max() < 0.01


@pytest.mark.parametrize("few", [16, 16.5], ids=["often", "rarely, which only large equal values show"])
def test_seven_bits_where_eight_are_cut_off(pretend, qwen3_folder: Path, few: float) -> None:
    texts = ["one text", "another one " * 9]
    exact = Embedder(qwen3_folder, dtype="float32", device="cpu")

    def whole(bits: float, name: str) -> tuple[np.ndarray, str]:
        pretend(cut_off(bits))
        embedder = Embedder(qwen3_folder, dtype="int8", device="cpu")
        assert embedder.info()["dtype"] == name
        assert embedder.space == exact.space
        return embedder.embed_documents(texts), embedder.fingerprint

    (eight, eight_print), (seven, seven_print) = whole(32, "int8"), whole(few, "int7")
    assert cosines(seven, exact.embed_documents(texts)).min() > 0.99
    assert np.abs(eight - seven).max() > 1e-4
    assert len({eight_print, seven_print, exact.fingerprint}) == 3


def broken(*arguments: object) -> object:
    raise NotImplementedError("no such product in this build")


@pytest.mark.parametrize("product", [cut_off(12), broken], ids=["cut off anyway", "not there"])
def test_a_processor_that_adds_up_nothing_right_is_refused_at_load_by_its_name(
    pretend, product: Callable[..., object], qwen3_folder: Path, reranker_folder: Path
) -> None:
    pretend(product)
    for facade in (
        Embedder(qwen3_folder, dtype="int8", device="cpu"),
        Reranker(reranker_folder, dtype="int8", device="cpu"),
    ):
        with pytest.raises(ArgumentError, match=r"dtype='int8'.*Abacus 3000.*dtype='auto'"):
            facade.load()
        assert not facade._shared.loaded
    from embrief.engine.linear import Int8Linear

    with pytest.raises(ArgumentError, match="Abacus 3000"):
        Int8Linear(torch.ones(4, 4))


def test_the_choice_is_made_once(pretend, qwen3_folder: Path) -> None:
    calls: list[int] = []
    product = cut_off(16)

    def counted(x, *rest):
        calls.append(len(x))
        return product(x, *rest)

    pretend(counted)
    assert Embedder(qwen3_folder, dtype="int8", device="cpu").info()["dtype"] == "int7"
    tried = len(calls)
    assert tried
    Embedder(qwen3_folder, dtype="int8", device="cpu", dim=32).info()
    assert len(calls) == tried


HELD_BACK = """
import json, sys
import numpy as np, torch
from embrief import Embedder, Reranker
from embrief.engine.linear import Int8Linear
folder, judge, *texts = sys.argv[1:]
exact, small, auto = (Embedder(folder, dtype=dtype, device="cpu") for dtype in ("float32", "int8", "auto"))
found, expected = small.embed_documents(texts), exact.embed_documents(texts)
one, other = (Reranker(judge, dtype=dtype, device="cpu").score("q", texts) for dtype in ("float32", "int8"))
print(json.dumps({
    "auto": auto.info()["dtype"],
    "format": small.info()["dtype"],
    "ones": Int8Linear(torch.ones(64, 256))(torch.ones(8, 256)).mean().item(),
    "cosine": float((found * expected).sum(1).min()),
    "moved": float(abs(found - expected).max()),
    "scores": float(abs(one - other).max()),
}))
"""


def held_back(isa: str, *arguments: str) -> dict[str, object]:
    """Run the same on this machine, with the newer instructions hidden from oneDNN and from torch."""
    hidden = {"ONEDNN_MAX_CPU_ISA": isa, "DNNL_MAX_CPU_ISA": isa, "ATEN_CPU_CAPABILITY": "avx2"}
    command = [sys.executable, "-W", "ignore", "-c", HELD_BACK, *arguments]
    done = subprocess.run(command, env={**os.environ, **hidden}, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available(),
    reason="the instructions that are hidden are those of x86, from oneDNN",
)
def test_int8_held_back_to_avx2(qwen3_folder: Path, reranker_folder: Path) -> None:
    found = held_back("AVX2", str(qwen3_folder), str(reranker_folder), "one text", "", "another one " * 30)
    assert found["auto"] == "float32"
    assert found["format"] == "int7"
    assert found["ones"] == pytest.approx(256, rel=0.01)
    assert found["cosine"] > 0.99
    assert found["moved"] > 1e-6
    assert found["scores"] < 0.05
