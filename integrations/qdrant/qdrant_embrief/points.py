"""From texts, ids and payloads to what will be points: all is checked before the first text is embedded."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

from qdrant_client import models

from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.wrapping import listed, unicode
from embrief.wrapping import texts as checked_texts
from embrief.wrapping import titles as checked_titles

PointId = int | str

NAMESPACE = uuid.UUID("9c7b5a0e-3f0d-5b52-9f0a-6d1f3c0f7a41")
"""Fixed for ever: the ids of stored points depend on it."""


class TextPoint(NamedTuple):
    """A text on its way into a collection."""

    id: PointId
    text: str
    title: str | None
    payload: dict[str, Any]


def point_id(key: int | str | uuid.UUID) -> PointId:
    """Return the id under which a point with this key is stored.

    Qdrant takes unsigned integers and UUIDs only. These pass as they are; any other string becomes the same
    UUID every time.

    Args:
        key: An integer from 0 to 2**64 - 1, a UUID (also as a string with hyphens), or any other non-empty
            string.

    Raises:
        ArgumentTypeError: It is something else.
        ArgumentError: The integer is out of range, or the string is empty.
    """
    if isinstance(key, uuid.UUID):
        return str(key)
    if isinstance(key, str):
        unicode(key, "an id")
        if not key:
            raise ArgumentError("an id is an empty string; give a number, a UUID or any other string")
        try:
            parsed = str(uuid.UUID(key))
        except ValueError:
            parsed = ""
        # Other spellings (a bare MD5, "urn:uuid:...") count as keys: Qdrant would give them back changed.
        return parsed if parsed == key.lower() else str(uuid.uuid5(NAMESPACE, key))
    return _number(key)


def _number(key: object) -> int:
    if isinstance(key, bool) or not isinstance(key, Integral):
        raise ArgumentTypeError(f"an id is a number, a UUID or a string, not {type(key).__name__}")
    number = int(key)
    if not 0 <= number < 2**64:
        raise ArgumentError(f"the id {number} is not between 0 and 2**64 - 1; str({number}) would become a UUID")
    return number


def plan(
    texts: Iterable[str],
    *,
    ids: Sequence[int | str | uuid.UUID] | None,
    payloads: Sequence[Mapping[str, Any] | None] | None,
    titles: Sequence[str | None] | None,
    text_key: str,
    id_key: str,
) -> list[TextPoint]:
    """Check all arguments of an upsert and put them together. The caller's payloads are not changed."""
    require_key(text_key, "text_key")
    require_key(id_key, "id_key")
    if text_key == id_key:
        raise ArgumentError(
            f"text_key and id_key are both {text_key!r}, where only one can be kept; give them two names"
        )
    items = checked_texts(texts, "texts")
    keys = [str(uuid.uuid4()) for _ in items] if ids is None else _same_length(ids, "ids", len(items))
    extras = [None] * len(items) if payloads is None else _same_length(payloads, "payloads", len(items))
    names = checked_titles(None if titles is None else _same_length(titles, "titles", len(items)), len(items))
    points: list[TextPoint] = []
    seen: dict[PointId, int] = {}
    rows: Iterable[tuple[Any, Any, Any, str | None]] = zip(items, keys, extras, names, strict=True)
    for index, (text, key, extra, title) in enumerate(rows):
        if extra is not None and not isinstance(extra, Mapping):
            raise ArgumentTypeError(f"payloads[{index}] is {type(extra).__name__}; it must be a mapping", index=index)
        stored = _stored_id(key, index)
        if (before := seen.setdefault(stored, index)) != index:
            raise ArgumentError(
                f"ids[{index}] is the id of ids[{before}] too, and only one would be kept; give each text its own",
                index=index,
            )
        own = {text_key: text}
        if isinstance(key, str) and key.lower() != stored:
            own[id_key] = key
        payload = dict(extra or {})
        for name, value in own.items():
            if payload.setdefault(name, value) != value:
                raise ArgumentError(
                    f"payloads[{index}] has a value of its own under {name!r}, where the "
                    f"{'text' if name == text_key else 'id'} is kept; rename it, or pass text_key= or "
                    "id_key=",
                    index=index,
                )
        _check_payload(payload, index)
        points.append(TextPoint(stored, text, title, payload))
    return points


def require_key(value: object, what: str) -> None:
    """Refuse what can be no key of a payload."""
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{what} is a key of the payload, a string, not {value!r}")
    unicode(value, what)


def _stored_id(key: Any, index: int) -> PointId:
    try:
        return point_id(key)
    except (ArgumentError, ArgumentTypeError) as error:
        raise type(error)(f"ids[{index}]: {error}", index=index) from None


def _check_payload(payload: Mapping[str, Any], index: int) -> None:
    """Refuse what cannot be written as JSON, which a server gets; otherwise the batch with it would fail."""
    unicode(payload, f"payloads[{index}]", index)
    try:
        models.PointStruct(id=0, vector=[], payload=dict(payload)).model_dump_json()
    except ValueError as error:
        raise ArgumentError(
            f"payloads[{index}] cannot be stored as JSON: {error}; use plain strings, numbers, lists and mappings, "
            "such as value.item() of a numpy number",
            index=index,
        ) from error


def _same_length(values: Any, what: str, count: int) -> list[Any]:
    items = listed(values, what)
    if len(items) != count:
        raise ArgumentError(f"there are {len(items)} {what} for {count} texts; give one each")
    return items
