"""Writing documents in batches, and reranking what a query returns."""

from __future__ import annotations

import copy

import pytest
from chromadb.errors import DuplicateIDError

from chroma_embrief import (
    GemmaEmbeddingFunction,
    Qwen3EmbeddingFunction,
    add_documents,
    arerank_results,
    open_collection,
    rerank_results,
)
from embrief import ArgumentError, ArgumentTypeError, Reranker, SpaceMismatchError
from embrief.testing import FakeRuntime


@pytest.fixture
def fake():
    with FakeRuntime() as runtime:
        yield runtime


@pytest.fixture
def collection(chroma_client, fake):
    return open_collection(chroma_client, "notes", Qwen3EmbeddingFunction(fake.qwen3))


def _texts(count):
    return [f"document {number}" for number in range(count)], [str(number) for number in range(count)]


def test_more_documents_than_the_client_takes_at_once(chroma_client, open_client):
    function = Qwen3EmbeddingFunction("embrief/hash", dim=8)
    notes = open_collection(chroma_client, "many", function)
    count = chroma_client.get_max_batch_size() + 7
    documents, ids = _texts(count)
    add_documents(chroma_client, notes, documents, ids=ids, batch_size=10**6)
    assert notes.count() == count


def test_batches_follow_the_smaller_of_both_limits(chroma_client, collection, fake, monkeypatch):
    documents, ids = _texts(10)
    add_documents(chroma_client, collection, documents, ids=ids, batch_size=4)
    assert fake.runs == [4, 4, 2]
    fake.runs.clear()
    monkeypatch.setattr(chroma_client, "get_max_batch_size", lambda: 3)
    add_documents(chroma_client, collection, documents, ids=ids)
    assert fake.runs == [3, 3, 3, 1]


def test_an_interruption_costs_one_batch(chroma_client, collection, fake):
    def fault(texts):
        if "document 5" in texts:
            raise RuntimeError("out of memory")

    fake.fault = fault
    documents, ids = _texts(10)
    with pytest.raises(RuntimeError, match="out of memory"):
        add_documents(chroma_client, collection, documents, ids=ids, batch_size=2)
    assert collection.count() == 4


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"ids": ["0", "1", "1"]}, DuplicateIDError),
        ({"ids": ["0", "1"]}, ArgumentError),
        ({"ids": ["0", "1", 2]}, ValueError),
        ({"metadatas": [{"a": 1}, None]}, ArgumentError),
        ({"metadatas": [{"a": 1}, None, {"a": object()}]}, ValueError),
        ({"documents": ["a", "b", None]}, ArgumentTypeError),
        ({"documents": "abc"}, ArgumentTypeError),
        ({"titles": ["a", "b", "c"]}, ArgumentError),
        ({"batch_size": 0}, ArgumentError),
    ],
)
def test_everything_is_checked_before_the_first_text_is_embedded(chroma_client, collection, fake, changes, error):
    arguments = {"documents": ["a", "b", "c"], "ids": ["0", "1", "2"], "batch_size": 1, **changes}
    with pytest.raises(error):
        add_documents(chroma_client, collection, **arguments)
    assert fake.texts == []
    assert collection.count() == 0


def test_no_documents_are_no_work(chroma_client, collection):
    add_documents(chroma_client, collection, [], ids=[])
    assert collection.count() == 0


def test_a_document_whose_id_is_there_is_replaced(chroma_client, collection):
    add_documents(chroma_client, collection, ["old", "kept"], ids=["a", "b"])
    add_documents(chroma_client, collection, ["new"], ids=["a"], metadatas=[{"n": 1}])
    assert collection.get(ids=["a", "b"])["documents"] == ["new", "kept"]
    assert collection.get(ids=["a"])["metadatas"] == [{"n": 1}]


def test_titles_reach_the_prompt_of_each_document(chroma_client, fake):
    function = GemmaEmbeddingFunction(fake.gemma)
    notes = open_collection(chroma_client, "titled", function)
    add_documents(
        chroma_client, notes, ["one", "two", "three"], ids=["1", "2", "3"], titles=["A", None, "C"],
        embedding_function=function, batch_size=2,
    )  # fmt: skip
    assert fake.texts == ["title: A | text: one", "title: none | text: two", "title: C | text: three"]
    assert notes.get(ids=["3"])["documents"] == ["three"]


def test_documents_of_another_space_are_refused(chroma_client, collection, fake):
    other = Qwen3EmbeddingFunction("embrief/hash", dim=64)
    with pytest.raises(SpaceMismatchError):
        add_documents(chroma_client, collection, ["a"], ids=["a"], embedding_function=other)


@pytest.fixture
def found(chroma_client, collection):
    add_documents(
        chroma_client, collection,
        ["one blue planet", "the red planet mars", "nothing", "red"], ids=["a", "b", "c", "d"],
        metadatas=[{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}],
    )  # fmt: skip
    return collection.query(
        query_texts=["the red planet", "nothing blue"], n_results=4,
        include=["documents", "metadatas", "distances", "embeddings"],
    )  # fmt: skip


def test_reranking_orders_every_column_alike(found, fake):
    before = copy.deepcopy(found)
    ranked = rerank_results(found, ["the red planet", "nothing blue"], Reranker(fake.reranker))
    assert ranked["ids"][0][0] == "b"
    for row in range(2):
        assert ranked["rerank_scores"][row] == sorted(ranked["rerank_scores"][row], reverse=True)
        assert sorted(ranked["ids"][row]) == ["a", "b", "c", "d"]
        for place, name in enumerate(ranked["ids"][row]):
            old = found["ids"][row].index(name)
            for column in ("documents", "metadatas", "distances"):
                assert ranked[column][row][place] == found[column][row][old]
            assert (ranked["embeddings"][row][place] == found["embeddings"][row][old]).all()
    assert ranked["uris"] is None
    assert ranked["included"] == found["included"]
    for column in ("ids", "documents", "metadatas", "distances"):
        assert found[column] == before[column], "the input was changed"
    assert "rerank_scores" not in found


def test_each_query_is_asked_with_its_own_text_and_the_instruction(found, fake):
    ranked = rerank_results(
        found, ["the red planet", "nothing blue"], Reranker(fake.reranker), instruction="Judge", top_n=2
    )
    assert [len(ids) for ids in ranked["ids"]] == [2, 2]
    assert [len(scores) for scores in ranked["rerank_scores"]] == [2, 2]
    assert all("<Instruct>: Judge\n" in pair.head for pair in fake.pairs)
    assert ["the red planet" in pair.head for pair in fake.pairs] == [True] * 4 + [False] * 4


async def test_the_async_twin_gives_the_same(found, fake):
    reranker = Reranker(fake.reranker)
    queries = ["the red planet", "nothing blue"]
    ranked = await arerank_results(found, queries, reranker, top_n=3)
    assert ranked["ids"] == rerank_results(found, queries, reranker, top_n=3)["ids"]
    assert any(name != "MainThread" for name in fake.threads)


def test_one_query_may_be_one_string(collection, found, fake):
    one = collection.query(query_texts=["red"], n_results=2)
    assert len(rerank_results(one, "red", Reranker(fake.reranker))["ids"][0]) == 2


def test_no_hits_are_no_work(chroma_client, fake):
    empty = open_collection(chroma_client, "empty", Qwen3EmbeddingFunction("embrief/hash", dim=8))
    ranked = rerank_results(empty.query(query_texts=["q"]), "q", Reranker(fake.reranker))
    assert (ranked["ids"], ranked["rerank_scores"]) == ([[]], [[]])
    assert fake.loads == 0


def test_what_cannot_be_reranked_is_an_error(chroma_client, collection, found, fake):
    reranker = Reranker(fake.reranker)
    with pytest.raises(ArgumentError, match="include="):
        rerank_results(collection.query(query_texts=["q"], include=["distances"]), "q", reranker)
    with pytest.raises(ArgumentError, match="1 queries for the results of 2"):
        rerank_results(found, "q", reranker)
    with pytest.raises(ArgumentTypeError, match="not str"):
        rerank_results(found, ["a", "b"], "Qwen/Qwen3-Reranker-0.6B")
    collection.upsert(ids=["bare"], embeddings=[[0.1] * 64])
    with pytest.raises(ArgumentError, match="'bare' has no document"):
        rerank_results(collection.query(query_texts=["q"], n_results=9), "q", reranker)
    with pytest.raises(ArgumentError, match="top_n"):
        rerank_results(found, ["a", "b"], reranker, top_n=0)
