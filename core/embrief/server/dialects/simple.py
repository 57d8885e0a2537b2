"""The shortest routes there are, for scripts and for the clients of services that people wrote for themselves.

`POST /v1/embeddings/generate` alone may answer with vectors of another space, if the request says so. The others are
what such services have: `/encode {texts}`, `/txt/embed {input}`, and for pictures `/img/embed {input}`.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Response
from pydantic import BaseModel, Field

from embrief.facades.embedder import EmbeddingResult
from embrief.server.asking import Ask, asked
from embrief.server.dialects.base import Dialect
from embrief.server.dialects.fields import OneOrMany, Text, Texts
from embrief.server.dialects.parts import Pictures
from embrief.server.failures import refused
from embrief.server.models import Served
from embrief.server.pictures import Item
from embrief.server.service import Service, ServiceOf
from embrief.server.shapes import plain
from embrief.server.work import Told, answer, embed

DIALECT = Dialect("simple", plain)


class _Asked(BaseModel):
    """What every route here takes beside the texts. Unknown fields are let pass."""

    model: Annotated[Text | None, Field(description="A name that is served; without one the first.")] = None
    input_type: Annotated[Text | None, Field(description="query, document, plain, or a task of the model.")] = None
    instruction: Annotated[Text | None, Field(description="What queries are for.")] = None
    dimensions: Annotated[int | None, Field(ge=1, le=2**31)] = None
    truncate: Annotated[bool | None, Field(description="false: a text that is too long is an error.")] = None


class GenerateRequest(_Asked):
    """What POST /v1/embeddings/generate is asked."""

    text: OneOrMany
    use_fallback: Annotated[
        bool | None, Field(description="Whether vectors of another space, marked as such, are better than none.")
    ] = None


class EncodeRequest(_Asked):
    """What POST /encode is asked."""

    texts: Texts


class EmbedRequest(_Asked):
    """What POST /txt/embed is asked."""

    input: OneOrMany


class ImageRequest(_Asked):
    """What POST /img/embed is asked."""

    input: Annotated[Pictures, Field(description="A picture in base64, or as data:image/...;base64,..., or a list.")]
    role: Annotated[Text | None, Field(description="The same as input_type.")] = None


async def _embedded(
    service: Service,
    body: _Asked,
    items: Sequence[Item],
    *,
    use_fallback: bool = False,
    role: str | None = None,
) -> tuple[Served[Any], Ask, EmbeddingResult]:
    if not items:
        raise refused(400, "invalid_request", "there is nothing to embed; send one text or picture at least")
    served, name_role = service.models.embedder(body.model)
    ask = asked(
        served,
        service.default_role,
        name_role=name_role,
        input_type=body.input_type,
        prompt_name=role,
        instruction=body.instruction,
        dim=body.dimensions,
        truncate=body.truncate,
        other_spaces=use_fallback,
    )
    return served, ask, await embed(service, served, items, ask)


@DIALECT.router.post("/v1/embeddings/generate")
async def generate(body: GenerateRequest, service: ServiceOf) -> Response:
    """Embed one text or several, by a fallback of another space too if the request takes that."""
    served, ask, result = await _embedded(service, body, body.text, use_fallback=body.use_fallback is True)
    vectors, told = result.vectors.tolist(), Told.of(result)
    content: dict[str, Any] = {
        "embeddings": vectors,
        "model": body.model or served.name,
        "dimensions": result.vectors.shape[1],
        "space": result.space.id,
        "role": ask.said,
        "degraded": result.degraded,
        "answered_by": result.answered_by or served.name,
        "token_counts": told.tokens,
        "truncated": told.truncated,
        **told.images,
    }
    if len(vectors) == 1:
        content["embedding"] = vectors[0]
    return await answer(content, numbers=result.vectors.size)


@DIALECT.router.post("/encode")
async def encode(body: EncodeRequest, service: ServiceOf) -> Response:
    """Embed a list of texts."""
    served, ask, result = await _embedded(service, body, body.texts)
    content = {"embeddings": result.vectors.tolist(), **_told(body, served, ask, result)}
    return await answer(content, numbers=result.vectors.size)


@DIALECT.router.post("/txt/embed")
async def txt_embed(body: EmbedRequest, service: ServiceOf) -> Response:
    """Embed one text, or several: then `embedding` is a list of vectors."""
    served, ask, result = await _embedded(service, body, body.input)
    return await _one_or_many(body, served, ask, result)


@DIALECT.router.post("/img/embed")
async def img_embed(body: ImageRequest, service: ServiceOf) -> Response:
    """Embed one picture, or several: then `embedding` is a list of vectors."""
    served, ask, result = await _embedded(service, body, body.input, role=body.role)
    return await _one_or_many(body, served, ask, result)


async def _one_or_many(body: _Asked, served: Served[Any], ask: Ask, result: EmbeddingResult) -> Response:
    vectors = result.vectors.tolist()
    content = {
        "embedding": vectors[0] if len(vectors) == 1 else vectors,
        "space_id": result.space.id,
        **_told(body, served, ask, result),
    }
    return await answer(content, numbers=result.vectors.size)


def _told(body: _Asked, served: Served[Any], ask: Ask, result: EmbeddingResult) -> dict[str, Any]:
    told = Told.of(result)
    return {
        "model": body.model or served.name,
        "dimensions": result.vectors.shape[1],
        "space": result.space.id,
        "role": ask.said,
        "token_counts": told.tokens,
        "truncated": told.truncated,
        **told.images,
    }
