"""ONNX Runtime, exported by torch.onnx; int8 through its own dynamic quantiser.

All threads in one operator, rows sorted by length in batches of `ROWS`.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.bench.peers.common import Variant, normalised, quietly, run_batches, threads, told_as, version_of
from embrief.bench.peers.exported import embedding_module, width_of
from embrief.system.installed import is_installed

if TYPE_CHECKING:
    import numpy as np

NAME = "onnxruntime"
ROWS = 8


def installed_version() -> str:
    """Return the version, or "" where ONNX Runtime or what exports to it is missing."""
    needed = ("onnx", "onnxscript", "transformers")
    return version_of("onnxruntime", "onnxruntime") if all(map(is_installed, needed)) else ""


def variants() -> list[Variant]:
    """Return fp32 and dynamic int8; on CPUs it has no bf16."""
    return [
        Variant("fp32", partial(_load, "fp32")),
        Variant("int8 dynamic", partial(_load, "int8 dynamic"), "per-channel weights, activations per tensor"),
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
            _export(folder, file)
            if variant == "int8 dynamic":
                file = _quantise(file)
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
        return self._session.run(None, {"ids": ids, "last": last})[0]

    def close(self) -> None:
        self._session = None
        self._scratch.cleanup()


def _export(folder: Path, file: Path) -> None:
    import torch

    batch, tokens = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("tokens", min=2, max=32768)
    example = (torch.tensor([[1, 2, 3, 4, 5]] * 3), torch.tensor([4, 3, 2]))
    with torch.no_grad():
        program = torch.onnx.export(
            embedding_module(folder),
            example,
            dynamo=True,
            dynamic_shapes=({0: batch, 1: tokens}, {0: batch}),
            input_names=["ids", "last"],
            output_names=["vectors"],
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    # Protobuf ends at 2 GB: the weights lie beside the graph.
    program.save(str(file), external_data=True)


def _quantise(file: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = file.with_name("model-int8.onnx")
    quantize_dynamic(
        file,
        target,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
    )
    return target
