"""WebP: chunks in a RIFF file. Its decoder reads all of them, in native code, once the size is known to be bearable."""

from __future__ import annotations

import struct

from embrief.images.containers import exif
from embrief.images.containers.bare import MAX_PIECES, MAX_SAID, Bare, Damaged, some


def bare(data: bytes) -> Bare:
    """Return a WebP file, and what its header says.

    Raises:
        Damaged: It is no such file, or is cut short.
    """
    (length,) = struct.unpack("<I", some(data, 4, 4))
    end = length + 8
    some(data, 0, end)
    said = {b"EXIF": b"", b"XMP ": b""}
    size: tuple[int, int] | None = None
    place = 12
    for _ in range(MAX_PIECES):
        if place + 8 > end:
            break
        kind, length = struct.unpack("<4sI", some(data, place, 8))
        body = some(data, place + 8, length)
        # The first chunk says how large the whole is; decoders believe no other.
        size = size or _size(kind, body)
        if kind in said:
            said[kind] = body[:MAX_SAID]
        place += 8 + length + length % 2
    else:
        raise Damaged("it has too many parts")
    if size is None:
        raise Damaged("its header is missing")
    return Bare(
        data=data[:end], height=size[0], width=size[1], orientation=exif.orientation(said[b"EXIF"], said[b"XMP "])
    )


def _size(kind: bytes, body: bytes) -> tuple[int, int]:
    """Return height and width by the first chunk of a file."""
    if kind == b"VP8X":
        return int.from_bytes(some(body, 7, 3), "little") + 1, int.from_bytes(some(body, 4, 3), "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", some(body, 1, 4))
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", some(body, 6, 4))
        return height & 0x3FFF, width & 0x3FFF
    raise Damaged("its header is missing")
