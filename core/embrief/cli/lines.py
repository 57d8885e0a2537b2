"""How commands print that may run for somebody else's terminal: lines, with colours only where they are shown."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any, Literal

from embrief.cli.output import plain
from embrief.cli.terminal import terminal

if TYPE_CHECKING:
    from typing import TextIO

Style = Literal["", "bold", "dim", "cyan", "green", "yellow", "match"]
_CODES = {"bold": "1", "dim": "2", "cyan": "36", "green": "32", "yellow": "33", "match": "1;33"}


def styled(text: str, style: Style) -> str:
    """Return a text for the terminal: nothing in it can steer one, and it is coloured where colours are shown."""
    shown = plain(text)
    return f"\x1b[{_CODES[style]}m{shown}\x1b[0m" if style and shown and terminal().colour else shown


def line(*parts: str, error: bool = False) -> None:
    """Print a line made of what `styled` returned."""
    here = terminal()
    out = here.err if error else here.out
    out.write("".join(parts) + "\n")
    out.flush()


def print_json(data: Any, *, compact: bool = False) -> None:
    """Print plain values as JSON: for people too, or in one line."""
    here = terminal()
    here.out.write(json.dumps(data, indent=None if compact else 2) + "\n")
    here.out.flush()


def can_show(text: str, out: TextIO) -> bool:
    """Return whether a stream's encoding has these characters."""
    try:
        text.encode(getattr(out, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def fitting(text: str, cells: int) -> int:
    """Return how many of a text's first characters fit into so many columns of a terminal."""
    for place, character in enumerate(text):
        cells -= 2 if unicodedata.east_asian_width(character) in "FW" else 0 if unicodedata.combining(character) else 1
        if cells < 0:
            return place
    return len(text)


class Status:
    """One line that is written again and again, on a terminal's stderr; elsewhere nothing."""

    def __init__(self) -> None:
        """Look where it would be shown."""
        here = terminal()
        self._err, self._width = here.err, max(here.width, 20)
        self._shown = here.err.isatty()
        self._last = ""

    def show(self, text: str) -> None:
        """Show this instead of what stands there."""
        shown = plain(text)
        shown = shown[: fitting(shown, self._width - 1)]
        if self._shown and shown != self._last:
            self._err.write("\r" + shown.ljust(len(self._last)))
            self._err.flush()
            self._last = shown

    def clear(self) -> None:
        """Leave nothing there."""
        if self._last:
            self._err.write("\r" + " " * len(self._last) + "\r")
            self._err.flush()
            self._last = ""
