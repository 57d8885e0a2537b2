"""PNG: a row of chunks, of which a handful decide the picture."""

from __future__ import annotations

import struct
import zlib

from embrief.images.containers import exif
from embrief.images.containers.bare import MAX_PIECES, MAX_SAID, Bare, Damaged, some

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR = 0, 2
"""Colour types in which one colour may be declared transparent."""
_XMP = b"XML:com.adobe.xmp\0\0\0"
"""How XMP begins where it is not compressed, which its specification wants."""


def bare(data: bytes) -> Bare:
    """Return the picture of a PNG file; of an animated one, what viewers without animations show.

    Raises:
        Damaged: It is no such file, is cut short, or says of a picture with 16 bits per colour that one is transparent.
    """
    kept = [SIGNATURE]
    head: tuple[int, int, int, int] | None = None
    said = xmp = b""
    place = len(SIGNATURE)
    for _ in range(MAX_PIECES):
        length, kind = struct.unpack(">I4s", some(data, place, 8))
        body = some(data, place + 8, length + 4)[:length]
        whole = data[place : place + length + 12]
        place += length + 12
        if kind == b"IHDR":
            if head is not None or length != 13:
                raise Damaged("its header is wrong")
            head = struct.unpack(">IIBB", body[:10])
        elif head is None:
            raise Damaged("its header is missing")
        elif kind == b"tRNS":
            whole = _chunk(kind, _transparent(body, depth=head[2], colours=head[3]))
        elif kind == b"eXIf":
            said = body[:MAX_SAID]
        elif kind == b"iTXt" and body.startswith(_XMP):
            xmp = body[:MAX_SAID]
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(whole)
        if kind == b"IEND":
            break
    else:
        raise Damaged("it has too many parts")
    return Bare(data=b"".join(kept), height=head[1], width=head[0], orientation=exif.orientation(said, xmp))


def _transparent(body: bytes, *, depth: int, colours: int) -> bytes:
    """Return which colour is transparent, in the scale in which Pillow gives the pixels."""
    if colours == _GREY and depth < 8:
        # Pillow stretches the pixels of such pictures to 8 bits, and leaves this number as it is.
        (value,) = struct.unpack(">H", body[:2])
        most: int = (1 << depth) - 1
        return struct.pack(">H", min(value, most) * 255 // most)
    if colours == _COLOUR and depth == 16:
        # Pillow drops the lower 8 bits, without which nobody can tell which pixels have the colour.
        raise Damaged("it has 16 bits per colour and one transparent colour, which cannot be told apart when decoded")
    return body


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
