"""Measuring a library in fresh processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.errors import BackendError

if TYPE_CHECKING:
    from embrief.bench.workloads import Workload


@dataclass(frozen=True, slots=True)
class Started:
    """What a fresh process loads."""

    library: str
    """`embrief` or `sentence-transformers`."""
    model: str
    """Folder or file."""
    dtype: str
    """Number format."""
    device: str
    backend: str = "engine"
    """Runtime of embrief."""


def measure_fresh(
    starts: Mapping[str, Started], work: Workload, threads: int | None, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return import time, load time and peak memory of each, the median of interleaved rounds.

    Args:
        starts: What is loaded, by name.
        work: One batch of chunks; memory is looked at again after it.
        threads: CPU threads, `None` for the choice of each.
        rounds: Processes each.

    Raises:
        BackendError: A process failed; its last words are in the message.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in starts}
    for _ in range(rounds):
        for name, started in starts.items():
            found[name].append(start(started, work, threads))
    return {name: medians(runs) for name, runs in found.items()}


def start(started: Started, work: Workload, threads: int | None) -> dict[str, Any]:
    """Load something in a process of its own, once, and return what that took.

    Args:
        started: What is loaded.
        work: One batch of chunks.
        threads: CPU threads, `None` for the choice of each.

    Raises:
        BackendError: The process failed; its last words are in the message.
    """
    script = Path(__file__).with_name("fresh_process.py")
    with tempfile.TemporaryDirectory() as place:
        texts = Path(place) / "texts.json"
        texts.write_text(json.dumps(work.texts), "utf-8")
        said = [started.library, started.model, started.device, started.dtype, started.backend]
        done = subprocess.run(  # noqa: S603 - this interpreter, a script of our own, and arguments made here
            # -P: modules of this package must not shadow others by standing beside the script.
            [sys.executable, "-P", str(script), *said, str(threads or 0), str(texts)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"{started.library} failed in a process of its own: {last}")
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure, `None` where a run has none."""
    return {
        key: None if any(run[key] is None for run in runs) else statistics.median(run[key] for run in runs)
        for key in runs[0]
    }
