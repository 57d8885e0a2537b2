"""Pictures on their way to a server: as files that lose nothing, no larger than the model sees them, few at a time."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, ArgumentTypeError, ModelMismatchError
from embrief.images.image import Image
from embrief.images.patches import fit

if TYPE_CHECKING:
    from embrief.facts.prompts import Content, Rendered
    from embrief.facts.specs import ImageSpec, ModelSpec
    from embrief.runtimes.base import RunOptions

MOST_BYTES = 5 * 1024 * 1024
"""Of the pixels in one request: with base64 around them they are within the 8 MiB that embrief's server takes. A single
picture goes alone, whatever it has."""
MOST_IMAGES = 64
"""In one request, unless a single input has more: what embrief's server takes."""


def holds_pictures(inputs: Sequence[Rendered]) -> bool:
    """Return whether one of them holds a picture."""
    return any(item.images for item in inputs)


def refuse_others(where: str, spec: ModelSpec) -> ModelMismatchError:
    """Return the error for a server that is not known to put the prompts of a model that takes pictures."""
    return ModelMismatchError(
        f"{where} is no server of embrief's that says that it takes pictures as {spec.id} does, and no other is sent "
        "texts for it, since a text with the name of a special token would forge a picture or the end of a turn; run "
        "the model here, or serve it with `embrief serve`"
    )


def refuse_mixed(inputs: Sequence[Rendered], where: str) -> None:
    """Refuse what is not one text or one picture.

    Raises:
        ArgumentTypeError: An input holds more than one part; the error has the index.
    """
    for index, item in enumerate(inputs):
        if not isinstance(item.body, str) and len(item.body) != 1:
            raise ArgumentTypeError(
                f"the item at index {index} holds {len(item.body)} texts and images, and {where} has routes for one "
                "text or one image; give one, or use a server of embrief's by OpenAI(base_url=...)",
                index=index,
            )


def parts(inputs: Sequence[Rendered], rows: int, spec: ModelSpec, options: RunOptions) -> list[range]:
    """Return the places of inputs, request by request: at most `rows`, `MOST_IMAGES`, and pixels of `MOST_BYTES`."""
    found: list[range] = []
    start = total = count = 0
    for index, item in enumerate(inputs):
        size = sum(_bytes(image, spec.images, options) for image in item.images)
        full = index - start >= rows or total + size > MOST_BYTES or count + len(item.images) > MOST_IMAGES
        if index > start and full:
            found.append(range(start, index))
            start, total, count = index, 0, 0
        total += size
        count += len(item.images)
    return [*found, range(start, len(inputs))]


def _bytes(image: Image, images: ImageSpec | None, options: RunOptions) -> int:
    height, width = _size(image, images, options)
    return height * width * 3


def _size(image: Image, images: ImageSpec | None, options: RunOptions) -> tuple[int, int]:
    """Return height and width in which a picture is sent: as it is, or smaller if the model sees it so anyway.

    A picture in the size in which the model sees it is seen as it is, so that making it smaller here changes nothing.
    """
    if images is None:
        return image.size
    fitted = images.fitted(*image.size, options.max_pixels)
    smaller = fitted[0] * fitted[1] < image.size[0] * image.size[1]
    return fitted if smaller and images.fitted(*fitted, options.max_pixels) == fitted else image.size


async def encoded(images: Sequence[Image], spec: ModelSpec, options: RunOptions) -> list[str]:
    """Return pictures as PNG in base64, made on a thread: that takes a while, and the loop is that of all servers.

    Raises:
        ArgumentError: A file is no longer what it was.
    """
    return await asyncio.to_thread(lambda: [_png(image, spec, options) for image in images])


def _png(image: Image, spec: ModelSpec, options: RunOptions) -> str:
    size = _size(image, spec.images, options)
    sent = image if size == image.size else Image(fit(image.pixels, size))
    return base64.b64encode(sent.to_png()).decode("ascii")


async def contents(found: Sequence[Content], spec: ModelSpec, options: RunOptions) -> list[str | list[dict[str, Any]]]:
    """Return inputs as vLLM and embrief's server take them: a text as it is, others as content parts."""
    images = [part for item in found if not isinstance(item, str) for part in item if isinstance(part, Image)]
    files = iter(await encoded(images, spec, options))
    return [item if isinstance(item, str) else [_part(part, files) for part in item] for item in found]


def _part(part: str | Image, files: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{next(files)}"}}


def texts(found: Sequence[Content]) -> list[str]:
    """Return the texts of inputs."""
    listed = [(item,) if isinstance(item, str) else item for item in found]
    return [part for item in listed for part in item if isinstance(part, str)]


def check_max_pixels(inputs: Sequence[Rendered], told: Any, options: RunOptions, where: str) -> None:
    """Refuse pictures for a server that sees them smaller than this side is to have them seen.

    Args:
        inputs: What is sent.
        told: What the server says of itself; `None`: nothing.
        options: What is asked.
        where: The server's address.

    Raises:
        ArgumentError: There are some, and it does.
    """
    most = options.max_pixels
    if type(told) is int and most is not None and told < most and holds_pictures(inputs):
        raise ArgumentError(
            f"{where} sees pictures in {told} pixels at most, and max_pixels={most} is wanted; pass max_pixels={told}, "
            "or set it there"
        )
