"""Lines as editors count them, and headings."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_END = re.compile(r"\r\n|\n|\r")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NO_PARAGRAPH = re.compile(r"\s*$| {0,3}(?:[-*+>|]|\d+[.)])|(?: {4}|\t)")
_LINK = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_ATTRIBUTES = re.compile(r"\s*\{[^{}]*\}\s*$")


class Lines:
    """Where the lines of a text begin. A line ends at LF, CR LF or CR; no other character ends one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.starts = [0, *(found.end() for found in _END.finditer(text))]
        if len(self.starts) > 1 and self.starts[-1] == len(text):
            self.starts.pop()

    def __len__(self) -> int:
        return len(self.starts)

    def number(self, offset: int) -> int:
        """Return the line that a character is in, counted from 1."""
        return bisect_right(self.starts, offset)

    def start(self, offset: int) -> int:
        """Return where the line begins that a character is in."""
        return self.starts[self.number(offset) - 1]

    def __getitem__(self, number: int) -> str:
        """Return a line, counted from 1, without its end."""
        end = self.starts[number] if number < len(self.starts) else len(self._text)
        return self._text[self.starts[number - 1] : end].rstrip("\r\n")

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(1, len(self) + 1))


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a Markdown text."""

    line: int
    """Its line, counted from 1."""
    level: int
    """1 to 6."""
    words: str
    """What it says, without marks."""


def headings(lines: Lines) -> list[Heading]:
    """Return the headings of a Markdown text, in order: lines with `#` and underlined ones, outside of code."""
    found: list[Heading] = []
    before = ""
    for number, line, part in _parts(lines):
        if part != "text":
            before = ""
        elif mark := _HEADING.match(line):
            found.append(Heading(number, len(mark[1]), _plain(mark[2] or "")))
            before = ""
        elif before and (under := _UNDERLINE.match(line)):
            found.append(Heading(number - 1, 1 if under[1][0] == "=" else 2, _plain(before)))
            before = ""
        else:
            before = "" if _NO_PARAGRAPH.match(line) else line
    return [heading for heading in found if heading.words]


def fences(lines: Lines) -> tuple[set[int], set[int]]:
    """Return the lines of a Markdown text that open blocks of code, and those that close them."""
    parts = [(number, part) for number, _, part in _parts(lines)]
    return {number for number, part in parts if part == "open"}, {number for number, part in parts if part == "close"}


def _parts(lines: Lines) -> Iterator[tuple[int, str, Literal["text", "open", "code", "close"]]]:
    """Yield the lines below the front matter with what they are part of."""
    fence = ""
    for number in range(_after_front_matter(lines), len(lines) + 1):
        line = lines[number]
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip(" \t`~"):
                fence = ""
                yield number, line, "close"
            else:
                yield number, line, "code"
        elif mark:
            fence = mark[1]
            yield number, line, "open"
        else:
            yield number, line, "text"


def front_matter_title(lines: Lines) -> str | None:
    """Return the title that the YAML above a Markdown text gives, `None` for none."""
    for number in range(2, _after_front_matter(lines) - 1):
        name, colon, value = lines[number].partition(":")
        if colon and name.strip().lower() == "title":
            return value.strip().strip("\"'").strip() or None
    return None


def _after_front_matter(lines: Lines) -> int:
    """Return the first line, counted from 1, that is below YAML between two lines of `---`."""
    if lines[1].rstrip() == "---":
        for number in range(2, len(lines) + 1):
            if lines[number].rstrip() in ("---", "..."):
                return number + 1
    return 1


def _plain(words: str) -> str:
    words = _LINK.sub(r"\1", _ATTRIBUTES.sub("", words))
    return " ".join(words.replace("`", "").replace("**", "").split())
