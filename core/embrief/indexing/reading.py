"""What a file says: its text, what it is, its title, and where its lines and pages are."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from embrief.errors import UnreadableFileError
from embrief.indexing.decoding import decode
from embrief.indexing.documents import Document, SourceFile
from embrief.indexing.html_pages import read_html
from embrief.indexing.kinds import MEGABYTE, NOTEBOOK, kind, size_limit, suffix
from embrief.indexing.lines import Lines, front_matter_title, headings
from embrief.indexing.notebooks import read_notebook
from embrief.indexing.pdf_files import read_pdf

_FIRST_LINE = 200
"""Characters of a file's beginning in which the line that says what runs it ends."""
_DECLARED = re.compile(rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""")
_DECLARED_IN = 1024  # https://html.spec.whatwg.org/multipage/parsing.html#prescan-a-byte-stream


def read(file: SourceFile) -> Document:
    """Read a file.

    Args:
        file: Which one. Its size may have changed since it was found; its limit holds for what is there now.

    Raises:
        UnreadableFileError: It is gone, may not be read, is too large, damaged or encrypted, or is no text.
        MissingDependencyError: A package that reads such files is not installed.
    """
    data = read_bytes(file)
    what, language = kind(file.name)
    if what == "pdf":
        return read_pdf(data, file.name)
    text = _text(data, file.name, what == "html")
    if what == "html":
        return read_html(text, file.name)
    if suffix(file.name) == NOTEBOOK:
        return read_notebook(text, file.name)
    if what == "markdown":
        lines = Lines(text)
        found = headings(lines)
        return Document(text, what, title=found[0].words if found else front_matter_title(lines))
    what, language = kind(file.name, text[:_FIRST_LINE].partition("\n")[0])
    return Document(text, what, language, PurePosixPath(file.name).name if what == "code" else None)


def read_bytes(file: SourceFile) -> bytes:
    """Return all of a file.

    Raises:
        UnreadableFileError: It is gone, may not be read, or is too large for its kind.
    """
    limit = size_limit(file.name)
    try:
        with file.path.open("rb") as opened:
            data = opened.read(limit + 1)
    except FileNotFoundError as error:
        raise UnreadableFileError(f"{file.name!r} cannot be read: it is no longer there").because("gone") from error
    except OSError as error:
        problem = error.strerror or type(error).__name__
        raise UnreadableFileError(f"{file.name!r} cannot be read: {problem}").because("unreadable") from error
    if len(data) > limit:
        raise UnreadableFileError(
            f"{file.name!r} has more than {limit // MEGABYTE} MB, which is the limit for files of its kind; "
            "split it, or leave it out"
        ).because("too large")
    return data


def _text(data: bytes, name: str, is_html: bool) -> str:
    declared = _DECLARED.search(data[:_DECLARED_IN]) if is_html else None
    try:
        return decode(data, declared=declared[1].decode() if declared else None)
    except ValueError as error:
        # Not the cause: a UnicodeDecodeError holds the file's bytes.
        raise UnreadableFileError(f"{name!r} cannot be read: {_sentence(error)}").because("not text") from None


def _sentence(error: ValueError) -> str:
    return "its encoding is damaged; save it as UTF-8" if isinstance(error, UnicodeError) else str(error)
