"""BMP: a header, perhaps a palette, and pixels."""

from __future__ import annotations

import struct

from embrief.images.containers.bare import Bare, Damaged, some

MAX_RUNS = 1 << 22
"""Pixels of a picture that is coded in runs, which Pillow decodes in Python, a few million pixels per second."""
_RUNS = (1, 2)
"""Numbers of these codings."""


def bare(data: bytes) -> Bare:
    """Return a BMP file, and what its header says.

    Raises:
        Damaged: It is no such file, or would take very long to decode.
    """
    (length,) = struct.unpack("<I", some(data, 14, 4))
    # Of all headers only the first one, of OS/2, has sides of 16 bits. A negative height means top line first.
    width, height = struct.unpack("<HH", some(data, 18, 4)) if length == 12 else struct.unpack("<Ii", some(data, 18, 8))
    (coding,) = struct.unpack("<I", some(data, 30, 4)) if length > 12 else (0,)
    if coding in _RUNS:
        if abs(height) * width > MAX_RUNS:
            raise Damaged("it is coded in runs, in which only small pictures are taken")
        # Where runs end too early, Pillow says so.
        return Bare(data=data, height=abs(height), width=width)
    (bits,) = struct.unpack("<H", some(data, 24 if length == 12 else 28, 2))
    (start,) = struct.unpack("<I", some(data, 10, 4))
    # Lines are filled up to 4 bytes, but for the last one where a writer saved them.
    last = -(-width * bits // 8)
    pixels = (last + 3) // 4 * 4 * (abs(height) - 1) + last
    # Pillow says nothing of missing ones where an application lets it open what is cut short.
    return Bare(data=data, height=abs(height), width=width, whole=start + pixels <= len(data))
