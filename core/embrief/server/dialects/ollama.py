"""The words of Ollama: POST /api/embed, and what its clients ask of models before: /api/tags, /api/show, /api/version.

`keep_alive` and those `options` that move no vector are let pass; of `options`, `num_ctx` is how many tokens a text may
have. A model is called by its name, perhaps with `:latest` behind it.

Source: Ollama's API description (docs/api.md) and source of August 2026.
"""

import time
from typing import Annotated, Any

from fastapi import Response
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

import embrief
from embrief.facades.embedder import Embedder
from embrief.server.asking import Said, asked
from embrief.server.dialects.base import Dialect
from embrief.server.dialects.fields import Text, one_or_many
from embrief.server.failures import Problem
from embrief.server.models import Served
from embrief.server.service import Service, ServiceOf
from embrief.server.work import answer, embed, tokens_read

_POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
"""llama.cpp's numbers for them, which Ollama passes on."""
_LATEST = ":latest"
_UNKNOWN = "unknown"


def error(problem: Problem) -> tuple[int, Any]:
    """Return an error as Ollama says it: a sentence, with its own words where its clients look for them."""
    message = problem.message
    if problem.code == "input_too_long":
        message = f"the input length exceeds the context length: {message}"
    return problem.status, {"error": message, **problem.told()}


DIALECT = Dialect("ollama", error)


def _input(value: Any) -> list[str]:
    # An empty text by itself has no vector there; inside a list it has one.
    return [] if value is None or value == "" else one_or_many(value)


_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}


class Options(BaseModel):
    """Options of a request. All others are let pass: they move no vector."""

    num_ctx: Annotated[int | None, Field(ge=1, le=2**31)] = None


class EmbedRequest(BaseModel):
    """What POST /api/embed is asked. Unknown fields are let pass, as Ollama does."""

    model: Text
    input: Annotated[list[str], BeforeValidator(_input), WithJsonSchema(_SCHEMA)] = []
    truncate: Annotated[bool | None, Field(description="false: a text that is too long is an error.")] = None
    dimensions: Annotated[int | None, Field(ge=1, le=2**31)] = None
    options: Options | None = None
    input_type: Annotated[Text | None, Field(description="query, document, plain, or a task of the model.")] = None
    instruction: Annotated[Text | None, Field(description="What queries are for.")] = None


class ShowRequest(BaseModel):
    """What POST /api/show is asked."""

    model: Text


def model_of(service: Service, name: str) -> tuple[Served[Embedder], Said | None]:
    """Return the embedding model of a name, perhaps with `:latest` behind it, and the role that the name says.

    Raises:
        Refused: No model has this name.
    """
    known = name in service.models.embedders
    return service.models.embedder(name if known else name.removesuffix(_LATEST))


@DIALECT.router.post("/api/embed")
async def embeddings(body: EmbedRequest, service: ServiceOf) -> Response:
    """Embed one text or several."""
    start = time.perf_counter_ns()
    served, role = model_of(service, body.model)
    ask = asked(
        served,
        service.default_role,
        name_role=role,
        input_type=body.input_type,
        instruction=body.instruction,
        dim=body.dimensions,
        truncate=body.truncate,
        max_tokens=None if body.options is None else body.options.num_ctx,
    )
    if not body.input:
        return await answer({"model": body.model, "embeddings": []})
    await service.readiness.loaded(served)
    loaded = time.perf_counter_ns()
    result = await embed(service, served, body.input, ask)
    content: dict[str, Any] = {
        "model": body.model,
        "embeddings": result.vectors.tolist(),
        "total_duration": time.perf_counter_ns() - start,
        "load_duration": loaded - start,
        "space": result.space.id,
        "role": ask.said,
    }
    total = tokens_read(result, served, ask)
    if total is not None:
        content["prompt_eval_count"] = total
    return await answer(content, numbers=result.vectors.size)


@DIALECT.router.get("/api/tags")
async def tags(service: ServiceOf) -> Response:
    """List the embedding models that are served: Ollama has no rerankers."""
    found = [
        {"name": name, "model": name, "details": _details(served)} for name, served in service.models.embedders.items()
    ]
    return await answer({"models": found})


@DIALECT.router.post("/api/show")
async def show(body: ShowRequest, service: ServiceOf) -> Response:
    """Tell what a model is."""
    served, _ = model_of(service, body.model)
    spec, embedder = served.facade.spec, served.facade
    family = spec.architecture or _UNKNOWN
    info: dict[str, Any] = {"general.architecture": family, f"{family}.context_length": embedder.max_tokens}
    if spec.hidden_size is not None:
        info[f"{family}.embedding_length"] = spec.hidden_size
    if spec.pooling in _POOLING:
        info[f"{family}.pooling_type"] = _POOLING[spec.pooling]
    content = {
        "details": _details(served),
        "model_info": info,
        "capabilities": ["embedding"],
        "license": spec.license or "",
        "owned_by": "embrief",
        "space": embedder.space.id,
    }
    return await answer(content)


@DIALECT.router.get("/api/version")
async def version() -> Response:
    """Tell the version of what answers, which is none of Ollama's."""
    return await answer({"version": embrief.__version__, "owned_by": "embrief"})


def _details(served: Served[Embedder]) -> dict[str, Any]:
    spec = served.facade.spec
    family = spec.architecture or _UNKNOWN
    return {"family": family, "families": [family], "format": spec.format}
