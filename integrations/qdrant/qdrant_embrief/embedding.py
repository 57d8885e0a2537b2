"""From texts to points with vectors, one batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from qdrant_client import models

from embrief.wrapping import ato_lists, to_lists

if TYPE_CHECKING:
    from embrief import Embedder
    from qdrant_embrief.points import TextPoint


def check_points(embedders: Mapping[str, Embedder], points: Sequence[TextPoint]) -> None:
    """Refuse texts that some embedder would refuse, before the first of them is stored."""
    texts, titles = _columns(points)
    for item in embedders.values():
        item.check_documents(texts, titles=titles)


def embed_points(embedders: Mapping[str, Embedder], points: Sequence[TextPoint]) -> list[models.PointStruct]:
    """Embed one batch.

    Args:
        embedders: By vector name; `""` is the unnamed vector.
        points: The batch.
    """
    texts, titles = _columns(points)
    vectors = {name: to_lists(item.embed_documents(texts, titles=titles)) for name, item in embedders.items()}
    return _structs(points, vectors)


async def aembed_points(embedders: Mapping[str, Embedder], points: Sequence[TextPoint]) -> list[models.PointStruct]:
    """`embed_points` without blocking the event loop."""
    texts, titles = _columns(points)
    vectors = {
        name: await ato_lists(item, await item.aembed_documents(texts, titles=titles))
        for name, item in embedders.items()
    }
    return await next(iter(embedders.values())).off_loop(partial(_structs, points, vectors))


def _columns(points: Sequence[TextPoint]) -> tuple[list[str], list[str | None] | None]:
    texts, titles = [point.text for point in points], [point.title for point in points]
    return texts, titles if any(title is not None for title in titles) else None


def _structs(points: Sequence[TextPoint], vectors: Mapping[str, list[list[float]]]) -> list[models.PointStruct]:
    return [
        models.PointStruct(
            id=point.id,
            vector=vectors[""][row] if "" in vectors else {name: rows[row] for name, rows in vectors.items()},
            payload=point.payload,
        )
        for row, point in enumerate(points)
    ]
