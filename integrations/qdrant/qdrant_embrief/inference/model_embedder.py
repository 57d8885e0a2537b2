"""The object a client asks for vectors: ours for our names, the client's own (fastembed, BM25) for others."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from qdrant_client import models
from qdrant_client.embed.model_embedder import ModelEmbedder
from qdrant_client.fastembed_common import FastEmbedMisc

from embrief.errors import placed
from embrief.wrapping import to_lists
from qdrant_embrief.inference.documents import checked, held
from qdrant_embrief.inference.embedders import NamedEmbedders, options_of

if TYPE_CHECKING:
    from embrief import Embedder
    from embrief.wrapping import Input
    from qdrant_embrief.inference.contents import Inference

T = TypeVar("T")


class LocalModelEmbedder(ModelEmbedder):
    """Serves the attached models in this process and passes every other name on."""

    def __init__(self, original: ModelEmbedder, parser: Any) -> None:
        # With is_local_mode=True the client would demand fastembed before it asks who serves the model.
        super().__init__(parser=parser, is_local_mode=False)
        # The client's own one keeps the fastembed models it has loaded, and its way with BM25.
        self.embedder = original.embedder
        self._others_need_fastembed = not original._is_builtin_embedder_available
        self.models = NamedEmbedders()
        self._lock = threading.RLock()
        self._executor: ThreadPoolExecutor | None = None

    async def off_loop(self, call: Callable[[], T]) -> T:
        """Run `call` on a thread of this client's own and wait for it without blocking the event loop."""
        if self._executor is None:
            # One thread: embedding is serial anyway, and asyncio's shared threads stay free for others.
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="embrief-qdrant")
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(context.run, call))

    def embed_models_strict(
        self, raw_models: Iterable[Any], batch_size: int = 8, parallel: int | None = None
    ) -> Iterable[Any]:
        """Embed in this process whatever `parallel` says: each worker would load the model once more."""
        yield from super().embed_models_strict(checked(raw_models), batch_size, None)

    def embed_models_batch(
        self, raw_models: list[Any], is_query: bool = False, inference_batch_size: int = 8
    ) -> Iterable[Any]:
        """Embed one batch. The base class collects texts in attributes: two threads would swap vectors."""
        with self._lock:
            try:
                done = list(super().embed_models_batch(raw_models, is_query, inference_batch_size))
            finally:
                # Before 1.20 a batch that failed left its texts behind, and the next call got their vectors.
                self._batch_accumulator.clear()
                self._embed_storage.clear()
        yield from done

    def _embed_accumulator(self, is_query: bool = False, inference_batch_size: int = 8) -> None:
        # Whole batches here, not one call per options dict as in the base class: a title each would mean a
        # run each.
        found = {name: embedder for name in self._batch_accumulator if (embedder := self.models.find(name))}
        ours = {name: self._batch_accumulator.pop(name) for name in found}
        if self._batch_accumulator:
            if self._others_need_fastembed:
                FastEmbedMisc.import_fastembed()
            super()._embed_accumulator(is_query, inference_batch_size)
        for name, objects in ours.items():
            vectors: Any = _embed_objects(found[name], objects, is_query=is_query)
            self._embed_storage[name] = vectors

    def _resolve_inference_object(self, data: Any) -> Any:
        if isinstance(data, models.InferenceObject) and self.models.find(data.model):
            # As it is: what it holds may be a text, a picture or both.
            return data
        return super()._resolve_inference_object(data)


class _Group(NamedTuple):
    """What texts and pictures must share to go through the model together."""

    instruction: str | None
    task: str | None


def _embed_objects(embedder: Embedder, objects: Sequence[Inference], *, is_query: bool) -> list[list[float]]:
    """Embed Qdrant's inference objects.

    Args:
        embedder: The model.
        objects: The objects, whose options may differ.
        is_query: Which side of the search they are on.

    Returns:
        Plain vectors in input order.

    Raises:
        ArgumentTypeError: An object holds what the model does not take, or an option has the wrong type.
        ArgumentError: A picture cannot be read; or an option is unknown, or does not fit the model or the side.
    """
    groups: dict[_Group, list[int]] = {}
    texts: list[Input] = []
    titles: list[str | None] = []
    dims: list[int] = []
    for index, item in enumerate(objects):
        options = options_of(item.options, embedder)
        group = _Group(options.get("instruction"), options.get("task"))
        groups.setdefault(group, []).append(index)
        texts.append(held(item, embedder, index))
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
