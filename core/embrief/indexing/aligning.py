"""Where the lines of an extracted text are from, by finding their words in the file again."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

_ANCHOR = 16
"""Letters and digits that a line has at least to be found by itself, if it is there only once."""
_HEAD = 24
"""Letters and digits of a line's beginning that are enough to find it between its neighbours."""
_WORDS = re.compile(r"[^\W_]+")
_BREAKS = re.compile(r"\r\n|\n|\r")


class Written:
    """Letters and digits of a file in a row, without anything between them, with the line that each is on."""

    def __init__(self, pieces: Sequence[tuple[int, str]]) -> None:
        """Take them.

        Args:
            pieces: The line that a piece begins on, and its characters, which may go on over further lines.
        """
        parts: list[str] = []
        self._starts: list[int] = []
        self._lines: list[int] = []
        length = 0
        for line, text in pieces:
            at = 0
            for row in [*_BREAKS.finditer(text), None]:
                letters = _letters(text[at : row.start() if row else len(text)])
                if letters:
                    parts.append(letters)
                    self._starts.append(length)
                    self._lines.append(line)
                    length += len(letters)
                if row is not None:
                    at, line = row.end(), line + 1
        self.letters = "".join(parts)

    def line(self, place: int) -> int:
        """Return the line that a letter is on."""
        return self._lines[bisect_right(self._starts, place) - 1] if self._starts else 1


def align(lines: Sequence[str], written: Written) -> tuple[int, ...]:
    """Return the line of the file that each line of a text begins on; never less than that of the line before it.

    Long lines that are there once are found first. The others are looked for between them, in order; where a line is
    not found it counts as standing where the one before it does.
    """
    keys = [_letters(line) for line in lines]
    places: list[int | None] = [None] * len(keys)
    single = [(index, _once(key, written.letters)) for index, key in enumerate(keys)]
    for index, anchor in _rising([(index, place) for index, place in single if place is not None]):
        places[index] = anchor
    # Above the first anchor the nearest one counts: menus at the top of a page repeat its headings.
    first = next((index for index, place in enumerate(places) if place is not None), 0)
    below = places[first] if places and places[first] is not None else None
    for index in range(first - 1, -1, -1):
        if keys[index] and below is not None:
            above = written.letters.rfind(keys[index], 0, below)
            if above >= 0:
                places[index] = below = above
    _fill(keys, places, first, written.letters)
    found: list[int] = []
    known = next((place for place in places if place is not None), 0)
    for place in places:
        known = known if place is None else max(known, place)
        found.append(written.line(known))
    return tuple(found)


def _fill(keys: Sequence[str], places: list[int | None], first: int, letters: str) -> None:
    """Look for the lines behind the first anchor, each behind the one before it and before the next anchor."""
    limits = [len(letters)] * (len(keys) + 1)
    for index in range(len(keys) - 1, -1, -1):
        anchor = places[index]
        limits[index] = limits[index + 1] if anchor is None else anchor
    at = 0
    for index in range(first, len(keys)):
        key, place = keys[index][:_HEAD], places[index]
        if place is None and key and (found := letters.find(key, at, limits[index + 1])) >= 0:
            places[index] = place = found
        if place is not None:
            at = place + len(key)


def _letters(text: str) -> str:
    return "".join(_WORDS.findall(text))


def _once(key: str, letters: str) -> int | None:
    if len(key) < _ANCHOR:
        return None
    place = letters.find(key)
    return place if place >= 0 and letters.find(key, place + 1) < 0 else None


def _rising(found: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest row of pairs, of all those in order, whose second number rises."""
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for index, (_, place) in enumerate(found):
        at = bisect_right(tails, place)
        before.append(ends[at - 1] if at else -1)
        tails[at : at + 1] = [place]
        ends[at : at + 1] = [index]
    row: list[tuple[int, int]] = []
    index = ends[-1] if ends else -1
    while index >= 0:
        row.append(found[index])
        index = before[index]
    return row[::-1]
