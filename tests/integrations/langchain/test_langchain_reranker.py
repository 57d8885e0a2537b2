"""The reranker as a document compressor and as a cross encoder."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker, DocumentCompressorPipeline
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from embrief import ArgumentError, ArgumentTypeError, Reranker
from embrief.testing import FakeRuntime
from langchain_embrief import Qwen3Embeddings, Qwen3Reranker

QUERY = "which red planet"


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


def candidates() -> list[Document]:
    return [
        Document("gas giant", id="d0", metadata={"source": "a", "nested": {"page": 1}}),
        Document("red planet", id="d1", metadata={"source": "b", "score": 0.25}),
        Document("bright planet", id="d2"),
        Document("ice giant", id="d3"),
        Document("a red dot", id="d4"),
    ]


async def test_documents_come_back_best_first_with_scores_and_ids(fake: FakeRuntime) -> None:
    reranker = Qwen3Reranker(fake.reranker)
    for found in (
        reranker.compress_documents(candidates(), QUERY),
        await reranker.acompress_documents(candidates(), QUERY),
    ):
        assert [document.id for document in found] == ["d1", "d2", "d4", "d0", "d3"]  # ties stay in order
        scores = [document.metadata["relevance_score"] for document in found]
        assert {type(score) for score in scores} == {float}
        assert scores == sorted(scores, reverse=True)
        assert 0 < scores[-1] < scores[0] < 1
        core = Reranker(fake.reranker).rerank(QUERY, [document.page_content for document in candidates()])
        assert scores == [place.score for place in core]


def test_metadata_of_the_retrieval_is_kept_and_inputs_are_not_changed(fake: FakeRuntime) -> None:
    documents = candidates()
    documents[0].metadata["relevance_score"] = 0.875
    before = copy.deepcopy(documents)
    found = {item.id: item for item in Qwen3Reranker(fake.reranker).compress_documents(documents, QUERY)}
    assert documents == before
    assert found["d1"].metadata == {
        **before[1].metadata,
        "relevance_score": found["d1"].metadata["relevance_score"],
    }
    first = found["d0"].metadata
    assert first["retrieval_score"] == 0.875 != first["relevance_score"]
    assert (first["source"], first["nested"]) == ("a", {"page": 1})
    assert all(found[document.id] is not document for document in documents)
    assert [found[document.id].page_content for document in before] == [item.page_content for item in before]


def test_a_second_reranking_keeps_the_first_retrieval_score(fake: FakeRuntime) -> None:
    reranker = Qwen3Reranker(fake.reranker)
    documents = [Document("red planet", metadata={"retrieval_score": 0.5, "relevance_score": 0.75})]
    assert reranker.compress_documents(documents, QUERY)[0].metadata["retrieval_score"] == 0.5


def test_subclasses_of_document_stay_what_they_are(fake: FakeRuntime) -> None:
    class Page(Document):
        number: int = 0

    found = Qwen3Reranker(fake.reranker).compress_documents([Page(page_content="red", number=7)], QUERY)
    assert isinstance(found[0], Page)
    assert found[0].number == 7


async def test_top_n_of_the_call_wins_over_the_constructor(fake: FakeRuntime) -> None:
    reranker = Qwen3Reranker(fake.reranker, top_n=2)
    assert [item.id for item in reranker.compress_documents(candidates(), QUERY)] == ["d1", "d2"]
    assert len(reranker.compress_documents(candidates(), QUERY, top_n=4)) == 4
    assert len(await reranker.acompress_documents(candidates(), QUERY, top_n=1)) == 1
    assert len(reranker.compress_documents(candidates()[:1], QUERY)) == 1
    with pytest.raises(ArgumentError, match="top_n=0"):
        reranker.compress_documents(candidates(), QUERY, top_n=0)


async def test_instructions_reach_the_template(fake: FakeRuntime) -> None:
    reranker = Qwen3Reranker(fake.reranker, instruction="Find planets")
    documents = [Document("two\nlines {x}")]
    reranker.compress_documents(documents, "a\nb")
    reranker.compress_documents(documents, "a", instruction="Find moons")
    await reranker.acompress_documents(documents, "a", instruction="Find rings")
    reranker.score([("a", "b")], instruction="Find comets")
    reranker.with_instruction("Find suns").score([("a", "b")])
    reranker.with_instruction(None).score([("a", "b")])
    assert [pair.head.partition("<Instruct>: ")[2].partition("\n<Query>")[0] for pair in fake.pairs] == [
        "Find planets", "Find moons", "Find rings", "Find comets", "Find suns",
        "Given a web search query, retrieve relevant passages that answer the query",
    ]  # fmt: skip
    assert fake.pairs[0] == Reranker(fake.reranker).render("a\nb", "two\nlines {x}", instruction="Find planets")
    assert fake.loads == 1


def test_with_instruction_keeps_top_n(fake: FakeRuntime) -> None:
    assert Qwen3Reranker(fake.reranker, top_n=2).with_instruction("x").top_n == 2


async def test_no_documents_give_no_documents(fake: FakeRuntime) -> None:
    reranker = Qwen3Reranker(fake.reranker, top_n=2)
    assert reranker.compress_documents([], QUERY) == []
    assert await reranker.acompress_documents([], QUERY) == []
    assert reranker.score([]) == []


def test_an_iterator_of_documents_is_not_lost(fake: FakeRuntime) -> None:
    reranker = Qwen3Reranker(fake.reranker)
    assert len(reranker.compress_documents(iter(candidates()), QUERY)) == 5  # type: ignore[arg-type] # works all the same
    assert len(reranker.score(zip("ab", "cd", strict=True))) == 2  # type: ignore[arg-type] # works all the same


def test_wrong_documents_are_refused_with_their_index(fake: FakeRuntime) -> None:
    reranker = Qwen3Reranker(fake.reranker)
    with pytest.raises(ArgumentTypeError, match=r"documents\[1\] is str; wrap a text as Document") as caught:
        reranker.compress_documents([Document("a"), "b"], QUERY)  # type: ignore[list-item] # the mistake under test
    assert caught.value.index == 1
    for wrong in (None, "text"):
        with pytest.raises(ArgumentTypeError, match="documents is a list"):
            reranker.compress_documents(wrong, QUERY)  # type: ignore[arg-type] # the mistake under test
    with pytest.raises(ArgumentTypeError, match="query"):
        reranker.compress_documents([Document("a")], None)  # type: ignore[arg-type] # the mistake under test
    for pair in ("ab", ("a",), ("a", "b", "c"), ("a", None), None):
        with pytest.raises(ArgumentTypeError, match=r"pairs\[1\]") as caught:
            reranker.score([("a", "b"), pair])  # type: ignore[list-item] # the mistake under test
        assert caught.value.index == 1
    assert fake.pairs == []


def test_it_is_both_a_compressor_and_a_cross_encoder(fake: FakeRuntime) -> None:
    reranker = Qwen3Reranker(fake.reranker)
    assert isinstance(reranker, BaseDocumentCompressor)
    assert isinstance(reranker, BaseCrossEncoder)


def test_pairs_with_different_queries_keep_their_order(fake: FakeRuntime) -> None:
    pairs = [
        ("red", "a red dot"),
        ("big", "a red dot"),
        ("red", "gas giant"),
        ("big giant", "big giant"),
        ["red", "red"],
    ]
    scores = Qwen3Reranker(fake.reranker).score(pairs)  # type: ignore[arg-type] # lists are taken as pairs too
    core = Reranker(fake.reranker)
    assert scores == [float(core.score(query, [document])[0]) for query, document in pairs]
    assert scores[0] == scores[4] > scores[1] == scores[2]
    assert {type(score) for score in scores} == {float}


def test_pairs_with_different_queries_run_together(fake: FakeRuntime) -> None:
    Qwen3Reranker(fake.reranker).score([("a", "x"), ("b", "x"), ("a", "y"), ("a", "z")])
    assert fake.runs == [4]


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_contextual_compression_retriever(fake: FakeRuntime, mode: str) -> None:
    store = InMemoryVectorStore(Qwen3Embeddings(fake.qwen3))
    store.add_documents(candidates())
    pipeline = ContextualCompressionRetriever(
        base_compressor=Qwen3Reranker(fake.reranker, top_n=2),
        base_retriever=store.as_retriever(search_kwargs={"k": 5}),
    )
    found = pipeline.invoke(QUERY) if mode == "sync" else await pipeline.ainvoke(QUERY)
    assert found[0].id == "d1"
    assert len(found) == 2
    assert found[0].metadata["relevance_score"] > found[1].metadata["relevance_score"]
    assert found[0].metadata["source"] == "b"
    assert [item.id for item in store.similarity_search(QUERY, k=5) if "relevance_score" in item.metadata] == []


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_cross_encoder_reranker(fake: FakeRuntime, mode: str) -> None:
    compressor = CrossEncoderReranker(model=Qwen3Reranker(fake.reranker), top_n=3)
    if mode == "sync":
        found = compressor.compress_documents(candidates(), QUERY)
    else:
        found = await compressor.acompress_documents(candidates(), QUERY)
    assert [item.id for item in found] == ["d1", "d2", "d4"]
    assert compressor.compress_documents([], QUERY) == []


def test_document_compressor_pipeline(fake: FakeRuntime) -> None:
    stages = [
        Qwen3Reranker(fake.reranker, top_n=3),
        Qwen3Reranker(fake.reranker, instruction="Find moons", top_n=1),
    ]
    found = DocumentCompressorPipeline(transformers=stages).compress_documents(candidates(), QUERY)
    assert [item.id for item in found] == ["d1"]
    assert [item.metadata["retrieval_score"] for item in found] == [item.metadata["relevance_score"] for item in found]


async def test_it_fits_into_a_runnable_chain(fake: FakeRuntime) -> None:
    reranker = Qwen3Reranker(fake.reranker, top_n=1)
    step = RunnableLambda(lambda given: reranker.compress_documents(given["documents"], given["query"]))
    assert step.invoke({"documents": candidates(), "query": QUERY})[0].id == "d1"
