"""What a document or a question holds: a text, or pictures with or without texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from embrief.errors import ArgumentError, MissingDependencyError
from embrief.facades.forms import parts_of, remedy
from embrief.images.image import Image

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facts.prompts import Content, Input

FOLDER = "images"
"""Where `written` puts pictures, beside the files that name them."""


def content(item: Input, where: str) -> Content:
    """Return a text, or the pictures and then the texts of what holds a picture, as prompts have them.

    Args:
        item: A text, an image, a sequence of both, or a mapping with "text" and "image", as the facades take it.
        where: What it is, for errors.

    Raises:
        ArgumentError: It is something else, or holds neither a text nor a picture.
    """
    if (parts := parts_of(item)) is None:
        raise ArgumentError(
            f"{where} is {type(item).__name__}; it must be a string, an Image, a sequence of both, or a mapping with "
            f"'text' and 'image'{remedy(item)}"
        )
    return parts if isinstance(parts[0], Image) else "".join(part for part in parts if isinstance(part, str))


def plain(item: Input) -> Any:
    """Return JSON that is equal for equal contents of a set: a picture is the name of its pixels. Decodes."""
    kept = cast("Content", item)
    return kept if isinstance(kept, str) else [part if isinstance(part, str) else [part.digest.hex()] for part in kept]


def pictured(items: Mapping[str, Input]) -> list[str]:
    """Return the names of the items that hold a picture."""
    return [name for name, item in items.items() if not isinstance(item, str)]


def read(item: Mapping[str, Any], text: str, folder: Path, where: str) -> Content:
    """Return what a line of a file says.

    Args:
        item: The line; `image` is the path of a picture, or a list of several, from the set's folder on.
        text: Its text, title included; may be empty where there is a picture.
        folder: The set's.
        where: File and line, for errors.

    Raises:
        ArgumentError: A picture lies elsewhere, is none that is taken, or cannot be read.
        MissingDependencyError: Pillow is not installed.
    """
    paths = item.get("image")
    if paths is None:
        return text
    listed = paths if isinstance(paths, list) else [paths]
    if not listed or not all(isinstance(path, str) for path in listed):
        raise ArgumentError(f"{where} has an image that is no path; it is a string, or a list of strings")
    images = [_picture(path, folder, where) for path in listed]
    return (*images, text) if text else tuple(images)


def _picture(path: str, folder: Path, where: str) -> Image:
    inside = folder.resolve()
    try:
        file = (inside / path).resolve()
        there = file.is_relative_to(inside) and file.is_file()
    except (OSError, ValueError, RuntimeError):
        # A byte that no path has, a name that is too long, links in a circle.
        there = False
    if not there:
        # A set comes from anywhere: it names no other file of this machine, not by a link either.
        raise ArgumentError(f"{where}: the image {path[:200]!r} is no file in the set's folder")
    return decoded(file, where)


def decoded(source: Path | bytes, where: str) -> Image:
    """Return a picture that has been decoded once.

    Raises:
        ArgumentError: It cannot be; with its place.
        MissingDependencyError: Pillow is not installed.
    """
    image = Image(source)
    try:
        _ = image.digest
    except MissingDependencyError:
        raise
    except ArgumentError as error:
        raise ArgumentError(f"{where}: {error}") from error
    return image


def written(item: Input, folder: Path, where: str) -> dict[str, Any]:
    """Return the fields of a line, and write its pictures into the folder: exactly the pixels that a model sees.

    Args:
        item: What the line is about.
        folder: The set's.
        where: What it is, for errors.

    Raises:
        ArgumentError: It has several texts.
    """
    kept = cast("Content", item)
    if isinstance(kept, str):
        return {"text": kept}
    texts = [part for part in kept if isinstance(part, str)]
    if len(texts) > 1:
        raise ArgumentError(f"{where} has {len(texts)} texts beside its picture, and a line has one; join them")
    paths = [_saved(part, folder) for part in kept if isinstance(part, Image)]
    return {"text": "".join(texts), "image": paths[0] if len(paths) == 1 else paths}


def _saved(image: Image, folder: Path) -> str:
    # Named by its pixels: an id may be no file's name.
    path = f"{FOLDER}/{image.digest.hex()[:32]}.png"
    if not (folder / path).exists():
        (folder / FOLDER).mkdir(exist_ok=True)
        (folder / path).write_bytes(image.to_png())
    return path
