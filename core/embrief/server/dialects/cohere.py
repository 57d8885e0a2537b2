"""The words of Cohere: POST /v2/embed and /v1/embed. Its rerank routes are in `ranking`.

Vectors come as `float` and `base64` (float32, little-endian). The small formats are refused: how Cohere rounds is not
public, and vectors that are rounded otherwise could not be compared with theirs.

Source: Cohere's API reference; what the package cohere 5.21 sends and reads.
"""

import base64
import uuid
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Response
from pydantic import BaseModel, Field

from embrief.facades.embedder import EmbeddingResult
from embrief.server.asking import asked
from embrief.server.dialects.base import Dialect
from embrief.server.dialects.fields import Text, Texts, texts
from embrief.server.failures import Problem, refused
from embrief.server.service import Service, ServiceOf
from embrief.server.work import Told, answer, embed, tokens_read

Kind = Literal["float", "base64", "int8", "uint8", "binary", "ubinary"]
_EXACT: tuple[Kind, ...] = ("float", "base64")


def error(problem: Problem) -> tuple[int, Any]:
    """Return an error as Cohere says it: a sentence."""
    return problem.status, {"message": problem.message, **problem.told()}


DIALECT = Dialect("cohere", error)


class _Embed(BaseModel):
    """What both versions are asked. `priority` and unknown fields are let pass: they move no vector."""

    model: Annotated[Text | None, Field(description="A name that is served, perhaps as NAME:query.")] = None
    input_type: Annotated[
        Text | None, Field(description="search_query, search_document, plain, or a task of the model.")
    ] = None
    texts: Texts | None = None
    images: Annotated[list[str] | None, Field(description="Refused: only texts are embedded.")] = None
    embedding_types: Annotated[list[Kind] | None, Field(description="float and base64; others are refused.")] = None
    truncate: Annotated[Literal["NONE", "START", "END"] | None, Field(description="START is refused.")] = None
    instruction: Annotated[Text | None, Field(description="What queries are for.")] = None


class EmbedV1Request(_Embed):
    """What POST /v1/embed is asked."""


class EmbedV2Request(_Embed):
    """What POST /v2/embed is asked."""

    inputs: Annotated[
        list[dict[str, Any]] | None,
        Field(description="In place of texts: objects whose content is one part of type text."),
    ] = None
    output_dimension: Annotated[int | None, Field(ge=1, le=2**31)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = None


@DIALECT.router.post("/v1/embed")
async def embed_v1(body: EmbedV1Request, service: ServiceOf) -> Response:
    """Embed texts; without `embedding_types` the answer is a plain list of vectors."""
    given = _given(body.texts, body.images)
    result, tokens = await _embedded(service, body, given)
    told = _told(given, result, tokens, version="1")
    if body.embedding_types is None:
        told |= {"response_type": "embeddings_floats", "embeddings": result.vectors.tolist()}
    else:
        told |= {"response_type": "embeddings_by_type", "embeddings": _by_type(result, body.embedding_types)}
    return await answer(told, numbers=result.vectors.size)


@DIALECT.router.post("/v2/embed")
async def embed_v2(body: EmbedV2Request, service: ServiceOf) -> Response:
    """Embed texts."""
    if body.inputs is not None and body.texts is not None:
        raise refused(400, "invalid_request", "texts and inputs are both given; send one", param="inputs")
    given = _given(body.texts if body.inputs is None else _of_inputs(body.inputs), body.images)
    result, tokens = await _embedded(service, body, given, dim=body.output_dimension, max_tokens=body.max_tokens)
    told = _told(given, result, tokens, version="2")
    told |= {"response_type": "embeddings_by_type", "embeddings": _by_type(result, body.embedding_types or ["float"])}
    return await answer(told, numbers=result.vectors.size)


def _given(found: list[str] | None, images: list[str] | None) -> list[str]:
    if images:
        raise refused(400, "invalid_request", "images are not embedded here; send texts", param="images")
    if not found:
        raise refused(400, "invalid_request", "there is no text; send one at least", param="texts")
    return found


def _of_inputs(inputs: list[dict[str, Any]]) -> list[str]:
    found = []
    for index, item in enumerate(inputs):
        content = item.get("content")
        part = content[0] if isinstance(content, list) and len(content) == 1 else None
        if not isinstance(part, dict) or part.get("type") != "text":
            told = f"the input at index {index} is not one part of type text, and only texts are embedded here"
            raise refused(400, "invalid_request", told, param="inputs", index=index)
        found.append(part.get("text"))
    return texts(found)


async def _embedded(
    service: Service, body: _Embed, given: list[str], *, dim: int | None = None, max_tokens: int | None = None
) -> tuple[EmbeddingResult, int | None]:
    if inexact := [kind for kind in body.embedding_types or () if kind not in _EXACT]:
        told = f"embedding_types holds {inexact[0]!r}; vectors are given as float and base64 here"
        raise refused(400, "invalid_request", told, param="embedding_types")
    if body.embedding_types == []:
        raise refused(400, "invalid_request", "embedding_types is empty; leave it out", param="embedding_types")
    if body.truncate == "START":
        told = "truncate='START' is not done here, where a text loses its end; use END, or NONE to have an error"
        raise refused(400, "invalid_request", told, param="truncate")
    served, role = service.models.embedder(body.model)
    ask = asked(
        served,
        service.default_role,
        name_role=role,
        input_type=body.input_type,
        instruction=body.instruction,
        dim=dim,
        truncate=None if body.truncate is None else body.truncate == "END",
        max_tokens=max_tokens,
    )
    result = await embed(service, served, given, ask)
    return result, tokens_read(result, served, ask)


def _told(given: list[str], result: EmbeddingResult, tokens: int | None, *, version: str) -> dict[str, Any]:
    meta: dict[str, Any] = {"api_version": {"version": version}, "billed_units": {}}
    if tokens is not None:
        meta["tokens"] = {"input_tokens": tokens}
    cut = [index for index, truncated in enumerate(Told.of(result).truncated) if truncated]
    if cut:
        meta["warnings"] = [f"{len(cut)} texts were too long and lost their end, first the one at index {cut[0]}"]
    return {"id": str(uuid.uuid4()), "texts": given, "meta": meta, "space": result.space.id}


def _by_type(result: EmbeddingResult, kinds: list[Kind]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "float" in kinds:
        found["float"] = result.vectors.tolist()
    if "base64" in kinds:
        rows = np.ascontiguousarray(result.vectors, "<f4")
        found["base64"] = [base64.b64encode(row).decode("ascii") for row in rows]
    return found
