"""What `models.Document(options=...)` may say, and the embedding of documents whose options differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

from qdrant_client import models

from embrief.errors import ArgumentError, ArgumentTypeError, placed
from embrief.wrapping import meant, to_lists, unicode

if TYPE_CHECKING:
    from embrief import Embedder

OPTIONS = ("instruction", "mrl", "task", "title")


class _Group(NamedTuple):
    """What texts must share to go through the model together."""

    instruction: str | None
    task: str | None


def view_of(embedder: Embedder, options: object) -> Embedder:
    """Return the embedder whose vectors a document with these options gets.

    Raises:
        ArgumentTypeError: An option has the wrong type.
        ArgumentError: An option is unknown, or does not fit the model.
    """
    given = _options(options, embedder)
    if (mrl := given.get("mrl")) is not None:
        embedder = embedder.with_dim(mrl)
    # A task may have a document prompt of its own, which makes a space of its own.
    return embedder if (task := given.get("task")) is None else embedder.with_task(task)


def embed_objects(embedder: Embedder, objects: Sequence[object], *, is_query: bool) -> list[list[float]]:
    """Embed Qdrant's inference objects.

    Args:
        embedder: The model.
        objects: `models.Document`s, whose options may differ.
        is_query: Which side of the search the texts are on.

    Returns:
        Plain vectors in input order.

    Raises:
        ArgumentTypeError: An object is no text, or an option has the wrong type.
        ArgumentError: An option is unknown, or does not fit the model or the side.
    """
    groups: dict[_Group, list[int]] = {}
    texts: list[str] = []
    titles: list[str | None] = []
    dims: list[int] = []
    for index, item in enumerate(objects):
        if not isinstance(item, models.Document):
            raise ArgumentTypeError(
                f"{embedder.settings.model} embeds texts; use models.Document, not {type(item).__name__}",
                index=index,
            )
        options = _options(item.options, embedder)
        group = _Group(options.get("instruction"), options.get("task"))
        groups.setdefault(group, []).append(index)
        texts.append(item.text)
        titles.append(options.get("title"))
        mrl = options.get("mrl")
        dims.append(embedder.dim if mrl is None else mrl)
    vectors: list[list[float]] = [[] for _ in texts]
    for group, places in groups.items():
        given = [titles[place] for place in places]
        # One run for a text that is wanted at several widths.
        with placed(places):
            results = embedder.encode_dims(
                [texts[place] for place in places],
                sorted({dims[place] for place in places}),
                role="query" if is_query else "document",
                titles=given if any(title is not None for title in given) else None,
                instruction=group.instruction,
                task=group.task,
            )
        lists = {dim: to_lists(result.vectors) for dim, result in results.items()}
        for row, place in enumerate(places):
            vectors[place] = lists[dims[place]][row]
    return vectors


def _options(options: object, embedder: Embedder) -> Mapping[str, Any]:
    if options is None:
        return {}
    # Qdrant's own BM25 options are a class of their own.
    given = options if isinstance(options, Mapping) else dict(vars(options))
    if unknown := sorted(set(given) - set(OPTIONS)):
        raise ArgumentError(
            f"{embedder.settings.model} does not know the options {', '.join(map(repr, unknown))} of a "
            f"Document; it knows {', '.join(map(repr, OPTIONS))}{meant(unknown, OPTIONS, called={'dim': 'mrl'})}"
        )
    for name, value in given.items():
        if value is not None and not isinstance(value, Integral if name == "mrl" else str):
            kind = "a whole number" if name == "mrl" else "a string"
            raise ArgumentTypeError(f"the option {name!r} of a Document is {kind}, not {value!r}")
        unicode(value, f"the option {name!r} of a Document")
    return given
