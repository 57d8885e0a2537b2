"""POST /v1/embeddings and GET /v1/models."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from embrief import Embedder
from embrief.server.work import answer

TINY = "embrief/tiny-embedding"


async def embedded(client, **body):
    got = await client.post("/v1/embeddings", json={"model": "tiny", **body})
    assert got.status_code == 200, got.text
    return got.json()


def vectors(answer) -> np.ndarray:
    return np.array([item["embedding"] for item in answer["data"]], np.float32)


async def test_a_list_of_texts_gets_the_vectors_of_this_process(client):
    texts = ["red planet", "", "blue\nwhale 日本"]
    answer = await embedded(client, input=texts)
    own = Embedder(TINY).encode(texts, role="document")
    np.testing.assert_allclose(vectors(answer), own.vectors, atol=1e-6)
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    assert answer["object"] == "list"
    assert answer["model"] == "tiny"
    assert answer["space"] == own.space.id
    assert [item["tokens"] for item in answer["data"]] == own.token_counts.tolist()
    total = int(own.token_counts.sum())
    assert answer["usage"] == {"prompt_tokens": total, "total_tokens": total}


async def test_one_text_is_a_list_of_one(client):
    assert vectors(await embedded(client, input="red")).shape == (1, Embedder(TINY).dim)


async def test_base64_holds_little_endian_floats(client):
    whole = vectors(await embedded(client, input=["red", "blue"]))
    packed = await embedded(client, input=["red", "blue"], encoding_format="base64")
    found = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in packed["data"]]
    np.testing.assert_array_equal(np.array(found), whole)


async def test_dimensions_cut_and_normalise(client):
    found = vectors(await embedded(client, input="red", dimensions=32))
    np.testing.assert_allclose(found, Embedder(TINY, dim=32).embed_documents(["red"]), atol=1e-6)
    refused = await client.post("/v1/embeddings", json={"model": "tiny", "input": "red", "dimensions": 7})
    assert refused.status_code == 400


@pytest.mark.parametrize(
    ("said", "role"),
    [
        ({}, "document"),
        ({"model": "tiny:query"}, "query"),
        ({"model": "tiny:document"}, "document"),
        ({"input_type": "query"}, "query"),
        ({"input_type": "search_query"}, "query"),
        ({"input_type": "search_document"}, "document"),
        ({"input_type": "passage"}, "document"),
        ({"prompt_name": "query"}, "query"),
        ({"model": "tiny:query", "input_type": "search_query", "prompt_name": "query"}, "query"),
    ],
)
async def test_a_request_says_the_role_in_its_own_words(client, said, role):
    answer = await embedded(client, input=["red"], **said)
    own = Embedder(TINY).encode(["red"], role=role).vectors
    np.testing.assert_allclose(vectors(answer), own, atol=1e-6)
    assert answer["role"] == role


async def test_plain_texts_get_no_prompt(client):
    embedder = Embedder(TINY)
    for role in ("query", "document"):
        rendered = embedder.render("red", role=role)
        answer = await embedded(client, model="tiny:plain", input=[rendered])
        np.testing.assert_allclose(vectors(answer), embedder.encode(["red"], role=role).vectors, atol=1e-6)
    got = await client.post("/v1/embeddings", json={"model": "tiny:plain", "input": "a", "instruction": "Find"})
    assert got.status_code == 400


@pytest.mark.parametrize(
    "said", [{"input_type": "document", "instruction": "s3cret " * 9}, {"input_type": "s3cret " * 40}]
)
async def test_no_error_repeats_an_instruction_or_a_long_task(client, said):
    got = await client.post("/v1/embeddings", json={"model": "tiny", "input": "a", **said})
    assert got.status_code == 400
    assert "s3cret" not in got.text
    assert got.json()["error"]["param"] in said


async def test_a_blank_instruction_says_nothing_of_documents(client):
    answer = await embedded(client, input=["red"], instruction="")
    np.testing.assert_allclose(answer["data"][0]["embedding"], Embedder(TINY).embed_documents(["red"])[0], atol=1e-6)


async def test_an_instruction_makes_queries_of_texts(client):
    answer = await embedded(client, input=["red"], instruction="Find planets")
    own = Embedder(TINY).embed_queries(["red"], instruction="Find planets")
    np.testing.assert_allclose(vectors(answer), own, atol=1e-6)


async def test_two_roles_in_one_request_are_refused(client):
    got = await client.post("/v1/embeddings", json={"model": "tiny:query", "input": "red", "input_type": "document"})
    assert got.status_code == 400
    assert "model says query and input_type says document" in got.json()["error"]["message"]


async def test_the_default_role_can_be_set(serving):
    async with serving(default_role="query", lazy=True) as client:
        answer = await embedded(client, input="red")
    np.testing.assert_allclose(vectors(answer), [Embedder(TINY).embed_query("red")], atol=1e-6)


@pytest.mark.parametrize("ids", [[1, 2], [[1, 2], [3]], 5])
async def test_token_ids_are_refused_with_the_remedy(client, ids):
    got = await client.post("/v1/embeddings", json={"model": "tiny", "input": ids})
    assert got.status_code == 400
    if ids != 5:
        assert "check_embedding_ctx_length=False" in got.json()["error"]["message"]


async def test_a_name_is_looked_up_and_nothing_else(client, tmp_path):
    for name in (TINY, "Qwen/Qwen3-Embedding-0.6B", str(tmp_path), "ollama:bge-m3", "tiny:other", "../tiny", "\ud800"):
        got = await client.post("/v1/embeddings", content=json.dumps({"model": name, "input": "a"}),
                                headers={"content-type": "application/json"})  # fmt: skip
        assert got.status_code == (400 if name == "\ud800" else 404), got.text
        if got.status_code == 404:
            assert "tiny, hash" in got.json()["error"]["message"]
            assert got.json()["error"]["code"] == "model_not_found"


async def test_without_a_model_the_first_one_answers(client):
    got = await client.post("/v1/embeddings", json={"input": "red"})
    assert got.json()["model"] == "tiny"


async def test_a_reranker_embeds_nothing(client):
    got = await client.post("/v1/embeddings", json={"model": "rank", "input": "red"})
    assert got.status_code == 400
    assert got.json()["error"]["code"] == "wrong_kind_of_model"


async def test_what_was_cut_is_told_text_by_text(client):
    long = "red planet " * Embedder(TINY).max_tokens
    answer = await embedded(client, input=["red", long])
    assert [item["truncated"] for item in answer["data"]] == [False, True]
    refused = await client.post("/v1/embeddings", json={"model": "tiny", "input": ["red", long], "truncate": False})
    assert refused.status_code == 400
    assert refused.json()["error"]["index"] == 1
    assert refused.json()["error"]["code"] == "input_too_long"


async def test_the_item_at_fault_has_its_index(client):
    got = await client.post("/v1/embeddings", json={"model": "tiny", "input": ["red", None]})
    assert got.status_code == 400
    assert got.json()["error"] == {
        "message": "the item at index 1: a text belongs here, or an object with texts and pictures, not null",
        "type": "invalid_request_error",
        "param": "input",
        "code": "invalid_request",
        "index": 1,
    }


async def test_models_are_listed_with_the_names_of_their_roles(client):
    got = (await client.get("/v1/models")).json()
    assert [item["id"] for item in got["data"]] == [
        "tiny", "hash", "tiny:query", "tiny:document", "tiny:plain", "hash:query", "hash:document", "hash:plain",
        "rank",
    ]  # fmt: skip
    assert {item["object"] for item in got["data"]} == {"model"}


async def test_one_model_is_told_of(client):
    assert (await client.get("/v1/models/tiny:query")).json()["role"] == "query"
    missing = await client.get("/v1/models/other/name")
    assert missing.status_code == 404
    assert missing.json()["error"]["type"] == "invalid_request_error"
    numbers = (await client.get("/metrics")).text
    assert 'route="/v1/models/{name:path}"' in numbers
    assert "other/name" not in numbers


def test_the_client_of_openai(server):
    openai = pytest.importorskip("openai", reason="openai is not installed")
    with openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client:
        own = Embedder(TINY)
        found = client.embeddings.create(input=["red", "blue"], model="tiny")
        np.testing.assert_allclose(
            [item.embedding for item in found.data], own.embed_documents(["red", "blue"]), atol=1e-6
        )
        query = client.embeddings.create(
            input="red",
            model="tiny",
            encoding_format="float",
            extra_body={"input_type": "query", "instruction": "Find"},
        )
        np.testing.assert_allclose(query.data[0].embedding, own.embed_query("red", instruction="Find"), atol=1e-6)
        assert found.space == own.space.id
        assert client.models.retrieve("tiny").id == "tiny"
        with pytest.raises(openai.NotFoundError, match="no model 'absent'"):
            client.embeddings.create(input="red", model="absent")
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
            client.embeddings.create(input=[[1, 2]], model="tiny")


async def test_fields_that_are_null_are_not_there(client):
    names = ("model", "dimensions", "encoding_format", "user", "input_type", "prompt_name", "instruction", "truncate")
    got = await client.post("/v1/embeddings", json={"input": "red", **dict.fromkeys(names)})
    assert got.status_code == 200
    assert isinstance(got.json()["data"][0]["embedding"], list)
    got = await client.post("/v1/embeddings/generate", json={"text": "red", "model": None, "use_fallback": None})
    assert got.status_code == 200


@pytest.mark.parametrize(
    "content",
    [[], {}, [[]], {"a": []}, [[1.5, 2.0], [3.25]], [{"a": [{"b": [[1, 2]]}]}],
     {"data": [{"e": [0.1, 0.2], "x": None}, {"e": [], "x": "\ud800"}], "n": 1}]
)  # fmt: skip
async def test_a_large_answer_is_written_as_a_small_one_is(content):
    small, large = await answer(content), await answer(content, numbers=10**6)
    assert large.body == small.body
    assert json.loads(large.body) == content
