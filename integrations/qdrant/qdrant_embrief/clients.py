"""The client's methods after `attach`: the same, with the space guard, and off the event loop if async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_embrief.guard import Stored, collection_in_use
from qdrant_embrief.seam import QUERY_CALLS, UPLOAD_CALLS, WRITE_CALLS

if TYPE_CHECKING:
    from qdrant_embrief.inference import LocalModelEmbedder

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
            methods[name] = _off_loop(method, arguments, is_query) if is_async else _guarded(method)
    if not is_async:
        methods |= {name: _guarded(getattr(base, name)) for name in UPLOAD_CALLS}
    return type(base.__name__, (base,), {"__module__": base.__module__, "__doc__": base.__doc__, **methods})


def _embedding_size(method: Method) -> Method:
    @functools.wraps(method)
    def call(self: Any, model_name: str, *args: Any, **kwargs: Any) -> Any:
        inner: LocalModelEmbedder = self._model_embedder
        embedder = inner.models.find(model_name)
        return method(self, model_name, *args, **kwargs) if embedder is None else embedder.dim

    return call


# *args and **kwargs here and below: the method's own signature decides, so an unknown keyword is its error.
def _guarded(method: Method) -> Method:
    @functools.wraps(method)
    def call(self: QdrantClient, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        with collection_in_use(lambda: Stored(collection_name, self.get_collection(collection_name))):
            return method(self, collection_name, *args, **kwargs)

    return call


def _off_loop(method: Method, arguments: tuple[str, ...], is_query: bool) -> Method:
    signature = inspect.signature(method)

    @functools.wraps(method)
    async def call(self: AsyncQdrantClient, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, collection_name, *args, **kwargs)
        given = {name: bound.arguments[name] for name in arguments if bound.arguments.get(name) is not None}
        if "query" in given:
            given["query"] = self._resolve_query(given["query"])
        if "requests" in given:
            given["requests"] = self._resolve_query_batch_request(given["requests"])
        if any(self._inference_inspector.inspect(value) for value in given.values()):
            inner: Any = self._model_embedder
            stored = Stored(collection_name, await self.get_collection(collection_name))

            def embed() -> dict[str, Any]:
                return {name: _embedded(self, value, is_query) for name, value in given.items()}

            with collection_in_use(lambda: stored):
                bound.arguments.update(await inner.off_loop(embed))
        return await method(*bound.args, **bound.kwargs)

    return call


def _embedded(client: AsyncQdrantClient, value: Any, is_query: bool) -> Any:
    # list(): the generator embeds while it is consumed, which must happen on this thread.
    done = list(client._embed_models(value, is_query=is_query, batch_size=client.local_inference_batch_size))
    return done[0] if isinstance(value, BaseModel) else done
