"""How the camera was held, by what is written beside the pixels. Nothing else of it is read."""

from __future__ import annotations

import re
import struct

ORIENTATION = 0x0112
PREFIX = b"Exif\0\0"
_SIZES = {1: "B", 3: "H", 4: "I"}
"""Formats of the whole numbers that some writers use, by TIFF's type: one has to be read, not the one that is right."""
_XMP = re.compile(rb"""tiff:Orientation(?:=["']|>)([0-9])""")


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Return how the camera was held, 1 to 8; 1 where nothing is said, or nothing that can be read.

    EXIF goes before XMP, as in Pillow.

    Args:
        exif: The EXIF block, with its prefix or without.
        xmp: The XMP block.
    """
    while exif.startswith(PREFIX):
        exif = exif[len(PREFIX) :]
    try:
        found = _in_exif(exif)
    except struct.error:
        found = None
    if found is None and (said := _XMP.search(xmp)):
        found = int(said[1])
    return found if found is not None and 1 <= found <= 8 else 1


def _in_exif(exif: bytes) -> int | None:
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (entries,) = struct.unpack_from(f"{order}H", exif, start)
    for place in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from(f"{order}HH", exif, place)
        if tag == ORIENTATION:
            number: int = struct.unpack_from(f"{order}{_SIZES.get(kind, 'H')}", exif, place + 8)[0]
            return number
    return None
