"""Parts of pictures as SVG that is readable on light and dark pages."""

from __future__ import annotations

from xml.sax.saxutils import escape

WIDTH = 760
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.quiet { fill: #57606a }
.axis { stroke: #8c959f; stroke-dasharray: 2 3 }
.line { stroke: #24292f }
.embrief { fill: #4051b5 } .lighter { fill: #7b8ae0 } .other { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .quiet { fill: #9198a1 } .axis { stroke: #656c76 } .line { stroke: #e6edf3 }
.embrief { fill: #8090f0 } .lighter { fill: #5566c8 } .other { fill: #59636e }
}
"""


def text(x: float, y: float, content: str, look: str = "", anchor: str = "start") -> str:
    """Return a text; any characters are safe."""
    chosen = f' class="{look}"' if look else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{chosen}>{escape(content)}</text>'


def bar(x: float, y: float, width: float, height: float, look: str) -> str:
    """Return a horizontal bar."""
    return f'<rect class="{look}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="2"/>'


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    """Return a straight line."""
    return f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def page(title: str, subtitle: str, parts: list[str], height: float) -> str:
    """Return the whole picture, with its title and a line under it; the parts start 54 pixels from the top."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
            f'height="{height:.0f}" role="img" aria-label="{escape(title)}">',
            f"<style>{_STYLE}</style>",
            text(12, 22, title, "title"),
            text(12, 40, subtitle, "quiet"),
            *parts,
            "</svg>\n",
        ]
    )
