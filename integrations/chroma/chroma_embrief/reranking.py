"""Reranking what `collection.query()` returns, in its own columnar shape."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from chromadb.api.types import QueryResult

from chroma_embrief.pictures import as_inputs
from embrief import ArgumentError, ArgumentTypeError, Image, RankedItem, Reranker
from embrief.wrapping import Input, as_image, content, inputs

_COLUMNS = ("ids", "distances", "documents", "metadatas", "embeddings", "uris", "data")


class RerankedResult(QueryResult):
    """A `QueryResult`, best first, with the scores."""

    rerank_scores: list[list[float]]
    """P(relevant) per record, 0 to 1, one list per query."""


def rerank_results(
    results: QueryResult | Mapping[str, Any],
    queries: Input | Sequence[Input],
    reranker: Reranker,
    *,
    instruction: str | None = None,
    top_n: int | None = None,
) -> RerankedResult:
    """Order the records of each query by relevance.

    A reranker that takes pictures also reads those that the results hold, with their texts: query with
    `include=["documents", "data"]`, of a collection that has a data loader.

    Args:
        results: What `collection.query()` returned, documents or pictures included. Not changed.
        queries: What was asked, one per list of records: texts, and for such a reranker pictures, as of
            `embed_query`; one string, picture or mapping for one query.
        reranker: The reranker.
        instruction: What makes a document relevant; wins over the reranker's.
        top_n: How many records to keep per query; `None` is all.

    Returns:
        All columns in the new order, with the column `rerank_scores`.

    Raises:
        ArgumentError: There is nothing to read, or not one query per list of records.
        ArgumentTypeError: `reranker` is none, or a query is a picture and the reranker takes texts only.
    """
    _check_reranker(reranker)
    pairs = _candidates(results, queries, reranker)
    ranked = [
        reranker.rerank_items(query, items, text=_itself, instruction=instruction, top_n=top_n)
        for query, items in pairs
    ]
    return _reordered(results, ranked)


async def arerank_results(
    results: QueryResult | Mapping[str, Any],
    queries: Input | Sequence[Input],
    reranker: Reranker,
    *,
    instruction: str | None = None,
    top_n: int | None = None,
) -> RerankedResult:
    """`rerank_results` without blocking the event loop."""
    _check_reranker(reranker)
    # Off the loop: pictures are copied, and of a model without a record the facts are fetched.
    pairs = await reranker.off_loop(partial(_candidates, results, queries, reranker))
    # All at once: the queries share batches.
    ranked = await asyncio.gather(
        *(
            reranker.arerank_items(query, items, text=_itself, instruction=instruction, top_n=top_n)
            for query, items in pairs
        )
    )
    return _reordered(results, ranked)


def _check_reranker(reranker: object) -> None:
    if not isinstance(reranker, Reranker):
        raise ArgumentTypeError(f"reranker is an embrief.Reranker, not {type(reranker).__name__}")


def _itself(item: Input) -> Input:
    return item


def _is_one(queries: object) -> bool:
    """Return whether this is one query; a mapping of anything else is as much a mistake as it is for texts."""
    if isinstance(queries, Mapping):
        return bool(queries) and set(queries) <= {"text", "image"}
    return isinstance(queries, (str, Image)) or (isinstance(queries, np.ndarray) and queries.ndim > 1)


def _candidates(
    results: QueryResult | Mapping[str, Any], queries: Input | Sequence[Input], reranker: Reranker
) -> list[tuple[Input, list[Input]]]:
    given = inputs(as_inputs([queries] if _is_one(queries) else queries, "queries"), "queries")
    # All of them before anything is computed, and while it is known which is which.
    asked = [content(item, f"queries[{index}]", reranker.spec, index=index) for index, item in enumerate(given)]
    if not isinstance(results, Mapping):
        raise ArgumentTypeError(f"results is what collection.query() returned, not {type(results).__name__}")
    documents = results.get("documents")
    pictures = results.get("data") if "image" in reranker.modalities else None
    columns = [column for column in (documents, pictures) if column is not None]
    if not columns:
        raise ArgumentError("the results have no documents to read; query with include=['documents', ...]")
    if len(asked) != len(columns[0]):
        raise ArgumentError(f"there are {len(asked)} queries for the results of {len(columns[0])}; give one each")
    return [
        (query, [_read(results, row, index, documents, pictures) for index in range(len(columns[0][row]))])
        for row, query in enumerate(asked)
    ]


def _read(
    results: QueryResult | Mapping[str, Any], row: int, index: int, documents: Any | None, pictures: Any | None
) -> Input:
    """Return what a reranker reads of a record: its text, its picture, or both."""
    text = documents[row][index] if documents is not None else None
    picture = pictures[row][index] if pictures is not None else None
    if picture is not None:
        image = as_image(picture, f"data[{index}]", index)
        return {"text": text, "image": image} if isinstance(text, str) else image
    if not isinstance(text, str):
        raise ArgumentError(
            f"record {results['ids'][row][index]!r} has no document for a reranker to read; leave it out with "
            "where=..., store its text, or query with include=['data', ...] for a reranker that takes pictures",
            index=index,
        )
    return text


def _reordered(results: QueryResult | Mapping[str, Any], ranked: list[list[RankedItem[Input]]]) -> RerankedResult:
    changed: dict[str, Any] = dict(results)
    for name in _COLUMNS:
        column: Any = results.get(name)
        if column is not None:
            changed[name] = [
                [values[place.index] for place in places] for values, places in zip(column, ranked, strict=True)
            ]
    changed["rerank_scores"] = [[place.score for place in places] for places in ranked]
    return cast("RerankedResult", changed)
