"""The words of OpenAI: POST /v1/embeddings and GET /v1/models, and fields of ours that its clients let pass."""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Response
from pydantic import BaseModel, Field

from embrief.facades.embedder import EmbeddingResult
from embrief.server.asking import asked
from embrief.server.dialects.base import Dialect
from embrief.server.dialects.fields import OneOrMany, Text
from embrief.server.failures import Problem, refused
from embrief.server.models import ROLES, Served, ServedModels
from embrief.server.service import ServiceOf
from embrief.server.work import Told, answer, embed, tokens_read

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "invalid_request_error", 429: "rate_limit_error"}


def error(problem: Problem) -> tuple[int, Any]:
    """Return an error as OpenAI's clients read it."""
    kind = _TYPES.get(problem.status, "server_error" if problem.status >= 500 else "invalid_request_error")
    return problem.status, {"error": {"message": problem.message, "type": kind, "param": None, **problem.told()}}


DIALECT = Dialect("openai", error)


class EmbeddingsRequest(BaseModel):
    """What POST /v1/embeddings is asked. `user` and unknown fields are let pass."""

    input: OneOrMany
    model: Annotated[Text | None, Field(description="A name that is served, perhaps as NAME:query.")] = None
    dimensions: Annotated[int | None, Field(ge=1, le=2**31)] = None
    encoding_format: Literal["float", "base64"] | None = None
    input_type: Annotated[Text | None, Field(description="query, document, or a task of the model.")] = None
    prompt_name: Annotated[Text | None, Field(description="The same as input_type.")] = None
    instruction: Annotated[Text | None, Field(description="What queries are for.")] = None
    truncate: Annotated[bool | None, Field(description="false: a text that is too long is an error.")] = None


@DIALECT.router.post("/v1/embeddings")
async def embeddings(body: EmbeddingsRequest, service: ServiceOf) -> Response:
    """Embed one text or several."""
    if not body.input:
        raise refused(400, "invalid_request", "input is empty; send a text at least", param="input")
    served, role = service.models.embedder(body.model)
    ask = asked(
        served,
        service.default_role,
        name_role=role,
        input_type=body.input_type,
        prompt_name=body.prompt_name,
        instruction=body.instruction,
        dim=body.dimensions,
        truncate=body.truncate,
    )
    result = await embed(service, served, body.input, ask)
    as_base64 = body.encoding_format == "base64"
    total = tokens_read(result, served, ask) or 0
    content = {
        "object": "list",
        "data": _items(result, as_base64),
        "model": body.model or served.name,
        "usage": {"prompt_tokens": total, "total_tokens": total},
        "space": result.space.id,
        "role": ask.said,
    }
    return await answer(content, numbers=result.vectors.size)


def _items(result: EmbeddingResult, as_base64: bool) -> list[dict[str, Any]]:
    told = Told.of(result)
    vectors: list[Any]
    if as_base64:
        rows = np.ascontiguousarray(result.vectors, "<f4")
        vectors = [base64.b64encode(row).decode("ascii") for row in rows]
    else:
        vectors = result.vectors.tolist()
    return [
        {"object": "embedding", "index": index, "embedding": vector, "tokens": tokens, "truncated": truncated}
        for index, (vector, tokens, truncated) in enumerate(zip(vectors, told.tokens, told.truncated, strict=True))
    ]


@DIALECT.router.get("/v1/models")
async def models(service: ServiceOf) -> Response:
    """List the names that are served."""
    return await answer({"object": "list", "data": list(_models(service.models).values())})


@DIALECT.router.get("/v1/models/{name:path}")
async def model(name: str, service: ServiceOf) -> Response:
    """Tell of one name whether it is served."""
    found = _models(service.models)
    if name not in found:
        raise refused(404, "model_not_found", f"no model {name[:100]!a} is served here; there is: {', '.join(found)}")
    return await answer(found[name])


def _models(served: ServedModels) -> dict[str, dict[str, Any]]:
    found = {name: _model(one, "embedding") for name, one in served.embedders.items()}
    for name, one in served.embedders.items():
        row = _model(one, "embedding")
        found |= {f"{name}:{role}": {**row, "id": f"{name}:{role}", "role": role} for role in ROLES}
    return found | {name: _model(one, "reranker") for name, one in served.rerankers.items()}


def _model(served: Served[Any], kind: str) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": 0,
        "owned_by": "embrief",
        "kind": kind,
        "model_id": served.facade.spec.id,
        # vLLM's word for it.
        "max_model_len": served.facade.max_tokens,
    }
