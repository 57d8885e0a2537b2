"""Queries over stored texts, after the space guard, optionally reranked, and the hits they return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from embrief import Embedder, Reranker
from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.wrapping import ato_lists, carried, to_lists
from qdrant_embrief.helpers.arguments import by_name, counts, require_async, require_key, require_sync, threshold
from qdrant_embrief.helpers.collections import arequire_known, require_known

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, QdrantClient, models

    from embrief import RankedItem
    from embrief.wrapping import Input


@dataclass(frozen=True, slots=True, repr=False)
class Hit:
    """A stored text or picture that was found."""

    point: models.ScoredPoint
    """The point as Qdrant returned it."""
    text: str | None
    """The text, `None` if the point's payload has none under `text_key`, as of a picture."""
    rerank_score: float | None = None
    """P(relevant), 0 to 1; `None` without a reranker."""

    def __repr__(self) -> str:
        # Without the payload and the vector, which may be long.
        text = None if self.text is None else shorten(self.text, 60, placeholder=" ...")
        ranked = "" if self.rerank_score is None else f", rerank_score={self.rerank_score:.4f}"
        return f"Hit(id={self.id!r}, score={self.score:.4f}, text={text!r}{ranked})"

    @property
    def id(self) -> Any:
        """Return the point's id."""
        return self.point.id

    @property
    def score(self) -> float:
        """Return Qdrant's similarity to the query, also for reranked hits."""
        return self.point.score

    @property
    def payload(self) -> dict[str, Any]:
        """Return the point's payload."""
        return self.point.payload or {}


def query_texts(
    client: QdrantClient,
    name: str,
    embedder: Embedder,
    query: Input,
    *,
    limit: int | None = None,
    instruction: str | None = None,
    task: str | None = None,
    using: str | None = None,
    query_filter: models.Filter | None = None,
    search_params: models.SearchParams | None = None,
    score_threshold: float | None = None,
    reranker: Reranker | None = None,
    rerank_instruction: str | None = None,
    rerank_content: Callable[[Hit], Input] | None = None,
    top_n: int | None = None,
    text_key: str = "document",
) -> list[Hit]:
    """Find the stored texts and pictures that answer a query, best first.

    Args:
        client: The client; it need not be attached.
        name: The collection.
        embedder: The embedder of the searched vector.
        query: The query, without any prompt; for a model that takes pictures also an `Image`, a sequence of texts and
            `Image`s, or a mapping with "text" and "image".
        limit: Hits to take from Qdrant; by default 10, or four times `top_n` for a reranker to choose from.
        instruction: What the query is for; wins over the embedder's.
        task: The task of this query; wins over the embedder's.
        using: Name of the vector to search, for a collection with named vectors.
        query_filter: Which points count.
        search_params: How the server searches.
        score_threshold: The least score of a hit in Qdrant's measure (for a distance the largest), before a reranker.
        reranker: Orders the hits anew by reading query and text together.
        rerank_instruction: What makes a text relevant; wins over the reranker's.
        rerank_content: Gives what the reranker reads of a hit, such as the `Image` of a path in its payload; by default
            its text.
        top_n: Hits to keep after reranking; by default all that `limit` names, or 10 without a `limit`.
        text_key: Payload key of the text.

    Returns:
        Hits; with a reranker in its order and with its scores, else in Qdrant's.

    Raises:
        SpaceMismatchError: The collection holds vectors of another or an unknown space, or of another width. Nothing
            was embedded.
        ArgumentError: A value does not fit, or a candidate for the reranker has no text.
        ArgumentTypeError: A value has the wrong type.
    """
    require_sync(client, "aquery_texts")
    limit, top_n = counts(limit, top_n, reranker, instruction=rerank_instruction, content=rerank_content)
    least = threshold(score_threshold)
    require_key(text_key, "text_key")
    _check_type(embedder)
    require_known(client, name, _fields(embedder, using, task))
    query = carried(query)
    vector = to_lists(embedder.embed_query(query, instruction=instruction, task=task)[None])[0]
    found = client.query_points(
        name,
        vector,
        using=using,
        query_filter=query_filter,
        search_params=search_params,
        score_threshold=least,
        limit=limit,
    )
    hits = _hits_of(found.points, text_key)
    if reranker is None:
        return hits
    text = rerank_content or partial(_text_of, text_key=text_key)
    return _ranked_hits(reranker.rerank_items(query, hits, text=text, instruction=rerank_instruction, top_n=top_n))


async def aquery_texts(
    client: AsyncQdrantClient,
    name: str,
    embedder: Embedder,
    query: Input,
    *,
    limit: int | None = None,
    instruction: str | None = None,
    task: str | None = None,
    using: str | None = None,
    query_filter: models.Filter | None = None,
    search_params: models.SearchParams | None = None,
    score_threshold: float | None = None,
    reranker: Reranker | None = None,
    rerank_instruction: str | None = None,
    rerank_content: Callable[[Hit], Input] | None = None,
    top_n: int | None = None,
    text_key: str = "document",
) -> list[Hit]:
    """`query_texts` for an `AsyncQdrantClient`; embeds and reranks without blocking the event loop."""
    require_async(client, "query_texts")
    limit, top_n = counts(limit, top_n, reranker, instruction=rerank_instruction, content=rerank_content)
    least = threshold(score_threshold)
    require_key(text_key, "text_key")
    _check_type(embedder)
    await arequire_known(client, name, await embedder.off_loop(partial(_fields, embedder, using, task)))
    query = carried(query)
    array = await embedder.aembed_query(query, instruction=instruction, task=task)
    vector = (await ato_lists(embedder, array[None]))[0]
    found = await client.query_points(
        name,
        vector,
        using=using,
        query_filter=query_filter,
        search_params=search_params,
        score_threshold=least,
        limit=limit,
    )
    hits = _hits_of(found.points, text_key)
    if reranker is None:
        return hits
    text = rerank_content or partial(_text_of, text_key=text_key)
    return _ranked_hits(
        await reranker.arerank_items(query, hits, text=text, instruction=rerank_instruction, top_n=top_n)
    )


def _check_type(embedder: Embedder) -> None:
    if not isinstance(embedder, Embedder):
        raise ArgumentTypeError(f"embedder is an Embedder, not {type(embedder).__name__}; name the vector with using=")


def _fields(embedder: Embedder, using: str | None, task: str | None) -> dict[str, Embedder]:
    # A task may have a document prompt of its own, which makes a space of its own.
    return by_name(embedder if task is None else embedder.with_task(task), using)


def _hits_of(points: Sequence[models.ScoredPoint], text_key: str) -> list[Hit]:
    """Return the points with their texts."""
    texts = [(point.payload or {}).get(text_key) for point in points]
    return [Hit(point, text if isinstance(text, str) else None) for point, text in zip(points, texts, strict=True)]


def _text_of(hit: Hit, *, text_key: str) -> str:
    """Return the text for a reranker to read.

    Raises:
        ArgumentError: There is none.
    """
    if hit.text is None:
        keys = ", ".join(map(repr, hit.payload)) or "none"
        raise ArgumentError(
            f"the point {hit.id!r} has no text under {text_key!r} for the reranker to read; its payload "
            f"has {keys}. Pass the right one as text_key=, or what it is to read as rerank_content="
        )
    return hit.text


def _ranked_hits(ranked: list[RankedItem[Hit]]) -> list[Hit]:
    """Return new hits with the reranker's scores; the points stay as they are."""
    return [Hit(place.item.point, place.item.text, place.score) for place in ranked]
