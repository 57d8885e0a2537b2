"""A picture of the results: one group of bars per row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embrief.evaluation.picture import WIDTH, bar, line, page, text

if TYPE_CHECKING:
    from embrief.bench.results import Results

_LEFT, _RIGHT = 250, 70
_BAR, _GAP, _GROUP, _TOP = 16, 3, 16, 54


def svg(results: Results) -> str:
    """Return the picture: how many times as fast as sentence-transformers at its default each library is.

    Args:
        results: Rows without such a ratio are left out.
    """
    groups = [(row, _bars(row)) for row in results.rows.values() if row["how"] == "speed"]
    longest = max((ratio for _, bars in groups for _, _, ratio in bars), default=1.0)
    scale = (WIDTH - _LEFT - _RIGHT) / max(longest, 1.0)
    parts: list[str] = []
    top = _TOP
    for row, bars in groups:
        parts.append(text(12, top + 12, _title(row), "quiet"))
        top += 18
        for name, look, ratio in bars:
            parts.append(text(_LEFT - 8, top + 12, name, anchor="end"))
            parts.append(bar(_LEFT, top, ratio * scale, _BAR, look))
            parts.append(text(_LEFT + ratio * scale + 6, top + 12, f"{ratio:.2f}x"))
            top += _BAR + _GAP
        top += _GROUP
    parts.insert(0, line(_LEFT + scale, _TOP - 6, _LEFT + scale, top - _GROUP, "axis"))
    return page("Speed, sentence-transformers at its default = 1", results.identity["machine"]["processor"], parts, top)


def _bars(row: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Return (name, class, ratio) of each bar. Float32 is there for its numbers, and would make the others small."""
    found: list[tuple[str, str, float]] = []
    for run in row["runs"]:
        if "vs_default" not in run or " fp32" in run["name"]:
            continue
        own = run["name"].startswith("embrief")
        look = "other" if not own else "lighter" if "int8" in run["name"] else "embrief"
        found.append((run["name"], look, run["vs_default"]))
    return found


def _title(row: dict[str, Any]) -> str:
    return f"{row['title']} ({row['texts']} texts, {row['layers']} layers)"
