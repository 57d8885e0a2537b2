"""Measuring one row: load, check the ids, warm up, interleave, compare with the oracle."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.bench import checkpoint as checkpoints
from embrief.bench.accuracy import compare_to
from embrief.bench.beside import measure_beside, measure_starts
from embrief.bench.ceiling import measure_ceiling
from embrief.bench.fresh import Started, measure_fresh
from embrief.bench.pictures import TransformersModel, build_pictures, unseen
from embrief.bench.runners import (
    DEFAULT_BATCH,
    EmbriefEmbedder,
    EmbriefReranker,
    Plain,
    PlainEmbedder,
    PlainReranker,
    Result,
    Runner,
    check_ids,
)
from embrief.bench.server import measure_server
from embrief.bench.settings import RUNTIME_LAYERS, SHORT_LAYERS, Settings
from embrief.bench.shapes import ROWS_OF, SHAPE_OF, SHAPES
from embrief.bench.timing import Timing, disturbed, interleave, measure
from embrief.bench.workloads import PICTURES, Workload, build
from embrief.bench.wrappers import wrapped
from embrief.cache.options import MemoryCache, SqliteCache
from embrief.errors import ArgumentError, MissingDependencyError

if TYPE_CHECKING:
    from embrief.bench.checkpoint import Checkpoint
    from embrief.bench.rows import Row
    from embrief.bench.shapes import Kind

BATCH_SIZES = {"cpu": (1, 8, DEFAULT_BATCH), "gpu": (8, DEFAULT_BATCH, 128, 512)}
"""What is tried to find sentence-transformers' best."""
LEAST_WRAPPER_ROUNDS = 5
"""A wrapper costs a few thousandths of a call; fewer rounds would show noise."""
_WARM_UP = 200
"""Turns before the clock starts, which have pictures of their own."""
_HITS = 20
"""Calls with one text that is in the cache."""
_SHORT_NAMES = {"bfloat16": "bf16", "float32": "fp32", "float16": "fp16"}


def embrief_name(dtype: str) -> str:
    """Return what embrief is called in a table."""
    return f"embrief {_SHORT_NAMES.get(dtype, dtype)}"


def plain_name(dtype: str, batch_size: int, them: str = "ST") -> str:
    """Return what embrief is compared with is called in a table."""
    return f"{them} {_SHORT_NAMES.get(dtype, dtype)}, batch {batch_size}"


class Bench:
    """The models, texts and limits of one run, each made when the first row needs it."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Find the real models, if any were named.

        Args:
            settings: What to measure.
            folder: Where checkpoints of random weights are kept.
        """
        self.settings = settings
        self.device = _device(settings.device)
        self.native = _native(self.device)
        self.folder = folder
        self._real = [checkpoints.find(model) for model in settings.models]
        if self._real and settings.layers is not None:
            raise ArgumentError(f"layers={settings.layers} is for random weights; a real model has its own")
        self._works: dict[tuple[Path, str], Workload] = {}
        self._ceilings: dict[tuple[int, int], float] = {}

    def has_model(self, row: Row) -> bool:
        """Return whether there is a model for a row."""
        return row.how == "server" or not self._real or self._find_real(row) is not None

    def checkpoint(self, row: Row) -> Checkpoint:
        """Return the model of a row, written first if need be."""
        if self._real:
            found = self._find_real(row)
            assert found is not None
            return found
        shape = SHAPES[self.settings.shape][SHAPE_OF.get(row.model, row.model)]
        layers = self.settings.layers
        if layers is None:
            most = RUNTIME_LAYERS if row.how in ("runtime", "start") else SHORT_LAYERS if row.short else shape.layers
            layers = min(most, shape.layers)
        elif row.model in ("gemma", "gemma2"):
            # They are shallower; what is too much for all is an error in the other rows.
            layers = min(layers, shape.layers)
        elif row.sees:
            layers = min(max(layers, shape.least_layers), shape.layers)
        kind: Kind = "reranker" if row.pairs else "embedder"
        return checkpoints.make(shape, layers, kind, self.folder)

    def _find_real(self, row: Row) -> Checkpoint | None:
        for model in self._real:
            kind = "reranker" if row.pairs else "embedder"
            if model.kind == kind and ROWS_OF.get(model.architecture, "qwen3") == SHAPE_OF.get(row.model, row.model):
                return model
        return None

    def workload(self, row: Row) -> Workload:
        """Return the texts of a row."""
        model = self.checkpoint(row)
        key = (model.folder, row.workload)
        if key not in self._works:
            make = build_pictures if row.workload in PICTURES else build
            self._works[key] = make(row.workload, model, self.settings.sizes)
        whole = self._works[key]
        counts = {"load": self.settings.sizes.batch, "wrapper": self.settings.sizes.wrapper}
        counts |= dict.fromkeys(("runtime", "start"), self.settings.sizes.runtime)
        return whole.sample(counts[row.how]) if row.how in counts else whole

    def work(self, row: Row) -> float:
        """Return the operations for all texts of a row, as far as they count; 0 where nothing is computed."""
        if row.how == "server":
            return 0.0
        model, work = self.checkpoint(row), self.workload(row)
        # For another architecture an estimate is enough: this only plans.
        flops = model.flops or 24 * int(model.config["hidden_size"]) ** 2 * model.layers
        seen = model.picture_flops(work.ids) if row.sees else 0
        return float(flops * work.tokens + seen)

    def ceiling(self, row: Row) -> float:
        """Return the machine's limit for products of the model's sizes in its own format, in operations per second.

        Measured again for each row, and the best of all counts: a disturbed minute would make a limit too low.
        """
        config = self.checkpoint(row).config
        key = (int(config["hidden_size"]), int(config["intermediate_size"]))
        self._ceilings[key] = max(self._ceilings.get(key, 0.0), measure_ceiling(config, self.device, self.native))
        return self._ceilings[key]

    def measure(self, row: Row, rounds: int) -> dict[str, Any]:
        """Measure a row.

        Args:
            row: The row.
            rounds: How many times each library runs.

        Returns:
            Plain values; `runs` holds one entry per library and number format.
        """
        if row.how == "server":
            measured, timings = measure_server(self.settings.sizes.requests, rounds)
            return {**measured, "warnings": disturbed(timings)}
        model, work = self.checkpoint(row), self.workload(row)
        if row.how in ("runtime", "start"):
            beside = measure_beside if row.how == "runtime" else measure_starts
            measured = beside(self, model, work, rounds)
        else:
            row_of = {"speed": self._speed, "load": self._load, "wrapper": self._wrappers, "cache": self._cache}
            measured = row_of[row.how](row, model, work, rounds)
        return {
            "model": model.folder.name,
            "layers": model.layers,
            "texts": len(work.texts),
            "tokens": work.tokens,
            "rounds": rounds,
            "device": self.device,
            **measured,
        }

    def _speed(self, row: Row, model: Checkpoint, work: Workload, rounds: int) -> dict[str, Any]:
        plain_kind: Callable[[Path, str | None, str], Plain] = PlainReranker if row.pairs else PlainEmbedder
        them = "ST"
        if row.sees:
            plain_kind, them = TransformersModel, "transformers"
        default = plain_kind(model.folder, None, self.device)
        open_runners: list[Runner] = [default]
        turns = [unseen(work, turn) for turn in range(rounds)]
        calls: dict[str, Callable[[], Result]] = {}
        try:
            check_ids(work, default)
            fast = default if default.dtype == self.native else plain_kind(model.folder, self.native, self.device)
            if fast is not default:
                open_runners.append(fast)
            missing: dict[str, str] = {}
            for dtype in self.settings.dtypes:
                # Where it is not what runs by default, once is enough for its numbers.
                if dtype == "float32" != self.native:
                    continue
                own = self.own(model, dtype, missing)
                if own is not None:
                    open_runners.append(own)
                    self.join(calls, embrief_name(dtype), own.run, turns, missing)
            size = DEFAULT_BATCH if work.singly else _best_batch(fast, work, self.device)
            names = plain_name(default.dtype, DEFAULT_BATCH, them), plain_name(self.native, size, them)
            # Before and after what it is compared with.
            self.ceiling(row)
            fast.run(work.warm_up())
            if fast is default:
                calls[names[0]] = _in_turns(partial(default.run, batch_size=DEFAULT_BATCH), turns)
            else:
                self.join(calls, names[0], partial(default.run, batch_size=DEFAULT_BATCH), turns, missing)
            calls[names[1]] = _in_turns(partial(fast.run, batch_size=size), turns)
            timings = interleave(calls, rounds)
        finally:
            for runner in open_runners:
                runner.close()
        oracle_name = plain_name("float32", size, them)
        oracle = timings.get(oracle_name)
        if oracle is None:
            oracle = self._once(plain_kind(model.folder, "float32", self.device), work, size)
        self._keep(model, work, oracle.result)
        if "float32" in self.settings.dtypes and self.native != "float32":
            own = self.own(model, "float32", missing)
            if own is not None:
                timings[embrief_name("float32")] = self._once(own, work, None)
        timings[oracle_name] = oracle
        ceiling = self.ceiling(row)
        runs = _runs(row, model, work, timings, oracle.result, ceiling)
        # A sample can mislead: of what was timed in full, the faster one counts.
        native = plain_name(self.native, size, them).split(",")[0]
        best = min(
            (name for name in names if name in timings and name.startswith(native)),
            key=lambda name: timings[name].median,
        )
        for run in runs:
            if names[0] in timings:
                run["vs_default"] = timings[names[0]].median / timings[run["name"]].median
            run["vs_best"] = timings[best].median / timings[run["name"]].median
        return {
            "default": names[0],
            "best": best,
            "padding": _padding(work),
            "ceiling": ceiling,
            "ceiling_format": self.native,
            "runs": [*runs, *({"name": name, "unavailable": why} for name, why in missing.items())],
            "warnings": disturbed(timings),
        }

    def join(
        self,
        calls: dict[str, Callable[[], Result]],
        name: str,
        run: Callable[[Workload], Result],
        turns: Sequence[Workload],
        missing: dict[str, str],
    ) -> None:
        """Warm a library up and let it take part, or note that it would take longer than the limit.

        Args:
            calls: Gets what runs the next turn.
            name: What the library is called.
            run: The library.
            turns: What it runs in each round.
            missing: Gets why it takes no part.
        """
        work = turns[0]
        seconds = expected_seconds(run, work)
        if seconds > self.settings.limit:
            missing[name] = (
                f"one text took so long that all would take about {seconds:,.0f} s, the limit is "
                f"{self.settings.limit:,.0f} s"
            )
            return
        run(unseen(work.warm_up(), _WARM_UP + 2))
        calls[name] = _in_turns(run, turns)

    def own(self, model: Checkpoint, dtype: str, missing: dict[str, str]) -> EmbriefEmbedder | EmbriefReranker | None:
        """Load embrief, or note why it cannot run in this number format."""
        kind = EmbriefReranker if model.kind == "reranker" else EmbriefEmbedder
        try:
            return kind(model.folder, dtype, self.device)
        except (ArgumentError, MissingDependencyError) as error:
            missing[embrief_name(dtype)] = str(error)
            return None

    def _once(self, runner: Runner, work: Workload, batch_size: int | None) -> Timing:
        """Run a library once, after its warm-up, and free it."""
        timing = Timing()
        try:
            runner.run(unseen(work.warm_up(), _WARM_UP))
            timing.result = measure(partial(runner.run, work, batch_size), timing)
        finally:
            runner.close()
        return timing

    def _load(self, row: Row, model: Checkpoint, work: Workload, rounds: int) -> dict[str, Any]:
        starts = {
            name: Started(name, str(model.folder), self.native, self.device)
            for name in ("embrief", "sentence-transformers")
        }
        measured = measure_fresh(starts, work, self.settings.threads, rounds)
        short = _SHORT_NAMES[self.native]
        names = {"embrief": embrief_name(self.native), "sentence-transformers": f"ST {short}"}
        runs = [{"name": names[name], **values} for name, values in measured.items()]
        ours, theirs = (measured[name]["peak_batch_bytes"] for name in ("embrief", "sentence-transformers"))
        return {"runs": runs, "memory_ratio": ours / theirs if ours and theirs else None, "warnings": []}

    def _wrappers(self, row: Row, model: Checkpoint, work: Workload, rounds: int) -> dict[str, Any]:
        rounds = max(rounds, LEAST_WRAPPER_ROUNDS)
        core = EmbriefEmbedder(model.folder, self.native, self.device)
        try:
            core.run(work)
            calls: dict[str, Callable[[], Any]] = {"embrief": partial(core.run, work)}
            calls |= {
                name: partial(call, list(work.texts))
                for name, call in wrapped(model.folder, self.device, self.native).items()
            }
            timings = interleave(calls, rounds)
        finally:
            core.close()
        runs = [
            {
                "name": name,
                "seconds": timing.seconds,
                "tokens_per_s": work.tokens / timing.median,
                # Of each pair of neighbours, so that a slow minute of the machine counts for both.
                "overhead": float(np.median(np.array(timing.seconds) / np.array(timings["embrief"].seconds)) - 1),
            }
            for name, timing in timings.items()
        ]
        return {"rounds": rounds, "runs": runs, "warnings": disturbed(timings)}

    def _cache(self, row: Row, model: Checkpoint, work: Workload, rounds: int) -> dict[str, Any]:
        computed = embrief_name(self.native)
        one = work.part([0])
        with tempfile.TemporaryDirectory() as folder:
            file = SqliteCache(path=str(Path(folder) / "cache.sqlite3"))
            runners = {
                computed: EmbriefEmbedder(model.folder, self.native, self.device),
                # Of a size that nobody else asks for, so that it is empty.
                "from memory": EmbriefEmbedder(
                    model.folder, self.native, self.device, MemoryCache(max_bytes=2**27 + 1)
                ),
                "from a file": EmbriefEmbedder(model.folder, self.native, self.device, file),
            }
            try:
                for runner in runners.values():
                    runner.run(work)
                timings = interleave({name: partial(runner.run, work) for name, runner in runners.items()}, rounds)
                # A hit takes too little to be measured once.
                single = {
                    name: interleave({name: partial(runner.run, one)}, 1 if name == computed else _HITS)[name].median
                    for name, runner in runners.items()
                }
            finally:
                for runner in runners.values():
                    runner.close()
        runs = [
            {
                "name": name,
                "seconds": timing.seconds,
                "tokens_per_s": work.tokens / timing.median,
                "faster": None if name == computed else timings[computed].median / timing.median,
                "one_s": single[name],
                **compare_to(timings[computed].result, timing.result),
            }
            for name, timing in timings.items()
        ]
        note = "; ".join(f"one query {name} in {1000 * seconds:,.2f} ms" for name, seconds in single.items())
        return {"runs": runs, "note": f"cosines to what was computed; {note}", "warnings": disturbed(timings)}

    def oracle(self, model: Checkpoint, work: Workload) -> Result:
        """Return what sentence-transformers gives in float32; computed once for these texts and kept."""
        file = self._oracle_file(model, work)
        if file.is_file():
            kept: Result = np.load(file)
            return kept
        plain = (PlainReranker if model.kind == "reranker" else PlainEmbedder)(model.folder, "float32", self.device)
        check_ids(work, plain)
        found: Result = self._once(plain, work, 8).result
        self._keep(model, work, found)
        return found

    def _keep(self, model: Checkpoint, work: Workload, oracle: Result) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self._oracle_file(model, work), oracle)

    def _oracle_file(self, model: Checkpoint, work: Workload) -> Path:
        digest = hashlib.sha256(repr((str(model.folder), model.config, work.ids)).encode()).hexdigest()[:16]
        return self.folder / f"oracle-{digest}.npy"


def _runs(
    row: Row, model: Checkpoint, work: Workload, timings: dict[str, Timing], oracle: Result, ceiling: float
) -> list[dict[str, Any]]:
    """Return speed, share of the limit and error of each run."""
    found: list[dict[str, Any]] = []
    for name, timing in timings.items():
        speed = work.tokens / timing.median
        run: dict[str, Any] = {"name": name, "seconds": timing.seconds, "tokens_per_s": speed}
        if work.singly:
            run["latency_s"] = timing.median / len(work.texts)
        if model.flops is not None and not row.shares:
            run["flops_per_s"] = speed * model.flops
            run["of_ceiling"] = speed * model.flops / ceiling
        found.append(run | compare_to(oracle, timing.result))
    return found


def expected_seconds(run: Callable[[Workload], Result], work: Workload) -> float:
    """Return about how long all texts take, judged by one of middle length; its first run does what is done once."""
    order = sorted(range(len(work.ids)), key=lambda place: len(work.ids[place]))
    one = work.part([order[len(order) // 2]])
    timing = Timing()
    run(unseen(one, _WARM_UP))
    measure(partial(run, unseen(one, _WARM_UP + 1)), timing)
    return timing.median * work.tokens / one.tokens


def _in_turns(run: Callable[[Workload], Result], turns: Sequence[Workload]) -> Callable[[], Result]:
    left = iter(turns)
    return lambda: run(next(left))


def _native(device: str) -> str:
    """Return the number format that a device computes in by default."""
    from embrief import Embedder

    with Embedder(device=device) as embedder:
        return str(embedder.info()["dtype"])


def _device(device: str) -> str:
    """Return the device that `auto` means."""
    import torch

    if device != "auto":
        return device
    return "cuda:0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _best_batch(runner: Plain, work: Workload, device: str) -> int:
    """Return the batch size that is fastest: on a sample, or on a GPU on all texts, which fill it only together."""
    on_cpu = device == "cpu"
    sizes = BATCH_SIZES["cpu" if on_cpu else "gpu"]
    # Pictures take long each. Every second one of twelve is of every kind.
    least = 5 if work.shown else 16
    sample = work.sample(max(least, len(work.texts) // 4)) if on_cpu else work
    timings = interleave({str(size): partial(runner.run, sample, size) for size in sizes}, 2)
    return min(sizes, key=lambda size: min(timings[str(size)].seconds))


def _padding(work: Workload) -> float:
    """Return how many tokens sentence-transformers computes per real one at its default batch size.

    It sorts by characters and fills each batch up to its longest text.
    """
    order = sorted(range(len(work.ids)), key=lambda place: -len(work.rendered[place]))
    size = 1 if work.singly else DEFAULT_BATCH
    padded = 0
    for start in range(0, len(order), size):
        lengths = [len(work.ids[place]) for place in order[start : start + size]]
        padded += max(lengths) * len(lengths)
    return padded / work.tokens
