"""A picture of the results: one group of bars per row, as SVG that is readable on light and dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from embrief.bench.results import Results

_WIDTH, _LEFT, _RIGHT = 760, 250, 70
_BAR, _GAP, _GROUP, _TOP = 16, 3, 16, 54
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.quiet { fill: #57606a }
.axis { stroke: #8c959f; stroke-dasharray: 2 3 }
.embrief { fill: #4051b5 } .int8 { fill: #7b8ae0 } .other { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .quiet { fill: #9198a1 } .axis { stroke: #656c76 }
.embrief { fill: #8090f0 } .int8 { fill: #5566c8 } .other { fill: #59636e }
}
"""


def svg(results: Results) -> str:
    """Return the picture: how many times as fast as sentence-transformers at its default each library is.

    Args:
        results: Rows without such a ratio are left out.
    """
    groups = [(key, row, _bars(row)) for key, row in results.rows.items() if row["how"] == "speed"]
    longest = max((ratio for _, _, bars in groups for _, _, ratio in bars), default=1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / max(longest, 1.0)
    parts: list[str] = []
    top = _TOP
    for _, row, bars in groups:
        parts.append(_text(12, top + 12, _title(row), "quiet"))
        top += 18
        for name, look, ratio in bars:
            parts.append(_text(_LEFT - 8, top + 12, name, anchor="end"))
            parts.append(
                f'<rect class="{look}" x="{_LEFT}" y="{top}" width="{ratio * scale:.1f}" height="{_BAR}" rx="2"/>'
            )
            parts.append(_text(_LEFT + ratio * scale + 6, top + 12, f"{ratio:.2f}x"))
            top += _BAR + _GAP
        top += _GROUP
    one = _LEFT + scale
    parts.insert(0, f'<line class="axis" x1="{one:.1f}" x2="{one:.1f}" y1="{_TOP - 6}" y2="{top - _GROUP}"/>')
    title = "Speed, sentence-transformers at its default = 1"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
            f'role="img" aria-label="{escape(title)}">',
            f"<style>{_STYLE}</style>",
            _text(12, 22, title, "title"),
            _text(12, 40, results.identity["machine"]["processor"], "quiet"),
            *parts,
            "</svg>\n",
        ]
    )


def _bars(row: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Return (name, class, ratio) of each bar. Float32 is there for its numbers, and would make the others small."""
    found: list[tuple[str, str, float]] = []
    for run in row["runs"]:
        if "vs_default" not in run or " fp32" in run["name"]:
            continue
        own = run["name"].startswith("embrief")
        look = "other" if not own else "int8" if "int8" in run["name"] else "embrief"
        found.append((run["name"], look, run["vs_default"]))
    return found


def _title(row: dict[str, Any]) -> str:
    return f"{row['title']} ({row['texts']} texts, {row['layers']} layers)"


def _text(x: float, y: float, text: str, look: str = "", anchor: str = "start") -> str:
    chosen = f' class="{look}"' if look else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{chosen}>{escape(text)}</text>'
