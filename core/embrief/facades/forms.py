"""The forms in which callers pass one input: a text, a picture, a sequence of both, or a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

from embrief.images.image import Image
from embrief.images.pictured import PicturedText

_KEYS = {"image": Image, "text": str}
"""Of a mapping, and what each may hold, alone or in a list."""


def parts_of(value: object) -> tuple[str | Image, ...] | None:
    """Return the pictures and texts of an input, in the models' order.

    Args:
        value: What a caller passed.

    Returns:
        At least one part; `None` if it is in none of the forms, or holds neither a text nor a picture. What is under
        "image" must be pictures and what is under "text" texts: a path would else be embedded as a text.
    """
    found: list[object] = []
    if isinstance(value, Mapping):
        if not set(value) <= set(_KEYS):
            return None
        for key, kind in _KEYS.items():
            held = _several(value.get(key))
            if not all(isinstance(part, kind) for part in held):
                return None
            found += held
    elif isinstance(value, (str, Image)):
        found = [value]
    elif isinstance(value, (list, tuple)):
        found = list(value)
    images: list[Image] = []
    words: list[str] = []
    for part in found:
        if isinstance(part, PicturedText):
            images += part.images
            # As of `PicturedText.content`: beside pictures a blank one says nothing.
            words += [str(part)] if part.strip() or not part.images else []
        elif isinstance(part, str):
            words.append(part)
        elif isinstance(part, Image):
            images.append(part)
        else:
            return None
    # The models' authors put pictures first, whatever the order in which they are given.
    return (*images, *words) or None


def _several(value: object) -> list[object]:
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None else [value]


def holds_image(value: object) -> bool:
    """Return whether an input is an image, or holds one among its parts."""
    if isinstance(value, str):
        return isinstance(value, PicturedText) and bool(value.images)
    return any(isinstance(part, Image) for part in parts_of(value) or ())


def could_be_image(part: object) -> bool:
    """Return whether `Image` may take this; known by what it can do, since Pillow need not be installed."""
    pillow = hasattr(part, "convert") and hasattr(part, "tobytes")
    return isinstance(part, (bytes, bytearray, memoryview, PathLike)) or pillow or getattr(part, "ndim", 0) in (2, 3)


def remedy(value: object) -> str:
    """Return what to do with what is in none of the forms, as a part of a message; empty if that is not known."""
    if isinstance(value, Mapping):
        if not set(value) <= set(_KEYS):
            return "; this one has other keys"
        if any(isinstance(part, str) for part in _several(value.get("image"))):
            return "; a string is always a text: for a file pass Image(Path(...)), for base64 Image.from_base64(text)"
        if any(isinstance(part, Image) for part in _several(value.get("text"))):
            return "; put a picture under 'image'"
        parts = [part for held in value.values() for part in _several(held)]
    else:
        parts = list(value) if isinstance(value, (list, tuple)) else [value]
    if any(map(could_be_image, parts)):
        return "; wrap a picture: Image(...)"
    if isinstance(value, (Mapping, list, tuple)) and not parts:
        return "; this one holds neither a text nor a picture"
    return ""
