"""What the helpers are given: clients, embedders by vector name, ids, keys and numbers, each checked before use."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient, QdrantClient

from embrief import Embedder, Reranker
from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.wrapping import positive, unicode

T = TypeVar("T")

Embedders = Embedder | Mapping[str, Embedder]
"""One embedder for the unnamed vector, or one per vector name."""
PointId = int | str

NAMESPACE = uuid.UUID("9c7b5a0e-3f0d-5b52-9f0a-6d1f3c0f7a41")
"""Fixed for ever: the ids of stored points depend on it."""
OVER_FETCH = 4
"""Candidates per result when a reranker is to choose among them."""


def require_sync(client: object, twin: str) -> None:
    """Refuse what is no `QdrantClient`, naming the twin for async clients."""
    if not isinstance(client, QdrantClient):
        remedy = f"; for an AsyncQdrantClient use {twin}" if isinstance(client, AsyncQdrantClient) else ""
        raise ArgumentTypeError(f"client is a QdrantClient, not {type(client).__name__}{remedy}")


def require_async(client: object, twin: str) -> None:
    """Refuse what is no `AsyncQdrantClient`, naming the twin for ordinary clients."""
    if not isinstance(client, AsyncQdrantClient):
        remedy = f"; for a QdrantClient use {twin}" if isinstance(client, QdrantClient) else ""
        raise ArgumentTypeError(f"client is an AsyncQdrantClient, not {type(client).__name__}{remedy}")


def by_name(embedder: Embedders, using: str | None = None) -> dict[str, Embedder]:
    """Return embedders by vector name; `""` is the unnamed vector.

    Args:
        embedder: One, or one per vector name.
        using: The vector of one embedder; `None` is the unnamed one.

    Raises:
        ArgumentTypeError: It is neither an embedder nor a mapping of vector name to embedder.
        ArgumentError: The mapping is empty, a name is, or there are names and `using` too.
    """
    if using is not None and not isinstance(using, str):
        raise ArgumentTypeError(f"using is the name of a vector or None, not {type(using).__name__}")
    unicode(using, "using")
    if isinstance(embedder, Embedder):
        return {using or "": embedder}
    if using is not None:
        raise ArgumentError(f"using={using!r} names the vector of one Embedder; embedder maps names to some already")
    if not isinstance(embedder, Mapping):
        raise ArgumentTypeError(f"embedder is an Embedder or maps vector names to some, not {type(embedder).__name__}")
    unicode(list(embedder), "the names of vectors")
    given: Mapping[Any, Any] = embedder
    for name, item in given.items():
        if not isinstance(name, str) or not isinstance(item, Embedder):
            raise ArgumentTypeError(
                f"embedder maps a vector name to an Embedder; {name!r} maps to {type(item).__name__}"
            )
    if not embedder or "" in embedder:
        raise ArgumentError("embedder needs a name for each vector; pass one Embedder alone for an unnamed vector")
    return dict(embedder)


async def off_loop(embedder: Embedders, call: Callable[[], T]) -> T:
    """Run what asks embedders for their width or space: the first to ask may wait for a download or a disk."""
    return await next(iter(by_name(embedder).values())).off_loop(call)


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


def require_key(value: object, what: str) -> None:
    """Refuse what can be no key of a payload."""
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{what} is a key of the payload, a string, not {value!r}")
    unicode(value, what)


def counts(
    limit: int | None, top_n: int | None, reranker: Reranker | None, *, instruction: str | None, content: object
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
        given = {"top_n": top_n, "rerank_instruction": instruction, "rerank_content": content}
        for what, value in given.items():
            if value is not None:
                raise ArgumentError(
                    f"{what}={value!r} is for a reranker and there is none; pass reranker= or leave it out"
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
