"""Measuring a library in fresh processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.errors import BackendError

if TYPE_CHECKING:
    from embrief.bench.workloads import Workload

LIBRARIES = ("embrief", "sentence-transformers")


def measure_fresh(
    folder: Path, work: Workload, device: str, dtype: str, threads: int | None, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return import time, load time and peak memory of both libraries, the median of interleaved rounds.

    Args:
        folder: The model.
        work: One batch of chunks; memory is looked at again after it.
        device: Where it runs.
        dtype: Number format.
        threads: CPU threads, `None` for torch's choice.
        rounds: Processes per library.

    Raises:
        BackendError: A process failed; its last words are in the message.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in LIBRARIES}
    with tempfile.TemporaryDirectory() as place:
        texts = Path(place) / "texts.json"
        texts.write_text(json.dumps(work.texts), "utf-8")
        for _ in range(rounds):
            for name in LIBRARIES:
                found[name].append(_process(name, folder, device, dtype, threads, texts))
    return {name: _medians(runs) for name, runs in found.items()}


def _process(library: str, folder: Path, device: str, dtype: str, threads: int | None, texts: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("fresh_process.py")
    done = subprocess.run(  # noqa: S603 - this interpreter, a script of our own, and arguments made here
        # -P: modules of this package must not shadow others by standing beside the script.
        [sys.executable, "-P", str(script), library, str(folder), device, dtype, str(threads or 0), str(texts)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"{library} failed in a process of its own: {last}")
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def _medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    keys = runs[0].keys()
    return {
        key: None if any(run[key] is None for run in runs) else statistics.median(run[key] for run in runs)
        for key in keys
    }
