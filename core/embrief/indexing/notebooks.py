"""A Jupyter notebook as Markdown: its cells, code between fences; what cells have printed is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from embrief.errors import UnreadableFileError
from embrief.indexing.documents import Document
from embrief.indexing.lines import Lines, headings

_SOURCE = '"source":'


def read_notebook(text: str, name: str) -> Document:
    """Return the cells of a notebook.

    Args:
        text: The file.
        name: Its name, for messages.

    Raises:
        UnreadableFileError: It is damaged, or has no cells with text.
    """
    try:
        book = json.loads(text)
        cells = list(_cells(book))
        language = _language(book)
    except (ValueError, RecursionError):
        # Not the cause: its error holds the text.
        raise UnreadableFileError(
            f"{name!r} is no notebook that can be read (not the JSON of nbformat 4); open it in Jupyter and save it",
            reason="damaged",
        ) from None
    said: list[str] = []
    lines: list[int] = []
    file = _File(text)
    for kind, source in cells:
        rows = source.split("\n")
        numbers = file.places(rows)
        if kind == "code":
            fence = "~~~" if "```" in source else "```"
            rows = [f"{fence}{language}", *rows, fence]
            numbers = [numbers[0], *numbers, numbers[-1]]
        said += [*rows, ""]
        lines += [*numbers, numbers[-1]]
    if not said:
        raise UnreadableFileError(f"{name!r} has no cells with text; leave it out", reason="no text")
    document = "\n".join(said)
    rows_of_all = Lines(document)
    found = headings(rows_of_all)
    # The last, empty row ends no line of its own.
    places = tuple(lines[: len(rows_of_all)])
    return Document(document, "markdown", title=found[0].words if found else None, lines=places)


def _cells(book: Any) -> Iterator[tuple[str, str]]:
    """Yield kind and source of each cell that has some text.

    https://nbformat.readthedocs.io/en/latest/format_description.html: a source is a text, or a list of its lines.
    """
    cells = book["cells"] if isinstance(book, dict) and isinstance(book.get("cells"), list) else None
    if cells is None:
        raise ValueError("no list of cells")
    for cell in cells:
        if not isinstance(cell, dict):
            raise ValueError("a cell is no object")
        source = cell.get("source", "")
        source = "".join(part for part in source if isinstance(part, str)) if isinstance(source, list) else source
        if isinstance(source, str) and source.strip() and "\0" not in source:
            # Lone surrogates can be written in JSON, and in no UTF-8.
            clean = source.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            yield str(cell.get("cell_type")), clean.replace("\r\n", "\n").replace("\r", "\n")


def _language(book: Any) -> str:
    metadata = book.get("metadata")
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    language = kernel.get("language") if isinstance(kernel, dict) else None
    return language if isinstance(language, str) and language.isalnum() else "python"


class _File:
    """The file, in which the lines of cells are found again, one after the other."""

    def __init__(self, text: str) -> None:
        self._text, self._lines, self._at = text, Lines(text), 0

    def places(self, rows: list[str]) -> list[int]:
        """Return the line of the file for each line of the next cell that has text."""
        # What is inside a JSON string cannot hold the key itself: its quotation marks have backslashes.
        while (start := self._text.find(_SOURCE, self._at)) >= 0:
            self._at = start + len(_SOURCE)
            end = self._text.find(_SOURCE, self._at)
            if self._find(next(row for row in rows if row.strip()), None if end < 0 else end) is not None:
                break
        found = []
        for row in rows:
            place = self._find(row, None) if row.strip() else None
            if place is not None:
                self._at = place[1]
            found.append(self._lines.number(self._at if place is None else place[0]))
        return found

    def _find(self, row: str, before: int | None) -> tuple[int, int] | None:
        # As Jupyter writes it, or as Python's json does by default.
        written = {json.dumps(row, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True)}
        places = [(self._text.find(words, self._at, before), len(words)) for words in written]
        first, length = min((place for place in places if place[0] >= 0), default=(-1, 0))
        return None if first < 0 else (first, first + length)
