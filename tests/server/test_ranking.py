"""Reranking in the words of Cohere, Jina and vLLM, where their clients do not show it."""

from __future__ import annotations

import numpy as np
import pytest

from embrief import Embedder, FallbackReranker, Reranker
from embrief.server.models import ServedModels
from embrief.servers.options import RerankHttp

RANK = "embrief/tiny-reranker"
DOCUMENTS = ["mars is red", "whales are blue", "the red planet"]
LONG = "blue whale " * 400


async def asked(client, path="/v1/rerank", status=200, **body):
    body = {"query": "red planet", "documents": DOCUMENTS} | body
    got = await client.post(path, json=body)
    assert got.status_code == status, got.text
    return got.json()


def own(**settings):
    return Reranker(RANK, **settings).score("red planet", DOCUMENTS)


@pytest.mark.parametrize(
    ("path", "said", "held"),
    [
        ("/v1/rerank", {}, True),
        ("/v1/rerank", {"return_documents": False}, False),
        ("/v1/rerank", {"return_documents": True}, True),
        ("/v2/rerank", {}, False),
        ("/v2/rerank", {"return_documents": True}, True),
    ],
)
async def test_documents_are_in_the_answer_as_each_service_has_it(client, path, said, held):
    found = await asked(client, path, **said)
    order = np.argsort(-own(), kind="stable").tolist()
    assert [item["index"] for item in found["results"]] == order
    np.testing.assert_allclose([item["relevance_score"] for item in found["results"]], own()[order], atol=1e-6)
    documents = [item.get("document") for item in found["results"]]
    assert documents == ([{"text": DOCUMENTS[place]} for place in order] if held else [None] * 3)


async def test_one_answer_has_what_each_client_reads(client):
    found = await asked(client, documents=["red", LONG])
    assert found["id"]
    assert (found["object"], found["model"]) == ("rerank", "rank")
    assert found["meta"]["api_version"] == {"version": "1"}
    told = {item["index"]: item["truncated"] for item in found["results"]}
    assert told == {0: False, 1: True}
    # What was read: a pair that is cut has as many as it may have.
    first = int(Reranker(RANK).count_tokens("red planet", ["red"])[0])
    assert found["usage"] == {"prompt_tokens": first + 512, "total_tokens": first + 512}


async def test_an_instruction_counts(client):
    found = await asked(client, instruction="Is it an animal?")
    expected = own(instruction="Is it an animal?")
    scores = {item["index"]: item["relevance_score"] for item in found["results"]}
    np.testing.assert_allclose([scores[place] for place in range(3)], expected, atol=1e-6)
    assert np.abs(expected - own()).max() > 1e-3


@pytest.mark.parametrize(
    ("body", "message", "index"),
    [
        ({"documents": []}, "documents is empty", None),
        ({"documents": ["a", {"title": "b"}]}, "put the fields that count into `text`", 1),
        ({"documents": ["a", {"text": "b", "title": "c"}]}, "put the fields that count into `text`", 1),
        ({"documents": ["a", 5]}, "index 1: this is no text", 1),
        ({"documents": "a"}, "a list of texts", None),
        ({"rank_fields": ["title"]}, "rank_fields", None),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc", None),
        ({"max_tokens_per_doc": 100}, "max_tokens_per_doc=100 is below the 512", None),
        ({"truncate_prompt_tokens": 100}, "truncate_prompt_tokens=100", None),
        ({"truncate": False, "documents": ["a", LONG]}, "index 1", 1),
        ({"model": "tiny"}, "'tiny' is an embedding model", None),
        ({"top_n": 0}, "top_n", None),
    ],
)
async def test_what_would_be_left_out_is_refused(client, body, message, index):
    told = await asked(client, status=400, **body)
    # As Cohere's, Jina's and vLLM's clients look for it.
    for said in (told["message"], told["detail"], told["error"]["message"]):
        assert message in said
    assert told.get("index") == index


async def test_what_is_kept_by_itself_is_let_pass(client):
    plain = await asked(client)
    for said in (
        {"max_tokens_per_doc": 4096},
        {"truncate_prompt_tokens": -1},
        {"rank_fields": ["text"]},
        {"priority": 3},
        {"documents": [{"text": text} for text in DOCUMENTS]},
    ):
        assert (await asked(client, **said))["results"] == plain["results"]


async def test_an_order_without_scores_is_no_answer(serving):
    """A chain may end with the documents in their own order, which no score says: over HTTP that is 503."""
    away = Reranker(RANK, backend=RerankHttp(base_url="http://127.0.0.1:9/v1", tries=1))
    chain = FallbackReranker([away], last_resort="input-order")
    assert [item.score for item in chain.rerank("red planet", DOCUMENTS)] == [None] * 3
    models = ServedModels({"hash": Embedder("embrief/hash")}, {"rank": chain})
    async with serving(models, lazy=True) as client:
        for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
            told = await asked(client, path, status=503)
            assert told["code"] == "model_unavailable"
