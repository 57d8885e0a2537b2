"""The words of Cohere, where its client does not show them."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v2/embed", {"texts": []}, "there is no text"),
        ("/v1/embed", {}, "there is no text"),
        ("/v2/embed", {"texts": ["a"], "inputs": []}, "both given"),
        ("/v2/embed", {"inputs": [{"content": [{"type": "image_url"}]}]}, "index 0"),
        ("/v2/embed", {"inputs": [{"content": [{"type": "text", "text": 3}]}]}, "index 0"),
        ("/v2/embed", {"texts": ["a"], "embedding_types": []}, "embedding_types is empty"),
        ("/v1/embed", {"texts": ["a"], "truncate": "MIDDLE"}, "truncate"),
    ],
)
async def test_what_is_refused(client, path, body, message):
    got = await client.post(path, json={"model": "tiny"} | body)
    assert got.status_code == 400
    assert message in got.json()["message"]
