"""Texts and pictures into a collection: all are checked, then embedded and stored in batches, after the space guard."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from qdrant_client import models

from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.wrapping import ato_lists, carried, count, inputs, listed, storing, text_of, to_lists, unicode
from embrief.wrapping import titles as checked_titles
from qdrant_embrief.helpers.arguments import (
    Embedders,
    PointId,
    by_name,
    point_id,
    require_async,
    require_key,
    require_sync,
)
from qdrant_embrief.helpers.collections import aclaim, arequire_known, claim, require_known

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, QdrantClient

    from embrief import Embedder
    from embrief.wrapping import Input
    from qdrant_embrief.guard import Stored


class _Point(NamedTuple):
    """A text or picture on its way into a collection."""

    id: PointId
    held: Input
    title: str | None
    payload: dict[str, Any]


def upsert_texts(
    client: QdrantClient,
    name: str,
    embedder: Embedders,
    texts: Iterable[Input],
    *,
    ids: Sequence[int | str | uuid.UUID] | None = None,
    payloads: Sequence[Mapping[str, Any] | None] | None = None,
    titles: Sequence[str | None] | None = None,
    text_key: str = "document",
    id_key: str = "key",
    batch_size: int = 256,
    wait: bool = True,
    using: str | None = None,
) -> list[PointId]:
    """Embed texts as documents and store them in batches. Everything is checked before the first text is embedded.

    For models that take pictures, texts may be pictures too: these are read and decoded for the check.

    Args:
        client: The client; it need not be attached.
        name: The collection.
        embedder: The embedder of the unnamed vector, or one per vector name. Each text gets a vector of each.
        texts: Any number of texts, also none; for a model that takes pictures also `Image`s, sequences of texts and
            `Image`s, and mappings with "text" and "image". Of these the texts are stored, one to a line, and nothing
            of the pictures: keep in `payloads` where they are.
        ids: One per text: numbers and UUIDs pass; any other string becomes a UUID (`point_id`) and is kept
            in the payload. `None` makes random ones. A point that is there with this id is replaced.
        payloads: One mapping or `None` per text.
        titles: One title or `None` per text, for models with a place for titles. Not stored.
        text_key: Payload key of the text.
        id_key: Payload key of an id that became a UUID.
        batch_size: Texts per request. A smaller limit in the collection's strict mode wins.
        wait: Whether to wait until the server has applied each request.
        using: Name of the vector of one embedder; `None` is the unnamed one. A point that is there is replaced with all
            its vectors.

    Returns:
        The ids as stored, in input order.

    Raises:
        SpaceMismatchError: The collection holds vectors of another or an unknown space, or of another width. Nothing
            was embedded.
        ArgumentError: A value does not fit, with its index.
        ArgumentTypeError: A value has the wrong type, with its index.
        InputTooLongError: A text is too long and the embedder has `truncate="error"`. Nothing was stored.
        PartlyStoredError: The model or the server failed half-way; the error has the ids that are stored.
    """
    require_sync(client, "aupsert_texts")
    embedders, size = by_name(embedder, using), count(batch_size, "batch_size")
    points = _plan(texts, ids=ids, payloads=payloads, titles=titles, text_key=text_key, id_key=id_key)
    require_known(client, name, embedders)
    _check_points(embedders, points)
    # Only now: a call that is refused for its texts leaves the collection as it was.
    stored = claim(client, name, embedders)
    kept = [point.id for point in points]
    for start, batch in _batches(points, size, stored):
        with storing(kept, start, where=f"the Qdrant collection {name!r}"):
            client.upsert(name, _embed_points(embedders, batch), wait=wait)
    return kept


async def aupsert_texts(
    client: AsyncQdrantClient,
    name: str,
    embedder: Embedders,
    texts: Iterable[Input],
    *,
    ids: Sequence[int | str | uuid.UUID] | None = None,
    payloads: Sequence[Mapping[str, Any] | None] | None = None,
    titles: Sequence[str | None] | None = None,
    text_key: str = "document",
    id_key: str = "key",
    batch_size: int = 256,
    wait: bool = True,
    using: str | None = None,
) -> list[PointId]:
    """`upsert_texts` for an `AsyncQdrantClient`; embeds without blocking the event loop."""
    require_async(client, "upsert_texts")
    embedders, size = by_name(embedder, using), count(batch_size, "batch_size")
    points = _plan(texts, ids=ids, payloads=payloads, titles=titles, text_key=text_key, id_key=id_key)
    await arequire_known(client, name, embedders)
    await next(iter(embedders.values())).off_loop(partial(_check_points, embedders, points))
    stored = await aclaim(client, name, embedders)
    kept = [point.id for point in points]
    for start, batch in _batches(points, size, stored):
        with storing(kept, start, where=f"the Qdrant collection {name!r}"):
            await client.upsert(name, await _aembed_points(embedders, batch), wait=wait)
    return kept


def _plan(
    texts: Iterable[Input],
    *,
    ids: Sequence[int | str | uuid.UUID] | None,
    payloads: Sequence[Mapping[str, Any] | None] | None,
    titles: Sequence[str | None] | None,
    text_key: str,
    id_key: str,
) -> list[_Point]:
    """Check all arguments of an upsert and put them together. The caller's payloads are not changed."""
    require_key(text_key, "text_key")
    require_key(id_key, "id_key")
    if text_key == id_key:
        raise ArgumentError(
            f"text_key and id_key are both {text_key!r}, where only one can be kept; give them two names"
        )
    items = [carried(item) for item in inputs(texts, "texts")]
    keys = [str(uuid.uuid4()) for _ in items] if ids is None else _same_length(ids, "ids", len(items))
    extras = [None] * len(items) if payloads is None else _same_length(payloads, "payloads", len(items))
    names = checked_titles(None if titles is None else _same_length(titles, "titles", len(items)), len(items))
    points: list[_Point] = []
    seen: dict[PointId, int] = {}
    rows: Iterable[tuple[Any, Any, Any, str | None]] = zip(items, keys, extras, names, strict=True)
    for index, (held, key, extra, title) in enumerate(rows):
        if extra is not None and not isinstance(extra, Mapping):
            raise ArgumentTypeError(f"payloads[{index}] is {type(extra).__name__}; it must be a mapping", index=index)
        stored = _stored_id(key, index)
        if (before := seen.setdefault(stored, index)) != index:
            raise ArgumentError(
                f"ids[{index}] is the id of ids[{before}] too, and only one would be kept; give each text its own",
                index=index,
            )
        own = {} if (text := text_of(held)) is None else {text_key: text}
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
        points.append(_Point(stored, held, title, payload))
    return points


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


def _same_length(values: Any, what: str, wanted: int) -> list[Any]:
    items = listed(values, what)
    if len(items) != wanted:
        raise ArgumentError(f"there are {len(items)} {what} for {wanted} texts; give one each")
    return items


def _check_points(embedders: Mapping[str, Embedder], points: Sequence[_Point]) -> None:
    """Refuse texts that some embedder would refuse, before the first of them is stored."""
    texts, titles = _columns(points)
    for item in embedders.values():
        item.check_documents(texts, titles=titles)


def _embed_points(embedders: Mapping[str, Embedder], points: Sequence[_Point]) -> list[models.PointStruct]:
    """Embed one batch; of the names of vectors, `""` is the unnamed one."""
    texts, titles = _columns(points)
    vectors = {name: to_lists(item.embed_documents(texts, titles=titles)) for name, item in embedders.items()}
    return _structs(points, vectors)


async def _aembed_points(embedders: Mapping[str, Embedder], points: Sequence[_Point]) -> list[models.PointStruct]:
    """`_embed_points` without blocking the event loop."""
    texts, titles = _columns(points)
    vectors = {
        name: await ato_lists(item, await item.aembed_documents(texts, titles=titles))
        for name, item in embedders.items()
    }
    return await next(iter(embedders.values())).off_loop(partial(_structs, points, vectors))


def _columns(points: Sequence[_Point]) -> tuple[list[Input], list[str | None] | None]:
    texts, titles = [point.held for point in points], [point.title for point in points]
    return texts, titles if any(title is not None for title in titles) else None


def _structs(points: Sequence[_Point], vectors: Mapping[str, list[list[float]]]) -> list[models.PointStruct]:
    return [
        models.PointStruct(
            id=point.id,
            vector=vectors[""][row] if "" in vectors else {name: rows[row] for name, rows in vectors.items()},
            payload=point.payload,
        )
        for row, point in enumerate(points)
    ]


def _batches(points: list[_Point], size: int, stored: Stored) -> Iterator[tuple[int, list[_Point]]]:
    size = min(size, stored.max_batch or size)
    return ((start, points[start : start + size]) for start in range(0, len(points), size))
