"""What indexing hands on from step to step: files found, documents read, passages cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["code", "html", "image", "markdown", "page", "pdf", "text"]
"""What a passage is from; `image`: the whole of a picture file, `page`: a page of a PDF as a picture."""
PICTURES: frozenset[str] = frozenset(("image", "page"))
"""The kinds whose passages are pictures: they have neither text nor lines."""
Pictures = Literal["none", "files", "pages"]
"""Which pictures are taken: none, picture files, or also every page of a PDF in the place of its text."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that is to be read."""

    path: Path
    """Where it is, absolute."""
    name: str
    """What it is called in the collection: its path below the folder that was given, with slashes."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says."""

    text: str
    """What is cut into passages: of text, Markdown and code the whole file but its byte order mark; of HTML, PDF and
    notebooks the text that was found."""
    kind: Kind
    language: str = ""
    """The grammar that cuts it, such as `python`; empty: none."""
    title: str | None = None
    """What it calls itself."""
    lines: tuple[int, ...] = ()
    """Of HTML and notebooks: the line of the file that each line of the text is from, counted from 1, never falling;
    empty: they are the same."""
    pages: tuple[int, ...] = ()
    """Of PDF: where each page's text begins, in characters; empty: there are no pages."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that is embedded by itself."""

    text: str
    """Exactly these characters of the document."""
    start_line: int
    """First line, in the file, counted from 1; of a page of a PDF."""
    end_line: int
    """Last line, inclusive."""
    page: int | None = None
    """Of PDF: the page that it begins on, counted from 1."""
    title: str | None = None
    """What a model with a place for titles is told: the document's title and the headings above the passage, or the
    file's name and what the code defines."""
