"""What all dialects ask of the models: texts within the limits, embedded or scored, and the counts for the answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import Response

from embrief.errors import EmbriefError
from embrief.server.failures import refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from embrief.facades.embedder import Embedder, EmbeddingResult
    from embrief.facades.reranker import Reranker
    from embrief.server.asking import Ask
    from embrief.server.models import Served
    from embrief.server.service import Service

_LARGE = 20_000
"""Numbers from which on an answer is written on a thread, piece by piece, so that other requests go on meanwhile."""


async def embed(service: Service, served: Served[Embedder], texts: Sequence[str], ask: Ask) -> EmbeddingResult:
    """Embed the texts of one request.

    Args:
        service: The server.
        served: The model.
        texts: The texts.
        ask: Their role, and what else was said of them.

    Raises:
        Refused: There are more texts or tokens than a request may have.
        EmbriefError: As of `Embedder.encode`.
    """
    _check_count(len(texts), service.limits.max_items, "texts", "max_items")
    instead = served.any_space if ask.other_spaces else None
    try:
        await service.readiness.loaded(served)
    except EmbriefError:
        if instead is None:
            raise
    embedder = served.view(**_changes(ask))
    limit = service.limits.max_request_tokens
    # A tokenizer makes no more tokens than bytes (but of a few ligatures): short requests are not tokenised twice.
    prompt = embedder.render("", role=ask.role, instruction=ask.instruction, task=ask.task)
    if _bytes(texts, len(prompt.encode("utf-8", "surrogatepass"))) > limit:
        counts = await embedder.acount_tokens(texts, role=ask.role, instruction=ask.instruction, task=ask.task)
        _check_tokens(counts, limit)
    asked = embedder if instead is None else instead.with_settings(**_changes(ask))
    result = await asked.aencode(texts, role=ask.role, instruction=ask.instruction, task=ask.task)
    service.metrics.embedded(served.name, ask.said, len(texts), tokens_read(result, served, ask))
    return result


async def score(
    service: Service,
    served: Served[Reranker],
    query: str,
    documents: Sequence[str],
    *,
    instruction: str | None = None,
    truncate: bool | None = None,
) -> NDArray[np.float32]:
    """Return how relevant each document is, in input order.

    Args:
        service: The server.
        served: The reranker.
        query: The query.
        documents: The documents.
        instruction: What makes a document relevant.
        truncate: Whether a document that is too long is cut; `None`: as the reranker was set up.

    Raises:
        Refused: There are more documents or tokens than a request may have.
        EmbriefError: As of `Reranker.score`.
    """
    _check_count(len(documents), service.limits.max_rerank_documents, "documents", "max_rerank_documents")
    await service.readiness.loaded(served)
    own = served.facade.settings.truncate
    cut = ("silent" if own == "warn" else None) if truncate is None else ("silent" if truncate else "error")
    reranker = served.view(truncate=cut)
    limit = service.limits.max_request_tokens
    around = reranker.render(query, "", instruction=instruction)
    if _bytes(documents, len(around.text.encode("utf-8", "surrogatepass"))) > limit:
        _check_tokens(await reranker.acount_tokens(query, documents, instruction=instruction), limit)
    scores = await reranker.ascore(query, documents, instruction=instruction)
    service.metrics.scored(served.name, len(documents))
    return scores


def _changes(ask: Ask) -> dict[str, Any]:
    names = ("dim", "truncate", "max_tokens", "normalize")
    return {name: value for name in names if (value := getattr(ask, name)) is not None}


def _bytes(texts: Sequence[str], around: int) -> int:
    # Special tokens, and the blank that some tokenizers put in front.
    return sum(len(text.encode("utf-8", "surrogatepass")) + around + 8 for text in texts)


def _check_count(count: int, limit: int, what: str, name: str) -> None:
    if count > limit:
        raise refused(413, "too_many_items", f"{count} {what} are more than a request may have ({name} is {limit})")


def _check_tokens(counts: NDArray[np.int64] | None, limit: int) -> None:
    total = tokens_of(counts)
    if total is not None and total > limit:
        raise refused(
            413,
            "too_many_tokens",
            f"the texts have {total} tokens, more than a request may have (max_request_tokens is {limit}); send fewer",
        )


def tokens_of(counts: NDArray[np.int64] | None) -> int | None:
    """Return the tokens of all texts together; `None` where the model's server does not tell."""
    return None if counts is None else int(counts.sum())


def tokens_read(result: EmbeddingResult, served: Served[Embedder], ask: Ask) -> int | None:
    """Return the tokens that the model has read of all texts together, as services count them.

    Of a text that was cut these are as many as it may have; what a result counts is before anything is cut.
    """
    if result.token_counts is None:
        return None
    most = served.facade.max_tokens if ask.max_tokens is None else ask.max_tokens
    return int(np.minimum(result.token_counts, most).sum())


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer says of each text, beside its vector."""

    tokens: list[int | None]
    truncated: list[bool | None]

    @classmethod
    def of(cls, result: EmbeddingResult) -> Told:
        """Return it for a result."""
        count = len(result.vectors)
        nothing: list[Any] = [None] * count
        tokens = nothing if result.token_counts is None else result.token_counts.tolist()
        return cls(tokens, nothing if result.truncated is None else result.truncated.tolist())


async def answer(content: Any, *, numbers: int = 0, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer.

    Args:
        content: Plain values.
        numbers: About how many numbers it holds; many are written on a thread.
        headers: Further headers.
    """
    # One call for all of it would hold the interpreter, on whatever thread, for as long as it takes.
    data = await asyncio.to_thread(_in_pieces, content) if numbers > _LARGE else encoded(content)
    return Response(data, media_type="application/json", headers=headers)


def encoded(content: Any) -> bytes:
    """Return JSON in ASCII, which no text can break, a lone surrogate among them."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def _in_pieces(content: Any) -> bytes:
    return b"".join(_pieces(content))


def _pieces(content: Any) -> Iterator[bytes]:
    """Yield what `encoded` returns, in parts of one vector at most."""
    if isinstance(content, dict) and content:
        before = b"{"
        for name, value in content.items():
            yield before + encoded(name) + b":"
            yield from _pieces(value)
            before = b","
        yield b"}"
    elif isinstance(content, list) and content and isinstance(content[0], (dict, list)):
        before = b"["
        for value in content:
            yield before
            yield from _pieces(value)
            before = b","
        yield b"]"
    else:
        yield encoded(content)
