"""The client's methods after `attach`: the same, with the space guard, and off the event loop if async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_embrief.guard import Stored
from qdrant_embrief.inference.documents import DocumentCheck, Placed, call_under_way, documents, upload_under_way
from qdrant_embrief.inference.seam import QUERY_CALLS, UPLOAD_CALLS, WRITE_CALLS

if TYPE_CHECKING:
    from qdrant_embrief.inference.model_embedder import LocalModelEmbedder

Method = Callable[..., Any]


@functools.cache
def attached_class(base: type[Any]) -> type[Any]:
    """Return the subclass of a client class that attached clients get.

    A subclass, not patched attributes: a client that refers to itself would only be closed by the garbage
    collector.
    """
    is_async = issubclass(base, AsyncQdrantClient)
    methods: dict[str, Any] = {"get_embedding_size": _embedding_size(base.get_embedding_size)}
    for calls, is_query in ((QUERY_CALLS, True), (WRITE_CALLS, False)):
        for name, arguments in calls.items():
            method = getattr(base, name)
            methods[name] = _off_loop(method, arguments, is_query) if is_async else _guarded(method, arguments)
    methods |= {name: _upload(getattr(base, name)) for name in UPLOAD_CALLS}
    return type(base.__name__, (base,), {"__module__": base.__module__, "__doc__": base.__doc__, **methods})


def _embedding_size(method: Method) -> Method:
    @functools.wraps(method)
    def call(self: Any, model_name: str, *args: Any, **kwargs: Any) -> Any:
        inner: LocalModelEmbedder = self._model_embedder
        embedder = inner.models.find(model_name)
        return method(self, model_name, *args, **kwargs) if embedder is None else embedder.dim

    return call


# *args and **kwargs here and below: the method's own signature decides, so an unknown keyword is its error.
def _guarded(method: Method, arguments: tuple[str, ...]) -> Method:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: Any, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, collection_name, *args, **kwargs)
        if not (found := _found(bound, arguments)):
            return method(*bound.args, **bound.kwargs)
        stored = Stored(collection_name, self.get_collection(collection_name))
        check = DocumentCheck(self._model_embedder.models, lambda: stored)
        check(found)
        with call_under_way(check):
            return method(*bound.args, **bound.kwargs)

    return call


def _off_loop(method: Method, arguments: tuple[str, ...], is_query: bool) -> Method:
    signature = inspect.signature(method)

    @functools.wraps(method)
    async def call(self: Any, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, collection_name, *args, **kwargs)
        if found := _found(bound, arguments):
            stored = Stored(collection_name, await self.get_collection(collection_name))

            def embed() -> dict[str, Any]:
                # The check too: the facts of a model without a record are fetched at their first use.
                check = DocumentCheck(self._model_embedder.models, lambda: stored)
                check(found)
                given = {name: bound.arguments[name] for name in arguments if bound.arguments.get(name) is not None}
                if "query" in given:
                    given["query"] = self._resolve_query(given["query"])
                if "requests" in given:
                    given["requests"] = self._resolve_query_batch_request(given["requests"])
                with call_under_way(check):
                    return {name: _embedded(self, value, is_query) for name, value in given.items()}

            bound.arguments.update(await self._model_embedder.off_loop(embed))
        return await method(*bound.args, **bound.kwargs)

    return call


def _upload(method: Method) -> Method:
    @functools.wraps(method)
    def call(self: Any, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        def read() -> Stored:
            return Stored(collection_name, _read_now(self, collection_name))

        with upload_under_way(DocumentCheck(self._model_embedder.models, read)):
            return method(self, collection_name, *args, **kwargs)

    return call


def _read_now(client: QdrantClient | AsyncQdrantClient, name: str) -> models.CollectionInfo:
    """Return a collection's settings without an event loop, also those of an async client."""
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


def _found(bound: inspect.BoundArguments, arguments: tuple[str, ...]) -> list[Placed]:
    found: list[Placed] = []
    for name in arguments:
        if isinstance(value := bound.arguments.get(name), Iterator):
            # Looking would use it up.
            value = bound.arguments[name] = list(value)
        found += documents(value, bound.arguments.get("using") or "")
    return found


def _embedded(client: AsyncQdrantClient, value: Any, is_query: bool) -> Any:
    # list(): the generator embeds while it is consumed, which must happen on this thread.
    done = list(client._embed_models(value, is_query=is_query, batch_size=client.local_inference_batch_size))
    return done[0] if isinstance(value, BaseModel) else done
