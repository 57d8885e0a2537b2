"""From documents to reranked answers through LlamaIndex's own classes."""

from __future__ import annotations

import pytest
from llama_index.core import Document, Settings, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import QueryBundle, TextNode

from embrief import Embedder
from embrief.testing import FakeRuntime
from llama_index_embrief import GemmaEmbedding, Qwen3Embedding, Qwen3Rerank, RerankedNode

TEXTS = ["Mars is the red planet.", "Venus is the bright planet.", "Saturn has rings."]
QUERY = "which planet is red"
QWEN_QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


@pytest.fixture
def index(fake: FakeRuntime) -> VectorStoreIndex:
    Settings.embed_model = Qwen3Embedding(fake.qwen3)
    return VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS])


def test_index_and_retrieve(fake: FakeRuntime, index: VectorStoreIndex) -> None:
    found = index.as_retriever(similarity_top_k=3).retrieve(QUERY)
    assert fake.texts == [*TEXTS, QWEN_QUERY + QUERY]
    core = Embedder(fake.qwen3)
    scores = core.embed_documents(TEXTS) @ core.embed_query(QUERY)
    assert [node.score for node in found] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-6)
    assert found[0].text == TEXTS[int(scores.argmax())]


async def test_index_and_retrieve_async(fake: FakeRuntime, heartbeat) -> None:
    fake.delay = 0.3
    embed_model = GemmaEmbedding(fake.gemma)
    index = VectorStoreIndex(nodes=[], embed_model=embed_model, use_async=True)
    async with heartbeat() as gaps:
        await index.ainsert_nodes([TextNode(text=text) for text in TEXTS])
        found = await index.as_retriever(similarity_top_k=1).aretrieve(QUERY)
    assert max(gaps) < 0.2
    assert found[0].text == TEXTS[0]
    assert fake.texts == [*[f"title: none | text: {text}" for text in TEXTS], f"task: search result | query: {QUERY}"]


def test_retriever_with_its_own_instruction(fake: FakeRuntime, index: VectorStoreIndex) -> None:
    moons = Settings.embed_model.with_instruction("Find moons")
    index.as_retriever(embed_model=moons).retrieve(QUERY)
    assert fake.texts[-1] == "Instruct: Find moons\nQuery:" + QUERY
    assert fake.loads == 1


def test_a_query_bundle_with_a_vector_skips_the_model(fake: FakeRuntime, index: VectorStoreIndex) -> None:
    vector = Settings.embed_model.get_query_embedding(QUERY, instruction="Find moons")
    fake.runs.clear()
    found = index.as_retriever(similarity_top_k=1).retrieve(QueryBundle(QUERY, embedding=vector))
    assert fake.runs == []
    assert found[0].text == TEXTS[0]


async def test_query_engine_with_reranking(fake: FakeRuntime, index: VectorStoreIndex) -> None:
    engine = RetrieverQueryEngine(
        index.as_retriever(similarity_top_k=3),
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        node_postprocessors=[Qwen3Rerank(fake.reranker, top_n=2)],
    )
    for response in (engine.query(QUERY), await engine.aquery(QUERY)):
        assert len(response.source_nodes) == 2
        best = response.source_nodes[0]
        assert isinstance(best, RerankedNode)
        assert best.text == TEXTS[0]
        assert 0 < best.score < 1
        assert best.retrieval_score is not None
        assert "score" not in str(response)
    assert len(fake.pairs) == 6


def test_index_persists_and_reloads(fake: FakeRuntime, index: VectorStoreIndex, tmp_path) -> None:
    before = index.as_retriever(similarity_top_k=3).retrieve(QUERY)
    index.storage_context.persist(str(tmp_path))
    again = load_index_from_storage(
        StorageContext.from_defaults(persist_dir=str(tmp_path)),
        embed_model=Qwen3Embedding.from_dict(Settings.embed_model.to_dict()),
    )
    found = again.as_retriever(similarity_top_k=3).retrieve(QUERY)
    assert [(node.text, node.score) for node in found] == [(node.text, node.score) for node in before]


def test_built_in_hash_model_end_to_end() -> None:
    embed_model = Qwen3Embedding("embrief/hash", dim=256)
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embed_model)
    assert index.as_retriever(similarity_top_k=1).retrieve("rings of Saturn")[0].text == TEXTS[2]
