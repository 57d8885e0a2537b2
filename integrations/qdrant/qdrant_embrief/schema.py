"""Embedders by vector name, and what a collection needs to know about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from embrief import Embedder
from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.stores import stamp
from embrief.wrapping import unicode
from qdrant_embrief.guard import NAMED_KEY

T = TypeVar("T")

Embedders = Embedder | Mapping[str, Embedder]
"""One embedder for the unnamed vector, or one per vector name."""


def by_name(embedder: Embedders, using: str | None = None) -> dict[str, Embedder]:
    """Return embedders by vector name; `""` is the unnamed vector.

    Args:
        embedder: One, or one per vector name.
        using: The vector of one embedder; `None` is the unnamed one.

    Raises:
        ArgumentTypeError: It is neither an embedder nor a mapping of vector name to embedder.
        ArgumentError: The mapping is empty, a name is, or there are names and `using` too.
    """
    if using is not None and not isinstance(using, str):
        raise ArgumentTypeError(f"using is the name of a vector or None, not {type(using).__name__}")
    unicode(using, "using")
    if isinstance(embedder, Embedder):
        return {using or "": embedder}
    if using is not None:
        raise ArgumentError(f"using={using!r} names the vector of one Embedder; embedder maps names to some already")
    if not isinstance(embedder, Mapping):
        raise ArgumentTypeError(f"embedder is an Embedder or maps vector names to some, not {type(embedder).__name__}")
    unicode(list(embedder), "the names of vectors")
    given: Mapping[Any, Any] = embedder
    for name, item in given.items():
        if not isinstance(name, str) or not isinstance(item, Embedder):
            raise ArgumentTypeError(
                f"embedder maps a vector name to an Embedder; {name!r} maps to {type(item).__name__}"
            )
    if not embedder or "" in embedder:
        raise ArgumentError("embedder needs a name for each vector; pass one Embedder alone for an unnamed vector")
    return dict(embedder)


async def off_loop(embedder: Embedders, call: Callable[[], T]) -> T:
    """Run what asks embedders for their width or space: the first to ask may wait for a download or a disk."""
    return await next(iter(by_name(embedder).values())).off_loop(call)


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
    """Return what `client.create_collection(metadata=...)` takes: the stamp of each vector's space.

    Args:
        embedder: The embedder of the unnamed vector, or one per vector name.
        using: Name of the vector of one embedder; `None` is the unnamed one.
    """
    embedders = by_name(embedder, using)
    if "" in embedders:
        return dict(stamp(embedders[""].space))
    return {NAMED_KEY: {name: stamp(item.space) for name, item in embedders.items()}}


def require_sync(client: object, twin: str) -> None:
    """Refuse what is no `QdrantClient`, naming the twin for async clients."""
    if not isinstance(client, QdrantClient):
        remedy = f"; for an AsyncQdrantClient use {twin}" if isinstance(client, AsyncQdrantClient) else ""
        raise ArgumentTypeError(f"client is a QdrantClient, not {type(client).__name__}{remedy}")


def require_async(client: object, twin: str) -> None:
    """Refuse what is no `AsyncQdrantClient`, naming the twin for ordinary clients."""
    if not isinstance(client, AsyncQdrantClient):
        remedy = f"; for a QdrantClient use {twin}" if isinstance(client, QdrantClient) else ""
        raise ArgumentTypeError(f"client is an AsyncQdrantClient, not {type(client).__name__}{remedy}")
