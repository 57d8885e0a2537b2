"""What the page shows of pictures, and how it asks with one. Without a browser."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
pytest.importorskip("chromadb", reason="the extra `chroma` is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")

from PIL import Image as Pillow

from embrief import Embedder, Image, Reranker
from embrief.indexing import table
from embrief.indexing.workspace import Workspace
from embrief.server.keys import FileKeys
from embrief.server.models import ServedModels
from embrief.server.page.app import page
from embrief.server.page.shelf import identity
from embrief.server.settings import Limits
from embrief.testing import FakeRuntime

RED, GREEN = (200, 0, 0), (0, 200, 0)


def picture(colour, size=(1200, 30), form="PNG") -> bytes:
    made = io.BytesIO()
    Pillow.new("RGB", size, colour).save(made, form)
    return made.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@pytest.fixture(scope="module")
def fake():
    with FakeRuntime() as found:
        yield found


@pytest.fixture(scope="module")
def places(tmp_path_factory, fake):
    """A workspace with the collections `album` (pictures and a text) and `notes` (texts), and the album's folder."""
    with pytest.MonkeyPatch.context() as patch:
        data = tmp_path_factory.mktemp("data")
        patch.setattr(table, "user_folder", lambda kind: data)
        album, notes = tmp_path_factory.mktemp("album"), tmp_path_factory.mktemp("notes")
        (album / "red.png").write_bytes(picture(RED))
        (album / "green.jpg").write_bytes(picture(GREEN, form="JPEG"))
        (album / "words.md").write_text("A red planet.\n", "utf-8")
        (notes / "words.md").write_text("A red planet.\n", "utf-8")
        with Workspace(idle_seconds=0.0) as found:
            found.update([album], "album", model=fake.vision)
            found.update([notes], "notes", model=fake.qwen3)
            yield found, album


@pytest.fixture
def looking(serving, places, fake):
    def make(**settings):
        models = ServedModels(
            {"read": Embedder(fake.qwen3), "see": Embedder(fake.vision)},
            {"judge": Reranker(fake.vision_reranker), "plain": Reranker(fake.reranker)},
        )
        return serving(models, mounted=page(places[0]), lazy=True, **settings)

    return make


@pytest.fixture
def ids(places) -> dict[str, str]:
    return {info.name: identity(info) for info in places[0].collections()}


async def posted(client, path, status=200, headers=None, **body):
    got = await client.post(f"/ui/api/{path}", json=body, headers=headers)
    assert got.status_code == status, got.text
    return got if path == "picture" else got.json()


def drawn(got) -> np.ndarray:
    assert got.headers["content-type"] == "image/jpeg"
    assert got.headers["x-content-type-options"] == "nosniff"
    with Pillow.open(io.BytesIO(got.content), formats=["JPEG"]) as found:
        return np.asarray(found.convert("RGB"))


async def test_a_picture_that_was_found_is_shown_small(looking, ids):
    async with looking() as client:
        found = await posted(client, "search", question="a red planet", collection=ids["album"])
        rows = {row["path"]: row for row in found["documents"]}
        assert {path: row["kind"] for path, row in rows.items()} == {
            "red.png": "image", "green.jpg": "image", "words.md": "markdown",
        }  # fmt: skip
        assert (rows["words.md"]["picture"], rows["words.md"]["start_line"]) == (None, 1)
        assert (rows["red.png"]["text"], rows["red.png"]["start_line"], rows["red.png"]["tokens"]) == ("", None, None)
        shown = drawn(await posted(client, "picture", collection=ids["album"], picture=rows["red.png"]["picture"]))
        assert shown.shape == (13, 512, 3)
        np.testing.assert_allclose(shown.mean((0, 1)), RED, atol=4)


async def test_no_other_file_is_shown(looking, ids, places, tmp_path):
    """Only what a search found, to those who may read its collection, as long as the file is what was indexed."""
    keys = tmp_path / "keys"
    keys.write_text("all:s3cret-all\nsome:s3cret-some collections=notes\n")
    whole, some = ({"authorization": f"Bearer s3cret-{name}"} for name in ("all", "some"))
    _, album = places
    async with looking(keys=FileKeys(keys)) as client:
        found = await posted(client, "search", headers=whole, question="a", collection=ids["album"])
        rows = {row["path"]: row for row in found["documents"]}
        there = {"collection": ids["album"], "picture": rows["green.jpg"]["picture"]}
        assert (await client.post("/ui/api/picture", json=there)).status_code == 401
        assert (await posted(client, "picture", 404, headers=some, **there)).json()["error"]["code"] == (
            "collection_not_found"
        )
        # Through a collection that may be read there is no way to another's.
        await posted(client, "picture", 404, headers=some, **{**there, "collection": ids["notes"]})
        for name in ("../secret", str(album / "red.png"), "", "words.md"):
            await posted(client, "picture", 404, headers=whole, **{**there, "picture": name})
        drawn(await posted(client, "picture", headers=whole, **there))
        before = (album / "green.jpg").read_bytes()
        try:
            for other in (picture(RED), b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>"):
                (album / "green.jpg").write_bytes(other)
                gone = await posted(client, "picture", 404, headers=whole, **there)
                assert gone.json()["error"]["code"] == "picture_not_found"
        finally:
            (album / "green.jpg").write_bytes(before)


async def test_a_picture_finds_what_looks_like_it(looking, ids, fake):
    async with looking() as client:
        found = await posted(client, "search", question="", image=encoded(picture(RED)), collection=ids["album"])
        best = found["sides"][0]["nearest"][0]
        assert found["documents"][best["document"]]["path"] == "red.png"
        own = Embedder(fake.vision).embed_query(Image(picture(RED)))
        there = Embedder(fake.vision).embed_documents([Image(picture(RED))])[0]
        assert best["score"] == pytest.approx(float(own @ there), abs=1e-5)
        both = await posted(client, "search", question="a planet", image=encoded(picture(RED)), collection=ids["album"])
        own = Embedder(fake.vision).embed_query((Image(picture(RED)), "a planet"))
        assert both["sides"][0]["nearest"][0]["score"] == pytest.approx(float(own @ there), abs=1e-5)
        texts = await posted(
            client, "search", question="", image=encoded(picture(RED)), texts=["a", "b"], model="see", reranker="judge"
        )
        assert len(texts["sides"][0]["reranked"]) == 2


async def test_a_reranker_looks_at_pictures_or_is_not_asked(looking, ids, fake):
    async with looking() as client:
        found = await posted(
            client, "search", question="red", image=encoded(picture(RED)), collection=ids["album"], reranker="judge"
        )
        scores = {found["documents"][row["document"]]["path"]: row["score"] for row in found["sides"][0]["reranked"]}
        documents = [Image(picture(RED)), Image(picture(GREEN, form="JPEG")), "A red planet."]
        own = Reranker(fake.vision_reranker).score((Image(picture(RED)), "red"), documents)
        np.testing.assert_allclose([scores[name] for name in ("red.png", "green.jpg", "words.md")], own, atol=1e-6)
        assert own[0] > own[1]
        plain = await posted(client, "search", question="red", collection=ids["album"], reranker="plain")
        assert (plain["not_asked"], plain["reranker"], plain["sides"][0]["reranked"]) == ("plain", None, None)
        words = await posted(client, "search", question="red", collection=ids["notes"], reranker="plain")
        assert words["not_asked"] is None
        assert words["sides"][0]["reranked"]


async def test_what_cannot_be_asked_with(looking, ids):
    async with looking(limits=Limits(max_image_pixels=1000)) as client:
        body = {"question": "", "collection": ids["album"]}
        for image, told in (
            (encoded(b"<html>"), "image: "),
            (encoded(picture(RED)), "the limit is 1,000"),
            ("https://example.org/a.png", "addresses are not fetched"),
        ):
            got = await posted(client, "search", 400, **body, image=image)
            assert told in got["error"]["message"]
        small = encoded(picture(RED, (30, 30)))
        got = await posted(client, "search", 400, question="", collection=ids["notes"], image=small)
        assert got["error"]["code"] == "no_images"
        got = await posted(client, "search", 400, question="", texts=["a"], model="read", image=small)
        assert got["error"]["message"] == "'read' takes texts only; for pictures there is: see"


async def test_which_can_be_asked_with_a_picture_is_told(looking):
    async with looking() as client:
        told = (await client.get("/ui/api/choices")).json()
    assert {row["name"]: row["takes_pictures"] for row in told["collections"]} == {"album": True, "notes": False}
    assert {row["name"]: row["modalities"] for row in told["models"]} == {"read": ["text"], "see": ["text", "image"]}


async def test_pictures_that_the_operator_does_not_want_are_not_decoded(looking, ids):
    small = encoded(picture(RED, (30, 30)))
    async with looking(limits=Limits(max_images=0)) as client:
        for where in ({"collection": ids["album"]}, {"texts": ["a"], "model": "see"}):
            got = await posted(client, "search", 413, question="", image=small, **where)
            assert got["error"]["code"] == "too_many_images"
