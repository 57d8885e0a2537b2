"""Where a text stands in the caller's list, through the framework's batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from embrief.errors import placed


class PlacedText(str):
    """A text that knows its place in the call: the framework hands our methods one batch and not where it began."""

    given: str
    """The text as it came, which may know more, such as a title."""
    place: int


def with_places(texts: Sequence[str]) -> list[str]:
    """Return the texts of a call, each with its place."""
    return [_placed(text, place) for place, text in enumerate(texts)]


@contextmanager
def unplaced(texts: Sequence[str]) -> Iterator[list[str]]:
    """Give the texts of a batch as they came, and an error about one of them its place in the call.

    Texts without places, which come past `with_places`, are counted from the batch's first.
    """
    places = [text.place if isinstance(text, PlacedText) else place for place, text in enumerate(texts)]
    with placed(places):
        yield [text.given if isinstance(text, PlacedText) else text for text in texts]


def _placed(text: str, place: int) -> PlacedText:
    # Set here and not in `__new__`, which pickle and deepcopy call with the bare string.
    made = PlacedText(text)
    made.given, made.place = text, place
    return made
