"""From texts and their role to lists of floats, through the cache if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from embrief.errors import placed
from embrief.wrapping import ato_lists, carried, to_lists
from llama_index_embrief.cache import cache_keys
from llama_index_embrief.titles import titles_of

if TYPE_CHECKING:
    from embrief import Embedder
    from embrief.wrapping import Input
    from llama_index_embrief.cache import RoleCache, Rows

    Role = Literal["query", "document"]


def embed(embedder: Embedder, cache: RoleCache | None, texts: Sequence[str], role: Role) -> Rows:
    """Return one list of Python floats per text."""
    if cache is None:
        return _computed(embedder, texts, role)
    return cache.fill(
        cache_keys(embedder, texts, role),
        embedder.dim,
        lambda places: _computed(embedder, [texts[place] for place in places], role),
    )


async def aembed(embedder: Embedder, cache: RoleCache | None, texts: Sequence[str], role: Role) -> Rows:
    """`embed` without blocking the event loop."""
    if cache is None:
        return await _acomputed(embedder, texts, role)
    # The fingerprint may choose a device or read parts of a folder, so keys are made off the loop too.
    keys = await embedder.off_loop(partial(cache_keys, embedder, texts, role))
    return await cache.afill(
        keys,
        embedder.dim,
        lambda places: _acomputed(embedder, [texts[place] for place in places], role),
    )


def check(embedder: Embedder, cache: RoleCache | None, texts: Sequence[str]) -> None:
    """Raise what embedding documents would raise about them, and compute nothing; no lengths of cached ones."""
    if cache is None:
        embedder.check_documents(_contents(texts), titles=titles_of(texts))
    elif _may_fail_later(embedder, texts):
        missing = cache.missing(cache_keys(embedder, texts, "document"), embedder.dim)
        if missing:
            with placed(missing):
                check(embedder, None, [texts[place] for place in missing])


async def acheck(embedder: Embedder, cache: RoleCache | None, texts: Sequence[str]) -> None:
    """`check` without blocking the event loop."""
    if cache is None:
        await embedder.acheck_documents(_contents(texts), titles=titles_of(texts))
    elif _may_fail_later(embedder, texts):
        keys = await embedder.off_loop(partial(cache_keys, embedder, texts, "document"))
        missing = await cache.amissing(keys, embedder.dim)
        if missing:
            with placed(missing):
                await acheck(embedder, None, [texts[place] for place in missing])


def _may_fail_later(embedder: Embedder, texts: Sequence[str]) -> bool:
    # Otherwise no text is too long, and looking all of them up twice would be for nothing.
    return embedder.settings.truncate == "error" or titles_of(texts) is not None


# Never by `encode`: a fallback's answer may be of another space there.
def _computed(embedder: Embedder, texts: Sequence[str], role: Role) -> Rows:
    if role == "query":
        return to_lists(embedder.embed_queries(_contents(texts)))
    return to_lists(embedder.embed_documents(_contents(texts), titles=titles_of(texts)))


async def _acomputed(embedder: Embedder, texts: Sequence[str], role: Role) -> Rows:
    if role == "query":
        return await ato_lists(embedder, await embedder.aembed_queries(_contents(texts)))
    return await ato_lists(embedder, await embedder.aembed_documents(_contents(texts), titles=titles_of(texts)))


def _contents(texts: Sequence[str]) -> list[Input]:
    return [carried(text) for text in texts]
