"""What the page asks: which collections and models there are, a question, and what a model reads of a text."""

import asyncio
import time
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

import embrief
from embrief.facades.embedder import Embedder
from embrief.facades.reranker import Reranker
from embrief.indexing.table import CollectionInfo
from embrief.server.dialects.base import Dialect
from embrief.server.dialects.fields import Text, Texts
from embrief.server.dialects.parts import Picture
from embrief.server.failures import refused
from embrief.server.models import Served
from embrief.server.page.finding import (
    Found,
    Place,
    among_texts,
    holds_pictures,
    in_collection,
    reranked,
    takes_instructions,
)
from embrief.server.page.pictures import KIND, FoundPictures, thumbnail
from embrief.server.page.rendering import Shown, show_pair, show_text
from embrief.server.page.shelf import Shelf, told
from embrief.server.pictures import Item, decoded
from embrief.server.service import CallerOf, ServiceOf
from embrief.server.shapes import plain
from embrief.server.work import answer

PATHS = ("/api/choices", "/api/search", "/api/prompts", "/api/picture")
MOST_SHOWN = 50
"""Texts that a ranking has at most."""
MOST_SAID = 20_000
"""Characters of a question, and of an instruction."""
MOST_RENDERED = 50_000
"""Characters of a text whose tokens are shown."""

_Blank = Annotated[Text | None, Field(description="Blank or null: the model's own.")]


class SearchRequest(BaseModel):
    """What POST /api/search is asked: of a collection, or of texts."""

    question: Annotated[Text, Field(description="May be empty beside a picture.")]
    image: Annotated[Picture | None, Field(description="A picture to ask with, in base64.")] = None
    collection: Annotated[Text | None, Field(description="An id of /api/choices.")] = None
    texts: Texts | None = None
    model: Annotated[Text | None, Field(description="Of texts: a name that is served; without one the first.")] = None
    reranker: Annotated[Text | None, Field(description="A name that is served; null: none is asked.")] = None
    instructions: Annotated[list[_Blank], Field(min_length=1, max_length=2)] = [None]
    count: Annotated[int, Field(ge=1, le=MOST_SHOWN)] = 10


class PromptsRequest(BaseModel):
    """What POST /api/prompts is asked."""

    question: Text
    text: Text
    title: Text | None = None
    instruction: _Blank = None
    collection: Text | None = None
    model: Text | None = None
    reranker: Text | None = None


class PictureRequest(BaseModel):
    """What POST /api/picture is asked."""

    collection: Annotated[Text, Field(description="An id of /api/choices.")]
    picture: Annotated[Text, Field(description="As a document that was found has it.")]


def router(shelf: Shelf) -> APIRouter:
    """Return the routes of a page over some collections."""
    dialect = Dialect("page", plain)
    made = dialect.router
    pictures = FoundPictures()

    @made.get("/api/choices")
    async def choices(service: ServiceOf, caller: CallerOf) -> Response:
        """Say which collections the caller may read, which models there are, and how much may be asked."""
        infos = await asyncio.to_thread(shelf.listed, caller)
        return await answer(
            {
                "version": embrief.__version__,
                "collections": [told(info) for info in infos],
                "models": [_model(served) for served in service.models.embedders.values()],
                "rerankers": [_reranker(served) for served in service.models.rerankers.values()],
                "limits": {"texts": service.limits.max_items, "count": MOST_SHOWN, "rendered": MOST_RENDERED},
            }
        )

    @made.post("/api/search")
    async def search(body: SearchRequest, service: ServiceOf, caller: CallerOf) -> Response:
        """Rank passages or texts: by their vectors, and by a reranker."""
        _check_said(body.question, body.instructions, alone=body.image is None)
        question = _question(body)
        instructions = [_said(item) for item in body.instructions]
        judge = None if body.reranker is None else service.models.reranker(body.reranker)
        began = time.perf_counter()
        if body.collection is not None:
            if body.texts is not None:
                raise refused(400, "invalid_request", "collection and texts are two sources; give one", param="texts")
            info = await asyncio.to_thread(shelf.find, body.collection, caller)
            (asked,) = await decoded(service, [question], "image", alone=True)
            found = await asyncio.to_thread(in_collection, shelf, info, asked, instructions, body.count)
            pictures.note(body.collection, (item.hit for item in found.candidates if item.hit is not None))
        else:
            texts = _texts(body.texts)
            served = service.models.embedder(body.model)[0]
            found = await among_texts(service, served, question, texts, instructions, body.count)
        middle = time.perf_counter()
        unseen = judge is not None and "image" not in judge.facade.modalities and holds_pictures(question, found)
        orders = None
        if judge is not None and not unseen:
            (asked,) = await decoded(service, [question], "image", alone=True)
            orders = await reranked(service, judge, asked, found)
        content = _content(found, orders)
        content["reranker"] = None if judge is None or unseen else _reranker(judge)
        content["not_asked"] = judge.name if judge is not None and unseen else None
        content["seconds"] = {"search": middle - began, "rerank": time.perf_counter() - middle}
        return await answer(content, numbers=sum(len(candidate.text) for candidate in found.candidates))

    @made.post("/api/prompts")
    async def prompts(body: PromptsRequest, service: ServiceOf, caller: CallerOf) -> Response:
        """Say what the models read of a question and a text, token by token."""
        _check_said(body.question, [body.instruction])
        if len(body.text) > MOST_RENDERED:
            message = f"prompts are shown of texts up to {MOST_RENDERED} characters; this one has {len(body.text)}"
            raise refused(400, "text_too_long", message, param="text")
        if body.collection is not None:
            info = await asyncio.to_thread(shelf.find, body.collection, caller)
            shown = await asyncio.to_thread(_of_collection, shelf, info, body)
        else:
            served = service.models.embedder(body.model)[0]
            await service.readiness.loaded(served)
            shown = await asyncio.to_thread(_of_embedder, served.facade, body)
        pair = None
        if body.reranker is not None:
            judge = service.models.reranker(body.reranker)
            await service.readiness.loaded(judge)
            pair = await asyncio.to_thread(_of_reranker, judge.facade, body)
        content = {**shown, "pair": None if pair is None else pair.to_json()}
        return await answer(content, numbers=len(body.text) + len(body.question))

    @made.post("/api/picture")
    async def picture(body: PictureRequest, service: ServiceOf, caller: CallerOf) -> Response:
        """Return a picture that a search has found, as a small JPEG."""
        await asyncio.to_thread(shelf.find, body.collection, caller)
        hit = pictures.find(body.collection, body.picture)
        drawn: bytes | None = None
        if hit is not None:
            drawn = await service.decode(partial(thumbnail, hit))
        if drawn is None:
            told = "there is no such picture now; its file may have changed, or the search is long ago"
            raise refused(404, "picture_not_found", told, param="picture")
        return Response(drawn, media_type=KIND)

    return made


def _question(body: SearchRequest) -> Item:
    if body.image is None:
        return body.question
    return (body.image, body.question) if body.question.strip() else (body.image,)


def _of_collection(shelf: Shelf, info: CollectionInfo, body: PromptsRequest) -> dict[str, Any]:
    with shelf.embedder(info) as embedder:
        return _of_embedder(embedder, body)


def _of_embedder(embedder: Embedder, body: PromptsRequest) -> dict[str, Any]:
    said = _said(body.instruction) if takes_instructions(embedder) else None
    return {
        "question": show_text(embedder, body.question, role="query", instruction=said).to_json(),
        "document": show_text(embedder, body.text, role="document", title=body.title or None).to_json(),
    }


def _of_reranker(reranker: Reranker, body: PromptsRequest) -> Shown:
    said = _said(body.instruction) if reranker.spec.instructed else None
    return show_pair(reranker, body.question, body.text, instruction=said)


def _content(found: Found, orders: list[list[Place]] | None) -> dict[str, Any]:
    points = found.plane.points.tolist()
    count = len(found.candidates)
    return {
        "model": {"name": found.model, "dim": found.dim, "instructed": found.instructed},
        "documents": [candidate.to_json() for candidate in found.candidates],
        "sides": [
            {
                "instruction": side.instruction,
                "tokens": side.tokens,
                "truncated": side.truncated,
                "nearest": [place.to_json() for place in side.nearest],
                "reranked": None if orders is None else [place.to_json() for place in orders[number]],
            }
            for number, side in enumerate(found.sides)
        ],
        "map": {"documents": points[:count], "questions": points[count:], "explained": list(found.plane.explained)},
    }


def _model(served: Served[Embedder]) -> dict[str, Any]:
    facade = served.facade
    return {
        "name": served.name,
        "dim": facade.dim,
        "max_tokens": facade.max_tokens,
        "modalities": list(facade.modalities),
        "instructed": takes_instructions(facade),
        "instruction": facade.settings.instruction or facade.spec.prompts.default_instruction,
    }


def _reranker(served: Served[Reranker]) -> dict[str, Any]:
    facade = served.facade
    return {
        "name": served.name,
        "max_tokens": facade.max_tokens,
        "instructed": facade.spec.instructed,
        "instruction": facade.settings.instruction or facade.spec.default_instruction,
    }


def _check_said(question: str, instructions: list[str | None], *, alone: bool = True) -> None:
    if alone and not question.strip():
        raise refused(400, "invalid_request", "the question is empty; ask for something", param="question")
    for param, said in (("question", question), *(("instructions", item or "") for item in instructions)):
        if len(said) > MOST_SAID:
            message = f"{param}: {len(said)} characters are more than the page takes ({MOST_SAID})"
            raise refused(400, "text_too_long", message, param=param)


def _said(instruction: str | None) -> str | None:
    return instruction if instruction and instruction.strip() else None


def _texts(given: list[str] | None) -> list[str]:
    if given is None:
        raise refused(400, "invalid_request", "there is nothing to look in; give a collection or texts", param="texts")
    if not given:
        raise refused(400, "invalid_request", "there is no text; paste one at least", param="texts")
    if empty := [index for index, text in enumerate(given) if not text.strip()]:
        raise refused(400, "invalid_request", f"the text at index {empty[0]} is empty", param="texts", index=empty[0])
    return given
