"""Inputs that may hold pictures, in all the words that services have for them. An address is never fetched.

Source: vLLM's documentation (content parts, `messages`), the API references of Cohere (`inputs`, `images`), Jina
(`{"text"}`, `{"image"}`) and Voyage (`image_base64`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from embrief.errors import ArgumentError
from embrief.server.dialects.fields import TOKEN_IDS, kind_of, one
from embrief.server.pictures import Encoded, Item

_NOT_FETCHED = "addresses are not fetched here; send the picture itself, as base64 or data:image/png;base64,..."
_WORDS = {"text": "text", "input_text": "text", "image_url": "image_url", "image_base64": "image_base64",
          "input_image": "image_url"}  # fmt: skip
"""The types of parts that are known, and the field in which each has its value."""


def picture(value: Any) -> Encoded:
    """Return a picture that a request holds.

    Raises:
        ArgumentError: It is no text, or an address from which it would have to be fetched.
    """
    if not isinstance(value, str):
        raise ArgumentError(f"a picture is a text in base64, not {kind_of(value)}")
    scheme, mark, _ = value[:200].strip().partition(":")
    # Nothing in base64 has a colon.
    if mark and scheme.lower() != "data":
        raise ArgumentError(_NOT_FETCHED)
    return Encoded(value)


def pictures(value: Any) -> list[Item]:
    """Return the pictures of a field that holds one or a list of them, each an input of its own.

    Raises:
        ArgumentError: One is something else; of a list the error has the index.
    """
    if isinstance(value, list):
        return [_indexed(index, _alone, each) for index, each in enumerate(value)]
    return [_alone(value)]


def item(value: Any) -> Item:
    """Return one input: a text, an object `{"text", "image"}` or `{"content": [...]}`, a part, or a list of parts.

    Of an object either may be null, and `image` a list.

    Raises:
        ArgumentError: It is something else.
    """
    if isinstance(value, str):
        return one(value)
    if isinstance(value, list):
        return _content(value)
    if type(value) is int:
        raise ArgumentError(f"this is no text: {TOKEN_IDS}")
    if not isinstance(value, Mapping):
        raise ArgumentError(f"a text belongs here, or an object with texts and pictures, not {kind_of(value)}")
    if "type" in value:
        return _item((part(value),))
    if "content" in value:
        content = value["content"]
        return _content(content) if isinstance(content, list) else one(content)
    if not value or not set(value) <= {"text", "image"}:
        raise ArgumentError(
            "an object has `text`, `image` or both, or `content`; put the fields that count into `text`"
        )
    given = [] if value.get("image") is None else value["image"]
    found: list[str | Encoded] = [picture(each) for each in (given if isinstance(given, list) else [given])]
    if value.get("text") is not None:
        found.append(one(value["text"]))
    if not found:
        raise ArgumentError("an object holds neither a text nor a picture; put one into it, or leave it out")
    return _item(tuple(found))


def items(value: Any) -> list[Item]:
    """Return the inputs of a list, each as of `item`.

    Raises:
        ArgumentError: It is no list, or one is something else; the error has the index.
    """
    if not isinstance(value, list):
        raise ArgumentError(f"a list of texts belongs here, not {kind_of(value)}")
    return [_indexed(index, item, each) for index, each in enumerate(value)]


def one_or_many(value: Any) -> list[Item]:
    """Return the inputs of a field that has one text or object, or a list of them. An element of a list is an input.

    Raises:
        ArgumentError: It is something else.
    """
    return items(value) if isinstance(value, list) else [item(value)]


def part(value: Any) -> str | Encoded:
    """Return a part of an input.

    Raises:
        ArgumentError: It is none of text, image_url and image_base64.
    """
    kind = value.get("type") if isinstance(value, Mapping) else None
    field = _WORDS.get(kind) if isinstance(kind, str) else None
    if field is None:
        raise ArgumentError("a part is an object of the type text, image_url or image_base64; nothing else is embedded")
    if field == "text":
        return one(value.get("text"))
    given = value.get(field)
    return picture(given.get("url") if isinstance(given, Mapping) else given)


def _content(value: list[Any]) -> Item:
    if value and all(type(each) is int for each in value):
        raise ArgumentError(f"this is no text: {TOKEN_IDS}")
    if not value or not all(isinstance(each, Mapping) for each in value):
        raise ArgumentError("a list here holds the parts of one input, such as {type: text, text: ...}; send texts")
    return _item(tuple(map(part, value)))


def _item(parts: tuple[str | Encoded, ...]) -> Item:
    """Return an input of one text as that text; beside others an empty text says nothing."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return tuple(each for each in parts if each != "") or ""


def _alone(value: Any) -> Item:
    return (picture(value),)


def _indexed(index: int, read: Callable[[Any], Item], value: Any) -> Item:
    try:
        return read(value)
    except ArgumentError as error:
        raise ArgumentError(f"the item at index {index}: {error}", index=index) from None


_PICTURE = {"type": "string", "description": "base64, or data:image/...;base64,..."}
_URL = {"anyOf": [_PICTURE, {"type": "object", "properties": {"url": _PICTURE}, "required": ["url"]}]}
PART = {
    "type": "object",
    "properties": {
        "type": {"enum": list(_WORDS)},
        "text": {"type": "string"},
        "image_url": _URL,
        "image_base64": _PICTURE,
    },
    "required": ["type"],
}
PARTS = {"type": "array", "items": PART, "minItems": 1}
_PAIR = {
    "type": "object",
    "properties": {
        "text": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "image": {"anyOf": [_PICTURE, {"type": "array", "items": _PICTURE}, {"type": "null"}]},
    },
    "additionalProperties": False,
    "minProperties": 1,
}
_CONTENT = {"type": "object", "properties": {"content": PARTS}, "required": ["content"]}
ITEM = {"anyOf": [{"type": "string"}, _PAIR, _CONTENT]}
"""The JSON schema of an input."""
_ITEMS = {"type": "array", "items": {"anyOf": [*ITEM["anyOf"], PART, PARTS]}}
_PICTURES = {"type": "array", "items": _PICTURE}

OneItem = Annotated[Any, BeforeValidator(item), WithJsonSchema(ITEM)]
"""A text, or an object with pictures."""
Items = Annotated[list[Any], BeforeValidator(items), WithJsonSchema(_ITEMS)]
"""A list of them."""
OneOrMany = Annotated[
    list[Any], BeforeValidator(one_or_many), WithJsonSchema({"anyOf": [{"type": "string"}, _PAIR, _CONTENT, _ITEMS]})
]
"""One of them, or a list."""
Picture = Annotated[Any, BeforeValidator(picture), WithJsonSchema(_PICTURE)]
"""A picture."""
Pictures = Annotated[list[Any], BeforeValidator(pictures), WithJsonSchema({"anyOf": [_PICTURE, _PICTURES]})]
"""A picture, or a list of pictures."""
