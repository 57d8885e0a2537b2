"""No call of the model, nor the conversion of its vectors, runs on the event loop's thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Iterator
from typing import Any

import numpy as np
import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

import embrief.facades.embedder
from embrief.testing import FakeRuntime
from langchain_embrief import Qwen3Embeddings, Qwen3Reranker

DELAY = 0.3


@pytest.fixture
def slow() -> Iterator[FakeRuntime]:
    with FakeRuntime(delay=DELAY) as runtime:
        yield runtime


async def longest_pause(work: Awaitable[Any]) -> float:
    """Return the longest time, in seconds, for which the event loop stood still."""
    longest, last = 0.0, time.perf_counter()

    async def heartbeat() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    beat = asyncio.create_task(heartbeat())
    try:
        await work
        await asyncio.sleep(0.01)
    finally:
        beat.cancel()
    return longest


async def test_the_loop_goes_on_while_the_model_works(slow: FakeRuntime) -> None:
    embeddings, reranker = Qwen3Embeddings(slow.qwen3), Qwen3Reranker(slow.reranker)
    for work in (
        embeddings.aembed_query("a"),
        embeddings.aembed_documents(["a", "b"]),
        reranker.acompress_documents([Document("a")], "a"),
    ):
        assert await longest_pause(work) < DELAY / 2
    assert threading.current_thread().name not in slow.threads
    assert len(slow.runs) == 3


async def test_concurrent_calls_enter_the_model_one_at_a_time_and_never_the_loop(slow: FakeRuntime) -> None:
    embeddings = Qwen3Embeddings(slow.qwen3)
    views = [embeddings, embeddings.with_instruction("x"), embeddings.with_dim(16)]
    assert await longest_pause(asyncio.gather(*(view.aembed_query("a") for view in views))) < DELAY / 2
    assert not slow.overlapped
    assert threading.current_thread().name not in slow.threads


async def test_a_retrieve_and_rerank_pipeline_leaves_the_loop_alone(slow: FakeRuntime) -> None:
    store = InMemoryVectorStore(Qwen3Embeddings(slow.qwen3))
    pipeline = ContextualCompressionRetriever(
        base_compressor=Qwen3Reranker(slow.reranker), base_retriever=store.as_retriever()
    )
    assert await longest_pause(store.aadd_documents([Document("red planet")])) < DELAY / 2
    assert await longest_pause(pipeline.ainvoke("red")) < DELAY / 2
    assert len(slow.runs) == 3


async def test_conversion_runs_on_a_thread_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    class Spied(np.ndarray):
        def tolist(self) -> Any:
            threads.append(threading.current_thread().name)
            return super().tolist()

    real = embrief.facades.embedder.finish_vectors
    monkeypatch.setattr(
        embrief.facades.embedder, "finish_vectors", lambda *given, **options: real(*given, **options).view(Spied)
    )
    with FakeRuntime() as fake:
        embeddings = Qwen3Embeddings(fake.qwen3)
        await embeddings.aembed_query("a")
        await embeddings.aembed_documents(["a"])
    assert len(threads) == 2
    assert threading.current_thread().name not in threads


async def test_documents_are_built_on_a_thread_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    original = Document.model_copy

    def model_copy(self: Document, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return original(self, **options)

    monkeypatch.setattr(Document, "model_copy", model_copy)
    with FakeRuntime() as fake:
        await Qwen3Reranker(fake.reranker).acompress_documents([Document("a")], "a")
    assert len(threads) == 1
    assert threading.current_thread().name not in threads


async def test_an_error_of_the_model_reaches_the_awaiting_caller() -> None:
    def fault(texts: Any) -> None:
        raise RuntimeError("the model fell over")

    with FakeRuntime(fault=fault) as fake:
        with pytest.raises(RuntimeError, match="fell over"):
            await Qwen3Embeddings(fake.qwen3).aembed_query("a")
        with pytest.raises(RuntimeError, match="fell over"):
            await Qwen3Reranker(fake.reranker).acompress_documents([Document("a")], "a")
