"""Clients of OpenAI's interface, as people have them, asked over a socket."""

from __future__ import annotations

import numpy as np
import pytest

from embrief import Embedder

openai = pytest.importorskip("openai", reason="openai is not installed")

TINY = "embrief/tiny-embedding"
TEXTS = ["red planet", "blue whale", "日本"]
LONG = "blue whale " * 400
NEAR = {"atol": 2e-3}
"""Batches of other sizes round otherwise; a missing prompt moves values a hundred times as far."""


def own(texts, role="document", **settings):
    return Embedder(TINY, **settings).encode(texts, role=role).vectors


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_the_clients_own_format_and_both_others(client, options):
    got = client.embeddings.create(model="tiny", input=TEXTS, **options)
    rows = [item.embedding for item in got.data]
    if options.get("encoding_format") == "base64":
        import base64

        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    np.testing.assert_allclose(np.array(rows, np.float32), own(TEXTS), **NEAR)
    assert got.model == "tiny"
    assert got.usage.prompt_tokens == int(Embedder(TINY).encode(TEXTS, role="document").token_counts.sum())


def test_roles_by_name_by_field_and_dimensions(client):
    by_name = client.embeddings.create(model="tiny:query", input="red planet", dimensions=64)
    by_field = client.embeddings.create(
        model="tiny", input="red planet", dimensions=64, extra_body={"input_type": "query"}
    )
    for got in (by_name, by_field):
        found = np.array(got.data[0].embedding, np.float32)
        np.testing.assert_allclose(found, own(["red planet"], "query", dim=64)[0], **NEAR)
    told = client.embeddings.create(model="tiny", input="red", extra_body={"instruction": "Find the planet"})
    expected = Embedder(TINY, instruction="Find the planet").embed_query("red")
    np.testing.assert_allclose(np.array(told.data[0].embedding, np.float32), expected, **NEAR)


async def test_the_asynchronous_client(server):
    async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="none") as client:
        got = await client.embeddings.create(model="tiny", input=TEXTS)
        names = [item.id async for item in client.models.list()]
    np.testing.assert_allclose(np.array([item.embedding for item in got.data], np.float32), own(TEXTS), **NEAR)
    assert {"tiny", "tiny:query", "rank"} <= set(names)


def test_what_a_client_sees_of_errors(client):
    with pytest.raises(openai.NotFoundError, match=r"'moon'.*tiny, hash") as unknown:
        client.embeddings.create(model="moon", input="red")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match=r"index 1 has 802 tokens, the limit is 512") as long:
        client.embeddings.create(model="tiny", input=["red", LONG], extra_body={"truncate": False})
    assert long.value.code == "input_too_long"
    assert long.value.body["index"] == 1
    with pytest.raises(openai.BadRequestError, match="'rank' is a reranker"):
        client.embeddings.create(model="rank", input="red")


def test_a_model_that_is_not_there_is_unavailable(broken):
    with openai.OpenAI(base_url=broken.openai_url, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError, match="cannot answer now") as caught:
            client.embeddings.create(model="gone", input="red")
        assert (caught.value.status_code, caught.value.code) == (503, "model_unavailable")
        assert int(caught.value.response.headers["retry-after"]) > 0


@pytest.fixture
def langchain_openai():
    return pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")


async def test_langchain_openai(server, langchain_openai):
    made = langchain_openai.OpenAIEmbeddings(
        model="tiny", base_url=server.openai_url, api_key="none", check_embedding_ctx_length=False
    )
    np.testing.assert_allclose(made.embed_documents(TEXTS), own(TEXTS), **NEAR)
    np.testing.assert_allclose(await made.aembed_documents(TEXTS), own(TEXTS), **NEAR)
    # It says no role, so that queries need a name of their own.
    queries = langchain_openai.OpenAIEmbeddings(
        model="tiny:query", base_url=server.openai_url, api_key="none", check_embedding_ctx_length=False
    )
    np.testing.assert_allclose(queries.embed_query("red"), own(["red"], "query")[0], **NEAR)


def test_langchain_openai_as_it_comes_sends_token_ids(server, langchain_openai, monkeypatch):
    """It cuts texts with OpenAI's tokenizer, whose table it would fetch; here another one takes its place."""
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is not installed")

    class Table:
        def encode(self, text, **_):
            return list(text.encode())

        def encode_ordinary(self, text):
            return list(text.encode())

    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda _: Table())
    monkeypatch.setattr(tiktoken, "get_encoding", lambda _: Table())
    made = langchain_openai.OpenAIEmbeddings(model="tiny", base_url=server.openai_url, api_key="none")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        made.embed_documents(["red planet"])


async def test_llama_index_openai_like(server):
    kind = pytest.importorskip(
        "llama_index.embeddings.openai_like", reason="llama-index-embeddings-openai-like is not installed"
    ).OpenAILikeEmbedding
    made = kind(model_name="tiny", api_base=server.openai_url, api_key="none")
    np.testing.assert_allclose(made.get_text_embedding_batch(TEXTS), own(TEXTS), **NEAR)
    np.testing.assert_allclose(await made.aget_text_embedding("red"), own(["red"])[0], **NEAR)
    queries = kind(model_name="tiny:query", api_base=server.openai_url, api_key="none")
    np.testing.assert_allclose(queries.get_query_embedding("red"), own(["red"], "query")[0], **NEAR)
    moon = kind(model_name="moon", api_base=server.openai_url, api_key="none", max_retries=0)
    with pytest.raises(openai.NotFoundError, match="'moon'"):
        moon.get_text_embedding("red")


def test_chromas_function_for_openai(server):
    pytest.importorskip("chromadb", reason="chromadb is not installed")
    from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

    made = OpenAIEmbeddingFunction(api_key="none", api_base=server.openai_url, model_name="tiny")
    np.testing.assert_allclose(np.array(made(TEXTS)), own(TEXTS), **NEAR)
