"""GGUF files in llama.cpp, as discovery sees it: what it offers and refuses. `gguf_model.py` runs them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError, ArgumentTypeError, EmbriefError
from embrief.facts.specs import EmbeddingSpec
from embrief.runtimes.base import Offer, Refusal, Runtime, RuntimeOptions
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from embrief.facts.specs import Artifact, ModelSpec
    from embrief.runtimes.base import Ask, LoadRequest, Model

_ARCHITECTURES = ("qwen3", "gemma3_text")
_PROCESSES = ("child", "own")
_FLOATS = ("float32", "float16", "bfloat16")
_QUANTISED = (
    "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0", "q3_k_l", "q3_k_m",
    "q3_k_s", "q2_k", "q2_k_s", "iq4_xs", "iq4_nl", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs",
    "iq2_xxs", "iq1_m", "iq1_s", "mxfp4",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Gguf(RuntimeOptions):
    """How llama.cpp runs a GGUF file: `Embedder(ID, backend=Gguf(file="model-Q8_0.gguf"))`."""

    file: str | None = None
    """A file that holds the model whose id is given beside it, in another number format: its vectors are declared to be
    of that model's space. What can be compared is compared. `None`: the file that the model's name is, or one of those
    that its record names."""
    process: str = "child"
    """`"child"`: in a process of its own, so that an abort of llama.cpp is an error. `"own"`: in this one."""
    threads: int | None = None
    """Threads that compute; `None`: `OMP_NUM_THREADS`, or as many as this process may use processors."""
    gpu_layers: int | None = None
    """Layers that the GPU computes, where the device is one; `None`: all."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be.

        Raises:
            ArgumentTypeError, ArgumentError: One cannot.
        """
        super().__post_init__()
        if self.file is not None and not isinstance(self.file, str):
            raise ArgumentTypeError(f"Gguf(file=...) is a path as a string, not {type(self.file).__name__}")
        if self.file is not None:
            try:
                # What it means now: it is opened later, and again after an abort, perhaps from another folder.
                object.__setattr__(self, "file", str(Path(self.file).expanduser().absolute()))
            except (OSError, RuntimeError) as error:
                raise ArgumentError(f"Gguf(file={self.file!r}) cannot be a path: {error}") from error
        if self.process not in _PROCESSES:
            raise ArgumentError(f"Gguf(process={self.process!r}) is none of {', '.join(map(repr, _PROCESSES))}")
        for name, least in (("threads", 1), ("gpu_layers", 0)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ArgumentError(f"Gguf({name}={value!r}) is a whole number of at least {least}")

    def stamp(self) -> tuple[tuple[str, int, int, int], ...]:
        """Return name, size and times of `file`; nothing where it is not there, which is told when it is opened."""
        if self.file is None:
            return ()
        try:
            stat = Path(self.file).stat()
        except (OSError, ValueError):
            return ()
        return ((self.file, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns),)


class GgufRuntime(Runtime):
    """llama.cpp, through the bindings of llama-cpp-python."""

    name = "gguf"
    requires = ("llama_cpp", "tokenizers")
    install = install_command("gguf")
    # Behind the engine: where that is installed, it runs what is not a GGUF file.
    preference = 5
    dtypes = (*_FLOATS, *_QUANTISED)
    Options = Gguf

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        """Offer a GGUF file: the one that is named, that the model is, or that its record knows."""
        if spec.elsewhere is not None:
            return Refusal("loads models from their files")
        if spec.architecture not in _ARCHITECTURES:
            return Refusal(f"runs {' and '.join(_ARCHITECTURES)}, not {spec.architecture!r}")
        if isinstance(spec, EmbeddingSpec) and spec.pooling not in ("last", "mean"):
            return Refusal(f"has no pooling {spec.pooling!r}")
        options = ask.options if isinstance(ask.options, Gguf) else Gguf()
        if options.file is not None:
            answer = self._declared(spec, ask, options.file)
        else:
            answer = self._of_artifacts(spec, ask)
        if isinstance(answer, Offer) and ask.final:
            return replace(answer, device=_device(ask.device))
        return answer

    @staticmethod
    def _declared(spec: ModelSpec, ask: Ask, name: str) -> Offer | Refusal:
        from embrief.files.gguf import evidence, plan, read_model, with_parts

        if spec.format == "gguf":
            return Refusal("runs the file that the model's name is; leave file= out", "request")
        try:
            files = with_parts(Path(name))
            header = read_model(files)
            plan(header, spec)
        except (EmbriefError, OSError) as error:
            return Refusal(f"cannot use {name}: {error}", "request")
        if ask.dtype not in ("auto", header.dtype):
            return Refusal(f"has {name} in {header.dtype}, not in {ask.dtype}", "request")
        return Offer(device=ask.device, dtype=header.dtype, identity=evidence(files))

    @staticmethod
    def _of_artifacts(spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        from embrief.files.gguf import best

        there: dict[str, Artifact] = {}
        for item in spec.artifacts:
            if item.format == "gguf" and item.dtype is not None:
                there.setdefault(item.dtype, item)
        if spec.format not in ("safetensors", "gguf"):
            return Refusal(f"reads GGUF, and these files are {spec.format}", "files")
        if not there:
            return Refusal("knows no GGUF file of it: name one with backend=Gguf(file=...)", "files")
        local = spec.format == "gguf"
        dtype = best(list(there), spec.banned_dtypes) if ask.dtype == "auto" else ask.dtype
        if dtype is None:
            if len(there) > 1 or not local or next(iter(there)) in spec.banned_dtypes:
                return Refusal(
                    f"takes formats of less than 8 bits, or that give wrong results, only where dtype= names one; "
                    f"there are {', '.join(there)}",
                    "request",
                )
            # Whoever names one file has named its format.
            dtype = next(iter(there))
        if dtype in there:
            chosen = there[dtype]
        elif local:
            return Refusal(f"has no {dtype} of it; there are {', '.join(there)}", "request")
        else:
            # What the repository has is looked up when it is fetched.
            chosen = replace(next(iter(there.values())), dtype=dtype)
        identity = "" if local else f"{chosen.repo}@{chosen.revision}"
        return Offer(device=ask.device, dtype=dtype, artifact=chosen, identity=identity)

    def load(self, request: LoadRequest) -> Model:
        """Load a model from a GGUF file."""
        from embrief.runtimes.gguf_model import GgufEmbedder, GgufReranker

        return GgufEmbedder(request) if isinstance(request.spec, EmbeddingSpec) else GgufReranker(request)


def _device(asked: str) -> str:
    kind, _, number = asked.partition(":")
    if asked == "cpu":
        return asked
    gpu = "mps" if sys.platform == "darwin" else "cuda"
    if asked == "auto":
        return gpu if _offloads() else "cpu"
    if kind != gpu or not _offloads():
        raise ArgumentError(
            f"device={asked!r} is not there: the llama.cpp that is installed computes on the CPU alone. Build it for "
            'the GPU: CMAKE_ARGS="-DGGML_CUDA=on" (or -DGGML_METAL=on) pip install --force-reinstall --no-cache-dir '
            "llama-cpp-python; or use device='auto' or 'cpu'"
        )
    if number:
        raise ArgumentError(f"device={asked!r}: llama.cpp takes all GPUs that it sees; set CUDA_VISIBLE_DEVICES")
    return asked


@lru_cache(maxsize=1)
def _offloads() -> bool:
    from embrief.llama.process import can_offload

    return can_offload()
