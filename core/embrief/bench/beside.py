"""All runtimes of this machine beside the engine, each through `Embedder` and `Reranker`, on the same weights."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import embrief
from embrief.bench.accuracy import compare_to
from embrief.bench.fresh import Started, medians, start
from embrief.bench.runners import (
    DEFAULT_BATCH,
    EmbriefEmbedder,
    EmbriefReranker,
    PlainEmbedder,
    PlainReranker,
    check_ids,
)
from embrief.bench.timing import disturbed, interleave
from embrief.discovery.plugins import catalog
from embrief.errors import BackendError, EmbriefError, MissingDependencyError
from embrief.system.installed import installed_version, is_installed

if TYPE_CHECKING:
    from pathlib import Path

    from embrief import RuntimeOptions
    from embrief.bench.checkpoint import Checkpoint
    from embrief.bench.measure import Bench
    from embrief.bench.runners import Result, Runner
    from embrief.bench.workloads import Workload

STARTS = 2
"""Processes per runtime: loading takes seconds, and there are many."""
_WRITER = "embrief.bench.peers.gguf_file"
_SHORT_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_EXPORTED = ("onnx", "openvino")
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "mistralrs": "mistralrs", "gguf": "llama-cpp-python"}
_FILES_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Variant:
    """A runtime in one number format."""

    backend: str
    dtype: str

    @property
    def name(self) -> str:
        """What it is called in a table."""
        return f"{self.backend} {_SHORT_NAMES.get(self.dtype, self.dtype)}"


def variants() -> list[Variant]:
    """Return what is measured beside the engine, whether it is installed or not."""
    formats = {
        "gguf": ("float32", "float16", "bfloat16", "q8_0", "q4_0"),
        "onnx": ("float32", "int8"),
        "openvino": ("float32", "bfloat16", "int8"),
        "mistralrs": ("float32", "q8_0"),
    }
    known = catalog().backends
    return [Variant(name, dtype) for name, dtypes in formats.items() if name in known for dtype in dtypes]


def measure_beside(bench: Bench, model: Checkpoint, work: Workload, rounds: int) -> dict[str, Any]:
    """Measure the speed of all runtimes that are installed, taking turns in this process.

    llama.cpp has a process of its own beside it, as it has in a program. All models are in memory at once.

    Args:
        bench: The run.
        model: The weights.
        work: Texts or pairs.
        rounds: How many times each runs.
    """
    pairs = model.kind == "reranker"
    oracle = bench.oracle(model, work)
    default = (PlainReranker if pairs else PlainEmbedder)(model.folder, None, bench.device)
    open_runners: list[Runner] = [default]
    missing: dict[str, str] = {}
    turns = [work] * rounds
    calls: dict[str, Callable[[], Result]] = {}
    ours = f"embrief {_SHORT_NAMES.get(bench.native, bench.native)}"
    theirs = f"ST {_SHORT_NAMES.get(default.dtype, default.dtype)}, batch {DEFAULT_BATCH}"
    try:
        check_ids(work, default)
        for dtype in _own_formats(bench):
            own = bench.own(model, dtype, missing)
            if own is not None:
                open_runners.append(own)
                bench.join(calls, f"embrief {_SHORT_NAMES.get(dtype, dtype)}", own.run, turns, missing)
        bench.join(calls, theirs, partial(default.run, batch_size=DEFAULT_BATCH), turns, missing)
        for variant in variants():
            runner = _open(variant, bench, model, missing)
            if runner is not None:
                open_runners.append(runner)
                bench.join(calls, variant.name, runner.run, turns, missing)
        timings = interleave(calls, rounds)
    finally:
        for open_runner in open_runners:
            open_runner.close()
    runs: list[dict[str, Any]] = []
    for name, timing in timings.items():
        run: dict[str, Any] = {"name": name, "seconds": timing.seconds, "tokens_per_s": work.tokens / timing.median}
        if work.singly:
            run["latency_s"] = timing.median / len(work.texts)
        if theirs in timings:
            run["vs_default"] = timings[theirs].median / timing.median
        if ours in timings:
            run |= {"against": ours, "vs_embrief": timings[ours].median / timing.median}
        runs.append(run | compare_to(oracle, timing.result))
    unavailable = [{"name": name, "unavailable": why} for name, why in missing.items()]
    return {"note": _note(bench), "runs": [*runs, *unavailable], "warnings": disturbed(timings)}


def measure_starts(bench: Bench, model: Checkpoint, work: Workload, rounds: int) -> dict[str, Any]:
    """Measure import, load and peak memory of all runtimes that are installed, each in processes of its own.

    Args:
        bench: The run.
        model: The weights.
        work: One batch; memory is looked at again after it.
        rounds: Processes per runtime, of which at most `STARTS` are run.
    """
    missing: dict[str, str] = {}
    native = _SHORT_NAMES.get(bench.native, bench.native)
    folder = str(model.folder)
    starts = {
        f"embrief {_SHORT_NAMES.get(dtype, dtype)}": Started("embrief", folder, dtype, bench.device, "engine")
        for dtype in _own_formats(bench)
    }
    starts[f"ST {native}"] = Started("sentence-transformers", folder, bench.native, bench.device)
    for variant in variants():
        files = _files(variant, bench, model, missing)
        if files is not None:
            starts[variant.name] = Started("embrief", str(files), variant.dtype, bench.device, variant.backend)
    found: dict[str, list[dict[str, Any]]] = {}
    rounds = min(rounds, STARTS)
    for _ in range(rounds):
        for name, started in starts.items():
            if name in missing:
                continue
            try:
                found.setdefault(name, []).append(start(started, work, bench.settings.threads))
            except BackendError as error:
                missing[name] = str(error)
    runs = [{"name": name, **medians(measured)} for name, measured in found.items() if name not in missing]
    unavailable = [{"name": name, "unavailable": why} for name, why in missing.items()]
    note = "seconds to import and to load, and peak memory after one batch, with that of llama.cpp's own process"
    return {"rounds": rounds, "note": f"{note}; {_note(bench)}", "runs": [*runs, *unavailable], "warnings": []}


def _own_formats(bench: Bench) -> list[str]:
    """Return the engine's formats, without a bfloat16 that would be emulated."""
    return [dtype for dtype in bench.settings.dtypes if dtype != "bfloat16" or bench.native == "bfloat16"]


def _open(
    variant: Variant, bench: Bench, model: Checkpoint, missing: dict[str, str]
) -> EmbriefEmbedder | EmbriefReranker | None:
    """Load a runtime, or note why it does not run."""
    files = _files(variant, bench, model, missing)
    if files is None:
        return None
    kind = EmbriefReranker if model.kind == "reranker" else EmbriefEmbedder
    try:
        return kind(files, variant.dtype, bench.device, backend=_backend(variant.backend, bench.settings.threads))
    except EmbriefError as error:
        missing[variant.name] = _first_line(error)
        return None


def _backend(name: str, threads: int | None) -> str | RuntimeOptions:
    """Return a runtime with a number of threads, where it has such a setting."""
    options = catalog().backends[name].Options
    if threads is None or "threads" not in {field.name for field in dataclasses.fields(options)}:
        return name
    made: Callable[..., RuntimeOptions] = options
    return made(threads=threads)


def _files(variant: Variant, bench: Bench, model: Checkpoint, missing: dict[str, str]) -> Path | None:
    """Return what a runtime loads, made if it is not there yet; or note why it cannot be had."""
    runtime = catalog().backends[variant.backend]
    if not all(map(is_installed, runtime.requires)):
        # Once for all of its formats.
        missing[variant.backend] = f"not installed: {runtime.install}"
        return None
    try:
        if variant.backend in _EXPORTED:
            return _export(variant, model, bench.folder)
        if variant.backend == "gguf":
            return _gguf(variant.dtype, model, bench.folder)
    except (EmbriefError, ValueError) as error:
        missing[variant.name] = _first_line(error)
        return None
    return model.folder


def _export(variant: Variant, model: Checkpoint, root: Path) -> Path:
    """Return an export of the weights."""
    # OpenVINO computes in bfloat16 from weights in float32.
    stored = "int8" if variant.dtype == "int8" else "float32"
    folder = root / f"{model.folder.name}-{_digest(model.folder)}-{variant.backend}-{stored}"
    if not folder.is_dir():
        embrief.export_model(model.folder, folder, format=variant.backend, dtype=stored)
    return folder


def _gguf(dtype: str, model: Checkpoint, root: Path) -> Path:
    """Return a GGUF file of the weights.

    Raises:
        MissingDependencyError: What writes it is not here.
        ValueError: The weights cannot be written so.
    """
    form = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}.get(dtype, dtype.upper())
    file = root / f"{model.folder.name}-{_digest(model.folder)}-{form}.gguf"
    if file.is_file():
        return file
    unfinished = file.with_name(f"{file.stem}.{os.getpid()}.tmp.gguf")
    try:
        if not is_installed(_WRITER) or not is_installed("gguf"):
            raise MissingDependencyError(
                "GGUF files of random weights are written in a checkout, with the package gguf: pip install gguf"
            )
        from embrief.bench.peers.gguf_file import write_gguf

        write_gguf(model.folder, unfinished, form)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return file


@lru_cache(maxsize=8)
def _digest(folder: Path) -> str:
    """Return a name for the files of a checkpoint and for what is made of them by this release."""
    digest = hashlib.sha256(f"{_FILES_FORMAT} {embrief.__version__}".encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def _note(bench: Bench) -> str:
    """Return versions, how llama.cpp was built, and whom a number of threads does not reach."""
    installed = [name for name, runtime in catalog().backends.items() if all(map(is_installed, runtime.requires))]
    versions = ((package, installed_version(package)) for name, package in _PACKAGES.items() if name in installed)
    parts = [f"{package} {version}" for package, version in versions if version]
    if "gguf" in installed:
        parts.append(f"llama.cpp was built for {_llama_features()}, and computes the vocabulary head of every token")
    if bench.settings.threads is not None and "mistralrs" in installed:
        parts.append("mistralrs takes its threads from RAYON_NUM_THREADS")
    return "; ".join(parts)


@lru_cache(maxsize=1)
def _llama_features() -> str:
    """Return the instructions that the installed llama.cpp was compiled for, in its own words."""
    from embrief.llama.library import bindings

    try:
        told: bytes = bindings().llama_print_system_info()
    except (ImportError, OSError, RuntimeError) as error:
        return f"what is not known ({_first_line(error)})"
    features = [part.partition("=")[0].strip() for part in told.decode().split("|") if part.strip().endswith("= 1")]
    return " ".join(feature.rpartition(":")[2].strip() for feature in features)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
