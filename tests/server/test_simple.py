"""The short routes, and what a fallback of another space may answer."""

from __future__ import annotations

import numpy as np
import pytest

from embrief import Embedder, FallbackEmbedder, UnavailableError
from embrief.server.models import ServedModels

TINY = "embrief/tiny-embedding"


async def posted(client, path, status=200, **body):
    got = await client.post(path, json=body)
    assert got.status_code == status, got.text
    return got.json()


async def test_generate_tells_all_there_is_to_tell(client):
    own = Embedder(TINY).encode(["red planet"], role="document")
    told = await posted(client, "/v1/embeddings/generate", text="red planet", model="tiny")
    np.testing.assert_allclose(told.pop("embedding"), own.vectors[0], atol=1e-6)
    np.testing.assert_allclose(told.pop("embeddings"), own.vectors, atol=1e-6)
    assert told == {
        "model": "tiny",
        "dimensions": own.vectors.shape[1],
        "space": own.space.id,
        "role": "document",
        "degraded": False,
        "answered_by": "tiny",
        "token_counts": own.token_counts.tolist(),
        "truncated": [False],
    }
    several = await posted(client, "/v1/embeddings/generate", text=["red", "blue"])
    assert "embedding" not in several
    assert len(several["embeddings"]) == 2


async def test_the_routes_of_home_made_services(client):
    own = Embedder(TINY).embed_documents(["red", "blue"])
    told = await posted(client, "/encode", texts=["red", "blue"])
    np.testing.assert_allclose(told["embeddings"], own, atol=1e-6)
    one = await posted(client, "/txt/embed", input="red")
    np.testing.assert_allclose(one["embedding"], own[0], atol=1e-6)
    assert one["space_id"] == told["space"]
    assert len((await posted(client, "/txt/embed", input=["red", "blue"]))["embedding"]) == 2
    query = await posted(client, "/encode", texts=["red"], input_type="query", instruction="Find")
    np.testing.assert_allclose(
        query["embeddings"], Embedder(TINY).embed_queries(["red"], instruction="Find"), atol=1e-6
    )


async def test_the_former_route_of_ollama(client):
    one = await posted(client, "/api/embeddings", model="tiny", prompt="red")
    np.testing.assert_allclose(one["embedding"], Embedder(TINY).embed_documents(["red"])[0], atol=1e-6)
    assert await posted(client, "/api/embeddings", model="tiny", prompt="") == {"embedding": []}
    latest = await posted(client, "/api/embeddings", model="tiny:query:latest", prompt="red")
    np.testing.assert_allclose(latest["embedding"], Embedder(TINY).embed_query("red"), atol=1e-6)
    missing = await posted(client, "/api/embeddings", 404, model="absent", prompt="red")
    assert missing["error"].startswith("no model 'absent' is served here")


@pytest.mark.parametrize(
    ("path", "body"), [("/encode", {"texts": []}), ("/encode", {"texts": "red"}), ("/encode", {}),
                       ("/txt/embed", {"input": [1, 2]}), ("/v1/embeddings/generate", {"text": None})]
)  # fmt: skip
async def test_what_is_no_text_is_refused(client, path, body):
    told = await posted(client, path, 400, **body)
    assert told["error"]["code"] == "invalid_request"


@pytest.fixture
def chain(monkeypatch):
    """A fallback of `tiny`, and of a model of another space; the first fails while `away` is set."""
    from embrief.fallback.chain import Chain

    away = []
    arun = Chain.arun

    async def failing(self, *arguments):
        if away:
            raise UnavailableError("http://gpu:8080 does not answer")
        return await arun(self, *arguments)

    def load(self):
        if away:
            raise UnavailableError("http://gpu:8080 does not answer")
        return loads(self)

    loads = Chain.load
    monkeypatch.setattr(Chain, "arun", failing)
    monkeypatch.setattr(Chain, "load", load)
    members = [Embedder(TINY), Embedder("embrief/hash", dim=64)]
    return FallbackEmbedder(members, unprobed="warn", allow_degraded=True), away


async def test_another_space_answers_only_where_the_request_says_so(serving, chain):
    fallback, away = chain
    async with serving(ServedModels({"main": fallback}), lazy=True) as client:
        with pytest.warns(UserWarning, match="nothing is kept to compare"):
            whole = await posted(client, "/v1/embeddings/generate", text="red", use_fallback=True)
        assert whole["degraded"] is False
        away.append(True)
        told = await posted(client, "/v1/embeddings/generate", text="red", use_fallback=True)
        assert told["degraded"] is True
        assert told["answered_by"] == "embrief/hash (hash)"
        assert told["space"] != whole["space"]
        assert told["dimensions"] == 64
        for path, body in [
            ("/v1/embeddings/generate", {"text": "red"}),
            ("/v1/embeddings", {"input": "red"}),
            ("/encode", {"texts": ["red"]}),
            ("/txt/embed", {"input": "red"}),
            ("/api/embeddings", {"prompt": "red", "model": "main"}),
        ]:
            got = await client.post(path, json=body)
            assert got.status_code == 503, path
            assert int(got.headers["retry-after"]) > 0
            assert "gpu" not in got.text


async def test_a_model_that_was_never_there_has_a_fallback_too(serving, chain):
    fallback, away = chain
    away.append(True)
    async with serving(ServedModels({"main": fallback})) as client:
        told = await posted(client, "/v1/embeddings/generate", text="red", use_fallback=True)
        assert told["degraded"] is True
        got = await client.post("/encode", json={"texts": ["red"]})
        assert got.status_code == 503
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["models"]["main"]["state"] == "failed"
