"""OpenVINO on the graph of an export; int8 through NNCF where it is installed.

Latency mode with all threads, one row at a time and so without padding: batches of 4 to 32 mixed rows were slower in
two runs on two cores, both of them disturbed by other load.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embrief.bench.peers.common import Variant, normalised, quietly, run_batches, threads, told_as, version_of
from embrief.bench.peers.exported import calibration_rows, width_of, write_graph
from embrief.files.exports import IDS, LENGTHS
from embrief.system.installed import is_installed

NAME = "openvino"
ROWS = 1
# Activations get a scale per so many columns; one scale for a whole row was as slow as none.
GROUP = 128
CALIBRATION_ROWS = 16
CALIBRATION_TOKENS = 256


def installed_version() -> str:
    """Return the version, or "" where OpenVINO or what makes the graph is missing."""
    needed = ("onnx", "onnxscript", "torch")
    return version_of("openvino", "openvino") if all(map(is_installed, needed)) else ""


def variants() -> list[Variant]:
    """Return bf16, and with NNCF int8 weights with dynamic activations, and static int8."""
    found = [Variant("bf16", partial(_load, "bf16"))]
    if is_installed("nncf"):
        found.append(
            Variant(
                "int8 dynamic",
                partial(_load, "int8 dynamic"),
                f"NNCF: int8 weights, activations per token in groups of {GROUP}",
            )
        )
        found.append(
            Variant(
                "int8 static",
                partial(_load, "int8 static"),
                f"NNCF: calibrated on {CALIBRATION_ROWS} docstrings; takes long to load",
            )
        )
    return found


def _load(variant: str, folder: Path) -> _Model:
    with told_as(NAME), quietly():
        return _Model(folder, variant)


class _Model:
    def __init__(self, folder: Path, variant: str) -> None:
        import openvino

        model = _convert(folder)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        if variant == "int8 dynamic":
            model = _compress(model)
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(GROUP)
        elif variant == "int8 static":
            model = _quantise(model, folder)
        self._dim = width_of(folder)
        self._compiled: Any = openvino.Core().compile_model(model, "CPU", settings)

    def embed(self, rows: list[list[int]], texts: list[str]) -> np.ndarray:
        with told_as(NAME):
            return normalised(run_batches(self._run, rows, ROWS, self._dim), len(rows))

    def _run(self, ids: np.ndarray, last: np.ndarray) -> Any:
        return self._compiled({IDS: ids, LENGTHS: last + 1})[0]

    def close(self) -> None:
        self._compiled = None


def _convert(folder: Path) -> Any:
    import openvino

    with tempfile.TemporaryDirectory(prefix="embrief-openvino-", ignore_cleanup_errors=True) as scratch:
        file = Path(scratch) / "model.onnx"
        write_graph(folder, file)
        return openvino.convert_model(file)


def _compress(model: Any) -> Any:
    import nncf

    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)


def _quantise(model: Any, folder: Path) -> Any:
    import nncf

    rows = calibration_rows(folder, CALIBRATION_ROWS, CALIBRATION_TOKENS)
    inputs = [{IDS: ids, LENGTHS: np.array([ids.shape[1]], dtype=np.int64)} for ids in rows]
    return nncf.quantize(model, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(inputs))
