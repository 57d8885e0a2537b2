"""Pictures in Qdrant: `models.Image` and `models.InferenceObject` of an attached client, and the helpers."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from qdrant_client import models
from qdrant_client.models import Document, InferenceObject, PointStruct, PointVectors

from embrief import ArgumentError, ArgumentTypeError, Embedder, Image, Reranker, SpaceMismatchError
from qdrant_embrief import (
    acreate_collection,
    aquery_texts,
    attach,
    aupsert_texts,
    create_collection,
    query_texts,
    upsert_texts,
)


def pixels(shade):
    return np.full((40, 32, 3), shade, np.uint8)


def vector(client, identity, name="docs"):
    return client.retrieve(name, [identity], with_vectors=True)[0].vector


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "a.png"
    Pillow.fromarray(pixels(10)).save(path)
    return path


@pytest.fixture
def embedder(fake):
    return Embedder(fake.vision)


@pytest.fixture
def attached(client, embedder):
    attach(client, embedder)
    create_collection(client, "docs", embedder)
    return client


FORMS = {
    "path": lambda path: path,
    "bytes": Path.read_bytes,
    "base64": lambda path: base64.b64encode(path.read_bytes()).decode(),
    "data address": lambda path: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(),
    "pillow": lambda path: Pillow.open(path),
    "array": lambda path: pixels(10),
    "image": lambda path: Image(path),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_in_every_form_has_the_vector_of_the_embedder(attached, fake, embedder, png, form):
    image = models.Image(image=FORMS[form](png), model=fake.vision)
    attached.upsert("docs", [PointStruct(id=1, vector=image)])
    expected = embedder.embed_documents([Image(png)])[0]
    assert np.allclose(vector(attached, 1), expected, atol=1e-6)
    assert not np.allclose(vector(attached, 1), embedder.embed_documents([Image(pixels(20))])[0], atol=1e-3)


OBJECTS = {
    "text": ("a text", "a text"),
    "image": (Image(pixels(10)), Image(pixels(10))),
    "pair": ({"text": "a text", "image": pixels(10)}, {"text": "a text", "image": Image(pixels(10))}),
    "pair with base64": (
        {"image": base64.b64encode(Image(pixels(10)).to_png()).decode(), "text": "a text"},
        {"text": "a text", "image": Image(pixels(10))},
    ),
    "several pictures": (
        {"text": "a text", "image": [pixels(10), pixels(20)]},
        [Image(pixels(10)), Image(pixels(20)), "a text"],
    ),
    "texts alone": (["a ", "text"], "a text"),
    "mapping of a text": ({"text": "a text"}, "a text"),
    "no pictures": ({"text": "a text", "image": []}, "a text"),
    "null": ({"text": "a text", "image": None}, "a text"),
    "no text": ({"text": None, "image": [pixels(10)]}, Image(pixels(10))),
    "grey": (pixels(10)[:, :, 0], Image(np.repeat(pixels(10)[:, :, :1], 3, axis=2))),
    "sequence": (["a text", pixels(10)], [Image(pixels(10)), "a text"]),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_inference_objects_hold_what_the_embedder_takes(attached, fake, embedder, kind):
    held, same = OBJECTS[kind]
    attached.upsert("docs", [PointStruct(id=1, vector=InferenceObject(object=held, model=fake.vision))])
    assert np.allclose(vector(attached, 1), embedder.embed_documents([same])[0], atol=1e-6)


def test_writes_are_documents_and_queries_queries(attached, fake, embedder):
    image = models.Image(image=pixels(10), model=fake.vision)
    fake.texts.clear()
    attached.upsert("docs", models.Batch(ids=[1], vectors=[image]))
    attached.update_vectors("docs", [PointVectors(id=1, vector=image)])
    attached.upload_points("docs", [PointStruct(id=1, vector=image)])
    attached.upload_collection("docs", [image], ids=[1])
    embedder.embed_documents([Image(pixels(10))])
    assert len(fake.texts) == 5
    assert len(set(fake.texts)) == 1
    fake.texts.clear()
    asked = models.Image(image=pixels(10), model=fake.vision, options={"instruction": "Find red things"})
    attached.query_points("docs", query=asked)
    attached.query_batch_points("docs", [models.QueryRequest(query=asked)])
    attached.query_points("docs", prefetch=models.Prefetch(query=asked), query=asked)
    embedder.embed_query(Image(pixels(10)), instruction="Find red things")
    assert len(fake.texts) == 5
    assert len(set(fake.texts)) == 1
    assert "Find red things." in fake.texts[0]


def test_texts_and_pictures_of_one_batch_keep_their_places(attached, fake, embedder):
    held = [Document(text=f"text {n}", model=fake.vision) for n in range(3)]
    held[1:1] = [models.Image(image=pixels(n), model=fake.vision) for n in (10, 20)]
    attached.upsert("docs", [PointStruct(id=n, vector=one) for n, one in enumerate(held)])
    inputs = ["text 0", Image(pixels(10)), Image(pixels(20)), "text 1", "text 2"]
    for identity, expected in enumerate(embedder.embed_documents(inputs)):
        assert np.allclose(vector(attached, identity), expected, atol=1e-6)
    found = attached.query_points("docs", query=models.Image(image=pixels(20), model=fake.vision), limit=1)
    assert found.points[0].id == 2
    assert attached.query_points("docs", query=Document(text="text 2", model=fake.vision), limit=1).points[0].id == 4


def test_a_shorter_vector_of_a_picture(client, fake, embedder):
    attach(client, embedder)
    create_collection(client, "docs", embedder.with_dim(16))
    image = models.Image(image=pixels(10), model=fake.vision, options={"mrl": 16})
    client.upsert("docs", [PointStruct(id=1, vector=image)])
    expected = embedder.with_dim(16).embed_documents([Image(pixels(10))])[0]
    assert np.allclose(vector(client, 1), expected, atol=1e-6)


BROKEN = {
    "address": ("https://u:secret@x.example/secret.png", "is not fetched"),
    "file address": ("file:///etc/secret.png", "is not fetched"),
    "name of a file": ("pictures/a.png", "no base64.*a file is passed as a Path"),
    "missing file": (Path("missing.png"), "cannot be read"),
    "damaged": (b"\x89PNG\r\n\x1a\n" + bytes(40), "the picture cannot be read"),
    "shape": (np.zeros((3, 4, 5), np.uint8), "uint8 array"),
    "type": (3, "not int"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_one_broken_picture_is_named_by_its_place_before_anything_is_embedded(attached, fake, kind):
    broken, message = BROKEN[kind]
    fake.runs.clear()
    attached.local_inference_batch_size = 2
    held = [models.Image(image=pixels(10), model=fake.vision) for _ in range(6)]
    for bad in (
        models.Image(image=broken, model=fake.vision),
        InferenceObject(object={"text": "a", "image": broken}, model=fake.vision),
    ):
        held[3] = bad
        with pytest.raises((ArgumentError, ArgumentTypeError), match=rf"at index 3.*{message}") as caught:
            attached.upsert("docs", [PointStruct(id=n, vector=one) for n, one in enumerate(held)])
        assert caught.value.index == 3
        assert "secret" not in str(caught.value)
    assert (fake.runs, attached.count("docs").count) == ([], 0)


def test_a_string_is_never_the_path_of_a_picture(attached, fake, png, monkeypatch):
    """A name without a point and of the right length is base64, too: it must not become a file."""
    name = png.with_name("abcd")
    name.write_bytes(png.read_bytes())
    monkeypatch.chdir(png.parent)
    with pytest.raises(ArgumentError, match="a picture is a file in JPEG"):
        attached.query_points("docs", query=models.Image(image="abcd", model=fake.vision))
    fake.texts.clear()
    attached.query_points("docs", query=InferenceObject(object="abcd", model=fake.vision))
    assert fake.texts[0].rstrip().endswith("assistant")
    assert "abcd" in fake.texts[0]


def test_a_stream_names_the_place_in_the_whole_upload(attached, fake):
    def stream():
        for number in range(6):
            image = pixels(10) if number != 5 else b"no picture"
            yield PointStruct(id=number, vector=models.Image(image=image, model=fake.vision))

    with pytest.raises(ArgumentError, match="at index 5"):
        attached.upload_points("docs", stream(), batch_size=2)


@pytest.mark.parametrize("held", [models.Image, InferenceObject])
def test_a_model_of_texts_refuses_pictures_and_names_one_that_takes_them(client, fake, held):
    attach(client, Embedder(fake.qwen3))
    create_collection(client, "docs", Embedder(fake.qwen3))
    name = "image" if held is models.Image else "object"
    item = held(**{name: Image(pixels(10)), "model": fake.qwen3})
    text = Document(text="a", model=fake.qwen3)
    with pytest.raises(ArgumentTypeError, match=r"at index 1 holds an image.*one that takes images is") as caught:
        client.upsert("docs", [PointStruct(id=0, vector=text), PointStruct(id=1, vector=item)])
    assert caught.value.index == 1
    assert fake.loads == 0


def test_pictures_of_another_size_are_of_another_space(attached, fake, embedder):
    smaller = Embedder(fake.vision, max_pixels=65536)
    attach(attached, {"smaller": smaller})
    with pytest.raises(SpaceMismatchError, match="max_pixels"):
        attached.upsert("docs", [PointStruct(id=1, vector=models.Image(image=pixels(10), model="smaller"))])
    with pytest.raises(SpaceMismatchError, match="max_pixels"):
        upsert_texts(attached, "docs", smaller, [Image(pixels(10))])
    assert fake.runs == []


def test_each_picture_of_a_call_is_decoded_once(attached, fake, png, monkeypatch):
    decoded = []
    decode = Image._decode
    monkeypatch.setattr(Image, "_decode", lambda self: decoded.append(1) or decode(self))
    held = [models.Image(image=png, model=fake.vision) for _ in range(3)]
    attached.upsert("docs", [PointStruct(id=n, vector=one) for n, one in enumerate(held)])
    assert len(decoded) == 3


def test_other_names_fall_through_with_their_picture(attached, png):
    with pytest.raises(ValueError, match="nobody/knows"):
        attached.query_points("docs", query=models.Image(image=str(png), model="nobody/knows"))
    client = attached
    client.create_collection("free", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    asked = []
    inner = client._model_embedder.embedder
    inner.is_supported_image_model = lambda name: name == "some/clip"
    inner.embed = lambda model_name, texts, images, **rest: asked.append(images) or [[1.0, 0.0, 0.0, 0.0]]
    client.query_points("free", query=models.Image(image="a/path.png", model="some/clip"))
    assert asked == [["a/path.png"]]


async def test_an_async_client_takes_pictures(aclient, fake, embedder, png):
    attach(aclient, embedder)
    await aclient.create_collection(
        "docs", vectors_config=models.VectorParams(size=embedder.dim, distance=models.Distance.COSINE)
    )
    await aclient.upsert("docs", [PointStruct(id=1, vector=models.Image(image=png, model=fake.vision))])
    stored = (await aclient.retrieve("docs", [1], with_vectors=True))[0].vector
    assert np.allclose(stored, embedder.embed_documents([Image(png)])[0], atol=1e-6)
    with pytest.raises(ArgumentError, match="at index 0"):
        await aclient.query_points("docs", query=models.Image(image=b"x", model=fake.vision))
    assert fake.threads == {"embrief-model"}


class TestHelpers:
    ITEMS = (
        "a text",
        Image(pixels(10)),
        {"text": "both", "image": Image(pixels(20))},
        ["one", Image(pixels(30)), "two"],
    )

    def test_texts_pictures_and_both(self, client, embedder):
        create_collection(client, "docs", embedder)
        ids = upsert_texts(
            client, "docs", embedder, self.ITEMS, ids=[0, 1, 2, 3], payloads=[{"n": n} for n in range(4)]
        )
        for identity, expected in zip(ids, embedder.embed_documents(self.ITEMS), strict=True):
            assert np.allclose(vector(client, identity), expected, atol=1e-6)
        kept = client.retrieve("docs", ids)
        assert [point.payload for point in sorted(kept, key=lambda point: point.id)] == [
            {"document": "a text", "n": 0}, {"n": 1}, {"document": "both", "n": 2}, {"document": "one\ntwo", "n": 3}
        ]  # fmt: skip
        hits = query_texts(client, "docs", embedder, Image(pixels(10)), limit=1)
        assert [(hit.id, hit.text) for hit in hits] == [(1, None)]
        assert query_texts(client, "docs", embedder, "a text", limit=1)[0].id == 0

    async def test_async_twins(self, aclient, embedder):
        await aclient.create_collection(
            "docs", vectors_config=models.VectorParams(size=embedder.dim, distance=models.Distance.COSINE)
        )
        await aupsert_texts(aclient, "docs", embedder, self.ITEMS, ids=[0, 1, 2, 3])
        assert (await aquery_texts(aclient, "docs", embedder, Image(pixels(10)), limit=1))[0].id == 1

    def test_one_broken_picture_and_nothing_is_stored(self, client, fake, embedder, tmp_path):
        create_collection(client, "docs", embedder)
        (tmp_path / "a.png").write_bytes(b"no picture")
        with pytest.raises(ArgumentError, match=r"texts\[2\]") as caught:
            upsert_texts(client, "docs", embedder, ["a", "b", Image(tmp_path / "a.png")], batch_size=1)
        assert caught.value.index == 2
        assert (fake.runs, client.count("docs").count) == ([], 0)

    def test_a_model_of_texts_refuses_them(self, client, fake):
        embedder = Embedder(fake.qwen3)
        create_collection(client, "docs", embedder)
        with pytest.raises(ArgumentTypeError, match=r"texts\[1\] holds an image.*takes texts only"):
            upsert_texts(client, "docs", embedder, ["a", Image(pixels(10))])
        with pytest.raises(ArgumentTypeError, match="takes texts only"):
            query_texts(client, "docs", embedder, Image(pixels(10)))
        assert client.count("docs").count == 0

    def test_a_reranker_reads_pictures(self, client, fake, embedder):
        create_collection(client, "docs", embedder)
        shades = {0: 10, 1: 20}
        upsert_texts(client, "docs", embedder, [Image(pixels(shade)) for shade in shades.values()], ids=list(shades))
        reranker = Reranker(fake.vision_reranker)
        hits = query_texts(
            client, "docs", embedder, Image(pixels(20)), reranker=reranker, top_n=2,
            rerank_content=lambda hit: Image(pixels(shades[hit.id])),
        )  # fmt: skip
        assert [hit.id for hit in hits] == [1, 0]
        assert hits[0].rerank_score > hits[1].rerank_score
        with pytest.raises(ArgumentError, match="rerank_content="):
            query_texts(client, "docs", embedder, "q", reranker=reranker)
        with pytest.raises(ArgumentError, match=r"rerank_content=.*there is none"):
            query_texts(client, "docs", embedder, "q", rerank_content=lambda hit: "x")


async def test_pictures_are_decoded_off_the_event_loop(aclient, embedder, fake, png, decoding_threads):
    """In whatever form they come, and of everything that an asynchronous client is asked."""
    attach(aclient, embedder)
    await acreate_collection(aclient, "docs", embedder)
    image = models.Image(image=png.read_bytes(), model=fake.vision)
    nested = InferenceObject(object={"text": "a", "image": base64.b64encode(png.read_bytes()).decode()},
                             model=fake.vision)  # fmt: skip
    for call in (
        lambda: aclient.upsert("docs", [PointStruct(id=1, vector=image), PointStruct(id=2, vector=nested)]),
        lambda: aclient.update_vectors("docs", [PointVectors(id=1, vector=image)]),
        lambda: aclient.query_points("docs", query=image),
        lambda: aclient.query_points("docs", query=models.Image(image=Pillow.open(png), model=fake.vision)),
        lambda: aupsert_texts(aclient, "docs", embedder, [Image(png), (Image(png.read_bytes()), "a")]),
        lambda: aquery_texts(aclient, "docs", embedder, Image(png)),
    ):
        await call()
        assert decoding_threads
        assert threading.main_thread() not in decoding_threads
        decoding_threads.clear()
