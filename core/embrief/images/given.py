"""Pictures in the forms in which frameworks pass them, as `Image`."""

from __future__ import annotations

import io
import re
from os import PathLike
from pathlib import Path
from typing import Literal

from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.images.image import Image
from embrief.images.limits import LIMITS

# A drive letter is one letter, so `C://a.png` is no address.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_LONGEST_PATH = 4096
"""Characters: what Linux takes, and more than any other system does."""


def as_image(
    value: object, what: str, index: int | None = None, *, strings: Literal["path", "base64"] = "path"
) -> Image:
    """Return a picture that a framework passed, in whatever form. Files are not read and nothing is decoded here.

    Args:
        value: An `Image`, the bytes of an image file, an open binary file, a `Path`, pixels as a uint8 array, an
            image of Pillow, or a string.
        what: What the caller calls it, for errors; with its place, if it has one.
        index: Its place in the caller's list, for errors.
        strings: What a string is: the path of a local file, or the bytes of one in base64. An address
            `data:image/...;base64,...` is taken either way. Take paths only from the program itself, never from a store
            or a request: whoever wrote those would choose which files are read.

    Raises:
        ArgumentTypeError: It is something else.
        ArgumentError: It is an address on a network, no base64, or pixels that no model takes.
        MissingDependencyError: Pillow is needed for it, and is not installed.
    """
    if isinstance(value, Image):
        return value
    try:
        return _image(value, strings)
    except (ArgumentError, ArgumentTypeError) as error:
        raise type(error)(f"{what}: {error}", index=index) from error
    except (OSError, SyntaxError) as error:
        # Of an image of Pillow whose file is damaged.
        raise ArgumentError(f"{what}: the picture cannot be read ({error})", index=index) from error


def _image(value: object, strings: Literal["path", "base64"]) -> Image:
    if isinstance(value, str):
        return _of_string(value, strings)
    if isinstance(value, PathLike):
        return Image(Path(value))
    if callable(read := getattr(value, "read", None)):
        try:
            # Wherever the reader stands: frameworks hand the same object out more than once. Of other files one more
            # byte than is allowed is enough to know.
            data = value.getvalue() if isinstance(value, io.BytesIO) else read(LIMITS.max_bytes + 1)
        except (OSError, TypeError, ValueError) as error:
            # It is closed, or open for text.
            raise ArgumentError(
                f"a picture's file cannot be read ({type(error).__name__}); open it anew, with mode 'rb'"
            ) from error
        if not isinstance(data, bytes):
            raise ArgumentTypeError(
                f"a picture's file is open for text, and gave {type(data).__name__}; open it with mode 'rb'"
            )
        return Image(data)
    return Image(value)


def _of_string(text: str, strings: Literal["path", "base64"]) -> Image:
    if (address := _ADDRESS.match(text)) is not None:
        # Without the rest: addresses may hold a password or a signature.
        raise ArgumentError(
            f"an address ({address[1].lower()}://...) is not fetched; get its bytes, or pass "
            "Image.from_url(url, fetch=...) with a fetcher that you trust"
        )
    if strings == "base64" or text[:5].lower() == "data:":
        return Image.from_base64(text)
    if not text or "\0" in text or len(text) > _LONGEST_PATH:
        raise ArgumentError(
            f"a string of {len(text):,} characters that is no path; a picture in base64 is passed as "
            "Image.from_base64(text), or as data:image/png;base64,..."
        )
    return Image(Path(text))
