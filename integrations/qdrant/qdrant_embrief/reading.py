"""A collection's settings, read by an ordinary function, also of an async client."""

from __future__ import annotations

from contextlib import closing

from qdrant_client import AsyncQdrantClient, QdrantClient, models


def read_now(client: QdrantClient | AsyncQdrantClient, name: str) -> models.CollectionInfo:
    """Return a collection's settings without an event loop."""
    if isinstance(client, QdrantClient):
        return client.get_collection(name)
    options = client.init_options
    if options.get("location") != ":memory:" and options.get("path") is None:
        # The client's own connections belong to its event loop, which waits for this function.
        with closing(QdrantClient(**{**options, "check_compatibility": False})) as twin:
            return twin.get_collection(name)
    # In this process: nobody else may open its files, and its coroutines never wait.
    reading = client.get_collection(name)
    try:
        reading.send(None)
    except StopIteration as done:
        info: models.CollectionInfo = done.value
        return info
    reading.close()
    raise RuntimeError("the embedded Qdrant client waited while it read a collection's settings")
