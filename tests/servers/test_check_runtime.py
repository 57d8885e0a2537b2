"""Every runtime of embrief's keeps the contract that plugin authors are held to."""

from __future__ import annotations

import pytest

import embrief
from embrief.errors import ArgumentError
from embrief.testing import check_runtime

CATALOG = embrief.plugins().catalog


@pytest.mark.parametrize(
    ("runtime", "model"),
    [
        ("engine", "embrief/tiny-embedding"),
        ("engine", "embrief/tiny-reranker"),
        ("sentence-transformers", "embrief/tiny-embedding"),
        ("sentence-transformers", "embrief/tiny-reranker"),
        ("hash", "embrief/hash"),
        ("mistralrs", "embrief/tiny-embedding"),
    ],
)
def test_runtimes_on_this_machine(runtime: str, model: str) -> None:
    if missing := CATALOG.backends[runtime].missing():
        pytest.skip(f"{missing[0]} is not installed")
    check_runtime(CATALOG.backends[runtime], CATALOG.models[model])


def test_every_runtime_is_checked() -> None:
    """The others ask servers: test_faults.py, which is `check_runtime` with a wire, check by check."""
    from .wires import WIRES

    asked = {name.partition(",")[0] for name in WIRES}
    assert set(CATALOG.backends) >= asked
    # These run files that the tests in tests/runtimes make, and are checked there.
    made = {"gguf", "onnx", "openvino"}
    assert set(CATALOG.backends) - asked - made == {"engine", "hash", "mistralrs", "sentence-transformers"}


def test_a_runtime_that_cannot_be_checked_says_so() -> None:
    with pytest.raises(ArgumentError, match="does not serve"):
        check_runtime(CATALOG.backends["hash"], CATALOG.models["embrief/tiny-embedding"])
    with pytest.raises(ArgumentError, match="files"):
        check_runtime(CATALOG.backends["engine"], CATALOG.models["Qwen/Qwen3-Embedding-0.6B"])
    with pytest.raises(ArgumentError, match="wire"):
        check_runtime(CATALOG.backends["ollama"], CATALOG.models["Qwen/Qwen3-Embedding-0.6B"])
