"""Texts into a collection, in batches, after the space guard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from embrief.wrapping import count, storing
from qdrant_embrief.claiming import aclaim, arequire_known, claim, require_known
from qdrant_embrief.embedding import aembed_points, check_points, embed_points
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
    using: str | None = None,
) -> list[PointId]:
    """Embed texts as documents and store them in batches. Everything is checked before the first text is embedded.

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
    points = plan(texts, ids=ids, payloads=payloads, titles=titles, text_key=text_key, id_key=id_key)
    require_known(client, name, embedders)
    check_points(embedders, points)
    # Only now: a call that is refused for its texts leaves the collection as it was.
    stored = claim(client, name, embedders)
    kept = [point.id for point in points]
    for start, batch in _batches(points, size, stored):
        with storing(kept, start, where=f"the Qdrant collection {name!r}"):
            client.upsert(name, embed_points(embedders, batch), wait=wait)
    return kept


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
    using: str | None = None,
) -> list[PointId]:
    """`upsert_texts` for an `AsyncQdrantClient`; embeds without blocking the event loop."""
    require_async(client, "upsert_texts")
    embedders, size = by_name(embedder, using), count(batch_size, "batch_size")
    points = plan(texts, ids=ids, payloads=payloads, titles=titles, text_key=text_key, id_key=id_key)
    await arequire_known(client, name, embedders)
    await next(iter(embedders.values())).off_loop(partial(check_points, embedders, points))
    stored = await aclaim(client, name, embedders)
    kept = [point.id for point in points]
    for start, batch in _batches(points, size, stored):
        with storing(kept, start, where=f"the Qdrant collection {name!r}"):
            await client.upsert(name, await aembed_points(embedders, batch), wait=wait)
    return kept


def _batches(points: list[TextPoint], size: int, stored: Stored) -> Iterator[tuple[int, list[TextPoint]]]:
    size = min(size, stored.max_batch or size)
    return ((start, points[start : start + size]) for start in range(0, len(points), size))
