"""LangChain's own conformance suites on our classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from embrief.testing import FakeRuntime
from langchain_embrief import GemmaEmbeddings, Qwen3Embeddings, Qwen3Reranker


class _Qwen3:
    @pytest.fixture(autouse=True)
    def runtime(self) -> Iterator[None]:
        with FakeRuntime() as fake:
            self.fake = fake
            yield

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Qwen3Embeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.fake.qwen3, "dim": 32}


class _Gemma(_Qwen3):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return GemmaEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.fake.gemma}


class TestQwen3Unit(_Qwen3, EmbeddingsUnitTests):
    pass


class TestGemmaUnit(_Gemma, EmbeddingsUnitTests):
    pass


class TestQwen3Integration(_Qwen3, EmbeddingsIntegrationTests):
    pass


class TestGemmaIntegration(_Gemma, EmbeddingsIntegrationTests):
    pass


class TestVectorStoreWithQwen3(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return InMemoryVectorStore(self.get_embeddings())

    @staticmethod
    def get_embeddings() -> Embeddings:
        return Qwen3Embeddings("embrief/hash", dim=128)


class TestRetrieverWithReranker(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def runtime(self) -> Iterator[None]:
        with FakeRuntime() as fake:
            self.fake = fake
            yield

    @property
    def retriever_constructor(self) -> Callable[..., BaseRetriever]:  # type: ignore[override] # called, never subclassed
        return self.build

    def build(self, k: int = 4) -> BaseRetriever:
        store = InMemoryVectorStore(Qwen3Embeddings(self.fake.qwen3))
        store.add_documents([Document(text) for text in ("red planet", "bright planet", "gas giant", "ice giant")])
        return ContextualCompressionRetriever(
            base_compressor=Qwen3Reranker(self.fake.reranker),
            base_retriever=store.as_retriever(search_kwargs={"k": k}),
        )

    @property
    def retriever_query_example(self) -> str:
        return "which planet is red"
