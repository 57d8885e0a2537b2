"""/livez, /readyz and /metrics; and what never gets into logs and numbers."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest

from embrief import ArgumentError, Embedder, Reranker
from embrief.errors import NonFiniteVectorError
from embrief.server.models import ServedModels
from embrief.testing import FakeRuntime


async def ready_client(client):
    for _ in range(600):
        got = await client.get("/readyz")
        if got.status_code == 200:
            return got
        assert int(got.headers["retry-after"]) > 0
        await asyncio.sleep(0.05)
    raise AssertionError(got.text)


async def test_the_head_of_health_is_answered(client):
    assert (await client.head("/livez")).status_code == 200
    assert (await client.head("/readyz")).status_code == 200


async def test_a_server_is_ready_once_its_models_are_loaded(serving):
    import threading

    gate = threading.Event()
    with FakeRuntime(fault=lambda texts: gate.wait(60)) as fake:
        models = ServedModels({"e": Embedder(fake.qwen3)}, {"r": Reranker(fake.reranker)})
        async with serving(models) as client:
            assert (await client.get("/livez")).status_code == 200
            waiting = await client.get("/readyz")
            gate.set()
            assert waiting.status_code == 503
            assert waiting.json()["status"] == "not ready"
            got = await ready_client(client)
    assert got.json() == {"status": "ready", "models": {"e": {"state": "ready"}, "r": {"state": "ready"}}}


async def test_a_model_that_moves_is_not_ready(serving, monkeypatch):
    """Somebody started another model behind the address that a remote model has."""
    monkeypatch.setattr("embrief.server.health.FRESH", 0.0)
    embedder = Embedder("embrief/hash", cache="memory")
    async with serving(ServedModels({"e": embedder})) as client:
        await ready_client(client)
        aencode = Embedder.aencode

        async def other(self, *arguments, **options):
            found = await aencode(self, *arguments, **options)
            found.vectors[:] = np.roll(found.vectors, 1, axis=1)
            return found

        monkeypatch.setattr(Embedder, "aencode", other)
        got = await client.get("/readyz")
        assert got.status_code == 503
        assert "moved since" in got.json()["models"]["e"]["reason"]
        monkeypatch.setattr(Embedder, "aencode", aencode)
        assert (await client.get("/readyz")).status_code == 200


async def test_a_probe_asks_the_model_and_no_cache(serving, monkeypatch):
    monkeypatch.setattr("embrief.server.health.FRESH", 0.0)
    with FakeRuntime() as fake:
        async with serving(ServedModels({"e": Embedder(fake.qwen3, cache="memory")})) as client:
            await ready_client(client)
            before = len(fake.texts)
            await client.get("/readyz")
            assert len(fake.texts) == before + 1


@pytest.mark.parametrize(
    "error", [ArgumentError("s3cret/tokenizer.json is gone"), NonFiniteVectorError("no", index=0), OSError("s3cret")]
)
async def test_a_model_that_cannot_be_loaded_is_no_fault_of_the_request(serving, monkeypatch, error):
    aload = Embedder.aload

    async def broken(self):
        if self.spec.id == "embrief/hash":
            raise error
        await aload(self)

    monkeypatch.setattr(Embedder, "aload", broken)
    models = ServedModels({"e": Embedder("embrief/hash"), "other": Embedder("embrief/tiny-embedding")})
    async with serving(models) as client:
        for path, body in (("/v1/embeddings", {"input": "a"}), ("/embed", {"inputs": "a"})):
            got = await client.post(path, json=body)
            assert got.status_code == 503, got.text
            assert int(got.headers["retry-after"]) > 0
            assert "index" not in got.json()
            assert "s3cret" not in got.text
        for _ in range(600):
            states = (await client.get("/readyz")).json()["models"]
            if states["other"]["state"] == "ready":
                break
            await asyncio.sleep(0.05)
    assert states["other"] == {"state": "ready"}
    assert states["e"]["state"] == "failed"
    assert type(error).__name__ in states["e"]["reason"]


async def test_a_lazy_server_stays_ready_while_its_first_request_loads(serving):
    import threading

    gate = threading.Event()
    with FakeRuntime(fault=lambda texts: gate.wait(60)) as fake:
        async with serving(ServedModels({"e": Embedder(fake.qwen3)}), lazy=True) as client:
            asking = asyncio.create_task(client.post("/v1/embeddings", json={"input": "a"}))
            for _ in range(600):
                got = await client.get("/readyz")
                if got.json()["models"]["e"]["state"] == "loading":
                    break
                await asyncio.sleep(0.02)
            health = await client.get("/health")
            gate.set()
            assert (await asking).status_code == 200
    assert got.json()["models"]["e"]["state"] == "loading"
    assert (got.status_code, health.status_code) == (200, 200)


async def test_a_lazy_server_is_ready_before_it_loads(serving):
    with FakeRuntime() as fake:
        async with serving(ServedModels({"e": Embedder(fake.qwen3)}), lazy=True) as client:
            assert (await client.get("/readyz")).status_code == 200
            assert fake.loads == 0
            await client.post("/encode", json={"texts": ["a"]})
            assert fake.loads == 1
            assert (await client.get("/readyz")).json()["models"]["e"]["state"] == "ready"


async def test_a_model_that_cannot_be_loaded_is_503_and_tried_again(serving, monkeypatch):
    from embrief import WeightsUnavailableError

    load = Embedder.load

    def absent(self):
        raise WeightsUnavailableError("/srv/weights is not there")

    monkeypatch.setattr(Embedder, "load", absent)
    async with serving(ServedModels({"e": Embedder("embrief/hash")})) as client:
        got = await client.post("/v1/embeddings", json={"input": "a"})
        assert got.status_code == 503
        assert int(got.headers["retry-after"]) > 0
        assert "/srv" not in got.text
        assert "/srv/weights" in (await client.get("/readyz")).json()["models"]["e"]["reason"]
        monkeypatch.setattr(Embedder, "load", load)
        assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_the_numbers(serving):
    models = ServedModels(
        {"e": Embedder("embrief/tiny-embedding", cache="memory")}, {"r": Reranker("embrief/tiny-reranker")}
    )
    async with serving(models) as client:
        await ready_client(client)
        text = "numbers of this test"
        for _ in range(2):
            await client.post("/v1/embeddings", json={"input": [text], "model": "e:query"})
        await client.post("/v1/embeddings", json={"input": [5], "model": "e"})
        got = await client.get("/metrics")
    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = got.text.splitlines()
    for line in (
        'embrief_request_seconds_count{method="POST",route="/v1/embeddings",status="200"} 2.0',
        'embrief_request_seconds_count{method="POST",route="/v1/embeddings",status="400"} 1.0',
        'embrief_errors_total{code="invalid_request",route="/v1/embeddings"} 1.0',
        "embrief_requests_waiting 0.0",
        'embrief_texts_total{model="e",role="query"} 2.0',
        'embrief_cache_texts_total{found="yes",model="e"} 1.0',
        'embrief_cache_texts_total{found="no",model="e"} 1.0',
    ):
        assert line in lines
    assert [line for line in lines if line.startswith('embrief_batch_tokens{model="e"}')]
    assert [line for line in lines if line.startswith('embrief_tokens_total{model="e"}')]


async def test_callers_cannot_make_up_labels(client):
    for number in range(30):
        await client.get(f"/made-up/{number}")
        await client.post("/v1/embeddings", json={"input": "a", "model": f"made-up-{number}"})
        await client.request(f"MADEUP{number}", "/v1/embeddings")
        await client.post("/v1/embeddings", json={"input": "a", "input_type": f"made-up-{number}"})
    numbers = (await client.get("/metrics")).text.lower()
    assert "made" not in numbers
    assert 'method="other"' in numbers


WORDS = ("confidential", "s3cret-key", "classified", "privileged")


async def test_no_text_vector_or_key_gets_into_logs_or_numbers(serving, caplog, capfd):
    from embrief.server.keys import FixedKeys
    from embrief.server.settings import Limits

    def fault(texts):
        if any("classified" in text for text in texts):
            raise ValueError("failed on 'classified'")

    caplog.set_level(logging.DEBUG)
    headers = {"authorization": "Bearer s3cret-key"}
    with FakeRuntime(batch_tokens=100, fault=fault) as fake:
        models = ServedModels({"e": Embedder(fake.qwen3, max_tokens=20)})
        async with serving(models, keys=FixedKeys({"a": "s3cret-key"}), limits=Limits(max_items=3)) as client:
            bodies = [
                {"input": "confidential"},
                {"input": ["confidential " * 50]},
                {"input": ["classified", "confidential"]},
                {"input": ["confidential"] * 4},
                {"input": "confidential", "model": "privileged"},
                {"input": "confidential", "instruction": "privileged", "input_type": "document"},
                {"input": [{"confidential": 1}]},
                {"input": "confidential", "dimensions": 3},
                {"input": "confidential", "prompt_name": "privileged"},
            ]
            codes = [(await client.post("/v1/embeddings", json=body, headers=headers)).status_code for body in bodies]
            assert codes == [200, 200, 500, 413, 404, 400, 400, 400, 400]
            await client.post("/v1/embeddings", content=b'{"input": "confidential', headers={
                **headers, "content-type": "application/json"})  # fmt: skip
            numbers = (await client.get("/metrics", headers=headers)).text
    printed = capfd.readouterr()
    told = caplog.text + numbers + printed.out + printed.err
    assert "item_failed" in numbers
    assert "ItemFailedError" in caplog.text
    assert [word for word in WORDS if word in told] == []


@pytest.mark.parametrize("kind", [RuntimeError, KeyError])
async def test_what_nobody_thought_of_is_logged_without_its_words(serving, monkeypatch, caplog, kind):
    async def broken(self, *_, **__):
        raise kind("confidential")

    async with serving(ServedModels({"e": Embedder("embrief/hash")}), lazy=True) as client:
        await client.post("/encode", json={"texts": ["a"]})
        monkeypatch.setattr(Embedder, "aencode", broken)
        got = await client.post("/encode", json={"texts": ["confidential"]})
    assert got.status_code == 500
    assert got.json()["error"]["code"] == "internal_error"
    assert kind.__name__ in caplog.text
    assert "confidential" not in got.text + caplog.text
