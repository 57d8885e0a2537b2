"""Pictures in Chroma: arrays, uris, texts and pictures in one collection, what a collection keeps of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import chromadb
import numpy as np
import pytest
from PIL import Image as Pillow

from chroma_embrief import (
    GemmaEmbeddingFunction,
    ImageLoader,
    Qwen3EmbeddingFunction,
    Qwen3VLEmbeddingFunction,
    add_documents,
    arerank_results,
    open_collection,
    release_models,
    rerank_results,
)
from embrief import ArgumentError, ArgumentTypeError, Embedder, Image, ImageLimits, Reranker, SpaceMismatchError
from embrief.testing import FakeRuntime


@pytest.fixture
def fake():
    with FakeRuntime() as runtime:
        yield runtime


@pytest.fixture
def function(fake):
    return Qwen3VLEmbeddingFunction(fake.vision)


@pytest.fixture
def collection(chroma_client, function):
    return open_collection(chroma_client, "mixed", function)


def picture(shade, height=40, width=32):
    """Return pixels: a grey of its own, with a darker half, so that turning it makes another picture."""
    pixels = np.full((height, width, 3), shade, np.uint8)
    pixels[: height // 2] //= 2
    return pixels


def stored(collection, identity):
    return collection.get(ids=[identity], include=["embeddings"])["embeddings"][0]


def test_the_default_is_the_published_model():
    function = Qwen3VLEmbeddingFunction()
    assert function.get_config()["model"] == "Qwen/Qwen3-VL-Embedding-2B"


def test_pictures_of_every_write_have_the_vectors_of_the_embedder(collection, fake):
    embedder = Embedder(fake.vision)
    pixels = [picture(shade) for shade in (10, 20, 30, 40)]
    expected = embedder.embed_documents([Image(one) for one in pixels])
    assert np.array_equal(collection.configuration["embedding_function"](pixels), expected)
    assert not np.allclose(expected[0], expected[1], atol=1e-3)
    collection.add(ids=["a", "b"], images=pixels[:2])
    collection.upsert(ids=["b", "c"], images=pixels[1:3])
    collection.update(ids=["c"], images=[pixels[3]])
    for identity, row in (("a", 0), ("b", 1), ("c", 3)):
        assert np.allclose(stored(collection, identity), expected[row], atol=1e-6)


def test_a_query_is_a_query_and_a_document_a_document(collection, fake):
    fake.texts.clear()
    collection.add(ids=["a"], images=[picture(10)])
    collection.query(query_images=[picture(10)], n_results=1)
    document, query = fake.texts
    embedder = Embedder(fake.vision, instruction="Find red things")
    assert embedder.embed_documents([Image(picture(10))]).shape == (1, 64)
    assert document == fake.texts[-1]
    assert "Represent the user's input." in query
    embedder.embed_query(Image(picture(10)))
    assert "Find red things." in fake.texts[-1]


def test_texts_and_pictures_are_found_across(collection, function):
    """The fake knows no meaning: what is found is what has the same vector, whichever kind asked."""
    collection.add(ids=["picture"], images=[picture(10)])
    collection.add(ids=["text"], documents=["a text"])
    assert collection.query(query_images=[picture(10)], n_results=2)["ids"][0][0] == "picture"
    assert collection.query(query_texts=["a text"], n_results=2)["ids"][0][0] == "text"
    query = function.embed_query([{"text": "a text", "image": Image(picture(10))}])
    assert set(collection.query(query_embeddings=query, n_results=2)["ids"][0]) == {"picture", "text"}
    assert collection.get(ids=["picture", "text"])["documents"] == [None, "a text"]


@pytest.mark.parametrize(
    "broken", [np.zeros((4, 4), np.uint16), np.zeros((3, 4, 5), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_an_array_that_is_no_picture_is_refused_with_its_index_and_nothing_is_stored(collection, fake, broken):
    fake.runs.clear()
    for call in (collection.add, collection.upsert):
        with pytest.raises(ArgumentError, match=r"images\[1\]: pixels are a uint8 array") as caught:
            call(ids=["a", "b"], images=[picture(10), broken])
        assert caught.value.index == 1
    with pytest.raises(ArgumentError, match=r"images\[0\]"):
        collection.query(query_images=[broken])
    assert (collection.count(), fake.runs) == (0, [])


def test_a_model_of_texts_refuses_pictures_and_names_one_that_takes_them(chroma_client, fake):
    for kind, model in ((Qwen3EmbeddingFunction, fake.qwen3), (GemmaEmbeddingFunction, fake.gemma)):
        notes = open_collection(chroma_client, kind.__name__, kind(model))
        with pytest.raises(
            ArgumentTypeError, match=r"\[0\] holds an image.*takes texts only; one that takes"
        ) as caught:
            notes.add(ids=["a"], images=[picture(10)])
        assert caught.value.index == 0
        with pytest.raises(ArgumentTypeError, match="takes texts only"):
            add_documents(chroma_client, notes, ["text", Image(picture(10))], ids=["a", "b"])
        assert notes.count() == 0


def test_async_twins_take_pictures(function):
    pixels = picture(10)
    assert asyncio.run(function.aembed_documents([pixels]))[0].tolist() == function([pixels])[0].tolist()
    assert asyncio.run(function.aembed_query([pixels]))[0].tolist() == function.embed_query([pixels])[0].tolist()


class TestLoader:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "in").mkdir()
        Pillow.fromarray(picture(10)).save(tmp_path / "in" / "a.png")
        Pillow.fromarray(picture(20)).save(tmp_path / "outside.png")
        return tmp_path / "in"

    def test_pixels_are_what_a_model_sees(self, folder):
        exif = Pillow.Exif()
        exif[0x0112] = 6
        Pillow.fromarray(picture(10)).save(folder / "turned.png", exif=exif)
        clear = np.zeros((4, 4, 4), np.uint8)
        Pillow.fromarray(clear, "RGBA").save(folder / "clear.png")
        plain, turned, none, white = ImageLoader(folder=folder)(["a.png", "turned.png", None, "clear.png"])
        assert np.array_equal(plain, picture(10))
        assert np.array_equal(turned, np.rot90(picture(10), -1))
        assert none is None
        assert (white == 255).all()

    def test_uris_of_add_and_query_and_what_get_gives_back(self, chroma_client, function, folder, fake):
        notes = open_collection(chroma_client, "uris", function, data_loader=ImageLoader())
        uri = str(folder / "a.png")
        notes.add(ids=["a"], uris=[uri])
        notes.add(ids=["text"], documents=["a text"])
        expected = Embedder(fake.vision).embed_documents([Image(picture(10))])[0]
        assert np.allclose(stored(notes, "a"), expected, atol=1e-6)
        assert notes.query(query_uris=[uri], n_results=1)["ids"] == [["a"]]
        data = notes.get(ids=["a", "text"], include=["data", "uris"])
        assert np.array_equal(data["data"][0], picture(10))
        assert (data["data"][1], data["uris"]) == (None, [uri, None])
        again = open_collection(chroma_client, "uris", function, data_loader=ImageLoader())
        assert np.array_equal(again.get(ids=["a"], include=["data"])["data"][0], picture(10))

    def test_one_that_cannot_be_loaded_is_an_error_with_its_index_and_nothing_is_stored(
        self, chroma_client, function, folder
    ):
        (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:40])
        notes = open_collection(chroma_client, "uris", function, data_loader=ImageLoader(folder=folder))
        for uri in ("broken.png", "missing.png"):
            with pytest.raises(ArgumentError, match=r"uris\[1\]: ") as caught:
                notes.add(ids=["a", "b"], uris=["a.png", uri])
            assert caught.value.index == 1
        assert notes.count() == 0

    @pytest.mark.parametrize(
        "uri",
        [
            "https://u:secret@x.example/secret.png",
            "http://x/a.png",
            "FILE:///etc/a.png",
            "s3://b/k",
            "data:image/png;x",
        ],
    )
    def test_addresses_are_refused_unless_there_is_a_fetcher(self, folder, uri):
        with pytest.raises(ArgumentError, match=r"uris\[0\]: an address .* is not fetched") as caught:
            ImageLoader()([uri])
        assert "secret" not in str(caught.value)
        asked = []

        def fetch(address):
            asked.append(address)
            return (folder / "a.png").read_bytes()

        assert np.array_equal(ImageLoader(fetch=fetch)([uri])[0], picture(10))
        assert asked == [uri]

    @pytest.mark.parametrize("uri", [r"\\machine\share\a.png", "//machine/share/a.png", r"\\?\UNC\machine\a.png"])
    def test_other_machines_are_not_asked(self, uri):
        with pytest.raises(ArgumentError, match="on another machine"):
            ImageLoader()([uri])

    def test_a_folder_is_not_left(self, folder):
        loader = ImageLoader(folder=folder)
        outside = folder.parent / "outside.png"
        for uri in ("../outside.png", str(outside)):
            with pytest.raises(ArgumentError, match="not in the folder"):
                loader([uri])
        try:
            (folder / "link.png").symlink_to(outside)
        except OSError:
            pytest.skip("no symbolic links here")
        with pytest.raises(ArgumentError, match="not in the folder"):
            loader(["link.png"])

    def test_only_regular_files_are_read(self, folder):
        with pytest.raises(ArgumentError, match="no regular file"):
            ImageLoader()([str(folder)])
        with pytest.raises(ArgumentError, match="no file that can be read"):
            ImageLoader()(["a\0.png"])
        if hasattr(os, "mkfifo"):
            os.mkfifo(folder / "pipe.png")
            with pytest.raises(ArgumentError, match="no regular file"):
                ImageLoader(folder=folder)(["pipe.png"])

    def test_limits_hold(self, folder):
        with pytest.raises(ArgumentError, match="the limit is 100"):
            ImageLoader(folder=folder, limits=ImageLimits(max_pixels=100))(["a.png"])

    def test_wrong_arguments(self):
        with pytest.raises(ArgumentTypeError, match="folder is a Path"):
            ImageLoader(folder="pictures")
        with pytest.raises(ArgumentTypeError, match="fetch is called"):
            ImageLoader(fetch="https://")
        with pytest.raises(ArgumentTypeError, match=r"uris\[0\] is int"):
            ImageLoader()([3])


class TestAddDocuments:
    def test_texts_pictures_and_both_in_one_call(self, chroma_client, collection, fake, tmp_path):
        path = tmp_path / "a.png"
        Pillow.fromarray(picture(10)).save(path)
        items = ["a text", Image(path), {"text": "both", "image": Image(picture(20))}, picture(30)]
        ids = ["text", "picture", "both", "array"]
        uris = [None, str(path), None, None]
        add_documents(chroma_client, collection, items, ids=ids, uris=uris, batch_size=2)
        expected = Embedder(fake.vision).embed_documents([*items[:3], Image(picture(30))])
        for identity, vector in zip(ids, expected, strict=True):
            assert np.allclose(stored(collection, identity), vector, atol=1e-6)
        kept = collection.get(ids=ids, include=["documents", "uris"])
        assert dict(zip(kept["ids"], kept["documents"], strict=True)) == {
            "text": "a text", "picture": None, "both": "both", "array": None
        }  # fmt: skip
        assert dict(zip(kept["ids"], kept["uris"], strict=True)) == dict(zip(ids, uris, strict=True))

    def test_one_broken_picture_of_a_later_batch_and_nothing_is_stored(self, chroma_client, collection, fake, tmp_path):
        fake.runs.clear()
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
        items = [Image(picture(10)), "text", Image(tmp_path / "a.png")]
        with pytest.raises(ArgumentError, match=r"\[2\]") as caught:
            add_documents(chroma_client, collection, items, ids=["a", "b", "c"], batch_size=1)
        assert caught.value.index == 2
        assert (collection.count(), fake.runs) == (0, [])

    def test_what_is_neither_text_nor_picture_is_named_by_its_place(self, chroma_client, collection):
        with pytest.raises(ArgumentTypeError, match=r"documents\[1\] is int"):
            add_documents(chroma_client, collection, [Image(picture(10)), 3], ids=["a", "b"])
        with pytest.raises(ArgumentTypeError, match=r"documents\[0\] is dict"):
            add_documents(chroma_client, collection, [{"text": None, "image": []}], ids=["a"])

    def test_uris_are_kept_with_texts_and_never_loaded(self, chroma_client, function):
        def loader(uris):
            raise AssertionError(uris)

        notes = open_collection(chroma_client, "uris", function, data_loader=loader)
        add_documents(chroma_client, notes, ["a text"], ids=["a"], uris=["somewhere.png"])
        assert notes.get(ids=["a"], include=["uris", "documents"])["uris"] == ["somewhere.png"]
        with pytest.raises(ArgumentTypeError, match=r"uris\[0\] is int"):
            add_documents(chroma_client, notes, ["a text"], ids=["a"], uris=[3])
        with pytest.raises(ArgumentError, match="2 uris for 1 documents"):
            add_documents(chroma_client, notes, ["a text"], ids=["a"], uris=["a", "b"])

    def test_a_collection_of_another_function_needs_ours(self, chroma_client):
        class Foreign(chromadb.EmbeddingFunction):
            def __init__(self):
                pass

            def __call__(self, input):
                return [np.ones(4, np.float32) for _ in input]

        notes = chroma_client.create_collection("foreign", embedding_function=Foreign())
        with pytest.raises(ArgumentError, match="uris= need an embedding function of ours"):
            add_documents(chroma_client, notes, ["a"], ids=["a"], uris=["x"])
        with pytest.raises(ArgumentTypeError, match=r"documents\[0\] is Image"):
            add_documents(chroma_client, notes, [Image(picture(10))], ids=["a"])
        add_documents(chroma_client, notes, ["a"], ids=["a"])
        assert notes.count() == 1


class TestKept:
    def test_what_is_not_said_is_not_kept(self, fake):
        keys = set(Qwen3VLEmbeddingFunction(fake.vision).get_config())
        assert keys == set(Qwen3EmbeddingFunction("embrief/hash").get_config())

    def test_what_is_said_is_kept_and_comes_back(self, fake):
        function = Qwen3VLEmbeddingFunction(fake.vision, max_pixels=65536)
        config = json.loads(json.dumps(function.get_config()))
        assert config["max_pixels"] == config["space"]["max_pixels"] == 65536
        assert "special_tokens" not in config
        rebuilt = Qwen3VLEmbeddingFunction.build_from_config(config)
        assert rebuilt == function
        assert rebuilt.embedder.settings.max_pixels == 65536
        assert rebuilt.space == function.space
        assert "max_pixels=65536" in repr(rebuilt)
        plain = Qwen3EmbeddingFunction(fake.qwen3, special_tokens="text")
        assert plain.get_config()["special_tokens"] == "text"
        again = Qwen3EmbeddingFunction.build_from_config(plain.get_config())
        assert again.embedder.settings.special_tokens == "text"

    @pytest.mark.parametrize(
        "change",
        [{"max_pixels": 0}, {"max_pixels": "1"}, {"max_pixels": None}, {"special_tokens": "x"}, {"special_tokens": 1}],
    )
    def test_a_tampered_configuration_is_refused(self, function, change):
        with pytest.raises(ArgumentError, match="Config validation failed"):
            Qwen3VLEmbeddingFunction.build_from_config({**function.get_config(), **change})

    def test_a_configuration_that_says_another_size_than_its_space_is_refused(self, fake):
        config = Qwen3VLEmbeddingFunction(fake.vision, max_pixels=65536).get_config()
        del config["max_pixels"]
        with pytest.raises(SpaceMismatchError, match="max_pixels"):
            Qwen3VLEmbeddingFunction.build_from_config(config).embed_query(["q"])

    def test_another_size_is_another_space(self, chroma_client, fake, function):
        open_collection(chroma_client, "mixed", function)
        other = Qwen3VLEmbeddingFunction(fake.vision, max_pixels=65536)
        with pytest.raises(SpaceMismatchError, match="max_pixels"):
            open_collection(chroma_client, "mixed", other)
        with pytest.raises(SpaceMismatchError, match="max_pixels"):
            chroma_client.get_collection("mixed", embedding_function=other)
        with pytest.raises(SpaceMismatchError, match="max_pixels"):
            function.validate_config_update(function.get_config(), other.get_config())

    def test_special_tokens_as_text_is_another_space(self, chroma_client, fake):
        open_collection(chroma_client, "notes", Qwen3EmbeddingFunction(fake.qwen3))
        with pytest.raises(SpaceMismatchError, match="special_tokens"):
            open_collection(chroma_client, "notes", Qwen3EmbeddingFunction(fake.qwen3, special_tokens="text"))

    def test_a_reopened_collection_asks_with_what_it_keeps(self, open_client, fake):
        function = Qwen3VLEmbeddingFunction(fake.vision, max_pixels=65536, instruction="Find it")
        open_collection(open_client(), "mixed", function).add(ids=["a"], images=[picture(10)])
        release_models()
        fake.texts.clear()
        again = open_client().get_collection("mixed")
        assert again.query(query_images=[picture(10)], n_results=1)["ids"] == [["a"]]
        assert "Find it." in fake.texts[-1]
        assert again.configuration["embedding_function"].embedder.settings.max_pixels == 65536

    def test_another_class_says_which_one_made_it(self, chroma_client, fake, function):
        open_collection(chroma_client, "mixed", function)
        with pytest.raises(ArgumentError, match="was made with Qwen3VLEmbeddingFunction"):
            open_collection(chroma_client, "mixed", Qwen3EmbeddingFunction(fake.vision))


class TestReranking:
    @pytest.fixture
    def found(self, chroma_client, function, tmp_path):
        for name, shade in {"a.png": 10, "b.png": 20}.items():
            Pillow.fromarray(picture(shade)).save(tmp_path / name)
        notes = open_collection(chroma_client, "uris", function, data_loader=ImageLoader(folder=tmp_path))
        items = [Image(picture(10)), {"text": "a caption", "image": Image(picture(20))}, "a text"]
        add_documents(chroma_client, notes, items, ids=["a", "b", "text"], uris=["a.png", "b.png", None])
        return notes.query(query_images=[picture(10)], n_results=3, include=["documents", "data"])

    def test_pictures_and_texts_are_read_together(self, found, fake):
        best = rerank_results(found, picture(20), Reranker(fake.vision_reranker), top_n=2)
        assert best["ids"][0][0] == "b"
        assert np.array_equal(best["data"][0][0], picture(20))
        assert sorted((len(pair.images), "a caption" in pair.shown) for pair in fake.pairs) == [
            (1, False), (2, False), (2, True)
        ]  # fmt: skip
        again = asyncio.run(arerank_results(found, [picture(20)], Reranker(fake.vision_reranker), top_n=2))
        assert again["ids"] == best["ids"]
        texts = rerank_results(found, "a caption", Reranker(fake.vision_reranker))
        assert texts["ids"][0][0] == "b"

    def test_a_reranker_of_texts_reads_texts_and_refuses_the_rest(self, found, fake):
        with pytest.raises(ArgumentError, match=r"record 'a' has no document.*include=\['data'"):
            rerank_results(found, "a caption", Reranker(fake.reranker))
        captioned = {
            key: [[value for value, identity in zip(column[0], found["ids"][0], strict=True) if identity != "a"]]
            for key, column in found.items()
            if key in ("ids", "documents", "data")
        }
        assert rerank_results(captioned, "a caption", Reranker(fake.reranker))["ids"] == [["b", "text"]]
        with pytest.raises(ArgumentTypeError, match="takes texts only"):
            rerank_results(captioned, picture(10), Reranker(fake.reranker))

    def test_one_query_of_both_is_one_and_a_broken_one_is_named(self, found, fake):
        judge = Reranker(fake.vision_reranker)
        both = {"text": "a caption", "image": Image(picture(10))}
        assert rerank_results(found, both, judge) == rerank_results(found, [both], judge)
        twice = {key: [column[0]] * 2 for key, column in found.items() if key in ("ids", "documents", "data")}
        with pytest.raises(ArgumentError, match=r"queries\[1\]: a picture is a file in") as caught:
            rerank_results(twice, ["a", Image(b"<html>")], judge)
        assert caught.value.index == 1


REOPEN = """
import sys, chromadb, chroma_embrief
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], Settings(anonymized_telemetry=False))
function = client.get_collection("mixed").configuration["embedding_function"]
print(type(function).__name__, function.embedder.settings.max_pixels, function.space.id)
"""


def test_a_fresh_process_knows_the_function_and_its_space(tmp_path, open_client):
    function = Qwen3VLEmbeddingFunction(max_pixels=65536)
    open_collection(open_client(), "mixed", function)
    command = [sys.executable, "-c", REOPEN, str(tmp_path / "db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["Qwen3VLEmbeddingFunction", "65536", function.space.id]


def test_a_space_of_pictures_survives_the_stamp(function):
    config = function.get_config()
    space = function.space
    assert replace(space, label="").to_json() == config["space"]
    assert {"min_pixels", "max_pixels", "document_tail"} <= set(config["space"])


async def test_pictures_are_decoded_off_the_event_loop(fake, function, decoding_threads):
    file, reranker = Image(picture(90)).to_png(), Reranker(fake.vision_reranker)
    found = {"ids": [["1", "2"]], "documents": [["a", "b"]], "metadatas": None, "distances": None}
    for call in (
        lambda: arerank_results(found, [Image(file)], reranker),
        lambda: function.aembed_documents([Image(file), (Image(file), "a")]),
        lambda: function.aembed_query([Image(file)]),
    ):
        await call()
        assert decoding_threads
        assert threading.main_thread() not in decoding_threads
        decoding_threads.clear()
