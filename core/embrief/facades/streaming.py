"""A stream of documents, taken a block at a time, so that any number of them needs the memory of one block."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from itertools import islice
from typing import Any, NamedTuple

from embrief.errors import ArgumentError
from embrief.facades import arguments, forms

BLOCK = 1024
"""Texts per block: enough for a runtime to put texts of about equal lengths together."""
PICTURED = 32
"""Of them those that hold pictures: a photograph that somebody decoded takes tens of megabytes."""

_TEXTS, _TITLES = ("texts", "strings"), ("titles", "one title (or None) per document")


class Block(NamedTuple):
    """Some documents that follow each other. Their items are checked by whoever embeds them."""

    start: int
    """Index of the first in the stream."""
    texts: list[Any]
    titles: list[Any] | None


def blocks(texts: object, titles: object) -> Iterator[Block]:
    """Return the blocks of a stream, each read when it is asked for.

    Args:
        texts: Anything iterable that has an order (see `arguments.stream`).
        titles: The same, one item per text; or `None`.

    Raises:
        ArgumentTypeError: At once, for what is no stream of texts or titles.
        ArgumentError: At the block where there are more or fewer titles than texts.
    """
    return _blocks(arguments.stream(texts, *_TEXTS), None if titles is None else arguments.stream(titles, *_TITLES))


def ablocks(texts: object, titles: object) -> AsyncIterator[Block]:
    """Return the blocks of a stream that may be asynchronous, as `blocks` does."""
    return _ablocks(_source(texts, *_TEXTS), None if titles is None else _source(titles, *_TITLES))


def _blocks(texts: Iterator[Any], titles: Iterator[Any] | None) -> Iterator[Block]:
    start = 0
    while True:
        found = list(_until_full(texts))
        block = _block(start, found, None if titles is None else list(islice(titles, len(found) or 1)))
        if not found:
            return
        yield block
        start += len(found)


async def _ablocks(
    texts: Iterator[Any] | AsyncIterator[Any], titles: Iterator[Any] | AsyncIterator[Any] | None
) -> AsyncIterator[Block]:
    start = 0
    while True:
        found = await _taken_until_full(texts)
        block = _block(start, found, None if titles is None else await _taken(titles, len(found) or 1))
        if not found:
            return
        yield block
        start += len(found)


def _block(start: int, texts: list[Any], titles: list[Any] | None) -> Block:
    if titles is not None and len(titles) != len(texts):
        end = start + min(len(titles), len(texts))
        fewer = "texts" if titles and not texts else "titles"
        raise ArgumentError(f"the {fewer} end at index {end}; give one title per text, None for no title", index=end)
    return Block(start, texts, titles)


def _source(values: object, what: str, of: str) -> Iterator[Any] | AsyncIterator[Any]:
    return aiter(values) if isinstance(values, AsyncIterable) else arguments.stream(values, what, of)


def _until_full(texts: Iterator[Any]) -> Iterator[Any]:
    """Yield the texts of one block, and take no more."""
    pictured = 0
    for text in islice(texts, BLOCK):
        yield text
        pictured += forms.holds_image(text)
        if pictured == PICTURED:
            return


async def _taken_until_full(texts: Iterator[Any] | AsyncIterator[Any]) -> list[Any]:
    if not isinstance(texts, AsyncIterator):
        return list(_until_full(texts))
    found: list[Any] = []
    pictured = 0
    while len(found) < BLOCK and pictured < PICTURED and (taken := await _taken(texts, 1)):
        found += taken
        pictured += forms.holds_image(taken[0])
    return found


async def _taken(source: Iterator[Any] | AsyncIterator[Any], count: int) -> list[Any]:
    if not isinstance(source, AsyncIterator):
        return list(islice(source, count))
    found: list[Any] = []
    while len(found) < count:
        try:
            found.append(await anext(source))
        except StopAsyncIteration:
            break
    return found
