"""How the commands print: tables that survive any terminal, sizes for people, JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts as they are: `[brackets]` are no markup, `:names:` no emoji."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def table(*columns: str, title: str | None = None, padding: int = 1) -> Table:
    """Return an empty table in the style of all commands. Long cells are folded, not cut."""
    from rich import box
    from rich.table import Table

    shown = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, padding),
    )
    for name in columns:
        shown.add_column(name, overflow="fold")
    return shown


def print_table(out: Console, shown: Table) -> None:
    """Print a table without the blanks that would fill each line to its end."""
    with out.capture() as captured:
        out.print(shown)
    for line in captured.get().rstrip().splitlines():
        out.file.write(line.rstrip() + "\n")


def plain(text: str) -> str:
    """Return `text` with everything that could steer a terminal replaced; for texts that others wrote."""
    return "".join(character if character.isprintable() else " " for character in text)


def print_line(out: Console, text: str, style: str | None = None) -> None:
    """Print a line that the terminal breaks, and not this: a command must survive being copied."""
    out.print(plain(text), style=style, soft_wrap=True)


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit in ("bytes", "KiB") or count >= 100 else f"{count:.1f} {unit}"


def yes_no(value: bool) -> str:
    """Return `yes` or `no`."""
    return "yes" if value else "no"


def print_json(data: Any) -> None:
    """Print plain values as JSON."""
    print(json.dumps(data, indent=2))
