"""BMP: a header, perhaps a palette, and pixels."""

from __future__ import annotations

import struct

from embrief.images.containers.bare import Bare, some


def bare(data: bytes) -> Bare:
    """Return a BMP file, and what its header says.

    Raises:
        Damaged: It is no such file.
    """
    (length,) = struct.unpack("<I", some(data, 14, 4))
    # Of all headers only the first one, of OS/2, has sides of 16 bits. A negative height means top line first.
    width, height = struct.unpack("<HH", some(data, 18, 4)) if length == 12 else struct.unpack("<Ii", some(data, 18, 8))
    return Bare(data=data, height=abs(height), width=width)
