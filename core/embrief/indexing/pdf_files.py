"""The text of a PDF file, page by page, within limits: a small file can unpack into very much."""

from __future__ import annotations

import io
import logging
import re
import time
from typing import Any

from embrief.errors import MissingDependencyError, UnreadableFileError
from embrief.indexing.documents import Document
from embrief.indexing.kinds import MEGABYTE
from embrief.system.installed import install_command

PAGE_LIMIT = 5_000
"""Pages of a file."""
CONTENT_LIMIT = 16 * MEGABYTE
"""Bytes of the drawing instructions of one page, unpacked; a page full of text has some tens of thousands."""
TEXT_LIMIT = 16 * MEGABYTE
"""Characters of all pages."""
SECONDS = 120.0
"""After which no further page is read: most files of thousands of pages take less."""
# Lone surrogates, which no UTF-8 can hold, and control characters, which no reader sees.
_UNSEEN = re.compile("[\ud800-\udfff\x00-\x08\x0e-\x1f]")
_NO_TITLE = re.compile(r"untitled|microsoft (?:word|powerpoint)|\.(?:docx?|tex|dvi|indd|pptx?|pdf)$", re.IGNORECASE)


def read_pdf(data: bytes, name: str) -> Document:
    """Return the text of all pages.

    Args:
        data: The file.
        name: Its name, for messages.

    Raises:
        UnreadableFileError: It is encrypted, damaged, beyond a limit, or has no text, such as scanned pages.
        MissingDependencyError: pypdf is not installed.
    """
    try:
        import pypdf
        from pypdf.errors import DependencyError
    except ImportError as error:
        raise MissingDependencyError(
            f"reading PDF needs the package pypdf, which is not installed; run {install_command('index')}"
        ) from error

    # It tells of every fault in a file on its log; a handler of its own keeps that from stderr.
    logger = logging.getLogger("pypdf")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        # A file that only forbids printing is encrypted with the empty password.
        locked = reader.is_encrypted and not reader.decrypt("")
    except DependencyError:
        locked = True
    except Exception:
        # Not the cause: what pypdf says may hold pieces of the file.
        raise _damaged(name) from None
    if locked:
        raise UnreadableFileError(f"{name!r} is encrypted; save it without a password").because("encrypted")
    try:
        pages = _pages(reader, name)
        title = _title(reader)
    except UnreadableFileError:
        raise
    except Exception:  # of a damaged file, anything may come
        raise _damaged(name) from None
    if not any(page.strip() for page in pages):
        raise UnreadableFileError(
            f"{name!r} has no text: its pages may be pictures; run a text recognition over it first"
        ).because("no text")
    starts, length = [], 0
    for page in pages:
        starts.append(length)
        length += len(page)
    return Document("".join(pages), "pdf", title=title, pages=tuple(starts))


def _pages(reader: Any, name: str) -> list[str]:
    """Return the text of each page; every one ends with a line break."""
    count = len(reader.pages)
    if count > PAGE_LIMIT:
        raise _beyond(name, f"{count} pages, more than {PAGE_LIMIT}")
    until = time.monotonic() + SECONDS
    pages: list[str] = []
    length = 0
    for page in reader.pages:
        contents = page.get_contents()
        if contents is not None and len(contents.get_data()) > CONTENT_LIMIT:
            raise _beyond(name, f"a page of more than {CONTENT_LIMIT // MEGABYTE} MB")
        text = _UNSEEN.sub(" ", page.extract_text()).rstrip() + "\n"
        length += len(text)
        if length > TEXT_LIMIT:
            raise _beyond(name, f"more than {TEXT_LIMIT // MEGABYTE} million characters")
        if time.monotonic() > until:
            raise _beyond(name, f"pages that take more than {SECONDS:.0f} seconds to read")
        pages.append(text)
    return pages


def _title(reader: Any) -> str | None:
    return plain_title(reader.metadata.title if reader.metadata is not None else None)


def plain_title(found: object) -> str | None:
    """Return the title in a file's own description, `None` where there is none or it is that of another file."""
    title = " ".join(_UNSEEN.sub(" ", found).split()) if isinstance(found, str) else ""
    return None if not title or _NO_TITLE.search(title) else title


def _damaged(name: str) -> UnreadableFileError:
    return UnreadableFileError(f"{name!r} is no PDF that can be read: it is damaged; save it again").because("damaged")


def _beyond(name: str, what: str) -> UnreadableFileError:
    return UnreadableFileError(f"{name!r} has {what}; split it, or leave it out").because("too large")
