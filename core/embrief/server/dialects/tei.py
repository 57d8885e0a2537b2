"""The words of Hugging Face's text-embeddings-inference (TEI): /embed, /rerank, /similarity, /tokenize, /info, /health.

TEI has one model and its requests name none. Here a request may: as `model` in its body, or in the address for clients
that send nothing of their own, as in `/embed?model=NAME:query`. Without a name it is the first that is served.

/rerank is also where vLLM and Jina rerank: a request with `documents` in the place of `texts` is theirs.

Source: TEI's OpenAPI description and source at 1.9.3.
"""

import time
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import Query, Response
from pydantic import BaseModel, BeforeValidator, Field

from embrief.errors import IndexedError
from embrief.facades.embedder import Embedder
from embrief.server.asking import Ask, asked
from embrief.server.dialects.base import Dialect
from embrief.server.dialects.fields import OneOrMany, Text, Texts
from embrief.server.dialects.parts import Items, OneItem
from embrief.server.dialects.ranking import RankRequest, ranked
from embrief.server.dialects.tei_info import info_of
from embrief.server.failures import Problem, Refused, problem_of, refused
from embrief.server.models import Served
from embrief.server.pictures import opened_pair
from embrief.server.service import Service, ServiceOf
from embrief.server.work import answer, embed, score, tokens_read
from embrief.servers.answers import log_odds

_BACKEND = {"wrong_kind_of_model", "not_supported"}


def error(problem: Problem) -> tuple[int, Any]:
    """Return an error as TEI says it, with its status and kind. A missing key has no body there."""
    status, message = problem.status, problem.message
    if status == 401:
        return status, None
    kind = "Validation"
    if problem.code == "empty":
        kind = "Empty"
    elif problem.code in _BACKEND or (status >= 500 and status != 503):
        status, kind = 424, "Backend"
    elif status == 400:
        status = 422
    elif status == 429:
        kind = "Overloaded"
    elif status == 503:
        kind = "Unhealthy"
    if problem.code == "input_too_long" and problem.limit is not None:
        message = f"`inputs` must have less than {problem.limit} tokens. Given: {problem.tokens}. {message}"
    return status, {"error": message, "error_type": kind, "message": message, "detail": message, **problem.told()}


DIALECT = Dialect("tei", error)
In = Annotated[str | None, Query(description="A name that is served, perhaps as NAME:query; without one the first.")]


def _direction(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Direction = Annotated[
    Text | None,
    BeforeValidator(_direction),
    Field(description="left is refused where a text may be cut: it loses its end here."),
]


class _Cut(BaseModel):
    """What several requests say of texts that are too long. Unknown fields are let pass, as TEI does."""

    model: Annotated[Text | None, Field(description="A name that is served, perhaps as NAME:query.")] = None
    truncate: Annotated[bool | None, Field(description="false: a text that is too long is an error.")] = None
    truncation_direction: Direction = None


class EmbedRequest(_Cut):
    """What POST /embed is asked."""

    inputs: OneOrMany
    normalize: bool = True
    prompt_name: Annotated[Text | None, Field(description="query, document, plain, or a task of the model.")] = None
    instruction: Annotated[Text | None, Field(description="What queries are for.")] = None
    dimensions: Annotated[int | None, Field(ge=1, le=2**31)] = None
    encoding_format: Annotated[str | None, Field(description="float alone.")] = None


class RerankRequest(_Cut):
    """What POST /rerank is asked: by TEI's clients with `texts`, by those of vLLM and Jina with `documents`."""

    query: OneItem
    texts: Texts | None = None
    raw_scores: Annotated[bool, Field(description="Log-odds in the place of probabilities.")] = False
    return_text: bool = False
    instruction: Annotated[Text | None, Field(description="What makes a document relevant.")] = None
    documents: Items | None = None
    top_n: Annotated[int | None, Field(ge=1, le=2**31)] = None
    return_documents: bool | None = None
    max_tokens_per_doc: Annotated[int | None, Field(ge=1, le=2**31)] = None
    max_chunks_per_doc: int | None = None
    truncate_prompt_tokens: Annotated[int | None, Field(ge=-1, le=2**31)] = None
    rank_fields: list[str] | None = None


class Sentences(BaseModel):
    """The texts that POST /similarity compares."""

    source_sentence: Text
    sentences: Texts


class SimilarityParameters(_Cut):
    """What POST /similarity says of them."""

    prompt_name: Annotated[Text | None, Field(description="query, document, plain, or a task of the model.")] = None


class SimilarityRequest(BaseModel):
    """What POST /similarity is asked."""

    inputs: Sentences
    parameters: SimilarityParameters | None = None
    model: Annotated[Text | None, Field(description="A name that is served.")] = None


class TokenizeRequest(BaseModel):
    """What POST /tokenize is asked."""

    inputs: OneOrMany
    add_special_tokens: Annotated[bool, Field(description="false: without the markers put around the text.")] = True
    prompt_name: Annotated[Text | None, Field(description="query, document, plain, or a task of the model.")] = None
    model: Annotated[Text | None, Field(description="A name that is served.")] = None


@DIALECT.router.post("/embed")
@DIALECT.router.post("/", summary="The same as /embed, as TEI has it for its main task")
async def embeddings(body: EmbedRequest, service: ServiceOf, model: In = None) -> Response:
    """Embed one text or several; always a list of vectors."""
    start = time.perf_counter()
    if body.encoding_format not in (None, "float"):
        raise refused(400, "invalid_request", "vectors are lists of numbers here: encoding_format is float")
    if not body.inputs:
        raise refused(400, "empty", "`inputs` cannot be empty", param="inputs")
    served, ask = _asked(service, body, model, body.prompt_name, body)
    result = await embed(service, served, body.inputs, ask)
    headers = _headers(body.inputs, tokens_read(result, served, ask), start)
    return await answer(result.vectors.tolist(), numbers=result.vectors.size, headers=headers)


@DIALECT.router.post("/rerank")
async def rerank(body: RerankRequest, service: ServiceOf, model: In = None) -> Response:
    """Rank texts, best first; all of them are in the answer."""
    name = model if body.model is None else body.model
    if body.documents is not None:
        if body.texts is not None:
            raise refused(400, "invalid_request", "texts and documents are both given; send one", param="documents")
        asks = {
            field: getattr(body, field) for field in RankRequest.model_fields if field in RerankRequest.model_fields
        }
        # Its parts were read already.
        asked_for = RankRequest.model_construct(**asks | {"model": name})
        return await ranked(service, asked_for, version="1", with_documents=body.return_documents is not False)
    if not body.texts:
        raise refused(400, "empty", "`texts` cannot be empty", param="texts")
    served = service.models.reranker(name)
    _check_direction(body, served.facade.settings.truncate != "error")
    query, texts = await opened_pair(service, served, body.query, body.texts)
    scores = await score(service, served, query, texts, instruction=body.instruction, truncate=body.truncate)
    order = np.argsort(-scores, kind="stable").tolist()
    found = log_odds(scores.astype(np.float64)) if body.raw_scores else scores
    items: list[dict[str, Any]] = [{"index": index, "score": float(found[index])} for index in order]
    if body.return_text:
        items = [{**item, "text": body.texts[item["index"]]} for item in items]
    return await answer(items, numbers=len(items))


@DIALECT.router.post("/similarity")
async def similarity(body: SimilarityRequest, service: ServiceOf, model: In = None) -> Response:
    """Return how near each sentence is to one, as a cosine; all are embedded with the same prompt."""
    if not body.inputs.sentences:
        raise refused(400, "empty", "`inputs.sentences` cannot be empty", param="inputs")
    parameters = body.parameters or SimilarityParameters()
    name = body.model if body.model is not None else model
    served, ask = _asked(service, parameters, name, parameters.prompt_name, None)
    sentences = body.inputs.sentences
    try:
        # The one comes last, so that errors have the sentences' own places.
        result = await embed(service, served, [*sentences, body.inputs.source_sentence], ask)
    except IndexedError as error:
        if error.index != len(sentences):
            raise
        problem = problem_of(error, "/similarity")
        told = problem.message.replace(f"the text at index {error.index}", "source_sentence")
        raise Refused(replace(problem, message=told, index=None, param="source_sentence")) from error
    return await answer((result.vectors[:-1] @ result.vectors[-1]).tolist())


@DIALECT.router.post("/tokenize")
async def tokenize(body: TokenizeRequest, service: ServiceOf, model: In = None) -> Response:
    """Return the tokens that the model reads of each text, prompt included, nothing cut off."""
    limits = service.limits
    if not body.inputs:
        raise refused(400, "empty", "`inputs` cannot be empty", param="inputs")
    if len(body.inputs) > limits.max_items:
        told = f"{len(body.inputs)} texts are more than a request may have (max_items is {limits.max_items})"
        raise refused(413, "too_many_items", told)
    served, role = service.models.embedder(body.model if body.model is not None else model)
    ask = asked(served, service.default_role, name_role=role, prompt_name=body.prompt_name)
    await service.readiness.loaded(served)
    embedder = served.facade
    call = partial(embedder.tokenize, body.inputs, role=ask.role, instruction=ask.instruction, task=ask.task)
    found = await embedder.off_loop(call)
    if found is None:
        raise refused(424, "not_supported", f"what runs {served.name!r} does not tell tokens")
    if (total := sum(map(len, found))) > limits.max_request_tokens:
        told = f"{total} tokens are more than a request may have (max_request_tokens is {limits.max_request_tokens})"
        raise refused(413, "too_many_tokens", told)
    fields = ("id", "text", "special", "start", "stop")
    content = [
        [
            {field: getattr(item, field) for field in fields}
            for item in row
            if body.add_special_tokens or item.start is not None
        ]
        for row in found
    ]
    return await answer(content, numbers=total)


@DIALECT.router.post("/embed_all")
async def embed_all() -> Response:
    """Refuse vectors per token."""
    raise refused(424, "not_supported", "vectors per token are not served here; /embed gives one vector per text")


@DIALECT.router.post("/embed_sparse")
async def embed_sparse() -> Response:
    """Refuse sparse vectors."""
    raise refused(424, "not_supported", "sparse vectors are not served here; /embed gives one vector per text")


@DIALECT.router.post("/predict")
async def predict() -> Response:
    """Refuse to classify."""
    raise refused(424, "not_supported", "classifiers are not served here; /rerank scores a query's documents")


@DIALECT.router.get("/info")
async def info(service: ServiceOf, model: In = None) -> Response:
    """Tell what is served, and the limits."""
    return await answer(info_of(service, model))


@DIALECT.router.get("/", include_in_schema=False)
@DIALECT.router.get("/ping", include_in_schema=False)
@DIALECT.router.head("/health", include_in_schema=False)
@DIALECT.router.get("/health")
async def health(service: ServiceOf) -> Response:
    """Say whether all models answer."""
    if not await service.readiness.check(load=not service.lazy):
        raise refused(503, "not_ready", "a model is not ready; /readyz says which", retry=1)
    return Response()


def _asked(
    service: Service, cut: _Cut, name: str | None, prompt_name: str | None, more: EmbedRequest | None
) -> tuple[Served[Embedder], Ask]:
    served, role = service.models.embedder(cut.model if cut.model is not None else name)
    _check_direction(cut, served.facade.settings.truncate != "error")
    ask = asked(
        served,
        service.default_role,
        name_role=role,
        prompt_name=prompt_name,
        instruction=None if more is None else more.instruction,
        dim=None if more is None else more.dimensions,
        truncate=cut.truncate,
        normalize=True if more is None else more.normalize,
    )
    return served, ask


def _check_direction(cut: _Cut, cuts: bool) -> None:
    direction = cut.truncation_direction
    if direction not in (None, "left", "right"):
        raise refused(400, "invalid_request", "truncation_direction is left or right", param="truncation_direction")
    if direction == "left" and (cuts if cut.truncate is None else cut.truncate):
        told = "truncation_direction=left is not done here, where a text loses its end; pass truncate=false with it"
        raise refused(400, "invalid_request", told, param="truncation_direction")


def _headers(texts: list[str], tokens: int | None, start: float) -> dict[str, str]:
    """Return TEI's headers as far as they are known: of the times only the whole, in milliseconds."""
    found = {
        "x-compute-characters": str(sum(map(len, texts))),
        "x-total-time": str(round((time.perf_counter() - start) * 1000)),
    }
    return found if tokens is None else {**found, "x-compute-tokens": str(tokens)}
