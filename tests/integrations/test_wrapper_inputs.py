"""What the wrappers refuse as texts, documents and numbers; progress that moves; what they print."""

from __future__ import annotations

import asyncio
import inspect
import io
import re

import numpy as np
import pandas as pd
import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from chroma_embrief import Qwen3EmbeddingFunction, arerank_results, rerank_results
from embrief import ArgumentError, ArgumentTypeError, Embedder, InputTooLongError, Reranker
from embrief.discovery.plugins import plugins
from embrief.testing import FakeRuntime
from langchain_embrief import Qwen3Embeddings, Qwen3Reranker
from llama_index_embrief import GemmaEmbedding, Qwen3Embedding, Qwen3Rerank
from qdrant_embrief import attach, create_collection, query_texts, upsert_texts

HALF = "half \ud800 a pair"
NO_LISTS = {
    "string": ("a b", "not one string"),
    "bytes": (b"a b", "not bytes"),
    "mapping": ({"a": "b"}, r"\.values\(\)"),
    "set": ({"a", "b"}, "sorted"),
    "open file": (io.StringIO("a\nb\n"), "open file"),
    "table": (pd.DataFrame({"text": ["a"]}), r"\['text'\]"),
    "array without dimensions": (np.array("a"), r"\.item\(\)"),
    "number": (3, "not int"),
    "none": (None, "not NoneType"),
}


@pytest.fixture
def fake():
    with FakeRuntime() as runtime:
        yield runtime


@pytest.mark.parametrize("kind", NO_LISTS)
def test_what_has_no_texts_in_order_is_refused_by_every_wrapper(fake, kind):
    value, remedy = NO_LISTS[kind]
    embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
    llama, chain = Qwen3Embedding(embedder=embedder), Qwen3Embeddings(embedder=embedder)
    rerank, compressor = Qwen3Rerank(reranker=reranker), Qwen3Reranker(reranker=reranker)
    chroma = Qwen3EmbeddingFunction(embedder=embedder)
    results = {"ids": [["a"]], "documents": [["a"]]}
    calls = {
        "llama texts": llama.get_text_embedding_batch,
        "llama texts, async": lambda texts: asyncio.run(llama.aget_text_embedding_batch(texts)),
        "llama texts, progress": lambda texts: llama.get_text_embedding_batch(texts, show_progress=True),
        "llama queries": llama.get_agg_embedding_from_queries,
        "llama queries, async": lambda texts: asyncio.run(llama.aget_agg_embedding_from_queries(texts)),
        "llama nodes": llama,
        "llama nodes, async": lambda nodes: asyncio.run(llama.acall(nodes)),
        "llama rerank": lambda nodes: rerank.postprocess_nodes(nodes, query_str="q"),
        "llama rerank, async": lambda nodes: asyncio.run(rerank.apostprocess_nodes(nodes, query_str="q")),
        "chain texts": chain.embed_documents,
        "chain texts, async": lambda texts: asyncio.run(chain.aembed_documents(texts)),
        "chain rerank": lambda documents: compressor.compress_documents(documents, "q"),
        "chain rerank, async": lambda documents: asyncio.run(compressor.acompress_documents(documents, "q")),
        "chain pairs": compressor.score,
        "chroma documents": chroma.embed_documents,
        "chroma queries": lambda texts: chroma.embed_query(texts),
    }
    if kind != "string":
        calls["chroma rerank"] = lambda queries: rerank_results(results, queries, reranker)
        calls["chroma rerank, async"] = lambda queries: asyncio.run(arerank_results(results, queries, reranker))
    for name, call in calls.items():
        with pytest.raises(ArgumentTypeError, match=remedy):
            pytest.fail(f"{name}: {call(value)}")
    assert fake.loads == 0


def test_an_iterator_of_texts_is_a_list_of_texts(fake):
    llama = Qwen3Embedding(embedder=Embedder(fake.qwen3))
    expected = llama.get_text_embedding_batch(["a", "b"])
    for texts in ((text for text in "ab"), pd.Series(["a", "b"]), np.array(["a", "b"])):
        assert llama.get_text_embedding_batch(texts) == expected
    assert len(llama(TextNode(text=text) for text in "ab")) == 2
    documents = (Document(page_content=text) for text in "ab")
    assert len(Qwen3Reranker(reranker=Reranker(fake.reranker)).compress_documents(documents, "a")) == 2


def test_items_of_the_wrong_kind_are_named_with_their_index(fake):
    embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
    llama, rerank = Qwen3Embedding(embedder=embedder), Qwen3Rerank(reranker=reranker)
    nodes = [NodeWithScore(node=TextNode(text="a")), TextNode(text="b")]
    for call, match in (
        (lambda: llama.get_text_embedding_batch(["a", None]), r"texts\[1\] is NoneType.*missing value"),
        (lambda: llama([TextNode(text="a"), "b"]), r"nodes\[1\] is str; wrap"),
        (lambda: rerank.postprocess_nodes(nodes, query_str="q"), r"nodes\[1\] is TextNode"),
        (lambda: Qwen3Embeddings(embedder=embedder).embed_documents(["a", pd.NA]), r"texts\[1\] is NAType"),
        (lambda: rerank_results({"ids": [["a"]], "documents": [["a"]]}, [3], reranker), r"queries\[0\] is int"),
        (lambda: rerank_results(pd.Series([1]), "q", reranker), r"results is what collection\.query"),
    ):
        with pytest.raises(ArgumentTypeError, match=match):
            call()
    assert fake.loads == 0


def test_half_a_surrogate_pair_is_refused_by_every_wrapper(fake):
    embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
    llama, chain = Qwen3Embedding(embedder=embedder), Qwen3Embeddings(embedder=embedder)
    chroma = Qwen3EmbeddingFunction(embedder=embedder)
    client = attach(QdrantClient(":memory:"), {"model": embedder, "titled": Embedder(fake.gemma)})
    create_collection(client, "docs", embedder)
    create_collection(client, "titled", Embedder(fake.gemma))
    bad, titled = models.Document(text=HALF, model="model"), {"title": HALF}
    titled_document = models.Document(text="a", model="titled", options=titled)
    fine = models.Document(text="a", model="model")
    points = [models.PointStruct(id=number, vector=fine) for number in range(200)]
    for call in (
        lambda: llama.get_query_embedding(HALF),
        lambda: llama.get_text_embedding(HALF),
        lambda: llama.get_text_embedding_batch(["a", HALF]),
        lambda: llama.get_query_embedding("q", instruction=HALF),
        lambda: Qwen3Embedding(fake.qwen3, instruction=HALF),
        lambda: GemmaEmbedding(fake.gemma, title_metadata_key="t")([TextNode(text="a", metadata={"t": HALF})]),
        lambda: Qwen3Rerank(reranker=reranker).postprocess_nodes(
            [NodeWithScore(node=TextNode(text="a"))], query_str=HALF
        ),
        lambda: chain.embed_query(HALF),
        lambda: chain.embed_documents([HALF]),
        lambda: Qwen3Reranker(reranker=reranker).compress_documents([Document(page_content=HALF)], "q"),
        lambda: Qwen3Reranker(reranker=reranker).score([("q", HALF)]),
        lambda: chroma.embed_query([HALF]),
        lambda: chroma(["a", HALF]),
        lambda: rerank_results({"ids": [["a"]], "documents": [["a"]]}, HALF, reranker),
        lambda: query_texts(client, "docs", embedder, HALF),
        lambda: query_texts(client, "docs", embedder, "q", instruction=HALF),
        lambda: client.query_points("docs", query=bad),
        lambda: client.upsert("docs", [*points, models.PointStruct(id=200, vector=bad)]),
        lambda: client.upsert("titled", [models.PointStruct(id=1, vector=titled_document)]),
    ):
        with pytest.raises(ArgumentError, match="half a surrogate pair"):
            call()
    assert fake.texts == []
    client.close()


def test_numbers_of_numpy_are_numbers_in_every_wrapper(fake):
    embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in "abc"]
    documents = [Document(page_content=text) for text in "abc"]
    for kind in (np.int64, np.int32, np.uint8):
        rerank = Qwen3Rerank(reranker=reranker, top_n=kind(2))
        assert type(rerank.top_n) is int
        assert len(rerank.postprocess_nodes(nodes, query_str="a")) == 2
        rerank.top_n = kind(1)
        assert len(rerank.postprocess_nodes(nodes, query_str="a")) == 1
        compressor = Qwen3Reranker(reranker=reranker, top_n=kind(2))
        assert type(compressor.top_n) is int
        assert len(compressor.compress_documents(documents, "a")) == 2
        assert len(compressor.compress_documents(documents, "a", top_n=kind(1))) == 1
        llama = Qwen3Embedding(fake.qwen3, dim=kind(16), max_tokens=kind(32), embed_batch_size=kind(8))
        assert (type(llama.embed_batch_size), llama.dim, llama.embed_batch_size) == (int, 16, 8)
        assert Qwen3Embeddings(fake.qwen3, dim=kind(16)).dim == 16
        assert Qwen3EmbeddingFunction(fake.qwen3, dim=kind(16)).get_config()["dim"] == 16
        assert len(Qwen3Embeddings(fake.qwen3).with_dim(kind(8)).embed_query("q")) == 8
        found = rerank_results({"ids": [["a", "b"]], "documents": [["a", "b"]]}, "a", reranker, top_n=kind(1))
        assert found["ids"] == [["a"]]
        client = attach(QdrantClient(":memory:"), embedder)
        create_collection(client, "small", embedder.with_dim(16))
        document = models.Document(text="a", model=fake.qwen3, options={"mrl": kind(16)})
        client.upsert("small", [models.PointStruct(id=1, vector=document, payload={"document": "a"})])
        hits = query_texts(client, "small", embedder.with_dim(16), "a", limit=kind(5), top_n=kind(1), reranker=reranker)
        assert len(hits) == 1
        client.close()
    for wrong in (True, np.True_, 2.0):
        for make in (
            lambda wrong: Qwen3Rerank(reranker=reranker, top_n=wrong),
            lambda wrong: Qwen3Reranker(reranker=reranker, top_n=wrong),
            lambda wrong: Qwen3Embedding(embedder=embedder, embed_batch_size=wrong),
        ):
            with pytest.raises(ValidationError):
                make(wrong)


def test_llama_index_checks_all_texts_before_it_embeds_the_first(fake):
    embedding = Qwen3Embedding(fake.qwen3, max_tokens=3, truncate="error", embed_batch_size=4)
    texts = [f"text {number}" for number in range(10)]
    for bad, error in ((None, ArgumentTypeError), ("a b c d e", InputTooLongError)):
        for call in (
            embedding.get_text_embedding_batch,
            lambda texts: asyncio.run(embedding.aget_text_embedding_batch(texts)),
        ):
            with pytest.raises(error) as caught:
                call([*texts, bad])
            assert caught.value.index == 10
    assert fake.texts == []


@pytest.mark.parametrize("count", [40, 300, 5000])
def test_llama_indexes_progress_moves_in_steps(fake, count, capsys):
    embedding = Qwen3Embedding(embedder=Embedder(fake.qwen3))
    texts = [f"text {number}" for number in range(count)]
    plain = embedding.get_text_embedding_batch(texts)
    before = len(fake.runs)
    assert embedding.get_text_embedding_batch(texts, show_progress=True) == plain
    steps = fake.runs[before:]
    assert min(20, count // 16) <= len(steps) <= 21
    assert max(steps) <= max(count / 15, 16)
    assert f"{count}/{count}" in capsys.readouterr().err
    assert asyncio.run(embedding.aget_text_embedding_batch(texts, show_progress=True)) == plain
    assert f"{len(steps)}/{len(steps)}" in capsys.readouterr().err
    assert embedding.embed_batch_size == 2048


def test_a_smaller_batch_of_llama_index_stays(fake):
    embedding = Qwen3Embedding(embedder=Embedder(fake.qwen3), embed_batch_size=5)
    embedding.get_text_embedding_batch([f"text {number}" for number in range(200)], show_progress=True)
    assert fake.runs == [5] * 40


def test_what_is_printed_is_short(fake):
    embedder, reranker = Embedder("embrief/hash", dim=64), Reranker(fake.reranker)
    long = "word " * 1000
    assert repr(Qwen3Embedding(embedder=embedder)) == "Qwen3Embedding(model_name='embrief/hash', dim=64)"
    assert repr(Qwen3Rerank(top_n=3)) == "Qwen3Rerank(model='Qwen/Qwen3-Reranker-0.6B', top_n=3)"
    assert str(Qwen3Embedding(embedder=embedder)) == "model_name='embrief/hash' dim=64"
    result = embedder.encode(["a b", "c"], role="document")
    assert repr(result) == f"EmbeddingResult(2 x 64, 3 tokens, 0 truncated, {embedder.space.id})"
    assert len(repr(embedder.encode([long] * 100, role="document"))) < 120
    item = reranker.rerank_items("word", [{"text": long, "more": [long] * 50}], text=lambda item: item["text"])[0]
    assert len(repr(item)) < 140
    assert repr(reranker.rerank_items("a", ["a"], text=str)[0]).startswith("RankedItem(item='a', index=0, score=0.")
    node = TextNode(text=long, embedding=[0.5] * 1024, id_="mars")
    ranked = Qwen3Rerank(reranker=reranker).postprocess_nodes([NodeWithScore(node=node, score=0.5)], query_str="word")
    assert repr(ranked[0]).startswith("RerankedNode(node_id='mars', score=0.")
    assert len(repr(ranked[0])) < 120
    client = QdrantClient(":memory:")
    create_collection(client, "docs", embedder)
    upsert_texts(client, "docs", embedder, [long], ids=[7], payloads=[{"more": long}])
    hit = query_texts(client, "docs", embedder, "word")[0]
    assert repr(hit).startswith("Hit(id=7, score=")
    assert len(repr(hit)) < 140
    assert len(repr(query_texts(client, "docs", embedder, "word", reranker=reranker)[0])) < 160
    client.close()
    assert len(repr(Qwen3Embeddings(embedder=embedder))) < 100


@pytest.mark.parametrize("wrapper", [Qwen3Embedding, Qwen3Embeddings])
def test_the_number_formats_in_a_wrappers_documentation_are_those_there_are(wrapper):
    with pytest.raises(ArgumentError) as caught:
        Embedder("embrief/hash", dtype="?")
    known = re.findall(r"'(\w+)'", str(caught.value).partition("use one of")[2])
    base = next(base for base in wrapper.__mro__ if "dtype" in vars(base).get("__annotations__", {}))
    documented = re.search(r'    dtype: .*\n    """(.*)"""', inspect.getsource(base)).group(1)
    own = ("auto", *plugins().catalog.backends["engine"].dtypes)
    assert re.findall(r'"(\w+)"', documented) == list(own)
    assert set(known) >= {*own, "q8_0"}


def test_a_class_without_a_model_of_its_own_wants_one() -> None:
    from langchain_embrief import EmbriefEmbeddings
    from llama_index_embrief import EmbriefEmbedding

    for kind in (EmbriefEmbedding, EmbriefEmbeddings):
        with pytest.raises(ArgumentError, match=f"{kind.__name__} stands for no model of its own; name one with model"):
            kind()
