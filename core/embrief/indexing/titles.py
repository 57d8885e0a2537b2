"""What a model is told that a passage is from: headings above it, or what its code defines."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from embrief.indexing.definitions import Definition, definitions
from embrief.indexing.lines import Heading, Lines, headings

if TYPE_CHECKING:
    from embrief.indexing.documents import Document

LONGEST = 200
"""Characters of a title; of a longer one the middle goes."""
_SEPARATOR = " > "
_NAMES = 20
"""Names of what code defines that are looked at for one title."""


class Titles:
    """The titles of a document's passages."""

    def __init__(self, document: Document, lines: Lines, longest: int = LONGEST) -> None:
        """Look for headings or definitions, once per document.

        Args:
            document: The document.
            lines: The lines of its text.
            longest: Characters of a title.
        """
        self._document, self._lines, self._longest = document, lines, longest
        self._headings: Sequence[Heading] = headings(lines) if document.kind == "markdown" else ()
        self._heading_lines = [heading.line for heading in self._headings]
        self._above = _above(self._headings)
        code = document.kind == "code"
        self._definitions = definitions(document.text, lines, document.language) if code else []
        self._starts = [item.start for item in self._definitions]
        self._around = _around(self._definitions)

    def of(self, start: int, end: int) -> str | None:
        """Return the title of what is from one line to another, counted from 1, inclusive; `None` for none."""
        if self._document.kind == "markdown":
            return self._shortened(self._headings_above(start), _SEPARATOR)
        if self._document.kind == "code":
            names = self._names(start, end)
            head = self._document.title or ""
            return self._shortened([f"{head}: {names[0]}" if names else head, *names[1:]], ", ")
        return self._shortened([self._document.title or ""], _SEPARATOR)

    def _headings_above(self, line: int) -> list[str]:
        """Return the document's title and the headings that a line is under, also those it begins with."""
        at = bisect_right(self._heading_lines, line) - 1
        # Several headings at the top of a passage, one below the other, all are its own.
        while 0 <= at < len(self._headings) - 1 and self._directly_below(at, line):
            at += 1
        words: list[str] = []
        while at >= 0:
            words.insert(0, self._headings[at].words)
            at = self._above[at]
        title = self._document.title
        return words if not title or title in words[:1] else [title, *words]

    def _directly_below(self, at: int, line: int) -> bool:
        above, heading = self._headings[at : at + 2]
        if above.line < line or above.level >= heading.level:
            return False
        return not any(self._lines[number].strip(" =-") for number in range(above.line + 1, heading.line))

    def _names(self, start: int, end: int) -> list[str]:
        first = bisect_left(self._starts, start)
        inside: list[Definition] = []
        for item in self._definitions[first:]:
            if item.start > end or len(inside) == _NAMES:
                break
            if not (inside and item.start <= inside[-1].end):
                inside.append(item)
        # The innermost one that began above, and has not ended.
        at = first - 1
        while at >= 0 and self._definitions[at].end < start:
            at = self._around[at]
        names = list(dict.fromkeys(item.name for item in inside))  # Rust has a type and what it implements apart
        if at < 0 or (inside and inside[0].start == start):
            return names
        # A class is named by its methods.
        around = self._definitions[at].name
        return names if names and names[0].startswith(f"{around}.") else [around, *names]

    def _shortened(self, parts: Sequence[str], separator: str) -> str | None:
        left = [part for part in parts if part]
        cut = False
        while len(separator.join(left)) > self._longest and len(left) > 2:
            left.pop(len(left) // 2 if separator == _SEPARATOR else -1)
            cut = True
        if cut and separator != _SEPARATOR:
            left.append("…")
        title = separator.join(left)
        return shortened(title, self._longest) or None


def shortened(title: str, longest: int = LONGEST) -> str:
    """Return a title of so many characters at most; of a longer one the end goes."""
    return title if len(title) <= longest else title[: longest - 1].rstrip() + "…"


def _above(found: Sequence[Heading]) -> list[int]:
    """Return, for each heading, the place of the one that it is under; -1 for none."""
    above: list[int] = []
    for index, heading in enumerate(found):
        at = index - 1
        while at >= 0 and found[at].level >= heading.level:
            at = above[at]
        above.append(at)
    return above


def _around(found: Sequence[Definition]) -> list[int]:
    """Return, for each definition, the place of the one that it is in; -1 for none."""
    around: list[int] = []
    for index, item in enumerate(found):
        at = index - 1
        while at >= 0 and found[at].end < item.start:
            at = around[at]
        around.append(at)
    return around
