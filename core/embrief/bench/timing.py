"""Interleaved timing, with an eye on what else the machine is doing."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embrief.bench.fresh_process import children
from embrief.system.installed import is_installed

FOREIGN_LIMIT = 0.05
"""Share of the machine that other processes may use before a row carries a warning."""


@dataclass(slots=True)
class Timing:
    """What one library did in all rounds."""

    seconds: list[float] = field(default_factory=list)
    foreign: list[float] = field(default_factory=list)
    """Share of the machine that other processes used meanwhile, per round; empty if it cannot be told."""
    result: Any = None
    """What the first round returned."""

    @property
    def median(self) -> float:
        """The middle of all rounds, in seconds."""
        return statistics.median(self.seconds)


def disturbed(timings: Mapping[str, Timing]) -> list[str]:
    """Return a warning if other processes took a noticeable part of the machine."""
    worst = max((share for timing in timings.values() for share in timing.foreign), default=0.0)
    if worst <= FOREIGN_LIMIT:
        return []
    return [f"other processes used up to {worst:.0%} of the machine"]


def interleave(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Run all calls round after round, so that a slow minute of the machine meets all of them.

    Args:
        calls: What to time, by name.
        rounds: How many times each runs.
    """
    timings = {name: Timing() for name in calls}
    for number in range(rounds):
        for name, call in calls.items():
            result = measure(call, timings[name])
            if number == 0:
                timings[name].result = result
    return timings


def measure(call: Callable[[], Any], timing: Timing) -> Any:
    """Run a call once, add its time, and return its result."""
    watch = _Processor()
    start = time.perf_counter()
    result = call()
    timing.seconds.append(time.perf_counter() - start)
    foreign = watch.foreign()
    if foreign is not None:
        timing.foreign.append(foreign)
    return result


class _Processor:
    """Processor time of the machine and of this process, from now on."""

    def __init__(self) -> None:
        self._start = _processor_times()

    def foreign(self) -> float | None:
        """Return the share of the machine that other processes used; `None` where it cannot be told."""
        now = _processor_times()
        if self._start is None or now is None:
            return None
        busy, total, own = (after - before for after, before in zip(now, self._start, strict=True))
        # Ticks are a hundredth of a second: over less than some tenths they say nothing.
        return max(0.0, (busy - own) / total) if total > 0.3 else None


def _processor_times() -> tuple[float, float, float] | None:
    """Return seconds of (work of the machine, work and idling of the machine, work of this process)."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    own += sum(map(_processor_time, children(os.getpid())))
    stat = Path("/proc/stat")
    if stat.is_file():
        tick = os.sysconf("SC_CLK_TCK")
        user, nice, system, idle, waiting, *rest = (
            int(part) / tick for part in stat.read_text().split("\n")[0].split()[1:]
        )
        busy = user + nice + system + sum(rest[:3])
        return busy, busy + idle + waiting, own
    if is_installed("psutil"):
        import psutil  # type: ignore[import-untyped]  # optional, and comes without types

        machine = psutil.cpu_times()
        return sum(machine) - machine.idle, sum(machine), own
    return None


def _processor_time(process: int) -> float:
    """Return the seconds that a process has computed; 0 where it has ended."""
    try:
        # The name of the program may hold anything, up to the last bracket.
        numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")
