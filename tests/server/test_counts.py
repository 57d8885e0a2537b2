"""How many tokens an answer says that were read."""

from __future__ import annotations

import pytest

from embrief import Embedder

LONG = "blue whale " * 400


@pytest.mark.parametrize(
    ("path", "body", "most", "counted"),
    [
        ("/v1/embeddings", {"input": ["red", LONG]}, 512, lambda got: got.json()["usage"]["prompt_tokens"]),
        ("/api/embed", {"input": ["red", LONG]}, 512, lambda got: got.json()["prompt_eval_count"]),
        (
            "/api/embed",
            {"input": ["red", LONG], "options": {"num_ctx": 20}},
            20,
            lambda got: got.json()["prompt_eval_count"],
        ),
        ("/v1/embed", {"texts": ["red", LONG]}, 512, lambda got: got.json()["meta"]["tokens"]["input_tokens"]),
        (
            "/v2/embed",
            {"texts": ["red", LONG], "max_tokens": 20},
            20,
            lambda got: got.json()["meta"]["tokens"]["input_tokens"],
        ),
        ("/embed", {"inputs": ["red", LONG]}, 512, lambda got: int(got.headers["x-compute-tokens"])),
    ],
)
async def test_what_was_cut_off_is_not_counted_as_read(client, path, body, most, counted):
    got = await client.post(path, json={"model": "tiny", **body})
    assert got.status_code == 200, got.text
    red = int(Embedder("embrief/tiny-embedding").count_tokens(["red"], role="document")[0])
    assert counted(got) == red + most


async def test_the_tokens_of_a_single_text_are_those_before_it_was_cut(client):
    got = await client.post("/v1/embeddings", json={"model": "tiny", "input": LONG})
    (item,) = got.json()["data"]
    assert item["truncated"] is True
    assert item["tokens"] > 512
