"""Files as pictures: a picture file is one, a PDF one for each page; and the picture that a passage was made of."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol, Self

from embrief.errors import ArgumentError, UnreadableFileError
from embrief.images.image import Image
from embrief.indexing.documents import SourceFile
from embrief.indexing.kinds import kind, size_limit
from embrief.indexing.pdf_pages import PdfPages
from embrief.indexing.reading import read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.indexing.searching import Hit


class PictureSource(Protocol):
    """An open file of which pictures are made. Use it in a `with` block."""

    count: int
    """How many there are."""
    title: str | None

    def draw(self, number: int) -> Image:
        """Return one of them, decoded.

        Args:
            number: Counted from 1.

        Raises:
            UnreadableFileError: It cannot be had.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class _PictureFile:
    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name = data, name
        self.count = 1
        self.title: str | None = None

    def draw(self, number: int) -> Image:
        image = Image(self._data)
        try:
            _ = image.digest
        except ArgumentError as error:
            raise UnreadableFileError(f"{self._name!r} cannot be read: {error}").because("damaged") from error
        return image

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held but bytes."""


def open_pictures(data: bytes, name: str) -> PictureSource:
    """Open what a file is made of pictures by.

    Args:
        data: All of the file.
        name: Its name, which says what it is.

    Raises:
        UnreadableFileError: It is a PDF that is encrypted, damaged, or has too many pages.
        MissingDependencyError: A package that reads such files is not installed.
    """
    return PdfPages(data, name) if kind(name)[0] == "pdf" else _PictureFile(data, name)


class PicturesOfHits:
    """Gives the pictures that were found, for who looks at them again: each file is read once in a row."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._read: tuple[str, bytes] | None = None

    def of(self, hit: Hit) -> Image | None:
        """Return the picture that a hit was made of, decoded.

        Returns:
            `None` where it is no picture, or its file is not on this machine, has changed since it was indexed, or
            cannot be read.

        Raises:
            MissingDependencyError: A package that reads such files is not installed.
        """
        if not hit.is_picture or hit.file is None:
            return None
        if self._file != hit.file:
            self._file, self._read = hit.file, _read(hit.file)
        if self._read is None or self._read[0] != hit.digest:
            return None
        try:
            with open_pictures(self._read[1], hit.file.name) as pictures:
                return pictures.draw(hit.page or 1)
        except UnreadableFileError:
            return None


def picture_of(hit: Hit) -> Image | None:
    """Return the picture that one hit was made of; see `PicturesOfHits.of`."""
    return PicturesOfHits().of(hit)


def _read(file: Path) -> tuple[str, bytes] | None:
    """Return digest and bytes of a file that may be read, `None` of one that may not."""
    try:
        if not file.is_file():
            return None
        data = read_bytes(SourceFile(file, file.name, size_limit(file.name)))
    except (OSError, UnreadableFileError):
        return None
    return hashlib.sha256(data).hexdigest(), data
