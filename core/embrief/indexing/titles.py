"""What a model is told that a passage is from: headings above it, or what its code defines."""

from __future__ import annotations

from collections.abc import Sequence

from embrief.indexing.definitions import Definition, definitions
from embrief.indexing.documents import Document
from embrief.indexing.lines import Heading, Lines, headings

LONGEST = 200
"""Characters of a title; of a longer one the middle goes."""
_SEPARATOR = " > "


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
        self.headings: Sequence[Heading] = headings(lines) if document.kind == "markdown" else ()
        code = document.kind == "code"
        self._definitions = definitions(document.text, lines, document.language) if code else []

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
        row: list[Heading] = []
        for heading in self.headings:
            # Several headings at the top of a passage, one below the other, all are its own.
            if heading.line > line and not (row and self._directly_below(row[-1], heading, line)):
                break
            while row and row[-1].level >= heading.level:
                row.pop()
            row.append(heading)
        words = [heading.words for heading in row]
        title = self._document.title
        return words if not title or title in words[:1] else [title, *words]

    def _directly_below(self, above: Heading, heading: Heading, line: int) -> bool:
        if above.line < line or above.level >= heading.level:
            return False
        return not any(self._lines[number].strip(" =-") for number in range(above.line + 1, heading.line))

    def _names(self, start: int, end: int) -> list[str]:
        around: Definition | None = None
        inside: list[Definition] = []
        for item in self._definitions:
            if item.start < start <= item.end:
                around = item
            elif start <= item.start <= end and not (inside and item.start <= inside[-1].end):
                inside.append(item)
        names = [item.name for item in inside]
        if around is None or (inside and inside[0].start == start) or names[:1] == [around.name]:
            return names
        # A class is named by its methods.
        return names if names and names[0].startswith(f"{around.name}.") else [around.name, *names]

    def _shortened(self, parts: Sequence[str], separator: str) -> str | None:
        left = [part for part in parts if part]
        cut = False
        while len(separator.join(left)) > self._longest and len(left) > 2:
            left.pop(len(left) // 2 if separator == _SEPARATOR else -1)
            cut = True
        if cut and separator != _SEPARATOR:
            left.append("…")
        title = separator.join(left)
        return (title if len(title) <= self._longest else title[: self._longest - 1].rstrip() + "…") or None
