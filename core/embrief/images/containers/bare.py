"""What remains of an image file for a decoder."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PIECES = 100_000
"""Segments, chunks or tags that are looked at in one file: each costs time, however little it holds."""
MAX_SAID = 1 << 20
"""Bytes that are read of what is written beside the pixels."""


class Damaged(Exception):
    """A file is not as its format has it; the message says how, and holds nothing of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """The first picture of a file, and what is to be done with it once it is decoded."""

    data: bytes
    """A file of the same format, with one picture."""
    height: int
    """In pixels, as it is stored: before it is turned."""
    width: int
    orientation: int = 1
    """How the camera was held, as EXIF counts it: 1 to 8, and 1 where nobody says."""
    whole: bool = True
    """Whether all pixels are there, where the header alone tells that. To be asked once the size is known to be
    allowed."""


def some(data: bytes, start: int, length: int) -> bytes:
    """Return bytes that must be there.

    Raises:
        Damaged: They are not.
    """
    if start < 0 or start + length > len(data):
        raise Damaged("it is cut short")
    return data[start : start + length]
