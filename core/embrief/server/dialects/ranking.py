"""Reranking in the words of Cohere, Jina and vLLM: POST /v1/rerank and /v2/rerank.

Queries and documents may hold pictures, as vLLM (`{"content": [parts]}`) and Jina (`{"image"}`) have them. One answer
serves the clients of all three; each reads its own part of it. Jina and vLLM answer with the documents
unless they are told otherwise, and Cohere's /v2 never does.

Source: Cohere's and Jina's API references; vLLM's documentation; what the package cohere 5.21 sends and reads.
"""

import uuid
from typing import Annotated, Any

import numpy as np
from fastapi import Response
from pydantic import BaseModel, Field

from embrief.server.dialects.base import Dialect
from embrief.server.dialects.fields import Text
from embrief.server.dialects.parts import Items, OneItem
from embrief.server.failures import Problem, refused
from embrief.server.pictures import Item, count_of, opened_pair, texts_of
from embrief.server.service import Service, ServiceOf
from embrief.server.work import answer, score


def error(problem: Problem) -> tuple[int, Any]:
    """Return an error as Cohere's (`message`), Jina's (`detail`) and vLLM's clients (`error`) read it."""
    told = {"message": problem.message, **problem.told()}
    return problem.status, {**told, "detail": problem.message, "error": {"type": problem.code, **told}}


DIALECT = Dialect("rerank", error)


class RankRequest(BaseModel):
    """What all three services are asked. Unknown fields are let pass, as they do."""

    query: OneItem
    documents: Items
    model: Annotated[Text | None, Field(description="A reranker that is served; without one the first.")] = None
    top_n: Annotated[int | None, Field(ge=1, le=2**31)] = None
    return_documents: bool | None = None
    instruction: Annotated[Text | None, Field(description="What makes a document relevant.")] = None
    truncate: Annotated[bool | None, Field(description="false: a pair that is too long is an error.")] = None
    max_tokens_per_doc: Annotated[int | None, Field(ge=1, le=2**31)] = None
    max_chunks_per_doc: Annotated[int | None, Field(description="Refused: a document is one text.")] = None
    truncate_prompt_tokens: Annotated[int | None, Field(ge=-1, le=2**31)] = None
    rank_fields: Annotated[list[str] | None, Field(description="Refused, but for text alone.")] = None


@DIALECT.router.post("/v1/rerank")
async def rerank_v1(body: RankRequest, service: ServiceOf) -> Response:
    """Rank documents; the answer holds them unless `return_documents` is false."""
    return await ranked(service, body, version="1", with_documents=body.return_documents is not False)


@DIALECT.router.post("/v2/rerank")
async def rerank_v2(body: RankRequest, service: ServiceOf) -> Response:
    """Rank documents; the answer holds them only if `return_documents` is true."""
    return await ranked(service, body, version="2", with_documents=body.return_documents is True)


async def ranked(service: Service, body: RankRequest, *, version: str, with_documents: bool) -> Response:
    """Return the answer to a request.

    Args:
        service: The server.
        body: The request.
        version: Of Cohere's interface, as the answer says it.
        with_documents: Whether the answer holds the documents.

    Raises:
        Refused: Something is asked for that would have to be left out.
        EmbriefError: As of `work.score`.
    """
    if not body.documents:
        raise refused(400, "invalid_request", "documents is empty; send one at least", param="documents")
    served = service.models.reranker(body.model)
    _check(body, served.facade.max_tokens)
    query, documents = await opened_pair(service, served, body.query, body.documents)
    scores = await score(service, served, query, documents, instruction=body.instruction, truncate=body.truncate)
    most = served.facade.max_tokens
    counts = await served.facade.acount_tokens(query, documents, instruction=body.instruction)
    order = np.argsort(-scores, kind="stable")[: body.top_n].tolist()
    results: list[dict[str, Any]] = [{"index": index, "relevance_score": float(scores[index])} for index in order]
    for item in results:
        index = item["index"]
        if with_documents:
            item["document"] = _shown(body.documents[index])
        item["truncated"] = None if counts is None else bool(counts[index] > most)
    content: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "object": "rerank",
        "model": body.model or served.name,
        "results": results,
        "meta": {"api_version": {"version": version}, "billed_units": {}},
    }
    if counts is not None:
        total = int(np.minimum(counts, most).sum())
        content["usage"] = {"prompt_tokens": total, "total_tokens": total}
        content["meta"]["tokens"] = {"input_tokens": total}
    return await answer(content, numbers=len(results))


def _shown(document: Item) -> dict[str, Any]:
    """Return a document for the answer: what it says, and how many pictures it has, which are not sent back."""
    images = count_of([document])
    return {"text": texts_of(document), **({"images": images} if images else {})}


def _check(body: RankRequest, most: int) -> None:
    """Refuse what would move scores and is not done here."""
    if body.rank_fields not in (None, ["text"]):
        told = "rank_fields is not known here: a document is one text; put the fields that count into it"
        raise refused(400, "invalid_request", told, param="rank_fields")
    if body.max_chunks_per_doc is not None:
        told = "max_chunks_per_doc is not known here: a document is read as one text; leave it out"
        raise refused(400, "invalid_request", told, param="max_chunks_per_doc")
    for param in ("max_tokens_per_doc", "truncate_prompt_tokens"):
        wanted = getattr(body, param)
        # A pair is cut to the model's own limit, so that a larger one is kept by itself; -1 is vLLM's word for that.
        if wanted is not None and -1 < wanted < most:
            told = f"{param}={wanted} is below the {most} tokens that a pair may have here; leave it out and send less"
            raise refused(400, "invalid_request", told, param=param)
