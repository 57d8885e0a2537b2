"""What became slower or larger since an earlier run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embrief.bench.results import Results

TOLERANCE = 0.05
_HIGHER_IS_BETTER = ("vs_default", "vs_best", "of_ceiling")


@dataclass(frozen=True, slots=True)
class Regression:
    """One figure that is worse than before."""

    row: str
    run: str
    figure: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.row}, {self.run}: {self.figure} {self.before:.3g} -> {self.after:.3g}"


def regressions(before: Results, after: Results, tolerance: float = TOLERANCE) -> list[Regression]:
    """Return the figures that are worse by more than a tolerance.

    Ratios only: seconds of two machines, or of two days, cannot be compared. What one run lacks is passed over.

    Args:
        before: The earlier run.
        after: The later one.
        tolerance: The part of the earlier figure that a later one may fall short of it.
    """
    found: list[Regression] = []
    old = {(row, run, figure): value for row, run, figure, value in _figures(before)}
    for row, run, figure, value in _figures(after):
        known = old.get((row, run, figure))
        if known is None:
            continue
        worse = known - value if figure in _HIGHER_IS_BETTER else value - known
        if worse > tolerance * abs(known):
            found.append(Regression(row, run, figure, known, value))
    return found


def _figures(results: Results) -> Iterator[tuple[str, str, str, float]]:
    """Yield (row, run, figure, value) of everything that embrief is judged by."""
    for key, row in results.rows.items():
        if row.get("memory_ratio") is not None:
            yield key, "embrief", "memory_ratio", row["memory_ratio"]
        for run in row["runs"]:
            if run["name"].startswith("embrief"):
                yield from ((key, run["name"], name, run[name]) for name in _HIGHER_IS_BETTER if name in run)
