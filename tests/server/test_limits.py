"""The table of limits: each is an option, and each holds."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import numpy as np
import pytest

from embrief import ArgumentError, Embedder
from embrief.server.models import ServedModels
from embrief.server.settings import LIMITS, Limits
from embrief.testing import FakeRuntime

JSON = {"content-type": "application/json"}


async def asked(client, **body):
    return await client.post("/v1/embeddings", json={"model": "hash", "input": "red", **body})


async def body_too_large(serving):
    async with serving(limits=Limits(max_body_bytes=100), lazy=True) as client:
        assert (await asked(client)).status_code == 200
        whole = await asked(client, input="x" * 100)

        async def parts():
            for _ in range(20):
                yield b'{"input": "x"}'

        chunked = await client.post("/v1/embeddings", content=parts(), headers=JSON)
        assert "content-length" not in chunked.request.headers
        return [whole, chunked]


async def too_many_items(serving):
    async with serving(limits=Limits(max_items=2), lazy=True) as client:
        assert (await asked(client, input=["a", "b"])).status_code == 200
        return [
            await asked(client, input=["a", "b", "c"]),
            await client.post("/encode", json={"texts": ["a"] * 3, "model": "hash"}),
        ]


async def too_many_tokens(serving):
    async with serving(limits=Limits(max_request_tokens=40), lazy=True) as client:
        # More bytes than tokens that are allowed: what counts are tokens.
        fine = await asked(client, model="tiny", input=["information retrieval systems and documents"])
        assert fine.status_code == 200
        return [await asked(client, model="tiny", input=["red planet"] * 30)]


async def too_many_documents(serving):
    from embrief.server.service import Service
    from embrief.server.work import score

    async with serving(limits=Limits(max_rerank_documents=2), lazy=True) as client:
        service: Service = client._transport.app.state.service
        ranked = service.models.reranker("rank")
        assert len(await score(service, ranked, "red", ["a", "b"])) == 2
        with pytest.raises(Exception, match="3 documents are more") as caught:
            await score(service, ranked, "red", ["a", "b", "c"])
        assert caught.value.problem.status == 413
        return []


async def too_many_waiting(serving):
    held = Held()
    async with serving(ServedModels({"hash": held.embedder}), limits=Limits(max_waiting=2), lazy=True) as client:
        assert (await asked(client)).status_code == 200
        held.closed = True
        waiting = [asyncio.ensure_future(asked(client)) for _ in range(2)]
        await held.entered(2)
        third = await asked(client)
        alive = await client.get("/livez")
        held.open()
        assert [item.status_code for item in await asyncio.gather(*waiting)] == [200, 200]
        assert alive.status_code == 200
        assert (await asked(client)).status_code == 200
        return [third]


async def too_late(serving):
    held = Held()
    async with serving(ServedModels({"hash": held.embedder}), limits=Limits(deadline=1), lazy=True) as client:
        assert (await asked(client)).status_code == 200
        held.closed = True
        late = await asked(client)
        assert held.left == ["cancelled"]
        return [late]


async def too_often(serving):
    async with serving(limits=Limits(requests_per_minute=2), lazy=True) as client:
        assert [(await asked(client)).status_code for _ in range(2)] == [200, 200]
        assert (await client.get("/livez")).status_code == 200
        return [await asked(client)]


async def pictures(serving, **limits):
    """Two small pictures, under one limit of pictures."""
    pytest.importorskip("PIL", reason="Pillow is not installed")
    from embrief import Image

    made = base64.b64encode(Image(np.full((8, 9, 3), 200, np.uint8)).to_png()).decode("ascii")
    with FakeRuntime() as fake:
        models = {"see": Embedder(fake.vision)}
        async with serving(ServedModels(models), limits=Limits(**limits), lazy=True) as client:
            return [await client.post("/img/embed", json={"input": [made, made]})]


async def too_many_images(serving):
    assert (await pictures(serving, max_images=2))[0].status_code == 200
    return await pictures(serving, max_images=1)


async def too_large_an_image(serving):
    return await pictures(serving, max_image_bytes=40)


async def too_many_pixels(serving):
    assert (await pictures(serving, max_image_pixels=72))[0].status_code == 200
    return await pictures(serving, max_image_pixels=71)


class Held:
    """An embedder whose calls wait until they are let go, and that tells how they ended."""

    def __init__(self) -> None:
        self.closed, self.left, self._inside = False, [], 0
        self._gate = asyncio.Event()
        self.embedder = self._made()

    def _made(self) -> Embedder:
        held = self

        class Slow(Embedder):
            async def aencode(self, texts, **options):
                try:
                    if held.closed:
                        held._inside += 1
                        await held._gate.wait()
                    return await super().aencode(texts, **options)
                except asyncio.CancelledError:
                    held.left.append("cancelled")
                    raise

        return Slow("embrief/hash")

    def open(self) -> None:
        self.closed = False
        self._gate.set()

    async def entered(self, count: int) -> None:
        while self._inside < count:
            await asyncio.sleep(0.005)


CASES = {
    "max_body_bytes": (body_too_large, 413, "body_too_large"),
    "max_items": (too_many_items, 413, "too_many_items"),
    "max_request_tokens": (too_many_tokens, 413, "too_many_tokens"),
    "max_rerank_documents": (too_many_documents, 413, "too_many_items"),
    "max_images": (too_many_images, 413, "too_many_images"),
    "max_image_bytes": (too_large_an_image, 400, "invalid_image"),
    "max_image_pixels": (too_many_pixels, 400, "invalid_image"),
    "max_waiting": (too_many_waiting, 429, "overloaded"),
    "deadline": (too_late, 503, "deadline_exceeded"),
    "requests_per_minute": (too_often, 429, "rate_limited"),
}


@pytest.mark.parametrize("name", [limit.name for limit in LIMITS])
async def test_every_limit_holds(name, serving):
    run, status, code = CASES[name]
    for got in await asyncio.wait_for(run(serving), 60):
        assert got.status_code == status, got.text
        assert got.json()["error"]["code"] == code
        if status in (429, 503):
            assert int(got.headers["retry-after"]) > 0


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_every_limit_is_an_option_with_its_default(limit):
    from typer.testing import CliRunner

    from embrief.cli import app

    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    # Older typers write a backslash before a bracket.
    told = " ".join(shown.replace("\\[", "[").split())
    assert f"{limit.option} N {limit.help} [default: {limit.default}; x>={limit.least}]" in told


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_no_limit_is_below_its_least(limit):
    with pytest.raises(ArgumentError, match=limit.name):
        Limits(**{limit.name: limit.least - 1})
    assert getattr(Limits(**{limit.name: limit.least}), limit.name) == limit.least


def test_requests_come_back_with_time():
    from embrief.server.admission import Buckets

    buckets = Buckets(60)
    assert [buckets.wait("a", 0.0) for _ in range(60)] == [0.0] * 60
    assert buckets.wait("a", 0.0) == pytest.approx(1.0)
    assert buckets.wait("b", 0.0) == 0.0
    assert buckets.wait("a", 0.5) == pytest.approx(0.5)
    assert buckets.wait("a", 1.01) == 0.0
    assert buckets.wait("a", 1000.0) == 0.0


async def test_a_body_that_says_it_is_large_is_not_read(serving):
    async with serving(limits=Limits(max_body_bytes=100), lazy=True) as client:
        read = []

        async def parts():
            read.append(1)
            yield b"x" * 50

        got = await client.post("/v1/embeddings", content=parts(), headers={**JSON, "content-length": "101"})
        assert got.status_code == 413
        assert read == []
        assert (await client.post("/v1/embeddings", content=json.dumps({"input": "a", "model": "hash"}),
                                  headers=JSON)).status_code == 200  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_every_limit_is_in_the_docs(limit):
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text("utf-8")
    assert f"| `{limit.option} N` | {limit.default:,} | {limit.help} |" in page
