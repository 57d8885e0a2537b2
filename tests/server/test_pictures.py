"""Pictures in the words of every service: the vectors of this process, or one plain error with its place."""

from __future__ import annotations

import asyncio
import base64
import io
import threading

import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow is not installed")

from embrief import Embedder, Image, Reranker
from embrief.server.app import create_app
from embrief.server.models import ServedModels
from embrief.server.service import DECODING
from embrief.server.settings import Limits
from embrief.testing import FakeRuntime


def png(red: int, *, height: int = 40, width: int = 64) -> bytes:
    """A file of one colour."""
    from PIL import Image as Pillow

    made = io.BytesIO()
    Pillow.fromarray(np.full((height, width, 3), (red, 90, 30), np.uint8)).save(made, "PNG")
    return made.getvalue()


def image(red: int) -> Image:
    return Image(png(red))


def encoded(red: int) -> str:
    return base64.b64encode(png(red)).decode("ascii")


def uri(red: int) -> str:
    return f"data:image/png;base64,{encoded(red)}"


def part(red: int) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": uri(red)}}


def said(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


@pytest.fixture(scope="module")
def fake():
    with FakeRuntime() as found:
        yield found


@pytest.fixture
def models(fake):
    return ServedModels(
        {"see": Embedder(fake.vision), "read": Embedder(fake.qwen3)},
        {"judge": Reranker(fake.vision_reranker), "plain": Reranker(fake.reranker)},
    )


@pytest.fixture
async def client(serving, models):
    async with serving(models, lazy=True) as found:
        yield found


async def posted(client, path, status=200, **body):
    got = await client.post(path, json=body)
    assert got.status_code == status, got.text
    return got.json()


MIXED = [image(1), "a red planet", (image(2), "a moon"), (image(3), image(4))]


@pytest.fixture
def own(fake):
    return Embedder(fake.vision).encode(MIXED, role="document")


WAYS = {
    "parts": [
        [part(1)], "a red planet", [said("a moon"), part(2)], {"content": [part(3), part(4)]},
    ],
    "objects": [
        {"image": encoded(1)}, {"text": "a red planet"}, {"text": "a moon", "image": uri(2)},
        {"image": [encoded(3), uri(4)]},
    ],
    "other words": [
        {"type": "image_base64", "image_base64": encoded(1)}, [{"type": "input_text", "text": "a red planet"}],
        [{"type": "input_image", "image_url": uri(2)}, said("a moon")], [part(3), said(""), part(4)],
    ],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
async def test_openais_route_takes_parts_and_objects(client, own, way):
    told = await posted(client, "/v1/embeddings", input=WAYS[way])
    np.testing.assert_allclose([item["embedding"] for item in told["data"]], own.vectors, atol=1e-6)
    assert [item["tokens"] for item in told["data"]] == own.token_counts.tolist()
    assert told["usage"]["total_tokens"] == own.token_counts.sum()
    assert told["usage"]["image_tokens"] == own.image_tokens.sum() > 0
    assert told["space"] == own.space.id


async def test_a_conversation_is_one_input(client, fake, own):
    own_words = "Represent the user's input."
    for messages in (
        [{"role": "user", "content": [part(2), said("a moon")]}],
        [
            {"role": "system", "content": [said(own_words)]},
            {"role": "user", "content": [said("a moon"), part(2)]},
            {"role": "assistant", "content": [said("")]},
        ],
    ):
        told = await posted(client, "/v1/embeddings", messages=messages)
        np.testing.assert_allclose(told["data"][0]["embedding"], own.vectors[2], atol=1e-6)
        assert (told["role"], len(told["data"])) == ("document", 1)
    asked = [{"role": "system", "content": "Find the planet"}, {"role": "user", "content": [part(1)]}]
    told = await posted(client, "/v1/embeddings", messages=asked)
    expected = Embedder(fake.vision).embed_query(image(1), instruction="Find the planet")
    np.testing.assert_allclose(told["data"][0]["embedding"], expected, atol=1e-6)
    assert told["role"] == "query"
    text = await posted(client, "/v1/embeddings", model="read", messages=[{"role": "user", "content": "red"}])
    np.testing.assert_allclose(
        text["data"][0]["embedding"], Embedder(fake.qwen3).embed_documents(["red"])[0], atol=1e-6
    )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages"),
        ([{"role": "user", "content": "a"}] * 2, "not 2"),
        ([{"role": "system", "content": "a"}], "not 0"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "empty here"),
        ([{"role": "system", "content": [part(1)]}, {"role": "user", "content": "b"}], "the instruction"),
        ([{"role": "user", "content": {"text": "a"}}], "a text or a list of parts"),
    ],
)
async def test_a_conversation_that_is_none(client, messages, message):
    told = await posted(client, "/v1/embeddings", 400, messages=messages)
    assert message in told["error"]["message"]
    both = await posted(client, "/v1/embeddings", 400, messages=[{"role": "user", "content": "a"}], input="a")
    assert "both given" in both["error"]["message"]


async def test_the_short_route(client, own, fake):
    one = await posted(client, "/img/embed", input=encoded(1))
    np.testing.assert_allclose(one["embedding"], own.vectors[0], atol=1e-6)
    assert one["image_tokens"] == [int(own.image_tokens[0])]
    two = await posted(client, "/img/embed", input=[uri(1), encoded(2)], role="query", instruction="Find it")
    expected = Embedder(fake.vision).embed_queries([image(1), image(2)], instruction="Find it")
    np.testing.assert_allclose(two["embedding"], expected, atol=1e-6)
    assert two["role"] == "query"


@pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed"])
async def test_coheres_images(client, own, path):
    told = await posted(client, path, images=[uri(1)], input_type="image", embedding_types=["float"], model="see")
    np.testing.assert_allclose(told["embeddings"]["float"], own.vectors[:1], atol=1e-6)
    assert told["meta"]["tokens"]["input_tokens"] == own.token_counts[0]


async def test_coheres_inputs(client, own):
    inputs = [{"content": WAYS["parts"][0]}, {"content": [said("a red planet")]}, {"content": WAYS["parts"][2]}]
    told = await posted(client, "/v2/embed", inputs=inputs, input_type="search_document")
    np.testing.assert_allclose(told["embeddings"]["float"], own.vectors[:3], atol=1e-6)
    assert told["texts"] == ["", "a red planet", "a moon"]
    both = await posted(client, "/v2/embed", 400, inputs=inputs, images=[uri(1)])
    assert "images and inputs are both given" in both["message"]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_documents_and_queries_with_pictures(client, fake, path):
    documents = [image(1), "a red planet", (image(2), "red")]
    sent = [{"content": [part(1)]}, "a red planet", {"image": encoded(2), "text": "red"}]
    judge = Reranker(fake.vision_reranker)
    for query, asked in (("red planet", "red planet"), ((image(2), "red"), {"content": [said("red"), part(2)]})):
        told = await posted(client, path, query=asked, documents=sent, return_documents=True)
        found = {item["index"]: item for item in told["results"]}
        expected = judge.score(query, documents)
        np.testing.assert_allclose([found[place]["relevance_score"] for place in range(3)], expected, atol=1e-6)
        assert len(set(expected.tolist())) > 1
        assert [found[place]["document"] for place in range(3)] == [
            {"text": "", "images": 1}, {"text": "a red planet"}, {"text": "red", "images": 1},
        ]  # fmt: skip


HTTP = "https://example.org/a.png"
PLACES = {
    "/v1/embeddings": lambda value: {"input": ["a", {"image": value}]},
    "/v1/embeddings parts": lambda value: {"input": ["a", [{"type": "image_url", "image_url": {"url": value}}]]},
    "/img/embed": lambda value: {"input": [encoded(1), value]},
    "/v2/embed": lambda value: {"inputs": [{"content": [said("a")]}, {"content": [{"type": "image_url",
                                                                                   "image_url": {"url": value}}]}]},
    "/v1/embed": lambda value: {"images": [uri(1), value]},
    "/v1/rerank": lambda value: {"query": "a", "documents": ["a", {"image": value}]},
    "/rerank": lambda value: {"query": "a", "documents": ["a", {"content": [{"type": "image_url",
                                                                             "image_url": {"url": value}}]}]},
}  # fmt: skip
BROKEN = {
    "an address": (HTTP, "addresses are not fetched"),
    "a file": ("file:///etc/passwd", "addresses are not fetched"),
    "an object of another kind": ("data:text/html;base64,PGI+", "no address of a picture"),
    "no base64": ("%%%", "no base64"),
    "no picture": ("aGVsbG8gd29ybGQ=", "invalid_image"),
    "a picture cut short": (encoded(1)[:40], "invalid_image"),
    "nothing": ("", "invalid_image"),
    "no text": (5, "a picture is a text"),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("place", PLACES)
async def test_a_broken_picture_is_an_error_with_its_place_and_nothing_is_computed(client, fake, place, broken):
    value, message = BROKEN[broken]
    before = len(fake.runs)
    path = place.split()[0]
    got = await client.post(path, json=PLACES[place](value))
    assert got.status_code == (422 if path == "/rerank" else 400), got.text
    body = got.json()
    told = body["error"] if isinstance(body.get("error"), dict) and "index" in body["error"] else body
    assert told["index"] == 1
    assert message in got.text
    assert HTTP not in got.text
    assert not [runs for runs in fake.runs[before:] if runs > 1], "only the probe of the load"


@pytest.mark.parametrize("empty", [{"image": []}, {"image": None}, {"text": None}, {"text": None, "image": []}])
async def test_nothing_is_no_empty_text(client, empty):
    told = (await posted(client, "/v1/embeddings", 400, input=["a", empty]))["error"]
    assert (told["index"], told["message"]) == (
        1, "the item at index 1: an object holds neither a text nor a picture; put one into it, or leave it out",
    )  # fmt: skip


@pytest.mark.parametrize("model", ["see", "read"])
async def test_null_and_empty_lists_are_not_there(client, model):
    forms = ["a", {"text": "a"}, {"text": "a", "image": None}, {"text": "a", "image": []}]
    rows = (await posted(client, "/v1/embeddings", model=model, input=forms))["data"]
    assert [row["embedding"] for row in rows] == [rows[0]["embedding"]] * 4


async def test_text_null_leaves_the_picture(client):
    red = encoded(1)
    forms = [{"image": red}, {"text": None, "image": red}, {"text": None, "image": [red]}]
    rows = (await posted(client, "/v1/embeddings", input=forms))["data"]
    assert [row["embedding"] for row in rows] == [rows[0]["embedding"]] * 3
    ranked = await posted(client, "/v1/rerank", query={"text": "a", "image": None}, documents=forms)
    assert len({row["relevance_score"] for row in ranked["results"]}) == 1


async def test_a_query_with_a_broken_picture_has_no_index(client):
    told = await posted(client, "/v1/rerank", 400, query={"image": "aGVsbG8="}, documents=["a"])
    assert (told["param"], told.get("index")) == ("query", None)
    assert told["message"].startswith("query: ")


async def test_a_model_of_texts_refuses_before_anything_is_decoded(client):
    broken = "aGVsbG8="
    told = (await posted(client, "/v1/embeddings", 400, model="read", input=["a", {"image": broken}]))["error"]
    assert (told["code"], told["index"]) == ("no_images", 1)
    assert told["message"] == "'read' takes texts only; for pictures there is: see"
    ranked = await posted(client, "/v1/rerank", 400, model="plain", query="a", documents=[{"image": broken}])
    assert ranked["message"] == "'plain' takes texts only; for pictures there is: judge"


@pytest.mark.parametrize(
    ("limit", "status", "code"),
    [
        ({"max_images": 1}, 413, "too_many_images"),
        ({"max_images": 0}, 413, "too_many_images"),
        ({"max_image_bytes": 60}, 400, "invalid_image"),
        ({"max_image_pixels": 2559}, 400, "invalid_image"),
        ({"max_request_tokens": 14}, 413, "too_many_tokens"),
    ],
)
async def test_limits_of_pictures(serving, fake, limit, status, code):
    embedder = Embedder(fake.vision)
    async with serving(ServedModels({"see": embedder}), limits=Limits(**limit), lazy=True) as client:
        told = (
            await posted(client, "/v1/embeddings", status, input=[{"image": encoded(1)}, [part(2), said("a b c")]])
        )["error"]
        assert told["code"] == code


async def test_pictures_of_query_and_documents_count_together(serving, models):
    async with serving(models, limits=Limits(max_images=2), lazy=True) as client:
        two = [{"image": encoded(1)}, "a"]
        assert (await posted(client, "/v1/rerank", query={"image": encoded(2)}, documents=two))["results"]
        told = await posted(client, "/v1/rerank", 413, query={"image": encoded(2)}, documents=[*two, {"image": uri(3)}])
        assert told["code"] == "too_many_images"


async def test_decoding_leaves_the_loop_alone(client, monkeypatch):
    """While pictures are decoded, other requests are answered."""
    from embrief.images import decoding

    inside, gate = threading.Event(), threading.Event()
    decode = decoding.decode

    def held(*given):
        inside.set()
        assert gate.wait(30)
        return decode(*given)

    monkeypatch.setattr("embrief.images.decoding.decode", held)
    asked = asyncio.ensure_future(posted(client, "/img/embed", input=encoded(7)))
    assert await asyncio.to_thread(inside.wait, 30)
    assert (await client.get("/livez")).status_code == 200
    assert not asked.done()
    gate.set()
    assert (await asked)["embedding"]


async def test_a_request_that_has_ended_keeps_its_place_until_its_thread_is_done():
    """Else requests that run into their deadline one after the other would all decode at once."""
    service = create_app(ServedModels({"hash": Embedder("embrief/hash")})).state.service
    gate, started = threading.Event(), []

    def work(number):
        started.append(number)
        assert gate.wait(30)
        return number

    async def given_up(number):
        asked = asyncio.ensure_future(service.decode(lambda: work(number)))
        while number not in started:
            await asyncio.sleep(0.001)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    for number in range(DECODING):
        await given_up(number)
    last = asyncio.ensure_future(service.decode(lambda: work(-1)))
    # As often as it would take to be handed to a thread.
    for _ in range(100):
        await asyncio.sleep(0.001)
    assert started == list(range(DECODING))
    gate.set()
    assert await last == -1


async def test_what_takes_pictures_is_told(client):
    rows = {row["id"]: row for row in (await client.get("/v1/models")).json()["data"]}
    assert [rows[name]["modalities"] for name in ("see", "read", "judge")] == [
        ["text", "image"],
        ["text"],
        ["text", "image"],
    ]
    assert (rows["see"]["max_pixels"], rows["read"]["max_pixels"]) == (1310720, None)
    info = (await client.get("/info")).json()
    assert info["modalities"] == ["text", "image"]


async def test_pictures_are_counted(serving, fake):
    async with serving(ServedModels({"see": Embedder(fake.vision)}), lazy=True) as client:
        await posted(client, "/img/embed", input=[encoded(1), encoded(2)])
        assert 'embrief_images_total{model="see"} 2.0' in (await client.get("/metrics")).text


async def test_jinas_words(client, fake):
    told = await posted(client, "/v1/embeddings", input=[{"image": encoded(1)}], task="retrieval.query")
    assert told["role"] == "query"
    several = await posted(client, "/v1/embeddings", 400, input=[{"image": encoded(1)}], return_multivector=True)
    assert several["error"]["param"] == "return_multivector"


def test_the_document_names_the_routes():
    app = create_app(ServedModels({"hash": Embedder("embrief/hash")}))
    assert "/img/embed" in app.openapi()["paths"]
    assert len(png(1)) < 300
