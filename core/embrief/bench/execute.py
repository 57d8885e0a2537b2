"""One run: which rows are missing, which fit into the budget, and saving each as soon as it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from embrief.bench.measure import Bench
from embrief.bench.results import Results, identity
from embrief.bench.rows import Row, choose, passes
from embrief.bench.runners import quiet, require_sentence_transformers
from embrief.evaluation.result_files import now
from embrief.system.installed import install_command, is_installed

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.bench.settings import Settings

Say = Callable[[str], None]


def run(
    settings: Settings,
    *,
    folder: Path,
    out: Path,
    only: Sequence[str] | None = None,
    budget: float | None = None,
    fresh: bool = False,
    say: Say = lambda message: None,
) -> Results:
    """Measure, or take what an earlier run with the same settings, versions and machine has measured.

    Args:
        settings: What to measure.
        folder: Where checkpoints of random weights are kept.
        out: The results file; written after every row.
        only: Keys of rows; `None` for all.
        budget: Seconds; a row that would not fit is left for the next run.
        fresh: Start over, whatever the file holds.
        say: Called with a line about what happens next.

    Raises:
        ArgumentError: There is no such row, or a setting does not fit the models.
        MissingDependencyError: sentence-transformers is not installed.
        BackendError: The libraries see different tokens.
    """
    rows = choose(only)
    require_sentence_transformers()
    import torch

    end = None if budget is None else time.monotonic() + budget
    threads = torch.get_num_threads()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    try:
        with quiet():
            bench = Bench(settings, folder)
            results = _start(identity(settings, bench.device), out, fresh, say)
            _run_rows(bench, rows, results, out, end, say)
    finally:
        torch.set_num_threads(threads)
    return results


def _start(known: dict[str, object], out: Path, fresh: bool, say: Say) -> Results:
    if out.is_file() and not fresh:
        before = Results.load(out)
        if before.identity == known:
            return before
        kept = out.with_name(f"{out.stem}.previous{out.suffix}")
        out.replace(kept)
        say(f"the results are of other versions, settings or another machine: kept as {kept}, starting over")
    return Results(known)


def _run_rows(bench: Bench, rows: Sequence[Row], results: Results, out: Path, end: float | None, say: Say) -> None:
    budget = _Budget(bench, end)
    results.left = []
    for row in rows:
        if row.key in results.rows:
            say(f"{row.key}: measured before")
            continue
        if row.how == "server" and not is_installed("httpx"):
            say(f"{row.key}: models on servers need httpx: {install_command('openai')}")
            continue
        if row.model == "gemma2" and find_spec("transformers.models.embedding_gemma2") is None:
            say(f"{row.key}: the installed transformers is older than EmbeddingGemma 2")
            continue
        if row.sees and (why := _why_no_pictures()):
            say(f"{row.key}: {why}")
            continue
        if not bench.has_model(row):
            say(f"{row.key}: none of the models is for it")
            continue
        rounds = budget.rounds(row)
        if rounds is None:
            results.left.append(row.key)
            continue
        say(f"{row.key}: {row.title}")
        start = time.monotonic()
        data = bench.measure(row, rounds)
        budget.learn(row, rounds, time.monotonic() - start)
        results.rows[row.key] = {"title": row.title, "how": row.how, "date": now(), **data}
        results.save(out)
    results.save(out)


def _why_no_pictures() -> str | None:
    """Return why no row with pictures can be measured here, `None` for none."""
    if find_spec("transformers.models.qwen3_vl") is None:
        return "the installed transformers is older than Qwen3-VL"
    return None if is_installed("PIL") else f"pictures need Pillow: {install_command('images')}"


class _Budget:
    """What is left of the time, and what a row takes of it, judged by the rows before."""

    def __init__(self, bench: Bench, end: float | None) -> None:
        self._bench = bench
        self._end = end
        self._work = 0.0
        self._seconds = 0.0

    def rounds(self, row: Row) -> int | None:
        """Return how many rounds of a row fit: all, else one, else `None`."""
        wanted = self._bench.settings.repeats
        if self._end is None:
            return wanted
        if time.monotonic() >= self._end:
            return None
        if not self._bench.work(row):
            return wanted
        for rounds in dict.fromkeys((wanted, 1)):
            if time.monotonic() + self._expected(row, rounds) <= self._end:
                return rounds
        return None

    def learn(self, row: Row, rounds: int, seconds: float) -> None:
        """Take note of how long a row took."""
        if self._end is not None and self._bench.work(row):
            self._work += self._bench.work(row) * passes(row, rounds)
            self._seconds += seconds

    def _expected(self, row: Row, rounds: int) -> float:
        # Before the first row: half the machine's limit, which is what a good engine reaches.
        rate = self._work / self._seconds if self._seconds else self._bench.ceiling(row) / 2
        return self._bench.work(row) * passes(row, rounds) / rate
