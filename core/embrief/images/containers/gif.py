"""GIF: blocks, of which those up to the end of the first picture count."""

from __future__ import annotations

import struct

from embrief.images.containers.bare import Bare, Damaged, some

_EXTENSION, _PICTURE, _CONTROL = 0x21, 0x2C, 0xF9


def bare(data: bytes) -> Bare:
    """Return the first picture of a GIF file.

    Raises:
        Damaged: It is no such file, is cut short, or has no picture.
    """
    width, height, flags = struct.unpack("<HHB", some(data, 6, 5))
    place = 13 + _colours(flags)
    kept = [some(data, 0, place)]
    control = b""
    while (kind := some(data, place, 1)[0]) != _PICTURE:
        if kind != _EXTENSION:
            raise Damaged("it has no picture")
        end = _blocks(data, place + 2)
        if data[place + 1] == _CONTROL:
            # The last one before a picture is the picture's.
            control = data[place:end]
        place = end
    left, top, wide, high, flags = struct.unpack("<4HB", some(data, place + 1, 9))
    # One byte says how many bits a pixel has at first.
    end = _blocks(data, place + 10 + _colours(flags) + 1)
    kept += [control, data[place:end], b";"]
    return Bare(data=b"".join(kept), height=max(height, top + high), width=max(width, left + wide))


def _colours(flags: int) -> int:
    """Return the bytes of a colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _blocks(data: bytes, place: int) -> int:
    """Return where a row of blocks ends, each of which begins with its length."""
    while length := some(data, place, 1)[0]:
        place += 1 + length
    return place + 1
