"""Reranking what `collection.query()` returns, in its own columnar shape."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

from chromadb.api.types import QueryResult

from embrief import ArgumentError, ArgumentTypeError, RankedItem, Reranker
from embrief.wrapping import texts as checked_texts

_COLUMNS = ("ids", "distances", "documents", "metadatas", "embeddings", "uris", "data")


class RerankedResult(QueryResult):
    """A `QueryResult`, best first, with the scores."""

    rerank_scores: list[list[float]]
    """P(relevant) per record, 0 to 1, one list per query."""


def rerank_results(
    results: QueryResult | Mapping[str, Any],
    queries: str | Sequence[str],
    reranker: Reranker,
    *,
    instruction: str | None = None,
    top_n: int | None = None,
) -> RerankedResult:
    """Order the records of each query by relevance.

    Args:
        results: What `collection.query()` returned, documents included. Not changed.
        queries: The texts that were asked, one per list of records; one string for one query.
        reranker: The reranker.
        instruction: What makes a document relevant; wins over the reranker's.
        top_n: How many records to keep per query; `None` is all.

    Returns:
        All columns in the new order, with the column `rerank_scores`.

    Raises:
        ArgumentError: There are no documents, or not one query per list of records.
        ArgumentTypeError: `reranker` is none.
    """
    pairs = _candidates(results, queries, reranker)
    ranked = [
        reranker.rerank_items(query, texts, text=str, instruction=instruction, top_n=top_n) for query, texts in pairs
    ]
    return _reordered(results, ranked)


async def arerank_results(
    results: QueryResult | Mapping[str, Any],
    queries: str | Sequence[str],
    reranker: Reranker,
    *,
    instruction: str | None = None,
    top_n: int | None = None,
) -> RerankedResult:
    """`rerank_results` without blocking the event loop."""
    pairs = _candidates(results, queries, reranker)
    # All at once: the queries share batches.
    ranked = await asyncio.gather(
        *(
            reranker.arerank_items(query, texts, text=str, instruction=instruction, top_n=top_n)
            for query, texts in pairs
        )
    )
    return _reordered(results, ranked)


def _candidates(
    results: QueryResult | Mapping[str, Any], queries: str | Sequence[str], reranker: Reranker
) -> list[tuple[str, list[str]]]:
    if not isinstance(reranker, Reranker):
        raise ArgumentTypeError(f"reranker is an embrief.Reranker, not {type(reranker).__name__}")
    asked = checked_texts([queries] if isinstance(queries, str) else queries, "queries")
    if not isinstance(results, Mapping):
        raise ArgumentTypeError(f"results is what collection.query() returned, not {type(results).__name__}")
    documents = results.get("documents")
    if documents is None:
        raise ArgumentError("the results have no documents to read; query with include=['documents', ...]")
    if len(asked) != len(documents):
        raise ArgumentError(f"there are {len(asked)} queries for the results of {len(documents)}; give the texts asked")
    for row, texts in enumerate(documents):
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ArgumentError(
                    f"record {results['ids'][row][index]!r} has no document for a reranker to read; leave it "
                    "out with where=..., or store its text",
                    index=index,
                )
    return list(zip(asked, [list(texts) for texts in documents], strict=True))


def _reordered(results: QueryResult | Mapping[str, Any], ranked: list[list[RankedItem[str]]]) -> RerankedResult:
    changed: dict[str, Any] = dict(results)
    for name in _COLUMNS:
        column: Any = results.get(name)
        if column is not None:
            changed[name] = [
                [values[place.index] for place in places] for values, places in zip(column, ranked, strict=True)
            ]
    changed["rerank_scores"] = [[place.score for place in places] for places in ranked]
    return cast("RerankedResult", changed)
