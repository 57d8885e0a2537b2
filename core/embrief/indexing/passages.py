"""A document as passages: as long as a model's tokenizer allows, cut where the text itself has its parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from embrief.errors import ArgumentError
from embrief.indexing.cutting import Cutter, Span
from embrief.indexing.documents import Document, Passage
from embrief.indexing.lines import Lines
from embrief.indexing.titles import LONGEST, Titles

_SAMPLE = 1_500
"""Characters of one sample."""
_SAMPLES = 6
"""Samples by which the characters per token are estimated; all of a text that is not longer than them."""
_FILLED = 0.92
"""Share of the estimate that is used: most pieces then fit at the first attempt."""
_HARD = 64
"""Characters of a piece for which, if it is still too long, its title is to blame."""
_FILLING = re.compile(r"\S")


class Count(Protocol):
    """Counts tokens by the tokenizer of the model that will embed."""

    def __call__(self, texts: Sequence[str], titles: Sequence[str | None]) -> Sequence[int]:
        """Return, for each text, the tokens of the whole document as it is rendered: with prompt and special tokens.

        Args:
            texts: The texts.
            titles: A title for each, or `None`.
        """
        ...


def split(document: Document, count: Count, max_tokens: int = 512) -> list[Passage]:
    """Cut a document into passages; together they hold all of its text but blanks.

    Markdown is cut at headings, code at definitions, other text at paragraphs and sentences, and each of them inside
    these only where one is too long. A passage of a PDF is never of two pages.

    Cutting goes by characters, since a tokenizer is slow and asked of whole passages only: how many characters make a
    token is estimated, and a piece that has too many tokens is cut again. So every passage is counted at last.

    Args:
        document: What is cut.
        count: The tokenizer.
        max_tokens: Tokens of a passage at most, as it is rendered.

    Raises:
        ArgumentError: `max_tokens` leaves no room for a single character beside the prompt.
        MissingDependencyError: semantic-text-splitter is not installed.
    """
    if max_tokens < 1:
        raise ArgumentError(f"max_tokens={max_tokens} is no length of a passage; give 1 or more")
    return _Splitting(document, count, max_tokens).passages()


class _Splitting:
    """The splitting of one document."""

    def __init__(self, document: Document, count: Count, max_tokens: int) -> None:
        self._document, self._count, self._max_tokens = document, count, max_tokens
        self._lines = Lines(document.text)
        # A title leaves most of a passage to the text.
        self._titles = Titles(document, self._lines, min(LONGEST, max_tokens // 2))
        self._cutter = Cutter(document, self._lines)
        self._untitled: set[Span] = set()

    def passages(self) -> list[Passage]:
        text = self._document.text
        pages = [*self._document.pages, len(text)] if self._document.pages else [0, len(text)]
        spans = [span for page in pairwise(pages) if (span := self._filled(page))]
        if not spans:
            return []
        capacity = self._capacity(spans)
        pieces = [piece for span in spans for piece in self._pieces(span, capacity)]
        done: list[Span] = []
        while pieces:
            tokens = self._tokens(pieces)
            again: list[Span] = []
            for piece, number in zip(pieces, tokens, strict=True):
                if number <= self._max_tokens:
                    done.append(piece)
                else:
                    again += self._smaller(piece, number)
            pieces = again
        return [self._passage(span) for span in sorted(done)]

    def _capacity(self, spans: Sequence[Span]) -> int:
        """Return how many characters of this document make a passage, by the number of tokens of samples."""
        total = sum(end - start for start, end in spans)
        text = self._document.text
        if total <= _SAMPLE * _SAMPLES:
            samples = [text[start:end] for start, end in spans]
        else:
            first, last = spans[0][0], spans[-1][1]
            step = (last - first - _SAMPLE) // (_SAMPLES - 1)
            samples = [text[at : at + _SAMPLE] for at in range(first, first + step * _SAMPLES, step)]
        # A letter, for what stands around each text.
        titles = [self._titles.of(*self._rows(spans[0]))] * (len(samples) + 1)
        *tokens, around = self._count([*samples, "a"], titles)
        inside = sum(tokens) - len(tokens) * (around - 1)
        room = max(1, self._max_tokens - (around - 1))
        return max(1, int(_FILLED * room * sum(map(len, samples)) / max(1, inside)))

    def _pieces(self, span: Span, capacity: int) -> list[Span]:
        return [filled for piece in self._cutter.cut(span, capacity) if (filled := self._filled(piece))]

    def _smaller(self, piece: Span, tokens: int) -> list[Span]:
        """Return what has too many tokens in smaller pieces, or without its title."""
        length = piece[1] - piece[0]
        if length <= _HARD and piece not in self._untitled and self._title(piece) is not None:
            self._untitled.add(piece)
            return [piece]
        if length == 1:
            raise ArgumentError(
                f"max_tokens={self._max_tokens} is too little: with the model's prompt, one character has {tokens} "
                "tokens; give more"
            )
        # Parts of equal length, and not a full one and a rest.
        parts = -(-tokens * 11 // (self._max_tokens * 10))
        return self._pieces(piece, max(1, min(length - 1, length * 11 // (max(2, parts) * 10))))

    def _tokens(self, pieces: Sequence[Span]) -> Sequence[int]:
        texts = [self._document.text[start:end] for start, end in pieces]
        return self._count(texts, [self._title(piece) for piece in pieces])

    def _title(self, piece: Span) -> str | None:
        return None if piece in self._untitled else self._titles.of(*self._rows(piece))

    def _rows(self, span: Span) -> Span:
        return self._lines.number(span[0]), self._lines.number(span[1] - 1)

    def _filled(self, span: Span) -> Span | None:
        """Return a span without blank lines above it and blanks behind it; `None` if there is nothing else."""
        start, end = span
        found = _FILLING.search(self._document.text, start, end)
        if found is None:
            return None
        # Code keeps the blanks that its first line begins with.
        return max(start, self._lines.start(found.start())), start + len(self._document.text[start:end].rstrip())

    def _passage(self, span: Span) -> Passage:
        text = self._document.text[span[0] : span[1]]
        first, last = self._rows(span)
        title = self._title(span)
        if self._document.lines:
            return Passage(text, self._document.lines[first - 1], self._document.lines[last - 1], title=title)
        if self._document.pages:
            page = max(number for number, at in enumerate(self._document.pages, 1) if at <= span[0])
            above = self._lines.number(self._document.pages[page - 1]) - 1
            return Passage(text, first - above, last - above, page, title)
        return Passage(text, first, last, title=title)
