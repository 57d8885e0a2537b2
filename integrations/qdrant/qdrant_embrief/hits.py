"""What a search returns, how many candidates it takes, and the text of a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from embrief import Reranker
from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.wrapping import positive

if TYPE_CHECKING:
    from qdrant_client import models

    from embrief import RankedItem

OVER_FETCH = 4
"""Candidates per result when a reranker is to choose among them."""


@dataclass(frozen=True, slots=True, repr=False)
class Hit:
    """A stored text that was found."""

    point: models.ScoredPoint
    """The point as Qdrant returned it."""
    text: str | None
    """The text, `None` if the point's payload has none under `text_key`."""
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


def counts(
    limit: int | None, top_n: int | None, reranker: Reranker | None, instruction: str | None
) -> tuple[int, int | None]:
    """Return how many hits to take from Qdrant, and how many to keep after reranking (`None`: all).

    Raises:
        ArgumentError: A number is not positive, does not fit the other, or needs a reranker.
        ArgumentTypeError: A number or the reranker has the wrong type.
    """
    if reranker is not None and not isinstance(reranker, Reranker):
        raise ArgumentTypeError(f"reranker is a Reranker or None, not {type(reranker).__name__}")
    limit, top_n = positive(limit, "limit"), positive(top_n, "top_n")
    if reranker is None:
        for what, given in (("top_n", top_n), ("rerank_instruction", instruction)):
            if given is not None:
                raise ArgumentError(
                    f"{what}={given!r} is for a reranker and there is none; pass reranker= or leave it out"
                )
        return limit or 10, None
    if limit is None:
        return OVER_FETCH * (top_n or 10), top_n or 10
    if top_n is not None and top_n > limit:
        raise ArgumentError(f"top_n={top_n} is more than the limit={limit} hits there are to choose from; raise limit")
    return limit, top_n


def threshold(value: object) -> float | None:
    """Return the least score as a plain number.

    Raises:
        ArgumentTypeError: It is no number.
        ArgumentError: It is NaN.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(f"score_threshold is a number or None, not {value!r}")
    if value != value:
        raise ArgumentError("score_threshold is NaN, and no score is more or less than that; give a number or None")
    return float(value)


def hits_of(points: Sequence[models.ScoredPoint], text_key: str) -> list[Hit]:
    """Return the points with their texts."""
    texts = [(point.payload or {}).get(text_key) for point in points]
    return [Hit(point, text if isinstance(text, str) else None) for point, text in zip(points, texts, strict=True)]


def text_of(hit: Hit, *, text_key: str) -> str:
    """Return the text for a reranker to read.

    Raises:
        ArgumentError: There is none.
    """
    if hit.text is None:
        keys = ", ".join(map(repr, hit.payload)) or "none"
        raise ArgumentError(
            f"the point {hit.id!r} has no text under {text_key!r} for the reranker to read; its payload "
            f"has {keys}. Pass the right one as text_key="
        )
    return hit.text


def ranked_hits(ranked: list[RankedItem[Hit]]) -> list[Hit]:
    """Return new hits with the reranker's scores; the points stay as they are."""
    return [Hit(place.item.point, place.item.text, place.score) for place in ranked]
