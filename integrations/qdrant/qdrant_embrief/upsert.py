"""Texts into a collection, in batches, after the space guard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError
from qdrant_embrief.claiming import aclaim, claim
from qdrant_embrief.embedding import aembed_points, embed_points
from qdrant_embrief.points import PointId, TextPoint, plan
from qdrant_embrief.schema import Embedders, by_name, require_async, require_sync

if TYPE_CHECKING:
    import uuid

    from qdrant_client import AsyncQdrantClient, QdrantClient

    from qdrant_embrief.guard import Stored


def upsert_texts(
    client: QdrantClient,
    name: str,
    embedder: Embedders,
    texts: Iterable[str],
    *,
    ids: Sequence[int | str | uuid.UUID] | None = None,
    payloads: Sequence[Mapping[str, Any] | None] | None = None,
    titles: Sequence[str | None] | None = None,
    text_key: str = "document",
    id_key: str = "key",
    batch_size: int = 256,
    wait: bool = True,
) -> list[PointId]:
    """Embed texts as documents and store them. All arguments are checked before the first text is embedded.

    Args:
        client: The client; it need not be attached.
        name: The collection.
        embedder: The embedder of the unnamed vector, or one per vector name. Each text gets a vector of each.
        texts: Any number of texts, also none.
        ids: One per text: numbers and UUIDs pass; any other string becomes a UUID (`point_id`) and is kept
            in the payload. `None` makes random ones. A point that is there with this id is replaced.
        payloads: One mapping or `None` per text.
        titles: One title or `None` per text, for models with a place for titles. Not stored.
        text_key: Payload key of the text.
        id_key: Payload key of an id that became a UUID.
        batch_size: Texts per request. A smaller limit in the collection's strict mode wins.
        wait: Whether to wait until the server has applied each request.

    Returns:
        The ids as stored, in input order.

    Raises:
        SpaceMismatchError: The collection holds vectors of another or an unknown space, or of another width. Nothing
            was embedded.
        ArgumentError: A value does not fit, with its index.
        ArgumentTypeError: A value has the wrong type, with its index.
    """
    require_sync(client, "aupsert_texts")
    embedders = by_name(embedder)
    points = plan(texts, ids=ids, payloads=payloads, titles=titles, text_key=text_key, id_key=id_key)
    stored = claim(client, name, embedders)
    for start, batch in _batches(points, batch_size, stored):
        client.upsert(name, embed_points(embedders, batch, start=start), wait=wait)
    return [point.id for point in points]


async def aupsert_texts(
    client: AsyncQdrantClient,
    name: str,
    embedder: Embedders,
    texts: Iterable[str],
    *,
    ids: Sequence[int | str | uuid.UUID] | None = None,
    payloads: Sequence[Mapping[str, Any] | None] | None = None,
    titles: Sequence[str | None] | None = None,
    text_key: str = "document",
    id_key: str = "key",
    batch_size: int = 256,
    wait: bool = True,
) -> list[PointId]:
    """`upsert_texts` for an `AsyncQdrantClient`; embeds without blocking the event loop."""
    require_async(client, "upsert_texts")
    embedders = by_name(embedder)
    points = plan(texts, ids=ids, payloads=payloads, titles=titles, text_key=text_key, id_key=id_key)
    stored = await aclaim(client, name, embedders)
    for start, batch in _batches(points, batch_size, stored):
        structs = await aembed_points(embedders, batch, start=start)
        await client.upsert(name, structs, wait=wait)
    return [point.id for point in points]


def _batches(points: list[TextPoint], size: int, stored: Stored) -> Iterator[tuple[int, list[TextPoint]]]:
    if isinstance(size, bool) or size < 1:
        raise ArgumentError(f"batch_size={size!r} must be a whole number of at least 1")
    size = min(size, stored.max_batch or size)
    return ((start, points[start : start + size]) for start in range(0, len(points), size))
