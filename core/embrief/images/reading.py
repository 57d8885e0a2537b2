"""The bytes of a picture that is in a file, or in a text."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError
from embrief.images.decoding import check_bytes

if TYPE_CHECKING:
    from embrief.images.limits import ImageLimits

_MIME = dict.fromkeys(map(ord, " \t\r\n"))
"""What mail writes between the lines of base64; lines of 76 characters make a text longer by less than a tenth."""


def from_file(path: Path, limits: ImageLimits) -> bytes:
    """Return the bytes of a file; never waits for a pipe, and never reads from a device.

    Raises:
        ArgumentError: It cannot be read, is no file, or too large; nothing was read then.
    """
    try:
        with open(path.expanduser(), "rb", opener=_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise _no_file(path)
            check_bytes(found.st_size, limits)
            # It may grow meanwhile, or be of a kind that does not know its size; one byte more is enough to know.
            data = file.read(limits.max_bytes + 1)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, ArgumentError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "its name cannot be used"
        raise ArgumentError(f"the image {path} cannot be read: {reason}") from error
    check_bytes(len(data), limits)
    return data


def _at_once(path: str | Path, flags: int) -> int:
    """Open without waiting for whoever writes into a pipe, and refuse what is no file before it is opened."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise _no_file(path)
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _no_file(path: Path | str) -> ArgumentError:
    return ArgumentError(f"the image {path} is no file but a folder, pipe or device; pass the path of an image file")


def from_base64(text: str, limits: ImageLimits) -> bytes:
    """Return the bytes of a base64 text, or of an address `data:image/...;base64,...`. Line breaks are passed over.

    Raises:
        ArgumentError: It is no base64, or too large; nothing was decoded then. The message holds nothing of the text.
    """
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64") or not head.lower().startswith("data:image/"):
            raise ArgumentError("this is no address of a picture in base64; write data:image/png;base64,...")
    if len(text) <= 2 * limits.max_bytes + 4:
        text = text.translate(_MIME)
    check_bytes(len(text) * 3 // 4 - text[-2:].count("="), limits)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        remedy = (
            "it is the form for addresses: pass base64.urlsafe_b64decode(text)"
            if "-" in text or "_" in text
            else "send the bytes of a picture, encoded, with the = at its end"
        )
        raise ArgumentError(f"this is no base64; {remedy}") from None
