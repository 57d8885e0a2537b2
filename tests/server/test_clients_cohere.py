"""Cohere's own client in both of its versions, and the frameworks that stand on it, asked over a socket."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from embrief import Embedder, Reranker

cohere = pytest.importorskip("cohere", reason="cohere is not installed")

TINY, RANK = "embrief/tiny-embedding", "embrief/tiny-reranker"
TEXTS = ["red planet", "blue whale", "日本"]
LONG = "blue whale " * 400
DOCUMENTS = ["mars is red", "whales are blue", "the red planet"]
NEAR = {"atol": 2e-3}


def own(texts, role="document", **settings):
    return Embedder(TINY, **settings).encode(texts, role=role).vectors


def scores():
    return Reranker(RANK).score("red planet", DOCUMENTS)


def best(top_n=None):
    return np.argsort(-scores(), kind="stable")[:top_n].tolist()


def check(results, top_n=None):
    assert [item.index for item in results] == best(top_n)
    np.testing.assert_allclose([item.relevance_score for item in results], scores()[best(top_n)], **NEAR)


@pytest.fixture
def v2(server):
    return cohere.ClientV2("none", base_url=server.url)


@pytest.fixture
def v1(server):
    return cohere.Client("none", base_url=server.url)


@pytest.mark.parametrize(("input_type", "role"), [("search_query", "query"), ("search_document", "document")])
def test_version_2_embeds(v2, input_type, role):
    got = v2.embed(model="tiny", texts=TEXTS, input_type=input_type, embedding_types=["float", "base64"])
    np.testing.assert_allclose(got.embeddings.float_, own(TEXTS, role), **NEAR)
    packed = [np.frombuffer(base64.b64decode(row), "<f4") for row in got.embeddings.base64]
    np.testing.assert_array_equal(packed, np.array(got.embeddings.float_, np.float32))
    assert got.texts == TEXTS
    count = Embedder(TINY).encode(TEXTS, role=role).token_counts.sum()
    assert got.meta.tokens.input_tokens == count


def test_version_2_embeds_inputs_of_a_width(v2):
    inputs = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    got = v2.embed(model="tiny", inputs=inputs, input_type="search_document", output_dimension=64, truncate="END")
    np.testing.assert_allclose(got.embeddings.float_, own(TEXTS, dim=64), **NEAR)


def test_version_1_embeds_a_hundred_texts_in_parts(v1):
    """It sends 96 at a time and puts the answers together."""
    texts = [f"planet {number}" for number in range(100)]
    plain = v1.embed(model="tiny", texts=texts, input_type="search_document")
    np.testing.assert_allclose(plain.embeddings, own(texts), **NEAR)
    assert plain.texts == texts
    typed = v1.embed(model="tiny", texts=texts, input_type="search_query", embedding_types=["float"])
    np.testing.assert_allclose(typed.embeddings.float_, own(texts, "query"), **NEAR)


def test_max_tokens_is_how_many_tokens_a_text_may_have(v2):
    got = v2.embed(model="tiny", texts=[LONG], input_type="search_document", max_tokens=100)
    np.testing.assert_allclose(got.embeddings.float_, own([LONG], truncate="silent", max_tokens=100), **NEAR)


def test_a_text_that_is_cut_is_told(v2):
    got = v2.embed(model="tiny", texts=["red", LONG], input_type="search_document")
    np.testing.assert_allclose(got.embeddings.float_, own(["red", LONG], truncate="silent"), **NEAR)
    assert got.meta.warnings == ["1 texts were too long and lost their end, first the one at index 1"]


def test_both_versions_rerank(v1, v2):
    found = v2.rerank(model="rank", query="red planet", documents=DOCUMENTS)
    check(found.results)
    assert found.meta.tokens.input_tokens == Reranker(RANK).count_tokens("red planet", DOCUMENTS).sum()
    check(v2.rerank(model="rank", query="red planet", documents=DOCUMENTS, top_n=2, max_tokens_per_doc=4096).results, 2)
    objects = [{"text": text} for text in DOCUMENTS]
    told = v1.rerank(model="rank", query="red planet", documents=objects, top_n=2, return_documents=True).results
    check(told, 2)
    assert [item.document.text for item in told] == [DOCUMENTS[place] for place in best(2)]
    without = v1.rerank(model="rank", query="red planet", documents=DOCUMENTS, return_documents=False).results
    check(without)
    assert {item.document for item in without} == {None}


async def test_the_asynchronous_client(server):
    client = cohere.AsyncClientV2("none", base_url=server.url)
    got = await client.embed(model="tiny", texts=TEXTS, input_type="search_query", embedding_types=["float"])
    np.testing.assert_allclose(got.embeddings.float_, own(TEXTS, "query"), **NEAR)
    check((await client.rerank(model="rank", query="red planet", documents=DOCUMENTS)).results)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding_types": ["int8"]}, "int8"),
        ({"embedding_types": ["float", "ubinary"]}, "ubinary"),
        ({"truncate": "START"}, "START"),
        ({"truncate": "NONE", "texts": ["red", LONG]}, "index 1 has 802 tokens"),
        ({"input_type": "clustering"}, "no task 'clustering'"),
        ({"images": ["data:"]}, "images"),
        ({"output_dimension": 7}, "7"),
    ],
)
def test_what_cannot_be_done_is_said(v2, changes, message):
    asked = {"model": "tiny", "texts": ["red"], "input_type": "search_document", **changes}
    with pytest.raises(cohere.errors.BadRequestError) as caught:
        v2.embed(**asked)
    assert message in caught.value.body["message"]


def test_what_a_client_sees_of_errors(v1, v2, broken):
    for call in (
        lambda: v2.embed(model="moon", texts=["red"], input_type="search_query"),
        lambda: v2.rerank(model="moon", query="red", documents=["blue"]),
        lambda: v1.rerank(model="moon", query="red", documents=["blue"]),
    ):
        with pytest.raises(cohere.errors.NotFoundError) as unknown:
            call()
        assert "'moon'" in unknown.value.body["message"]
    once = {"request_options": {"max_retries": 0}}
    away = cohere.ClientV2("none", base_url=broken.url)
    for call in (
        lambda: away.embed(model="gone", texts=["red"], input_type="search_query", **once),
        lambda: away.rerank(model="ranked", query="red", documents=["blue"], **once),
    ):
        with pytest.raises(cohere.errors.ServiceUnavailableError) as absent:
            call()
        assert int(absent.value.headers["retry-after"]) > 0


def test_langchain_cohere(server):
    kind = pytest.importorskip("langchain_cohere", reason="langchain-cohere is not installed").CohereRerank
    from langchain_core.documents import Document

    made = kind(model="rank", base_url=server.url, cohere_api_key="none", top_n=2)
    found = made.compress_documents([Document(text) for text in DOCUMENTS], "red planet")
    assert [item.page_content for item in found] == [DOCUMENTS[place] for place in best(2)]
    np.testing.assert_allclose([item.metadata["relevance_score"] for item in found], scores()[best(2)], **NEAR)


def test_llama_index_cohere(server):
    kind = pytest.importorskip(
        "llama_index.postprocessor.cohere_rerank", reason="llama-index-postprocessor-cohere-rerank is not installed"
    ).CohereRerank
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text, id_=text), score=0.0) for text in DOCUMENTS]
    made = kind(model="rank", base_url=server.url, api_key="none", top_n=2)
    found = made.postprocess_nodes(nodes, QueryBundle("red planet"))
    assert [item.node.node_id for item in found] == [DOCUMENTS[place] for place in best(2)]
    np.testing.assert_allclose([item.score for item in found], scores()[best(2)], **NEAR)
