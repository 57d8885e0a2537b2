"""The words of Cohere: POST /v2/embed and /v1/embed. Its rerank routes are in `ranking`.

Pictures come as `images` (an input each), or as parts of `inputs`, alone or beside a text. Vectors come as `float` and
`base64` (float32, little-endian). The small formats are refused: how Cohere rounds is not public, and vectors that are
rounded otherwise could not be compared with theirs.

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
from embrief.server.dialects.fields import Text, Texts
from embrief.server.dialects.parts import Items, Pictures
from embrief.server.failures import Problem, refused
from embrief.server.pictures import Item, texts_of
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
        Text | None,
        Field(description="search_query, search_document, plain, or a task of the model; image is document."),
    ] = None
    texts: Texts | None = None
    images: Annotated[Pictures | None, Field(description="Pictures as data:image/...;base64,..., an input each.")] = (
        None
    )
    embedding_types: Annotated[list[Kind] | None, Field(description="float and base64; others are refused.")] = None
    truncate: Annotated[Literal["NONE", "START", "END"] | None, Field(description="START is refused.")] = None
    instruction: Annotated[Text | None, Field(description="What queries are for.")] = None


class EmbedV1Request(_Embed):
    """What POST /v1/embed is asked."""


class EmbedV2Request(_Embed):
    """What POST /v2/embed is asked."""

    inputs: Annotated[
        Items | None,
        Field(description="In place of texts: objects whose content is parts of type text and image_url."),
    ] = None
    output_dimension: Annotated[int | None, Field(ge=1, le=2**31)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = None


@DIALECT.router.post("/v1/embed")
async def embed_v1(body: EmbedV1Request, service: ServiceOf) -> Response:
    """Embed texts; without `embedding_types` the answer is a plain list of vectors."""
    given, what = _given(texts=body.texts, images=body.images)
    result, tokens = await _embedded(service, body, given, what)
    told = _told(given, result, tokens, version="1")
    if body.embedding_types is None:
        told |= {"response_type": "embeddings_floats", "embeddings": result.vectors.tolist()}
    else:
        told |= {"response_type": "embeddings_by_type", "embeddings": _by_type(result, body.embedding_types)}
    return await answer(told, numbers=result.vectors.size)


@DIALECT.router.post("/v2/embed")
async def embed_v2(body: EmbedV2Request, service: ServiceOf) -> Response:
    """Embed texts."""
    given, what = _given(texts=body.texts, images=body.images, inputs=body.inputs)
    result, tokens = await _embedded(service, body, given, what, dim=body.output_dimension, max_tokens=body.max_tokens)
    told = _told(given, result, tokens, version="2")
    told |= {"response_type": "embeddings_by_type", "embeddings": _by_type(result, body.embedding_types or ["float"])}
    return await answer(told, numbers=result.vectors.size)


def _given(**fields: list[Any] | None) -> tuple[list[Item], str]:
    """Return what is to be embedded, and the field that it is from.

    Raises:
        Refused: There is nothing, or more than one field has something.
    """
    given = [name for name, items in fields.items() if items is not None]
    if len(given) > 1:
        told = f"{' and '.join(given)} are both given; send one"
        raise refused(400, "invalid_request", told, param=given[-1])
    for name in given:
        if items := fields[name]:
            return items, name
    raise refused(400, "invalid_request", "there is no text and no picture; send one at least", param="texts")


async def _embedded(
    service: Service,
    body: _Embed,
    given: list[Item],
    what: str,
    *,
    dim: int | None = None,
    max_tokens: int | None = None,
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
        # Cohere's word for pictures that are searched in.
        input_type="document" if body.input_type == "image" else body.input_type,
        instruction=body.instruction,
        dim=dim,
        truncate=None if body.truncate is None else body.truncate == "END",
        max_tokens=max_tokens,
    )
    result = await embed(service, served, given, ask, what=what)
    return result, tokens_read(result, served, ask)


def _told(given: list[Item], result: EmbeddingResult, tokens: int | None, *, version: str) -> dict[str, Any]:
    meta: dict[str, Any] = {"api_version": {"version": version}, "billed_units": {}}
    if tokens is not None:
        meta["tokens"] = {"input_tokens": tokens}
    cut = [index for index, truncated in enumerate(Told.of(result).truncated) if truncated]
    if cut:
        meta["warnings"] = [f"{len(cut)} texts were too long and lost their end, first the one at index {cut[0]}"]
    # As many as there are inputs; of a picture alone it is empty.
    return {
        "id": str(uuid.uuid4()),
        "texts": [texts_of(item) for item in given],
        "meta": meta,
        "space": result.space.id,
    }


def _by_type(result: EmbeddingResult, kinds: list[Kind]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "float" in kinds:
        found["float"] = result.vectors.tolist()
    if "base64" in kinds:
        rows = np.ascontiguousarray(result.vectors, "<f4")
        found["base64"] = [base64.b64encode(row).decode("ascii") for row in rows]
    return found
