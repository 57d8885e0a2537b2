"""Pictures in all formats and modes, made here."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "jpeg": ("JPEG", {"quality": 90}),
    "jpeg-progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "tiff": ("TIFF", {}),
    "tiff-big": ("TIFF", {"big_tiff": True}),
    "tiff-jpeg": ("TIFF", {"compression": "jpeg"}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "webp": ("WEBP", {}),
    "webp-lossless": ("WEBP", {"lossless": True}),
}
"""How Pillow is told to write each."""


def noise(height: int = 24, width: int = 40, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def written(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, name, **options)
    return made.getvalue()


def file(kind: str, pixels: NDArray[np.uint8] | None = None) -> bytes:
    name, options = FORMATS[kind]
    return written(Image.fromarray(noise() if pixels is None else pixels), name, **options)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colours: int, raw: bytes, *others: bytes) -> bytes:
    """A PNG file by hand; `others` stand before the pixels."""
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *others, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def exif(orientation: int, order: str = ">") -> bytes:
    """An EXIF block that says how the camera was held."""
    head = b"MM\0*" if order == ">" else b"II*\0"
    return head + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def tiff(*tags: tuple[int, int, int, int], order: str = "<", rest: bytes = b"") -> bytes:
    """A TIFF file by hand: tags as (number, type, count, value or place), and what lies behind its directory."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    return head + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + rest
