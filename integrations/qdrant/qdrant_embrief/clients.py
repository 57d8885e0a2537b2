"""The client's methods after `attach`: the same, with the space guard, and off the event loop if async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_embrief.checks import DocumentCheck, upload_under_way
from qdrant_embrief.documents import Placed, documents
from qdrant_embrief.guard import Stored
from qdrant_embrief.reading import read_now
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
        if found := _found(bound, arguments):
            _check(self, lambda: Stored(collection_name, self.get_collection(collection_name)))(found)
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
                _check(self, lambda: stored)(found)
                given = {name: bound.arguments[name] for name in arguments if bound.arguments.get(name) is not None}
                if "query" in given:
                    given["query"] = self._resolve_query(given["query"])
                if "requests" in given:
                    given["requests"] = self._resolve_query_batch_request(given["requests"])
                return {name: _embedded(self, value, is_query) for name, value in given.items()}

            bound.arguments.update(await self._model_embedder.off_loop(embed))
        return await method(*bound.args, **bound.kwargs)

    return call


def _upload(method: Method) -> Method:
    @functools.wraps(method)
    def call(self: Any, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        with upload_under_way(_check(self, lambda: Stored(collection_name, read_now(self, collection_name)))):
            return method(self, collection_name, *args, **kwargs)

    return call


def _check(client: QdrantClient | AsyncQdrantClient, read: Callable[[], Stored]) -> DocumentCheck:
    inner: Any = client._model_embedder
    return DocumentCheck(inner.models, read)


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
