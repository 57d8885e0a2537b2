"""Clients of text-embeddings-inference and of Hugging Face's inference, asked over a socket."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from embrief import Embedder, Reranker

TINY, RANK = "embrief/tiny-embedding", "embrief/tiny-reranker"
TEXTS = ["red planet", "blue whale", "日本"]
LONG = "blue whale " * 400
DOCUMENTS = ["mars is red", "whales are blue", "the red planet"]
NEAR = {"atol": 2e-3}


def own(texts, role="document", **settings):
    return Embedder(TINY, **settings).encode(texts, role=role).vectors


@pytest.fixture
def llama_tei():
    return pytest.importorskip(
        "llama_index.embeddings.text_embeddings_inference",
        reason="llama-index-embeddings-text-embeddings-inference is not installed",
    ).TextEmbeddingsInference


async def test_llama_index_embeds(server, llama_tei):
    made = llama_tei(model_name="tiny", base_url=server.url)
    np.testing.assert_allclose(made.get_text_embedding_batch(TEXTS), own(TEXTS), **NEAR)
    np.testing.assert_allclose(await made.aget_text_embedding("red"), own(["red"])[0], **NEAR)
    # It says no role; its address can.
    queries = llama_tei(model_name="tiny", base_url=server.url, endpoint="/embed?model=tiny:query")
    np.testing.assert_allclose(queries.get_query_embedding("red"), own(["red"], "query")[0], **NEAR)


def test_llama_index_looks_at_no_status(server, broken, llama_tei):
    """It reads every answer as vectors: what it raises says little, and it never gives a wrong vector."""
    for made in (
        llama_tei(model_name="x", base_url=server.url, endpoint="/embed?model=moon"),
        llama_tei(model_name="x", base_url=broken.url),
    ):
        with pytest.raises(KeyError):
            made.get_query_embedding("red")
    long = llama_tei(model_name="x", base_url=server.url, truncate_text=False)
    with pytest.raises(KeyError):
        long.get_text_embedding(LONG)


def test_llama_index_reranks(server, broken):
    kind = pytest.importorskip(
        "llama_index.postprocessor.tei_rerank", reason="llama-index-postprocessor-tei-rerank is not installed"
    ).TextEmbeddingInference
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    def nodes():
        return [NodeWithScore(node=TextNode(text=text, id_=text), score=0.0) for text in DOCUMENTS]

    query = QueryBundle("red planet")
    found = kind(base_url=server.url, top_n=2).postprocess_nodes(nodes(), query)
    scores = Reranker(RANK).score("red planet", DOCUMENTS)
    assert [node.node.node_id for node in found] == [DOCUMENTS[place] for place in np.argsort(-scores)[:2]]
    np.testing.assert_allclose([node.score for node in found], sorted(scores, reverse=True)[:2], **NEAR)
    with pytest.raises((AssertionError, TypeError)):
        kind(base_url=broken.url).postprocess_nodes(nodes(), query)


@pytest.fixture
def hub(monkeypatch):
    """It sends nothing, to this machine either, while the hub is switched off, as it is for these tests."""
    module = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return module


@pytest.mark.parametrize("path", ["/", "/embed", "/embed?model=tiny"])
def test_hubs_client(server, hub, path):
    client = hub.InferenceClient(model=server.url + path)
    np.testing.assert_allclose(client.feature_extraction(TEXTS), own(TEXTS), **NEAR)
    np.testing.assert_allclose(client.feature_extraction("red"), own(["red"]), **NEAR)
    options = {"prompt_name": "query", "truncate": True, "normalize": True, "truncation_direction": "right"}
    np.testing.assert_allclose(client.feature_extraction("red", **options), own(["red"], "query"), **NEAR)
    # Older ones cannot ask for a width.
    if "dimensions" in inspect.signature(client.feature_extraction).parameters:
        told = client.feature_extraction("red", dimensions=32, **options)
        np.testing.assert_allclose(told, own(["red"], "query", dim=32), **NEAR)
    raw = client.feature_extraction("red", normalize=False)
    assert np.linalg.norm(raw) > 1.01
    np.testing.assert_allclose(raw, own(["red"], normalize=False), rtol=2e-2, atol=2e-2)


async def test_hubs_asynchronous_client(server, hub):
    client = hub.AsyncInferenceClient(model=f"{server.url}/embed")
    np.testing.assert_allclose(await client.feature_extraction(TEXTS), own(TEXTS), **NEAR)


def test_hubs_client_compares_sentences(server, hub):
    client = hub.InferenceClient(model=f"{server.url}/similarity")
    found = client.sentence_similarity("red planet", other_sentences=["mars", "blue whale"])
    vectors = own(["red planet", "mars", "blue whale"])
    np.testing.assert_allclose(found, vectors[1:] @ vectors[0], **NEAR)


def test_what_hubs_client_sees_of_errors(server, broken, hub):
    from huggingface_hub.errors import HfHubHTTPError

    with pytest.raises(HfHubHTTPError, match=r"'moon'.*tiny, hash") as unknown:
        hub.InferenceClient(model=f"{server.url}/embed?model=moon").feature_extraction("red")
    assert unknown.value.response.status_code == 404
    with pytest.raises(HfHubHTTPError, match=r"less than 512 tokens. Given: 802") as long:
        hub.InferenceClient(model=f"{server.url}/embed").feature_extraction(["red", LONG], truncate=False)
    assert long.value.response.status_code == 422
    assert long.value.response.json()["index"] == 1
    with pytest.raises(HfHubHTTPError, match="503") as absent:
        hub.InferenceClient(model=f"{broken.url}/embed", timeout=20).feature_extraction("red")
    assert int(absent.value.response.headers["retry-after"]) > 0


async def test_langchain_huggingface(server, hub):
    kind = pytest.importorskip(
        "langchain_huggingface", reason="langchain-huggingface is not installed"
    ).HuggingFaceEndpointEmbeddings
    made = kind(model="x/y", huggingfacehub_api_token="none", model_kwargs={"truncate": True})
    # It takes no address as `model`, and makes its clients anew when they are given: they are set afterwards.
    made.client = hub.InferenceClient(model=f"{server.url}/embed")
    made.async_client = hub.AsyncInferenceClient(model=f"{server.url}/embed")
    np.testing.assert_allclose(made.embed_documents(TEXTS), own(TEXTS), **NEAR)
    np.testing.assert_allclose(await made.aembed_query("red"), own(["red"])[0], **NEAR)
    made.model_kwargs = {"prompt_name": "query"}
    np.testing.assert_allclose(made.embed_query("red"), own(["red"], "query")[0], **NEAR)


def test_chromas_function_for_tei(server, broken):
    pytest.importorskip("chromadb", reason="chromadb is not installed")
    from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer

    made = HuggingFaceEmbeddingServer(url=f"{server.url}/embed")
    np.testing.assert_allclose(np.array(made(TEXTS)), own(TEXTS), **NEAR)
    queries = HuggingFaceEmbeddingServer(url=f"{server.url}/embed?model=tiny:query")
    np.testing.assert_allclose(np.array(queries(["red"])), own(["red"], "query"), **NEAR)
    # It looks at no status either.
    for url in (f"{server.url}/embed?model=moon", f"{broken.url}/embed"):
        with pytest.raises(ValueError, match="could not convert string"):
            HuggingFaceEmbeddingServer(url=url)(["red"])
