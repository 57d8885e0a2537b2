"""What an inference object of Qdrant holds, as an embedder takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from embrief.errors import ArgumentError
from embrief.wrapping import as_image, content, unicode

if TYPE_CHECKING:
    from embrief import Embedder, Image
    from embrief.wrapping import Input

Inference = models.Document | models.Image | models.InferenceObject


def content_of(item: Inference, embedder: Embedder, index: int) -> Input:
    """Return what an object holds, in the form that the embedder's model gets: pictures are decoded.

    A string is a text in a `Document` and an `InferenceObject`, and a picture in base64 where a picture belongs: in an
    `Image`, and under "image". It is never a path: strings come from requests, and would name files of this machine.

    Args:
        item: The object.
        embedder: The model.
        index: The object's place among those of the call, for errors.

    Raises:
        ArgumentTypeError: It is neither text nor picture, or holds a picture and the model takes texts only.
        ArgumentError: A text is no Unicode, or a picture cannot be read, is none, or is behind an address.
    """
    what = f"the {type(item).__name__} at index {index}"
    if isinstance(item, models.Document):
        unicode(item.text, what, index)
        return item.text
    held = _picture(item.image, what, index) if isinstance(item, models.Image) else _parts(item.object, what, index)
    return content(held, what, embedder.spec, index=index)


def _parts(value: Any, what: str, index: int) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {key: _pictures(part, what, index) if key == "image" else part for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [part if isinstance(part, str) else as_image(part, what, index) for part in value]
    return as_image(value, what, index)


def _pictures(value: Any, what: str, index: int) -> Any:
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return [_picture(part, what, index) for part in value]
    return _picture(value, what, index)


def _picture(value: Any, what: str, index: int) -> Image:
    try:
        return as_image(value, what, index, strings="base64")
    except ArgumentError as error:
        if not isinstance(value, str) or "://" in value[:64]:
            raise
        # fastembed would have opened a file of this name.
        raise type(error)(f"{error}; a file is passed as a Path", index=index) from error
