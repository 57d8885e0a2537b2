"""Exports in OpenVINO: number formats, what it needs, and a file that is cut short."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embrief import ArgumentError, Embedder

pytest.importorskip("openvino")
pytest.importorskip("onnxscript")

TEXTS = ["Mars is the Red Planet.", "Venus is bright. " * 40]
WITHOUT = """
import sys
banned = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "nncf", "huggingface_hub", "safetensors")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in banned:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import json
from embrief import Embedder
with Embedder(sys.argv[1]) as embedder:
    print(json.dumps(embedder.embed_documents(json.loads(sys.argv[2])).tolist()))
"""


def test_bfloat16_only_where_it_is_asked_for(exported: Callable[..., Path]) -> None:
    folder = exported("tiny-embedding", "openvino")
    with (
        Embedder("embrief/tiny-embedding", dtype="float32") as source,
        Embedder(folder) as exact,
        Embedder(folder, dtype="bfloat16") as faster,
    ):
        due = source.embed_documents(TEXTS)
        assert np.abs(exact.embed_documents(TEXTS) - due).max() < 1e-5
        assert (faster.embed_documents(TEXTS) * due).sum(1).min() > 0.999
        assert (exact.info()["dtype"], faster.info()["dtype"]) == ("float32", "bfloat16")
        assert exact.fingerprint != faster.fingerprint
        assert exact.space == faster.space


def test_what_was_asked_for_is_what_is_refused(exported: Callable[..., Path]) -> None:
    with pytest.raises(ArgumentError, match="in int8, not in bfloat16: its files hold int8"):
        Embedder(exported("tiny-embedding", "openvino", "int8"), dtype="bfloat16")


def test_openvino_alone_runs_it(exported: Callable[..., Path]) -> None:
    folder = exported("tiny-embedding", "openvino")
    assert {file.name for file in folder.iterdir()} == {
        "model.xml", "model.bin", "tokenizer.json", "embrief-export.json",
    }  # fmt: skip
    asked = [sys.executable, "-c", WITHOUT, str(folder), json.dumps(TEXTS)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    with Embedder("embrief/tiny-embedding", dtype="float32") as source:
        assert np.abs(np.array(json.loads(done.stdout)) - source.embed_documents(TEXTS)).max() < 1e-5


def test_a_file_cut_short_in_use_ends_no_process(copied: Callable[..., Path]) -> None:
    folder = copied("tiny-embedding", "openvino")
    with Embedder(folder) as export:
        due = export.embed_documents(["a"])
        (folder / "model.bin").write_bytes(b"")
        np.testing.assert_allclose(export.embed_documents(["a"]), due, atol=1e-6)
