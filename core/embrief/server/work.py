"""What all dialects ask of the models: texts within the limits, embedded or scored, and the counts for the answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import Response

from embrief.errors import EmbriefError
from embrief.images.image import Image
from embrief.server.failures import refused
from embrief.server.pictures import count_of, opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from embrief.facades.embedder import Embedder, EmbeddingResult
    from embrief.facades.reranker import Reranker
    from embrief.facts.prompts import Content
    from embrief.server.asking import Ask
    from embrief.server.models import Served
    from embrief.server.pictures import Item
    from embrief.server.service import Service

_LARGE = 20_000
"""Numbers from which on an answer is written on a thread, piece by piece, so that other requests go on meanwhile."""


async def embed(
    service: Service,
    served: Served[Embedder],
    items: Sequence[Item],
    ask: Ask,
    *,
    what: str = "input",
    alone: bool = False,
) -> EmbeddingResult:
    """Embed the inputs of one request.

    Args:
        service: The server.
        served: The model.
        items: The texts, or texts and pictures.
        ask: Their role, and what else was said of them.
        what: The field that they are from.
        alone: Whether it is one input that is no list's, so that errors about a picture have no index.

    Raises:
        Refused: There are more texts, pictures or tokens than a request may have, or a picture cannot be taken.
        EmbriefError: As of `Embedder.encode`.
    """
    _check_count(len(items), service.limits.max_items, "texts", "max_items")
    instead = served.any_space if ask.other_spaces else None
    try:
        await service.readiness.loaded(served)
    except EmbriefError:
        if instead is None:
            raise
    texts = await opened(service, served, items, what, alone=alone)
    embedder = served.view(**_changes(ask))
    limit = service.limits.max_request_tokens
    # A tokenizer makes no more tokens than bytes (but of a few ligatures): short requests are not tokenised twice.
    prompt = embedder.render("", role=ask.role, instruction=ask.instruction, task=ask.task)
    if _most_tokens(texts, len(prompt.encode("utf-8", "surrogatepass")), embedder) > limit:
        counts = await embedder.acount_tokens(texts, role=ask.role, instruction=ask.instruction, task=ask.task)
        _check_tokens(counts, limit)
    asked = embedder if instead is None else instead.with_settings(**_changes(ask))
    result = await asked.aencode(texts, role=ask.role, instruction=ask.instruction, task=ask.task)
    service.metrics.embedded(served.name, ask.said, len(texts), tokens_read(result, served, ask))
    service.metrics.seen(served.name, count_of(items))
    return result


async def score(
    service: Service,
    served: Served[Reranker],
    query: Content,
    documents: Sequence[Content],
    *,
    instruction: str | None = None,
    truncate: bool | None = None,
) -> NDArray[np.float32]:
    """Return how relevant each document is, in input order.

    Args:
        service: The server.
        served: The reranker.
        query: The query, as of `opened`, and so are the documents.
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
    shown = len(around.shown.encode("utf-8", "surrogatepass"))
    if _most_tokens(documents, shown + _most_tokens([query], 0, reranker), reranker) > limit:
        _check_tokens(await reranker.acount_tokens(query, documents, instruction=instruction), limit)
    scores = await reranker.ascore(query, documents, instruction=instruction)
    service.metrics.scored(served.name, len(documents))
    service.metrics.seen(served.name, sum(len(_images(item)) for item in (query, *documents)))
    return scores


def _changes(ask: Ask) -> dict[str, Any]:
    names = ("dim", "truncate", "max_tokens", "normalize")
    return {name: value for name in names if (value := getattr(ask, name)) is not None}


def _most_tokens(items: Sequence[Content], around: int, facade: Embedder | Reranker) -> int:
    """Return a number of tokens that inputs do not have more of; `around` bytes stand around each."""
    total = 0
    for item in items:
        parts = (item,) if isinstance(item, str) else item
        # Special tokens, and the blank that some tokenizers put in front.
        texts = [part for part in parts if isinstance(part, str)]
        total += around + 8 + sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        if (images := facade.spec.images) is not None:
            sizes = [image.size for image in _images(item)]
            total += sum(images.tokens(*size, facade.max_pixels) + len(images.mark) for size in sizes)
    return total


def _images(item: Content) -> list[Image]:
    return [] if isinstance(item, str) else [part for part in item if isinstance(part, Image)]


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
    images: dict[str, list[int]]
    """As `image_tokens`, how many of the tokens are those of pictures; nothing of a model that takes texts only."""

    @classmethod
    def of(cls, result: EmbeddingResult) -> Told:
        """Return it for a result."""
        count = len(result.vectors)
        nothing: list[Any] = [None] * count
        tokens = nothing if result.token_counts is None else result.token_counts.tolist()
        images = {} if result.image_tokens is None else {"image_tokens": result.image_tokens.tolist()}
        return cls(tokens, nothing if result.truncated is None else result.truncated.tolist(), images)


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
