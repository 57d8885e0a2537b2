"""The words of OpenAI: POST /v1/embeddings and GET /v1/models, and fields of ours that its clients let pass.

Pictures come as vLLM and Jina have them: content parts in `input` or `messages`, and objects with `image`.

Source: OpenAI's and Jina's API references; vLLM's documentation of pooling models.
"""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Response
from pydantic import BaseModel, Field

from embrief.facades.embedder import Embedder, EmbeddingResult
from embrief.server.asking import asked
from embrief.server.dialects.base import Dialect
from embrief.server.dialects.fields import Text
from embrief.server.dialects.messages import Message, one_input
from embrief.server.dialects.parts import OneOrMany
from embrief.server.failures import Problem, refused
from embrief.server.models import ROLES, Served, ServedModels
from embrief.server.pictures import Item
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

    input: Annotated[
        OneOrMany | None,
        Field(description="A text, an object with text, image or content, or a list; each element is one input."),
    ] = None
    messages: Annotated[
        list[Message] | None,
        Field(min_length=1, description="In place of input, one input as vLLM takes it: its parts are the user's."),
    ] = None
    model: Annotated[Text | None, Field(description="A name that is served, perhaps as NAME:query.")] = None
    dimensions: Annotated[int | None, Field(ge=1, le=2**31)] = None
    encoding_format: Literal["float", "base64"] | None = None
    input_type: Annotated[Text | None, Field(description="query, document, or a task of the model.")] = None
    prompt_name: Annotated[Text | None, Field(description="The same as input_type.")] = None
    task: Annotated[Text | None, Field(description="Jina's word for input_type, such as retrieval.query.")] = None
    return_multivector: Annotated[bool | None, Field(description="true is refused.")] = None
    instruction: Annotated[Text | None, Field(description="What queries are for.")] = None
    truncate: Annotated[bool | None, Field(description="false: a text that is too long is an error.")] = None


@DIALECT.router.post("/v1/embeddings")
async def embeddings(body: EmbeddingsRequest, service: ServiceOf) -> Response:
    """Embed one text or several."""
    served, role = service.models.embedder(body.model)
    given, instruction = _given(body, served)
    if body.return_multivector:
        told = "vectors per token are not served here; leave return_multivector out"
        raise refused(400, "invalid_request", told, param="return_multivector")
    ask = asked(
        served,
        service.default_role,
        name_role=role,
        input_type=body.input_type,
        prompt_name=body.task if body.prompt_name is None else body.prompt_name,
        instruction=instruction,
        dim=body.dimensions,
        truncate=body.truncate,
    )
    by_messages = body.messages is not None
    what = "messages" if by_messages else "input"
    result = await embed(service, served, given, ask, what=what, alone=by_messages)
    as_base64 = body.encoding_format == "base64"
    total = tokens_read(result, served, ask) or 0
    content = {
        "object": "list",
        "data": _items(result, as_base64),
        "model": body.model or served.name,
        "usage": {"prompt_tokens": total, "total_tokens": total, **_of_images(result)},
        "space": result.space.id,
        "role": ask.said,
    }
    return await answer(content, numbers=result.vectors.size)


def _given(body: EmbeddingsRequest, served: Served[Embedder]) -> tuple[Sequence[Item], str | None]:
    """Return the inputs, and the instruction.

    Raises:
        Refused: There are none, or two ways to say them are used at once.
    """
    if body.messages is None:
        if not body.input:
            raise refused(400, "invalid_request", "input is empty; send a text at least", param="input")
        return body.input, body.instruction
    if body.input is not None:
        raise refused(400, "invalid_request", "input and messages are both given; send one", param="messages")
    item, instruction = one_input(body.messages, served.facade.spec.prompts)
    if instruction is not None and body.instruction is not None:
        told = "instruction and a system message are both given; send one"
        raise refused(400, "invalid_request", told, param="instruction")
    return [item], body.instruction if instruction is None else instruction


def _of_images(result: EmbeddingResult) -> dict[str, int]:
    return {} if result.image_tokens is None else {"image_tokens": int(result.image_tokens.sum())}


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
        "modalities": list(served.facade.modalities),
        "max_pixels": served.facade.max_pixels if "image" in served.facade.modalities else None,
    }
