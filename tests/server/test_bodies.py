"""Bodies that are made to break a reader: each is refused, and none is a crash."""

from __future__ import annotations

import pytest

JSON = {"content-type": "application/json"}
BOMBS = {
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "deep texts": b'{"input":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "many digits": b'{"input": "a", "dimensions": ' + b"9" * 5000 + b"}",
    "a huge exponent": b'{"input": "a", "dimensions": 1e999}',
    "a large number": b'{"input": "a", "dimensions": 1e30}',
    "a fraction": b'{"input": "a", "dimensions": 33.5}',
    "a negative width": b'{"input": "a", "dimensions": -1}',
    "NaN": b'{"input": "a", "dimensions": NaN}',
    "Infinity in a text's place": b'{"input": [Infinity]}',
    "a key twice": b'{"input": "a", "input": "b"}',
    "half a surrogate": b'{"input": "\\ud800"}',
    "half a surrogate in a list": b'{"input": ["a", "\\udfff"]}',
    "half a surrogate as model": b'{"input": "a", "model": "\\ud800"}',
    "half a surrogate as instruction": b'{"input": "a", "instruction": "\\ud800"}',
    "half a surrogate as task": b'{"input": "a", "prompt_name": "\\ud800"}',
    "half a surrogate as format": b'{"input": "a", "encoding_format": "\\ud800"}',
    "no UTF-8": b'{"input": "\xff"}',
    "a byte order mark": b'\xef\xbb\xbf{"input": "a"}',
    "nothing": b"",
    "null": b"null",
    "a number": b"1",
    "a text": b'"a"',
    "half": b'{"input": "a',
    "more": b'{"input": "a"} {}',
    "no text": b'{"input": null}',
    "an object": b'{"input": {"a": 1}}',
    "a true text": b'{"input": true}',
    "no texts": b'{"input": []}',
    "lists of texts": b'{"input": [["a"]]}',
    "a model that is none": b'{"input": "a", "model": 5}',
    "an unknown task": b'{"input": "a", "prompt_name": "no such task"}',
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bad_body_is_refused(client, name):
    got = await client.post("/v1/embeddings", content=BOMBS[name], headers=JSON)
    assert got.status_code == 400, got.text
    assert got.json()["error"]["message"]
    # The framework's own word for what it did not expect.
    assert "error parsing the body" not in got.text


async def test_a_text_may_hold_any_unicode(client):
    texts = ["\0", "\U0010ffff", "\ufeff", "e\u0301", "  ", "\n", "\u202e", "<|endoftext|>", "🙂" * 100]
    got = await client.post("/v1/embeddings", json={"input": texts, "model": "tiny"})
    assert got.status_code == 200
    assert len(got.json()["data"]) == len(texts)


async def test_no_answer_repeats_what_was_to_be_embedded(client):
    for body in ({"input": [{"secret words": "secret words"}]}, {"input": "a", "dimensions": "secret words"},
                 {"input": "a", "encoding_format": "secret words"}, {"input": ["secret words", 5]}):  # fmt: skip
        got = await client.post("/v1/embeddings", json=body)
        assert got.status_code == 400
        assert "secret" not in got.text


@pytest.mark.parametrize(
    ("path", "shape"), [("/v1/embeddings", "type"), ("/encode", "code"), ("/api/embeddings", None)]
)
async def test_each_dialect_says_it_in_its_own_form(client, path, shape):
    wrong = [
        await client.post(path, content=b"[[", headers=JSON),
        await client.post(path, content=b"a", headers={"content-type": "text/plain"}),
        await client.get(path),
        await client.post(path, content=b"{}", headers={**JSON, "host": "evil.example"}),
        await client.post(path, json={"model": "absent", "input": "a", "texts": ["a"], "prompt": "a"}),
    ]
    assert [got.status_code for got in wrong] == [400, 415, 405, 421, 404]
    for got in wrong:
        error = got.json()["error"]
        assert isinstance(error, str) if shape is None else error[shape]


async def test_a_path_that_is_not_there_is_404(client):
    for path in ("/v1", "/v1/embeddings/", "/docs", "/redoc", "/%00", "/v1/../livez/x"):
        assert (await client.get(path)).status_code == 404, path


async def test_a_runtime_that_fails_is_an_error_with_the_index(serving):
    from embrief import Embedder
    from embrief.server.models import ServedModels
    from embrief.testing import FakeRuntime

    def fault(texts):
        if any("bad apple" in text for text in texts):
            raise ValueError("cannot embed 'bad apple'")

    with FakeRuntime(batch_tokens=100, fault=fault) as fake:
        async with serving(ServedModels({"fake": Embedder(fake.qwen3)}), lazy=True) as client:
            got = await client.post("/v1/embeddings", json={"input": ["good", "bad apple", "good too"]})
    assert got.status_code == 500
    assert got.json()["error"]["index"] == 1
    assert got.json()["error"]["code"] == "item_failed"
    assert "apple" not in got.text
