"""A picture of the results: one group of bars per set, with the interval of each mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embrief.evaluation.measures import NAMES
from embrief.evaluation.picture import WIDTH, bar, line, page, text

if TYPE_CHECKING:
    from embrief.evaluation.results import Results

_LEFT, _RIGHT = 330, 60
_BAR, _GAP, _GROUP, _TOP = 16, 3, 16, 54
_LONGEST = 52
"""Characters of a name that fit beside the bars."""


def svg(results: Results) -> str:
    """Return the picture: mean nDCG@10 of every line, 0 to 1."""
    measure = NAMES[0]
    scale = WIDTH - _LEFT - _RIGHT
    parts: list[str] = []
    top = _TOP
    for name, rows in results.sets().items():
        parts.append(
            text(
                12, top + 12, f"{name} ({rows[0]['documents']:,} documents, {rows[0]['queries']:,} questions)", "quiet"
            )
        )
        top += 18
        for row in rows:
            found = row["measures"][measure]
            look = "other" if row["against"] is None else "lighter" if "reranker" in row["identity"] else "embrief"
            middle = top + _BAR / 2
            parts.append(text(_LEFT - 8, top + 12, _short(row["system"]), anchor="end"))
            parts.append(bar(_LEFT, top, found["mean"] * scale, _BAR, look))
            parts.append(line(_LEFT + found["low"] * scale, middle, _LEFT + found["high"] * scale, middle, "line"))
            parts.append(text(_LEFT + found["high"] * scale + 6, top + 12, f"{found['mean']:.3f}"))
            top += _BAR + _GAP
        top += _GROUP
    return page(f"Retrieval quality, {measure}", "Lines: 95 % intervals over the questions", parts, top)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
