"""ONNX Runtime on the graph of an export, float32 and int8, without the rest of the runtime that embrief has for it.

All threads in one operator, rows sorted by length in batches of `ROWS`.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.bench.peers.common import Variant, normalised, quietly, run_batches, threads, told_as, version_of
from embrief.bench.peers.exported import width_of, write_graph
from embrief.files.exports import IDS, LENGTHS
from embrief.system.installed import is_installed

if TYPE_CHECKING:
    import numpy as np

NAME = "onnxruntime"
ROWS = 8


def installed_version() -> str:
    """Return the version, or "" where ONNX Runtime or what exports to it is missing."""
    needed = ("onnx", "onnxscript", "torch")
    return version_of("onnxruntime", "onnxruntime") if all(map(is_installed, needed)) else ""


def variants() -> list[Variant]:
    """Return fp32 and int8; on CPUs it has no bf16."""
    return [
        Variant("fp32", partial(_load, "fp32")),
        Variant("int8", partial(_load, "int8"), "weights of 8 bits in blocks of 32, activations as it runs"),
    ]


def _load(variant: str, folder: Path) -> _Model:
    with told_as(NAME), quietly():
        return _Model(folder, variant)


class _Model:
    def __init__(self, folder: Path, variant: str) -> None:
        import onnxruntime

        self._session: Any = None
        self._scratch = tempfile.TemporaryDirectory(prefix="embrief-onnx-", ignore_cleanup_errors=True)
        try:
            file = Path(self._scratch.name) / "model.onnx"
            write_graph(folder, file)
            if variant == "int8":
                file = _quantised(file)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads()
            options.log_severity_level = 3
            # Else its threads keep spinning for a while after a run, on the time of whoever is measured next.
            options.add_session_config_entry("session.force_spinning_stop", "1")
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            self._dim = width_of(folder)
        except BaseException:
            self.close()
            raise

    def embed(self, rows: list[list[int]], texts: list[str]) -> np.ndarray:
        with told_as(NAME):
            return normalised(run_batches(self._run, rows, ROWS, self._dim), len(rows))

    def _run(self, ids: np.ndarray, last: np.ndarray) -> Any:
        return self._session.run(None, {IDS: ids, LENGTHS: last + 1})[0]

    def close(self) -> None:
        self._session = None
        self._scratch.cleanup()


def _quantised(file: Path) -> Path:
    from embrief.exporting import graphs

    target = file.with_name("model-int8.onnx")
    graphs.quantise(file, target)
    return target
