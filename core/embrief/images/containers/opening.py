"""Which format a file has, by its first bytes, and its first picture."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from embrief.errors import ArgumentError
from embrief.images.containers import bmp, gif, jpeg, png, tiff, webp
from embrief.images.containers.bare import Bare, Damaged

TAKEN = "JPEG, PNG, WebP, GIF, BMP or TIFF"
_FORMATS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes], Bare]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), jpeg.bare),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), png.bare),
    "WEBP": (re.compile(rb"RIFF....WEBP", re.DOTALL), webp.bare),
    "GIF": (re.compile(rb"GIF8[79]a"), gif.bare),
    "BMP": (re.compile(rb"BM"), bmp.bare),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), tiff.bare),
}
"""By Pillow's names: how a file begins, and who reads it."""
_OTHERS = {
    "a web page, perhaps one that says what went wrong; fetch the picture itself": (
        rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)\b"
    ),
    "an SVG drawing; render it to PNG first": rb"(\xef\xbb\xbf)?\s*(?=<).*<svg\b",
    "an XML document": rb"(\xef\xbb\xbf)?\s*<[?!a-z]",
    "a PDF document; render its pages, with pypdfium2 for instance": rb"%PDF-",
    "PostScript; render it to PNG first": rb"%!PS|\xc5\xd0\xd3\xc6",
    "HEIC or AVIF; convert it, or open it with Pillow and a plugin and pass that": (
        rb"....ftyp(heic|heix|hevc|mif1|msf1|avif|avis)"
    ),
    "a video; pass single frames": rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ",
    "JPEG XL; convert it to PNG first": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000; convert it to PNG first": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "a picture of Photoshop; export it as PNG": rb"8BPS",
    "an icon; convert it to PNG first": rb"\0\0[\x01\x02]\0",
    "a compressed archive": rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf",
    "JSON; pass the bytes of the picture in it": rb"\s*[\[{]\s*[\"{\[]",
    "base64; pass Image.from_base64(text)": (
        rb"data:image/|iVBORw0KGgo|/9j/[A-Za-z0-9+/]{8}|R0lGOD[A-Za-z0-9+/]{4}|UklGR[A-Za-z0-9+/]{4}"
    ),
}
_HINTS = [(hint, re.compile(begins, re.DOTALL | re.IGNORECASE)) for hint, begins in _OTHERS.items()]
"""What people send by mistake, and how it begins. No pattern may take more than linear time."""


def bare(data: bytes) -> tuple[str, Bare]:
    """Return the format of an image file, by Pillow's name, and its first picture, not decoded.

    Raises:
        ArgumentError: It is empty, of no allowed format, or damaged. The message holds nothing of the file.
    """
    name = format_of(data)
    try:
        return name, _FORMATS[name][1](data)
    except Damaged as error:
        raise damaged(str(error)) from None
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise damaged("its header is wrong") from error


def format_of(data: bytes) -> str:
    """Return the format of an image file by its first bytes, by Pillow's name. A few dozen are enough.

    Raises:
        ArgumentError: It is empty, or of no allowed format; the message says what it looks like.
    """
    if not data:
        raise ArgumentError("the picture is empty: it has no bytes; pass those of an image file")
    for name, (begins, _) in _FORMATS.items():
        if begins.match(data):
            return name
    hint = next((f"this looks like {hint}" for hint, begins in _HINTS if begins.match(data[:4096])), "this is none")
    raise ArgumentError(f"a picture is a file in {TAKEN}, and {hint}")


def damaged(how: str) -> ArgumentError:
    """Return the error about a file that is not as its format has it."""
    return ArgumentError(f"the picture cannot be read: {how}; open it in an editor and save it anew")
