"""What stays with what comes after it: decorators with their function, a heading with its text."""

from __future__ import annotations

import re

from embrief.indexing.definitions import indent
from embrief.indexing.lines import Lines, fences, headings

_DECORATORS = ("@", "#[", "#![", "template<", "template <")
_COMMENTS = ("//", "/*", "*", "#", "--", ";;")
_CLOSERS = (")", "]", "}", ">")
_OPENS = (":", "{", "(", "[", "=>", "do", "then")
_BLANK = re.compile(r"\s*$")


class Openings:
    """Where a text may be cut: a place that was chosen moves to before what belongs to what comes behind it."""

    def __init__(self, text: str, lines: Lines, kind: str, language: str) -> None:
        """Look for headings and fences, once per document."""
        self._text, self._lines, self._is_code = text, lines, kind == "code"
        # C# writes attributes in brackets.
        self._decorators = (*_DECORATORS, "[") if language == "c_sharp" else _DECORATORS
        self._above: set[int] = set()
        self._closing: set[int] = set()
        if kind == "markdown":
            opening, self._closing = fences(lines)
            found = [heading.line for heading in headings(lines)]
            # The line of `===` below a heading is part of it.
            under = {line + 1 for line in found if not lines[line].lstrip().startswith("#")}
            self._above = {*opening, *found, *under}

    def before(self, place: int, capacity: int) -> int:
        """Return where to cut instead of at a place; it may be where the text before it begins, and so no cut at all.

        Args:
            place: A character.
            capacity: Characters of a passage. What would take a good part of that is not kept together.
        """
        place = self._tidy(place, capacity)
        number = self._lines.number(place)
        if place == len(self._text) or self._lines.start(place) != place:
            return place
        first = self._filled(number, 1)
        if first is None:
            return place
        if first in self._closing:
            # Behind the closing fence instead: its line alone says nothing.
            return self._lines.starts[first] if first < len(self._lines) else len(self._text)
        moved = first
        while (above := self._one_up(moved)) is not None:
            if self._lines.starts[first - 1] - self._lines.starts[above - 1] > capacity // 3:
                break
            moved = above
        return place if moved == first else self._lines.starts[moved - 1]

    def _tidy(self, place: int, capacity: int) -> int:
        """Return the line's beginning, or the next one's, where only blanks are between; in code for any short line."""
        number = self._lines.number(place)
        start = self._lines.starts[number - 1]
        end = self._lines.starts[number] if number < len(self._lines) else len(self._text)
        if _BLANK.match(self._text, start, place):
            return start
        if _BLANK.match(self._text, place, end):
            return end
        return start if self._is_code and end - start <= capacity // 4 else place

    def _one_up(self, number: int) -> int | None:
        """Return the line from which on everything belongs to a line, if that is above it."""
        above = self._filled(number - 1, -1)
        if above is None:
            return None
        if not self._is_code:
            return above if above in self._above else None
        depth, line = indent(self._lines[number]), self._lines[above]
        if indent(line) < depth and line.rstrip().endswith(_OPENS):
            return self._statement(above, indent(line))
        if above != number - 1:
            return None
        words = line.lstrip()
        if indent(line) in (depth, depth + 1) and words.startswith((*self._decorators, *_COMMENTS)):
            return above
        if indent(line) >= depth:
            # The end of a decorator of several lines.
            top = self._statement(above, depth)
            if top is not None and self._lines[top].lstrip().startswith(self._decorators):
                return top
        return None

    def _statement(self, number: int, depth: int) -> int | None:
        """Return the first line of a statement that has a line, and whose own indentation is known."""
        for line in range(number, 0, -1):
            words = self._lines[line]
            if not words.strip() or indent(words) < depth:
                return None
            if indent(words) == depth and not words.lstrip().startswith(_CLOSERS):
                return line
        return None

    def _filled(self, number: int, step: int) -> int | None:
        while 1 <= number <= len(self._lines):
            if self._lines[number].strip():
                return number
            number += step
        return None
