"""Texts that carry pictures through code that passes strings alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from embrief.errors import ArgumentError

if TYPE_CHECKING:
    from embrief.facts.prompts import Input
    from embrief.images.image import Image


class PicturedText(str):
    """A text with pictures, which is a plain string to everybody but embrief's wrappers.

    Frameworks pass documents and queries as strings, through batches, events and stores. This is one, and it knows the
    pictures that belong to it. What is made of it by slicing, joining or formatting is a plain text without them.
    """

    images: tuple[Image, ...]

    def __new__(cls, text: str = "", images: Sequence[Image] = ()) -> Self:
        """Return the text with its pictures, which pickle and deepcopy set afterwards."""
        made = super().__new__(cls, text)
        made.images = tuple(images)
        return made

    @property
    def content(self) -> Input:
        """What a facade takes: the pictures, and the text unless it is empty or blank."""
        words = [str(self)] if self.strip() else []
        return [*self.images, *words]

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Refuse: caches and record managers tell texts apart by a digest of their bytes, which has no pictures.

        Raises:
            ArgumentError: It has pictures, and one of them would be taken for another.
        """
        if self.images:
            raise ArgumentError(
                "the bytes of a text that carries pictures were asked for, as a cache or a record manager does to tell "
                "texts apart: it would take one picture for another. Embed and store it without that one (the "
                "embedder's own cache= knows pictures); str(text) is the text alone"
            )
        return super().encode(encoding, errors)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r}, {list(self.images)!r})"


def carried(text: Input) -> Input:
    """Return what a facade takes of a string that may carry pictures; anything else as it is."""
    return text.content if isinstance(text, PicturedText) and text.images else text
