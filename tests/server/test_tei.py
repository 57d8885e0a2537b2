"""The words of text-embeddings-inference, where its clients do not show them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import embrief
from embrief import Embedder, Reranker
from embrief.errors import UnavailableError
from embrief.server.models import ServedModels
from embrief.testing import FakeRuntime

TINY, RANK = "embrief/tiny-embedding", "embrief/tiny-reranker"
LONG = "blue whale " * 400
DOCUMENTS = ["mars is red", "whales are blue", "the red planet"]


async def asked(client, path, status=200, **body):
    got = await client.post(path, json=body)
    assert got.status_code == status, got.text
    return got.json()


async def test_vectors_come_as_a_list_of_lists_and_headers_say_what_is_known(client):
    own = Embedder(TINY).encode(["red", "blue whale"], role="document")
    got = await client.post("/embed", json={"inputs": ["red", "blue whale"]})
    np.testing.assert_allclose(got.json(), own.vectors, atol=1e-6)
    assert got.headers["x-compute-characters"] == "13"
    assert got.headers["x-compute-tokens"] == str(own.token_counts.sum())
    assert int(got.headers["x-total-time"]) >= 0
    # Not known here.
    assert not {"x-compute-type", "x-compute-time", "x-queue-time", "x-inference-time"} & set(got.headers)
    assert np.array(await asked(client, "/embed", inputs="red")).shape == (1, 256)
    assert await asked(client, "/", inputs="red") == await asked(client, "/embed", inputs="red")


@pytest.mark.parametrize("said", [{"model": "tiny:query"}, {"prompt_name": "query"}, {"instruction": None}])
async def test_the_model_and_the_role_are_said_in_the_body_or_the_address(client, said):
    found = np.array(await asked(client, "/embed", inputs="red", **said))
    role = "query" if said.get("instruction", "") == "" else "document"
    np.testing.assert_allclose(found[0], Embedder(TINY).encode(["red"], role=role).vectors[0], atol=1e-6)
    assert np.array(await asked(client, "/embed?model=hash", inputs="red")).shape == (1, 64)


async def test_every_field_is_honoured(client):
    told = await asked(client, "/embed", inputs=LONG, truncate=True, dimensions=32, normalize=False)
    own = Embedder(TINY, dim=32, normalize=False, truncate="silent").embed_documents([LONG])
    np.testing.assert_allclose(told, own, atol=1e-5)
    assert abs(np.linalg.norm(told) - 1) > 1e-3


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "message"),
    [
        ("/embed", {"inputs": []}, 400, "Empty", "cannot be empty"),
        ("/rerank", {"query": "a", "texts": []}, 400, "Empty", "cannot be empty"),
        ("/rerank", {"query": "a"}, 400, "Empty", "cannot be empty"),
        ("/rerank", {"query": "a", "texts": ["b"], "documents": ["c"]}, 422, "Validation", "both given"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "Empty", "cannot be empty"),
        ("/tokenize", {"inputs": []}, 400, "Empty", "cannot be empty"),
        ("/embed", {}, 422, "Validation", "inputs"),
        ("/embed", {"inputs": [[1, 2]]}, 422, "Validation", "token ids"),
        ("/embed", {"inputs": "a", "prompt_name": "moon"}, 422, "Validation", "no task 'moon'"),
        ("/embed", {"inputs": "a", "dimensions": 7}, 422, "Validation", "7"),
        ("/embed", {"inputs": "a", "truncation_direction": "Left"}, 422, "Validation", "loses its end"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "Validation", "left or right"),
        ("/rerank", {"query": "a", "texts": ["b"], "truncation_direction": "left"}, 422, "Validation", "loses its end"),
        ("/embed", {"inputs": "a", "encoding_format": "base64"}, 422, "Validation", "encoding_format"),
        ("/embed", {"inputs": ["a", LONG], "truncate": False}, 422, "Validation", "less than 512 tokens. Given: 802"),
        ("/embed", {"inputs": "a", "model": "moon"}, 404, "Validation", "'moon'"),
        ("/embed", {"inputs": "a", "model": "rank"}, 424, "Backend", "reranker"),
        ("/rerank", {"query": "a", "texts": ["b"], "model": "tiny"}, 424, "Backend", "embedding model"),
        ("/embed_all", {"inputs": "a"}, 424, "Backend", "per token"),
        ("/embed_sparse", {"inputs": "a"}, 424, "Backend", "sparse"),
        ("/predict", {"inputs": "a"}, 424, "Backend", "classifiers"),
        ("/tokenize?model=hash", {"inputs": "a"}, 424, "Backend", "does not tell tokens"),
    ],
)
async def test_what_is_refused_and_how(client, path, body, status, kind, message):
    told = await asked(client, path, status, **body)
    assert told["error_type"] == kind
    assert message in told["error"]


async def test_a_direction_matters_only_where_texts_are_cut(client):
    whole = await asked(client, "/embed", inputs="red", truncate=False, truncation_direction="left")
    assert whole == await asked(client, "/embed", inputs="red", truncation_direction="Right")


async def test_a_missing_key_has_no_body(serving):
    from embrief.server.keys import FixedKeys

    async with serving(keys=FixedKeys({"me": "secret"}), lazy=True) as client:
        got = await client.post("/embed", json={"inputs": "red"})
        assert (got.status_code, got.content) == (401, b"")
        assert (await client.get("/info")).status_code == 401


async def test_too_many_and_too_busy(serving):
    from embrief.server.settings import Limits

    async with serving(limits=Limits(max_items=2, max_request_tokens=100, requests_per_minute=3)) as client:
        assert (await asked(client, "/embed", 413, inputs=["a"] * 3))["error_type"] == "Validation"
        assert (await asked(client, "/tokenize", 413, inputs=["a"] * 3))["error_type"] == "Validation"
        assert (await asked(client, "/tokenize", 413, inputs=[LONG]))["code"] == "too_many_tokens"
        assert (await asked(client, "/embed", 429, inputs="a"))["error_type"] == "Overloaded"


async def test_reranking(client):
    own = Reranker(RANK).score("red planet", DOCUMENTS)
    order = np.argsort(-own, kind="stable").tolist()
    found = await asked(client, "/rerank", query="red planet", texts=DOCUMENTS, return_text=True)
    assert [item["index"] for item in found] == order
    assert [item["text"] for item in found] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([item["score"] for item in found], own[order], atol=1e-6)
    raw = await asked(client, "/rerank?model=rank", query="red planet", texts=DOCUMENTS, raw_scores=True)
    assert set(raw[0]) == {"index", "score"}
    log_odds = np.array([item["score"] for item in raw])
    np.testing.assert_allclose(1 / (1 + np.exp(-log_odds)), own[order], atol=1e-6)


async def test_documents_in_the_place_of_texts_are_answered_as_vllm_does(client):
    found = await asked(client, "/rerank", model="rank", query="red planet", documents=DOCUMENTS, top_n=1)
    first = int(np.argmax(Reranker(RANK).score("red planet", DOCUMENTS)))
    assert [item["index"] for item in found["results"]] == [first]
    assert found["results"][0]["document"] == {"text": DOCUMENTS[first]}
    assert found["usage"]["total_tokens"] == Reranker(RANK).count_tokens("red planet", DOCUMENTS).sum()


async def test_similarity_uses_one_prompt_for_both_sides(client):
    inputs = {"source_sentence": "red planet", "sentences": ["mars", "blue whale"]}
    for said, role in (({}, "document"), ({"parameters": {"prompt_name": "query"}}, "query")):
        found = await asked(client, "/similarity", inputs=inputs, **said)
        own = Embedder(TINY).encode(["red planet", "mars", "blue whale"], role=role).vectors
        np.testing.assert_allclose(found, own[1:] @ own[0], atol=1e-5)


async def test_tokens_are_those_that_the_model_reads(client):
    embedder = Embedder(TINY)
    (found,) = await asked(client, "/tokenize", inputs="red planet", prompt_name="query")
    text = embedder.render("red planet", role="query")
    placed = [item for item in found if item["start"] is not None]
    assert "".join(text[item["start"] : item["stop"]] for item in placed) == text
    assert len(found) == embedder.count_tokens(["red planet"], role="query")[0]
    assert (found[-1]["text"], found[-1]["special"]) == ("<|endoftext|>", True)
    (bare,) = await asked(client, "/tokenize", inputs="red planet", add_special_tokens=False)
    assert [item["text"] for item in bare] == ["red", " planet"]


async def test_info_tells_of_the_others_where_a_model_is_broken(serving, tmp_path):
    good, broken = tmp_path / "good", tmp_path / "broken"
    for folder in (good, broken):
        shutil.copytree(Path(embrief.__file__).parent / "facts" / "records" / "tiny_embedding", folder)
    (broken / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:100_000])
    async with serving(ServedModels({"a": Embedder(broken), "b": Embedder(good)}), lazy=True) as client:
        got = await client.get("/info")
        assert got.status_code == 200, got.text
        first, second = got.json()["embrief"]["models"]
        assert (first["name"], first["space"], first["model_dtype"]) == ("a", None, None)
        assert (second["name"], second["space"]) == ("b", Embedder(good).space.id)
        assert (await client.post("/embed", json={"inputs": "red"})).status_code == 503


async def test_a_sentence_that_is_too_long_is_named_by_its_own_place(client):
    inputs = {"source_sentence": "red", "sentences": ["mars", LONG]}
    told = await asked(client, "/similarity", 422, inputs=inputs, parameters={"truncate": False})
    assert told["index"] == 1
    assert "index 1 " in told["message"]
    inputs = {"source_sentence": LONG, "sentences": ["mars"]}
    told = await asked(client, "/similarity", 422, inputs=inputs, parameters={"truncate": False})
    assert "index" not in told
    assert "source_sentence" in told["message"]


async def test_info_tells_of_all_models_and_limits(client):
    from embrief.server.settings import Limits

    told = (await client.get("/info")).json()
    assert (told["model_id"], told["served_model_name"]) == (TINY, "tiny")
    assert (told["max_input_length"], told["max_client_batch_size"]) == (512, 2048)
    assert told["model_type"]["embedding"] == {"pooling": "last_token"}
    assert told["embrief"]["limits"] == Limits().values()
    assert [row["name"] for row in told["embrief"]["models"]] == ["tiny", "hash", "rank"]
    assert told["embrief"]["models"][0]["space"] == Embedder(TINY).space.id
    rank = (await client.get("/info?model=rank")).json()
    assert (rank["model_id"], list(rank["model_type"])) == (RANK, ["reranker"])
    assert (await client.get("/info?model=tiny:query")).json()["model_id"] == TINY
    assert (await client.get("/info?model=moon")).status_code == 404


async def test_health_is_that_of_all_models(serving):
    down = False

    def fault(_):
        if down:
            raise UnavailableError("away")

    with FakeRuntime(fault=fault) as fake:
        async with serving(ServedModels({"fake": Embedder(fake.qwen3)}), lazy=True) as client:
            for path in ("/health", "/", "/ping"):
                got = await client.get(path)
                assert (got.status_code, got.content) == (200, b"")
            down = True
            assert (await client.post("/embed", json={"inputs": "a"})).status_code == 503
            got = await client.get("/health")
            assert (got.status_code, got.json()["error_type"]) == (503, "Unhealthy")
            assert int(got.headers["retry-after"]) > 0
