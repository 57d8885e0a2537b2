"""Collections that know their vector space: made with the right width, stamped, and checked.

A vector field without a stamp is refused if it has vectors, and stamped if it is empty or adopted.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from embrief.errors import ArgumentError
from embrief.stores import KEY, NOTE, tell_precision
from embrief.wrapping import unicode
from qdrant_embrief.guard import NAMED_KEY, Stored, stamped
from qdrant_embrief.helpers.arguments import Embedders, by_name, off_loop, require_async, require_sync

if TYPE_CHECKING:
    from embrief import Embedder


def create_collection(
    client: QdrantClient,
    name: str,
    embedder: Embedders,
    *,
    distance: models.Distance = models.Distance.COSINE,
    on_disk: bool | None = None,
    sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
    quantization_config: models.QuantizationConfig | None = None,
    metadata: Mapping[str, Any] | None = None,
    using: str | None = None,
    adopt: bool = False,
) -> bool:
    """Make a collection of the embedder's width and stamp it with its vector space; keep one that fits.

    For other settings, pass `vectors_config(embedder)` and `space_metadata(embedder)` to the client's own
    method.

    Args:
        client: The client.
        name: The collection.
        embedder: The embedder of the unnamed vector, or one per vector name.
        distance: How vectors are compared.
        on_disk: Whether vectors stay on disk; `None` leaves it to Qdrant.
        sparse_vectors_config: Sparse vectors beside the dense ones, for hybrid search.
        quantization_config: How the server compresses vectors.
        metadata: Metadata of your own, kept beside the stamp.
        using: Name of the vector of one embedder; `None` is the unnamed one.
        adopt: For a collection that is there: see `check_collection`.

    Returns:
        Whether it was made; `False` if it was there and fits.

    Raises:
        SpaceMismatchError: The collection is there with vectors of another or an unknown space, or of another width.
        ArgumentError: `metadata` holds a key of the stamp.
        ArgumentTypeError: The client is an async one, or `embedder` is no embedder.
    """
    require_sync(client, "acreate_collection")
    with_stamp = _metadata(embedder, metadata, using)
    if client.collection_exists(name):
        check_collection(client, name, embedder, using=using, adopt=adopt)
        return False
    return client.create_collection(
        name,
        vectors_config=vectors_config(embedder, distance=distance, on_disk=on_disk, using=using),
        sparse_vectors_config=sparse_vectors_config,
        quantization_config=quantization_config,
        metadata=with_stamp,
    )


async def acreate_collection(
    client: AsyncQdrantClient,
    name: str,
    embedder: Embedders,
    *,
    distance: models.Distance = models.Distance.COSINE,
    on_disk: bool | None = None,
    sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
    quantization_config: models.QuantizationConfig | None = None,
    metadata: Mapping[str, Any] | None = None,
    using: str | None = None,
    adopt: bool = False,
) -> bool:
    """`create_collection` for an `AsyncQdrantClient`."""
    require_async(client, "create_collection")
    with_stamp = await off_loop(embedder, partial(_metadata, embedder, metadata, using))
    if await client.collection_exists(name):
        await acheck_collection(client, name, embedder, using=using, adopt=adopt)
        return False
    vectors = await off_loop(
        embedder, partial(vectors_config, embedder, distance=distance, on_disk=on_disk, using=using)
    )
    return await client.create_collection(
        name,
        vectors_config=vectors,
        sparse_vectors_config=sparse_vectors_config,
        quantization_config=quantization_config,
        metadata=with_stamp,
    )


def check_collection(
    client: QdrantClient, name: str, embedder: Embedders, *, using: str | None = None, adopt: bool = False
) -> None:
    """Refuse an embedder whose vectors do not belong into a collection, or are not known to.

    A vector field without a stamp is stamped if it is empty.

    Args:
        client: The client.
        name: The collection.
        embedder: The embedder of the unnamed vector, or one per vector name.
        using: Name of the vector of one embedder; `None` is the unnamed one.
        adopt: Stamp also fields that have vectors and no stamp: you say that they are this embedder's. The width is
            compared all the same.

    Raises:
        SpaceMismatchError: The collection holds vectors of another space or width, or of an unknown space without
            `adopt`; or its stamp cannot be read.
        ArgumentError: The collection has no vector of a name in `embedder`.
    """
    require_sync(client, "acheck_collection")
    claim(client, name, by_name(embedder, using), adopt=adopt)


async def acheck_collection(
    client: AsyncQdrantClient, name: str, embedder: Embedders, *, using: str | None = None, adopt: bool = False
) -> None:
    """`check_collection` for an `AsyncQdrantClient`."""
    require_async(client, "check_collection")
    await aclaim(client, name, by_name(embedder, using), adopt=adopt)


def vectors_config(
    embedder: Embedders,
    *,
    distance: models.Distance = models.Distance.COSINE,
    on_disk: bool | None = None,
    using: str | None = None,
) -> models.VectorParams | dict[str, models.VectorParams]:
    """Return what `client.create_collection(vectors_config=...)` takes: width and distance of each vector.

    Args:
        embedder: The embedder of the unnamed vector, or one per vector name.
        distance: How vectors are compared.
        on_disk: Whether vectors stay on disk; `None` leaves it to Qdrant.
        using: Name of the vector of one embedder; `None` is the unnamed one.
    """
    params = {
        name: models.VectorParams(size=item.dim, distance=distance, on_disk=on_disk)
        for name, item in by_name(embedder, using).items()
    }
    return params.get("") or params


def space_metadata(embedder: Embedders, *, using: str | None = None) -> dict[str, Any]:
    """Return what `client.create_collection(metadata=...)` takes: the stamp of each vector's space, and a note.

    Args:
        embedder: The embedder of the unnamed vector, or one per vector name.
        using: Name of the vector of one embedder; `None` is the unnamed one.
    """
    embedders = by_name(embedder, using)
    if "" in embedders:
        return stamped(embedders[""])
    return {NAMED_KEY: {name: stamped(item) for name, item in embedders.items()}}


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


async def arequire_known(client: AsyncQdrantClient, name: str, embedders: Mapping[str, Embedder]) -> Stored:
    """`require_known` for an `AsyncQdrantClient`."""
    stored = await _arequire(client, name, embedders)
    for using in stored.unstamped(embedders):
        if (await client.scroll(name, _having(using), limit=1, with_payload=False))[0]:
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


async def aclaim(
    client: AsyncQdrantClient, name: str, embedders: Mapping[str, Embedder], *, adopt: bool = False
) -> Stored:
    """`claim` for an `AsyncQdrantClient`."""
    look = _arequire if adopt else arequire_known
    stored = await look(client, name, embedders)
    if unstamped := stored.unstamped(embedders):
        # Off the loop: a runtime may be imported for the note.
        stamps = await next(iter(embedders.values())).off_loop(partial(stored.stamped, unstamped))
        await client.update_collection(name, metadata=stamps)
        stored = await _arequire(client, name, embedders)
    return stored


def _metadata(embedder: Embedders, extra: Mapping[str, Any] | None, using: str | None) -> dict[str, Any]:
    unicode(extra, "metadata")
    if taken := sorted({KEY, NAMED_KEY, NOTE} & set(extra or {})):
        raise ArgumentError(f"metadata cannot have the key {taken[0]!r}: the stamp of the vector space is kept there")
    for item in by_name(embedder, using).values():
        tell_precision(item)
    return {**(extra or {}), **space_metadata(embedder, using=using)}


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
