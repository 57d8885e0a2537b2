"""Fields without a stamp: refused if they have vectors, stamped if they are empty or adopted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from qdrant_client import models

from qdrant_embrief.guard import Stored

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, QdrantClient

    from embrief import Embedder


def require_known(client: QdrantClient, name: str, embedders: Mapping[str, Embedder]) -> Stored:
    """Refuse embedders whose vectors do not belong into a collection, or are not known to. Writes nothing.

    Raises:
        SpaceMismatchError: A field holds vectors of another space or width, or of an unknown space.
        ArgumentError: The collection has no vector of a name in `embedders`.
    """
    stored = _require(client, name, embedders)
    for using in stored.unstamped(embedders):
        if client.scroll(name, _having(using), limit=1, with_payload=False)[0]:
            raise stored.unknown(using)
    return stored


def claim(client: QdrantClient, name: str, embedders: Mapping[str, Embedder], *, adopt: bool = False) -> Stored:
    """`require_known`, and stamp fields that have none: empty ones, and with `adopt` all of them."""
    look = _require if adopt else require_known
    stored = look(client, name, embedders)
    if unstamped := stored.unstamped(embedders):
        client.update_collection(name, metadata=stored.stamped(unstamped))
        # Read again: another process may have stamped it for another embedder.
        stored = _require(client, name, embedders)
    return stored


async def arequire_known(client: AsyncQdrantClient, name: str, embedders: Mapping[str, Embedder]) -> Stored:
    """`require_known` for an `AsyncQdrantClient`."""
    stored = await _arequire(client, name, embedders)
    for using in stored.unstamped(embedders):
        if (await client.scroll(name, _having(using), limit=1, with_payload=False))[0]:
            raise stored.unknown(using)
    return stored


async def aclaim(
    client: AsyncQdrantClient, name: str, embedders: Mapping[str, Embedder], *, adopt: bool = False
) -> Stored:
    """`claim` for an `AsyncQdrantClient`."""
    look = _arequire if adopt else arequire_known
    stored = await look(client, name, embedders)
    if unstamped := stored.unstamped(embedders):
        await client.update_collection(name, metadata=stored.stamped(unstamped))
        stored = await _arequire(client, name, embedders)
    return stored


def _require(client: QdrantClient, name: str, embedders: Mapping[str, Embedder]) -> Stored:
    stored = Stored(name, client.get_collection(name))
    stored.require(embedders)
    return stored


async def _arequire(client: AsyncQdrantClient, name: str, embedders: Mapping[str, Embedder]) -> Stored:
    stored = Stored(name, await client.get_collection(name))
    # Off the loop: the facts of a model without a record are fetched at their first use.
    await next(iter(embedders.values())).off_loop(partial(stored.require, embedders))
    return stored


def _having(using: str) -> models.Filter | None:
    """Return what finds points that have this vector; each point has the unnamed one."""
    return models.Filter(must=[models.HasVectorCondition(has_vector=using)]) if using else None
