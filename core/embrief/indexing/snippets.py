"""The lines of a passage that say why it was found, with the question's words marked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embrief.indexing.lines import Lines

if TYPE_CHECKING:
    from embrief.indexing.searching import Hit

_WORD = re.compile(r"\w+")
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """about after all also and any are because been before but can could did does for from had has have how into
        its not should such than that the their them then there these they this those was were what when where which
        while who why will with would you your""",
    )
)
_LEAST = 3
"""Letters of a word that says something; of scripts without blanks, any number."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a snippet."""

    number: int | None
    """In the file; `None` where the text is not the file's lines."""
    text: str
    marks: tuple[tuple[int, int], ...]
    """Where words of the question begin and end in it, in characters."""


def words_of(question: str) -> list[str]:
    """Return the words of a question that are worth looking for, in lower case, each once."""
    words = (word.casefold() for word in _WORD.findall(question))
    kept = (word for word in words if word not in _COMMON and (len(word) >= _LEAST or not word.isascii()))
    return list(dict.fromkeys(kept))


def snippet(hit: Hit, question: str, count: int = 3) -> list[Line]:
    """Return the lines in a row that hold most of the question's words; of equal ones, the first.

    Args:
        hit: What was found. If it has a context, that is all returned.
        question: The question.
        count: Lines at most. Blank ones at both ends are left out.
    """
    words = words_of(question)
    if hit.context is not None:
        first, texts = hit.context.start_line, list(hit.context.lines)
    else:
        first, texts = hit.start_line, list(Lines(hit.text))
    # A word may stand behind an underscore, and go on: `copy` marks `deep_copying`.
    pattern = re.compile("|".join(rf"(?<![^\W_]){re.escape(word)}[^\W_]*" for word in words), re.IGNORECASE)
    lines = [
        Line(first + place if hit.has_lines else None, text, _marks(text, pattern) if words else ())
        for place, text in enumerate(texts)
    ]
    if hit.context is not None:
        return lines
    start = max(range(len(lines)), key=lambda place: (_worth(lines[place : place + count], words), -place), default=0)
    return _without_blanks(lines[start : start + count])


def _worth(lines: list[Line], words: list[str]) -> tuple[int, int, bool]:
    """Return how many different words are marked, how many marks there are, and whether the first line has text."""
    marked = [line.text[begin:end].casefold() for line in lines for begin, end in line.marks]
    different = sum(any(text.startswith(word) for text in marked) for word in words)
    return different, len(marked), bool(lines[0].text.strip())


def _marks(text: str, pattern: re.Pattern[str]) -> tuple[tuple[int, int], ...]:
    return tuple(found.span() for found in pattern.finditer(text))


def _without_blanks(lines: list[Line]) -> list[Line]:
    while lines and not lines[0].text.strip():
        lines = lines[1:]
    while lines and not lines[-1].text.strip():
        lines = lines[:-1]
    return lines
