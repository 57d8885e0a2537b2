"""OpenVINO: models that `embrief export` wrote, without torch.

Discovery imports it, so what runs is imported inside functions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, ModelMismatchError
from embrief.runtimes.base import Refusal, Runtime, RuntimeOptions
from embrief.runtimes.exported import ExportedModel, offer_export, thread_count, verified
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.specs import ModelSpec
    from embrief.files.exports import Export
    from embrief.runtimes.base import Ask, LoadRequest, Model, Offer

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""In which numbers it computes between whole ones. Unless it is told, it takes bfloat16 where a processor has it."""


@dataclass(frozen=True, kw_only=True)
class OpenVino(RuntimeOptions):
    """How OpenVINO runs a model."""

    threads: int | None = None
    """Threads on the CPU; `None`: one for each processor of this process."""


class OpenVinoRuntime(Runtime):
    """OpenVINO as discovery sees it."""

    name = "openvino"
    requires = ("openvino", "tokenizers")
    install = install_command("openvino")
    devices = ("cpu", "gpu")
    dtypes = ("float32", "bfloat16", "int8")
    Options = OpenVino

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        """Offer exports in this format, on the CPU, or on a GPU of Intel's where it is asked for."""
        offer = offer_export(spec, ask, "openvino", computes=("bfloat16",))
        if isinstance(offer, Refusal):
            return offer
        return replace(offer, device=_device(ask.device)) if ask.final else offer

    def load(self, request: LoadRequest) -> Model:
        """Load an export, whose files are checked to the last byte."""
        return self.open(request, verified(request))

    def open(self, request: LoadRequest, export: Export) -> ExportedModel:
        """Load files that are known to be those of an export."""
        options = request.options if isinstance(request.options, OpenVino) else OpenVino()
        threads = thread_count(options.threads)
        opened = partial(_Session, device=request.device, precision=_PRECISIONS[request.dtype], threads=threads)
        return ExportedModel(request, export, threads, opened)


def _device(asked: str) -> str:
    """Return the device that a graph is compiled for.

    Raises:
        ArgumentError: OpenVINO does not see it.
    """
    import openvino

    if asked == "auto":
        return "cpu"
    there = [name.lower().replace(".", ":") for name in openvino.Core().available_devices]
    if asked not in there and not any(name.startswith(f"{asked}:") for name in there):
        raise ArgumentError(f"device={asked!r} is not there; OpenVINO sees {', '.join(there)}")
    return asked


class _Session:
    """A graph in OpenVINO."""

    def __init__(self, folder: Path, *, device: str, precision: str, threads: int) -> None:
        import openvino

        from embrief.files.exports import FILES, IDS, LENGTHS

        graph, weights = (folder / name for name in FILES["openvino"])
        core = openvino.Core()
        # Read and not mapped: a mapped file that is cut short ends the process.
        core.set_property({"ENABLE_MMAP": False})
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if device == "cpu":
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(graph, weights)
            self._compiled = core.compile_model(model, device.upper().replace(":", "."), settings)
        except Exception as error:
            # The library raises RuntimeError and its own, whatever is wrong.
            raise ModelMismatchError(
                f"OpenVINO {openvino.__version__} does not take {graph} ({str(error)[-200:]}); export the model again, "
                "or install the release that it was exported with"
            ) from error
        names = [name for item in self._compiled.inputs for name in item.names]
        if sorted(names) != sorted((IDS, LENGTHS)) or len(self._compiled.outputs) != 1:
            raise ModelMismatchError(f"{graph} takes {names}, as no export does; export the model again")
        self._names = (IDS, LENGTHS)

    def run(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[Any]:
        """Return the graph's results."""
        found: NDArray[Any] = self._compiled(dict(zip(self._names, (ids, lengths), strict=True)))[0]
        return found
