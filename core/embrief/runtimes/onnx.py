"""ONNX Runtime: models that `embrief export` wrote, without torch.

Discovery imports it, so what runs is imported inside functions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, BackendError, ModelMismatchError
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

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ERRORS_ONLY = 3


@dataclass(frozen=True, kw_only=True)
class Onnx(RuntimeOptions):
    """How ONNX Runtime runs a model."""

    threads: int | None = None
    """Threads on the CPU; `None`: one for each processor of this process."""


class OnnxRuntime(Runtime):
    """ONNX Runtime as discovery sees it."""

    name = "onnx"
    requires = ("onnxruntime", "tokenizers")
    install = install_command("onnx")
    devices = ("cpu", "cuda")
    dtypes = ("float32", "int8")
    Options = Onnx

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        """Offer exports in this format, on the CPU, or on a GPU for which the installed build is made."""
        offer = offer_export(spec, ask, "onnx")
        return replace(offer, device=_device(ask.device)) if ask.final and not isinstance(offer, Refusal) else offer

    def load(self, request: LoadRequest) -> Model:
        """Load an export, whose files are checked to the last byte."""
        return self.open(request, verified(request))

    def open(self, request: LoadRequest, export: Export) -> ExportedModel:
        """Load files that are known to be those of an export."""
        options = request.options if isinstance(request.options, Onnx) else Onnx()
        threads = thread_count(options.threads)
        return ExportedModel(request, export, threads, partial(_Session, device=request.device, threads=threads))


def _device(asked: str) -> str:
    """Return the device that a session is made for.

    Raises:
        ArgumentError: The installed onnxruntime is not made for it.
    """
    import onnxruntime

    there = [name for name, provider in _PROVIDERS.items() if provider in onnxruntime.get_available_providers()]
    if asked == "auto":
        return "cuda" if "cuda" in there else "cpu"
    if asked.partition(":")[0] not in there:
        raise ArgumentError(
            f"device={asked!r} is not there: the installed onnxruntime runs on {' and '.join(there)}; the package "
            "onnxruntime-gpu runs on CUDA"
        )
    return asked


class _Session:
    """A graph in ONNX Runtime."""

    def __init__(self, folder: Path, *, device: str, threads: int) -> None:
        import onnxruntime

        from embrief.files.exports import FILES, IDS, LENGTHS, RESULT
        from embrief.files.onnx_file import external_files

        graph, weights = (folder / name for name in FILES["onnx"])
        data = graph.read_bytes()
        if others := external_files(data, graph) - {weights.name}:
            raise ModelMismatchError(
                f"{graph} keeps weights in {sorted(others)[0][:80]!r}, and an export only in {weights.name}; export "
                "the model again"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads
        # Else its threads keep spinning for a while after a run, on the time of whatever runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if weights.is_file():
            # Read and not mapped: a mapped file that is cut short ends the process.
            self._weights = weights.read_bytes()
            options.add_external_initializers_from_files_in_memory(
                [weights.name], [self._weights], [len(self._weights)]
            )
        kind, _, number = device.partition(":")
        provider: Any = (_PROVIDERS[kind], {"device_id": number}) if number else _PROVIDERS[kind]
        try:
            # Its own way out of an error prints to the program's output, and tries again on the CPU.
            self._session = onnxruntime.InferenceSession(data, options, providers=[provider], enable_fallback=0)
        except Exception as error:
            # The library has a dozen classes for what a graph may lack, none of them public.
            raise ModelMismatchError(
                f"ONNX Runtime {onnxruntime.__version__} does not take {graph} ({str(error)[:200]}); export the model "
                "again, or install the release that it was exported with"
            ) from error
        if _PROVIDERS[kind] not in (there := self._session.get_providers()):
            # Without a word, where a library of NVIDIA's or the driver is missing or too old.
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} cannot use {device!r} here and took {', '.join(there)}; pass "
                "device='cpu', or install the CUDA libraries and the driver that this release of it asks for"
            )
        names = [item.name for item in self._session.get_inputs()], [item.name for item in self._session.get_outputs()]
        if names != ([IDS, LENGTHS], [RESULT]):
            raise ModelMismatchError(f"{graph} takes and gives {names}, as no export does; export the model again")
        self._names = (IDS, LENGTHS)

    def run(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[Any]:
        """Return the graph's results."""
        found: NDArray[Any] = self._session.run(None, dict(zip(self._names, (ids, lengths), strict=True)))[0]
        return found
