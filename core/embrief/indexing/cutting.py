"""Where a text is cut so that each piece has at most so many characters, at places that mean something."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from embrief.errors import MissingDependencyError
from embrief.indexing.openings import Openings
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from embrief.indexing.documents import Document
    from embrief.indexing.lines import Lines

Span = tuple[int, int]
"""First character, and the one behind the last."""

_BLOCK = 32_000
"""Characters that a splitter gets at once: for some texts its time grows with the square of their length, or worse."""
_FILLED = r"[^\s)}\]]"
# Where a longer text is parted, the best place first: at a blank line before what is not indented, or only a little.
_SEAMS = [
    re.compile(pattern)
    for pattern in (
        rf"\n[ \t]*\r?\n(?={_FILLED})",
        rf"[\r\n](?={_FILLED})",
        rf"\n[ \t]*\r?\n(?=(?: {{1,4}}|\t){_FILLED})",
        r"\n[ \t]*\r?\n",
        r"\n|\r(?!\n)",
        r"\s",
        r"(?s:.)",
    )
]
_SMALL = 8
"""A piece of less than one of so many parts of the capacity is joined to the next one, where both fit."""
# Grammars in wheels with more than one, or with a name of their own.
_GRAMMARS = {
    "php": ("tree_sitter_php", "language_php"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
}


class Cutter:
    """Cuts one document."""

    def __init__(self, document: Document, lines: Lines) -> None:
        """Look for what stays together, once per document.

        Args:
            document: The document.
            lines: The lines of its text.

        Raises:
            MissingDependencyError: semantic-text-splitter is not installed.
        """
        self._text = document.text
        self._splitter = _splitter(document)
        self._openings = Openings(document.text, lines, document.kind, document.language)

    def cut(self, span: Span, capacity: int) -> list[Span]:
        """Return a piece of the text in pieces of at most `capacity` characters, one or more.

        Together they are the whole of it, with blanks.
        """
        start, end = span
        if end - start <= capacity:
            return [span]
        places = self._places(span, capacity)
        pieces: list[Span] = []
        for piece in pairwise([start, *self._moved(places, span, capacity), end]):
            pieces += [piece] if piece[1] - piece[0] <= capacity else self._halved(piece, capacity)
        return _joined(pieces, capacity)

    def _places(self, span: Span, capacity: int) -> list[int]:
        """Return where the splitter would cut, without the ends."""
        splitter = self._splitter(capacity)
        places: list[int] = []
        for start, end in _blocks(self._text, span, max(_BLOCK, 8 * capacity)):
            places += [start + at for at, _ in splitter.chunk_indices(self._text[start:end])]
        return places[1:]

    def _moved(self, places: Sequence[int], span: Span, capacity: int) -> list[int]:
        found: list[int] = []
        for place in places:
            before = self._openings.before(place, capacity)
            if (found[-1] if found else span[0]) < before < span[1]:
                found.append(before)
        return found

    def _halved(self, span: Span, capacity: int) -> list[Span]:
        """Return the pieces of what has become too long by what it begins with, as few as possible."""
        start, end = span
        fine = self._places(span, max(1, capacity // 2))
        places = self._moved(fine, span, capacity)
        # Where even an opening is longer than the capacity, it is cut where the splitter would.
        if max(last - first for first, last in pairwise([start, *places, end])) > capacity:
            places = sorted({*places, *fine})
        pieces: list[Span] = []
        for place in [*places, end]:
            if pieces and place - pieces[-1][0] <= capacity:
                pieces[-1] = (pieces[-1][0], place)
            else:
                pieces.append((pieces[-1][1] if pieces else start, place))
        return pieces


def _blocks(text: str, span: Span, most: int) -> list[Span]:
    """Return a piece of a text in blocks of at most so many characters."""
    start, end = span
    blocks: list[Span] = []
    while end - start > most:
        for seam in _SEAMS:
            ends = [found.end() for found in seam.finditer(text, start + most // 2, start + most)]
            if ends:
                blocks.append((start, ends[-1]))
                start = ends[-1]
                break
    return [*blocks, (start, end)]


def _joined(pieces: Sequence[Span], capacity: int) -> list[Span]:
    """Join small pieces to their neighbours: they say little by themselves."""
    found: list[Span] = []
    for start, end in pieces:
        if found:
            first, last = found[-1]
            if end - first <= capacity and min(last - first, end - start) < capacity // _SMALL:
                found[-1] = (first, end)
                continue
        found.append((start, end))
    return found


def _splitter(document: Document) -> Callable[[int], Any]:
    """Return what makes a splitter for a number of characters; it keeps blanks, so that nothing is lost between."""
    try:
        from semantic_text_splitter import CodeSplitter, MarkdownSplitter, TextSplitter
    except ImportError as error:
        raise MissingDependencyError(
            "cutting texts needs the package semantic-text-splitter, which is not installed; run "
            f"{install_command('index')}"
        ) from error

    if document.kind == "markdown":
        return lambda capacity: MarkdownSplitter(capacity, trim=False)
    grammar = _grammar(document.language) if document.kind == "code" and document.language else None
    if grammar is not None:
        return lambda capacity: CodeSplitter(grammar, capacity, trim=False)
    return lambda capacity: TextSplitter(capacity, trim=False)


def _grammar(language: str) -> object | None:
    """Return a tree-sitter grammar; `None` where its wheel is not there, and the code is cut as text."""
    module, name = _GRAMMARS.get(language, (f"tree_sitter_{language}", "language"))
    try:
        made: Callable[[], object] = getattr(importlib.import_module(module), name)
    except ImportError:
        return None
    return made()
