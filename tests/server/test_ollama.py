"""The words of Ollama, where its client does not show them."""

from __future__ import annotations

import pytest

import embrief


async def asked(client, path, status=200, **body):
    got = await client.post(path, json=body)
    assert got.status_code == status, got.text
    return got.json()


@pytest.mark.parametrize("nothing", ["", None, []])
async def test_nothing_has_no_vectors(client, nothing):
    assert await asked(client, "/api/embed", model="tiny", input=nothing) == {"model": "tiny", "embeddings": []}
    assert len((await asked(client, "/api/embed", model="tiny", input=[""]))["embeddings"]) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": [1, 2]}, "token ids"),
        ({"input": "a", "dimensions": 7}, "7"),
        ({"input": "a", "options": {"num_ctx": 0}}, "num_ctx"),
        ({"input": "a", "model": "rank"}, "'rank' is a reranker"),
    ],
)
async def test_what_is_refused(client, body, message):
    assert message in (await asked(client, "/api/embed", 400, **({"model": "tiny"} | body)))["error"]


async def test_the_version_is_none_of_ollamas(client):
    told = (await client.get("/api/version")).json()
    assert told == {"version": embrief.__version__, "owned_by": "embrief"}


async def test_a_name_is_looked_up_as_it_is_first(client):
    for name in ("moon", "moon:latest", "tiny:other"):
        assert "no model" in (await asked(client, "/api/show", 404, model=name))["error"]
        assert "no model" in (await asked(client, "/api/embed", 404, model=name, input="a"))["error"]
