"""Ollama's own client, asked over a socket."""

from __future__ import annotations

import time

import numpy as np
import pytest

from embrief import Embedder

ollama = pytest.importorskip("ollama", reason="ollama is not installed")

TINY = "embrief/tiny-embedding"
TEXTS = ["red planet", "", "日本"]
LONG = "blue whale " * 400
NEAR = {"atol": 2e-3}


def own(texts, role="document", **settings):
    return Embedder(TINY, truncate="silent", **settings).encode(texts, role=role).vectors


@pytest.fixture
def client(server):
    return ollama.Client(host=server.url)


def test_vectors_counts_and_durations(client):
    start = time.perf_counter_ns()
    got = client.embed(model="tiny", input=TEXTS, keep_alive="10m", options={"seed": 3})
    spent = time.perf_counter_ns() - start
    np.testing.assert_allclose(got.embeddings, own(TEXTS), **NEAR)
    assert got.prompt_eval_count == Embedder(TINY).encode(TEXTS, role="document").token_counts.sum()
    assert 0 <= got.load_duration <= got.total_duration <= spent


def test_names_roles_and_dimensions(client):
    for name in ("tiny:latest", "tiny", "tiny:document"):
        np.testing.assert_allclose(client.embed(model=name, input="red").embeddings, own(["red"]), **NEAR)
    got = client.embed(model="tiny:query", input="red", dimensions=64)
    np.testing.assert_allclose(got.embeddings, own(["red"], "query", dim=64), **NEAR)


def test_num_ctx_is_how_many_tokens_a_text_may_have(client):
    got = client.embed(model="tiny", input=[LONG], options={"num_ctx": 100})
    np.testing.assert_allclose(got.embeddings, own([LONG], max_tokens=100), **NEAR)
    larger = client.embed(model="tiny", input=[LONG], options={"num_ctx": 100_000})
    np.testing.assert_allclose(larger.embeddings, own([LONG]), **NEAR)


async def test_the_asynchronous_client(server):
    got = await ollama.AsyncClient(host=server.url).embed(model="tiny", input=TEXTS)
    np.testing.assert_allclose(got.embeddings, own(TEXTS), **NEAR)


def test_an_empty_text_by_itself_has_no_vector(client):
    assert client.embed(model="tiny", input="").embeddings == []


def test_what_there_is(client):
    assert [item.model for item in client.list().models] == ["tiny", "hash"]
    told = client.show("tiny")
    assert told.capabilities == ["embedding"]
    family = told.modelinfo["general.architecture"]
    assert told.modelinfo[f"{family}.embedding_length"] == 256
    assert told.modelinfo[f"{family}.context_length"] == 512


def test_what_a_client_sees_of_errors(client, broken):
    with pytest.raises(ollama.ResponseError, match=r"'moon'.*tiny, hash") as unknown:
        client.embed(model="moon", input="red")
    assert unknown.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match=r"exceeds the context length.*index 1 has 802") as long:
        client.embed(model="tiny", input=["red", LONG], truncate=False)
    assert long.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="cannot answer now") as absent:
        ollama.Client(host=broken.url).embed(model="gone", input="red")
    assert absent.value.status_code == 503


def test_the_former_route(client):
    got = client.embeddings(model="tiny", prompt="red")
    np.testing.assert_allclose(got.embedding, own(["red"])[0], **NEAR)
