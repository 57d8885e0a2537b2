"""From texts to points with vectors, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from qdrant_client import models

from embrief.errors import IndexedError
from embrief.wrapping import ato_lists, to_lists

if TYPE_CHECKING:
    from embrief import Embedder
    from qdrant_embrief.points import TextPoint


def embed_points(
    embedders: Mapping[str, Embedder], points: Sequence[TextPoint], *, start: int
) -> list[models.PointStruct]:
    """Embed one batch.

    Args:
        embedders: By vector name; `""` is the unnamed vector.
        points: The batch.
        start: Index of its first text in the caller's list, for errors.
    """
    texts, titles = _columns(points)
    with _counted_from(start):
        vectors = {name: to_lists(item.embed_documents(texts, titles=titles)) for name, item in embedders.items()}
    return _structs(points, vectors)


async def aembed_points(
    embedders: Mapping[str, Embedder], points: Sequence[TextPoint], *, start: int
) -> list[models.PointStruct]:
    """`embed_points` without blocking the event loop."""
    texts, titles = _columns(points)
    with _counted_from(start):
        vectors = {
            name: await ato_lists(item, await item.aembed_documents(texts, titles=titles))
            for name, item in embedders.items()
        }
    return await next(iter(embedders.values())).off_loop(partial(_structs, points, vectors))


def _columns(points: Sequence[TextPoint]) -> tuple[list[str], list[str | None] | None]:
    texts, titles = [point.text for point in points], [point.title for point in points]
    return texts, titles if any(title is not None for title in titles) else None


@contextmanager
def _counted_from(start: int) -> Iterator[None]:
    """Add the place of a batch to the index in an error."""
    try:
        yield
    except IndexedError as error:
        if error.index is not None and start:
            error.index += start
            error.add_note(f"(nothing from text {start} on, where the batch begins, was stored)")
        raise


def _structs(points: Sequence[TextPoint], vectors: Mapping[str, list[list[float]]]) -> list[models.PointStruct]:
    return [
        models.PointStruct(
            id=point.id,
            vector=vectors[""][row] if "" in vectors else {name: rows[row] for name, rows in vectors.items()},
            payload=point.payload,
        )
        for row, point in enumerate(points)
    ]
