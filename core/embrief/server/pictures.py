"""Pictures in requests: kept as they came until the model is known, then decoded within limits, off the event loop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError
from embrief.images.image import Image
from embrief.images.limits import ImageLimits
from embrief.server.failures import Refused, refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embrief.facades.reranker import Reranker
    from embrief.facts.prompts import Content
    from embrief.server.models import Served
    from embrief.server.service import Service


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as a request has it: base64, or an address `data:image/...;base64,...`."""

    text: str


Item = str | tuple[str | Encoded, ...]
"""One input of a request: a text, or texts and pictures."""


def texts_of(item: Item) -> str:
    """Return what an input says without its pictures, a line per text."""
    return item if isinstance(item, str) else "\n".join(part for part in item if isinstance(part, str))


def count_of(items: Sequence[Item]) -> int:
    """Return how many pictures there are."""
    return sum(isinstance(part, Encoded) for item in items if not isinstance(item, str) for part in item)


async def opened(
    service: Service, served: Served[Any], items: Sequence[Item], what: str, *, alone: bool = False
) -> list[Content]:
    """Return inputs with their pictures decoded, for a model that takes some; texts as they are.

    Args:
        service: The server: its limits count.
        served: The model.
        items: The inputs.
        what: The field that they are from.
        alone: Whether it is one input that is no list's, so that errors have no index.

    Raises:
        Refused: The model takes texts only, there are too many pictures, or one is none or too large. Of several
            inputs the error has the index.
    """
    if not count_of(items):
        return _texts(items)
    if "image" not in served.facade.modalities:
        index = None if alone else next(place for place, item in enumerate(items) if count_of([item]))
        raise refused(400, "no_images", _takes_none(service, served), param=what, index=index)
    return await decoded(service, items, what, alone=alone)


async def decoded(service: Service, items: Sequence[Item], what: str, *, alone: bool = False) -> list[Content]:
    """Return inputs with their pictures decoded, whatever model they are for. Arguments as of `opened`.

    Raises:
        Refused: There are too many pictures, or one is none or too large.
    """
    if not (count := count_of(items)):
        return _texts(items)
    limits = service.limits
    if count > limits.max_images:
        raise _too_many(count, limits.max_images)
    bounds = ImageLimits(max_bytes=limits.max_image_bytes, max_pixels=limits.max_image_pixels)
    # One after the other: a picture may hold a hundred times as much memory as its file has.
    return await service.decode(partial(_decoded, items, bounds, what, alone))


async def opened_pair(
    service: Service, served: Served[Reranker], query: Item, documents: Sequence[Item]
) -> tuple[Content, list[Content]]:
    """Return a query and its documents as of `opened`.

    Raises:
        Refused: As of `opened`, which counts the pictures of both.
    """
    if (count := count_of([query])) and count + count_of(documents) > service.limits.max_images:
        raise _too_many(count + count_of(documents), service.limits.max_images)
    (asked,) = await opened(service, served, [query], "query", alone=True)
    return asked, await opened(service, served, documents, "documents")


def _too_many(count: int, limit: int) -> Refused:
    told = f"{count} pictures are more than a request may have (max_images is {limit}); send fewer"
    return refused(413, "too_many_images", told)


def _decoded(items: Sequence[Item], bounds: ImageLimits, what: str, alone: bool) -> list[Content]:
    found: list[Content] = []
    for index, item in enumerate(items):
        if isinstance(item, str):
            found.append(item)
            continue
        try:
            found.append(tuple(_image(part, bounds) if isinstance(part, Encoded) else part for part in item))
        except ArgumentError as error:
            where = what if alone else f"the item at index {index} of {what}"
            raise refused(
                400, "invalid_image", f"{where}: {error}", param=what, index=None if alone else index
            ) from error
    return found


def _image(given: Encoded, bounds: ImageLimits) -> Image:
    image = Image.from_base64(given.text, limits=bounds)
    # Decoded now: nothing may be computed of a request with a broken picture.
    _ = image.digest
    return image


def _texts(items: Sequence[Item]) -> list[Content]:
    """Return inputs without pictures, each as one text: models that take texts only take no parts."""
    listed = [(item,) if isinstance(item, str) else item for item in items]
    return ["".join(part for part in item if isinstance(part, str)) for item in listed]


def _takes_none(service: Service, served: Served[Any]) -> str:
    """Say that a model takes texts only, and which ones of its kind here take pictures."""
    models = service.models
    of_kind = models.embedders if served.name in models.embedders else models.rerankers
    able = [other.name for other in of_kind.values() if "image" in other.facade.modalities]
    remedy = f"for pictures there is: {', '.join(able)}" if able else "no model here takes pictures for this"
    return f"{served.name!r} takes texts only; {remedy}"
