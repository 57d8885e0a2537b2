"""What the helpers of both stores check before the first text is embedded, and what is said if they fail half-way."""

from __future__ import annotations

import asyncio
import io

import chromadb
import numpy as np
import pandas as pd
import pytest
from chromadb.config import Settings
from qdrant_client import AsyncQdrantClient, QdrantClient

from chroma_embrief import GemmaEmbeddingFunction, Qwen3EmbeddingFunction, add_documents, open_collection
from embrief import ArgumentError, ArgumentTypeError, BackendError, Embedder, InputTooLongError, PartlyStoredError
from embrief.testing import FakeRuntime
from qdrant_embrief import (
    acheck_collection,
    acreate_collection,
    aquery_texts,
    aupsert_texts,
    check_collection,
    create_collection,
    point_id,
    query_texts,
    space_metadata,
    upsert_texts,
    vectors_config,
)

COUNT = 301
HALF = "half \ud800 a pair"


@pytest.fixture(params=["whole calls", "batches"])
def fake(request):
    with FakeRuntime(batch_tokens=512 if request.param == "batches" else None) as runtime:
        yield runtime


class Qdrant:
    """The Qdrant helper behind one signature."""

    def __init__(self, embedder):
        self.client, self.embedder = QdrantClient(":memory:"), embedder
        create_collection(self.client, "docs", embedder)

    def store(self, texts, **columns):
        if "metadatas" in columns:
            columns["payloads"] = columns.pop("metadatas")
        return upsert_texts(self.client, "docs", self.embedder, texts, **columns)

    def count(self):
        return self.client.count("docs").count

    def close(self):
        self.client.close()


class AsyncQdrant(Qdrant):
    """Its twin."""

    def __init__(self, embedder):
        self.client, self.embedder = AsyncQdrantClient(":memory:"), embedder
        asyncio.run(acreate_collection(self.client, "docs", embedder))

    def store(self, texts, **columns):
        if "metadatas" in columns:
            columns["payloads"] = columns.pop("metadatas")
        return asyncio.run(aupsert_texts(self.client, "docs", self.embedder, texts, **columns))

    def count(self):
        return asyncio.run(self.client.count("docs")).count

    def close(self):
        asyncio.run(self.client.close())


class Chroma:
    """The Chroma helper, with the function passed to it."""

    passes = True

    def __init__(self, embedder):
        kind = GemmaEmbeddingFunction if "gemma" in embedder.settings.model else Qwen3EmbeddingFunction
        self.function = kind(embedder=embedder)
        self.client = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
        self.close()
        self.collection = open_collection(self.client, "docs", self.function)

    def store(self, texts, **columns):
        if "ids" not in columns:
            columns["ids"] = [str(number) for number in range(COUNT)]
        function = self.function if self.passes else None
        add_documents(self.client, self.collection, texts, embedding_function=function, **columns)

    def count(self):
        return self.collection.count()

    def close(self):
        for collection in self.client.list_collections():
            self.client.delete_collection(collection.name)


class ChromasOwn(Chroma):
    """The Chroma helper, with the collection's own function."""

    passes = False


STORES = [Qdrant, AsyncQdrant, Chroma, ChromasOwn]


@pytest.fixture
def opened():
    stores = []

    def open_store(kind, embedder):
        stores.append(kind(embedder))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def texts_with(index, text):
    texts = [f"text {number}" for number in range(COUNT)]
    texts[index] = text
    return texts


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        (HALF, ArgumentError, r"\[300\] holds half a surrogate pair"),
        (None, ArgumentTypeError, r"\[300\] is NoneType"),
        (float("nan"), ArgumentTypeError, r"\[300\] is float.*missing"),
        (b"bytes", ArgumentTypeError, r"\[300\] is bytes.*decode"),
        ("one two three four five six", InputTooLongError, "at index 300 has 6 tokens"),
    ],
    ids=["half", "none", "nan", "bytes", "long"],
)
def test_the_last_text_is_checked_before_the_first_is_embedded(opened, fake, kind, text, error, match):
    store = opened(kind, Embedder(fake.qwen3, max_tokens=5, truncate="error"))
    with pytest.raises(error, match=match) as caught:
        store.store(texts_with(300, text))
    assert caught.value.index == 300
    assert (store.count(), fake.texts) == (0, [])
    store.store(texts_with(300, "fine"))
    assert store.count() == COUNT


@pytest.mark.parametrize("kind", STORES)
def test_ids_and_what_belongs_to_the_texts_is_checked_too(opened, fake, kind):
    store = opened(kind, Embedder(fake.qwen3))
    ids = [str(number) for number in range(1, COUNT + 1)]
    for columns, error, match in (
        ({"ids": [*ids[:-1], HALF]}, ArgumentError, r"ids\[300\].*half a surrogate"),
        ({"metadatas": [{"a": "b"}] * 300 + [{"a": HALF}]}, ArgumentError, r"\[300\]\['a'\] holds half"),
        ({"metadatas": [{"a": "b"}] * 300 + [{HALF: "a"}]}, ArgumentError, r"a key of \w+\[300\] holds half"),
        ({"metadatas": [{"a": "b"}] * 300 + [{"a": object()}]}, ValueError, None),
        ({"metadatas": pd.DataFrame({"a": range(COUNT)})}, ArgumentTypeError, "a table"),
        ({"metadatas": {"a": 1}}, ArgumentTypeError, r"\.values\(\)"),
        ({"ids": set(ids)}, ArgumentTypeError, "sorted"),
        ({"ids": "1" * COUNT}, ArgumentTypeError, "one string"),
        ({"ids": io.StringIO("1\n" * COUNT)}, ArgumentTypeError, "open file"),
        ({"ids": np.array("1")}, ArgumentTypeError, r"\.item\(\)"),
        ({"ids": ids[:-1]}, ArgumentError, "300 ids for 301"),
        ({"batch_size": True}, ArgumentTypeError, "whole number"),
        ({"batch_size": 2.0}, ArgumentTypeError, "whole number"),
        ({"batch_size": np.int64(0)}, ArgumentError, "batch_size=0"),
    ):
        with pytest.raises(error, match=match):
            store.store(texts_with(0, "first"), **columns)
        assert (store.count(), fake.texts) == (0, []), columns
    for texts in (pd.DataFrame({"t": ["a"]}), {"a": "b"}, {"a"}, io.StringIO("a"), np.array("a"), "abc", b"abc"):
        with pytest.raises(ArgumentTypeError, match="is a list"):
            store.store(texts)
    # What has an order passes, a generator among it; numpy's integers are numbers.
    store.store(
        (text for text in texts_with(0, "first")),
        ids=pd.Series(ids),
        metadatas=iter([{"a": 1}] * COUNT),
        batch_size=np.int64(100),
    )
    assert store.count() == COUNT


@pytest.mark.parametrize("kind", [Qdrant, AsyncQdrant, Chroma])
def test_titles_are_checked_before_the_first_text_is_embedded(opened, fake, kind):
    for name, title, match in (
        ("gemma", HALF, r"titles\[300\] holds half"),
        ("gemma", 3, r"titles\[300\] is int"),
        ("qwen3", "title", "no place for a title"),
    ):
        store = opened(kind, Embedder(getattr(fake, name)))
        with pytest.raises((ArgumentError, ArgumentTypeError), match=match) as caught:
            store.store(texts_with(0, "first"), titles=[None] * 300 + [title])
        assert caught.value.index == 300
        assert (store.count(), fake.texts) == (0, [])


@pytest.mark.parametrize("kind", STORES)
def test_a_failure_half_way_names_what_is_stored_and_how_to_go_on(opened, fake, kind):
    store, broken = opened(kind, Embedder(fake.qwen3)), True

    def fault(texts):
        if broken and "text 150" in texts:
            raise RuntimeError("the machine is on fire")

    fake.fault = fault
    texts, ids = texts_with(0, "first"), [str(number) for number in range(1, COUNT + 1)]
    if isinstance(store, Qdrant):
        ids = list(range(1, COUNT + 1))
    match = r"100 of 301 texts are stored.*from text 100 on.*the machine is on fire"
    with pytest.raises(PartlyStoredError, match=match) as caught:
        store.store(texts, ids=ids, batch_size=100)
    assert isinstance(caught.value, RuntimeError)
    assert (caught.value.stored, caught.value.ids) == (100, ids[:100])
    assert store.count() == 100
    broken = False
    store.store(texts[caught.value.stored :], ids=ids[caught.value.stored :])
    assert store.count() == COUNT


def test_an_id_that_was_made_up_is_named_too(opened, fake):
    store, calls = opened(Qdrant, Embedder(fake.qwen3)), []
    upsert = store.client.upsert

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise ConnectionError("the server is gone")
        return upsert(*arguments, **options)

    store.client.upsert = failing
    with pytest.raises(PartlyStoredError, match="ConnectionError: the server is gone") as caught:
        store.store(texts_with(0, "first"))
    assert caught.value.stored == 256
    assert {point.id for point in store.client.scroll("docs", limit=COUNT)[0]} == set(caught.value.ids)
    assert caught.value.index is None


@pytest.mark.parametrize("kind", [Qdrant, Chroma])
def test_an_interruption_stays_one_and_says_what_is_stored(opened, fake, kind, monkeypatch):
    store = opened(kind, Embedder(fake.qwen3))
    kind_of_target = type(store.client if kind is Qdrant else store.collection)
    upsert, calls = kind_of_target.upsert, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return upsert(*arguments, **options)

    monkeypatch.setattr(kind_of_target, "upsert", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        store.store(texts_with(0, "first"))
    assert "256 of 301 texts are stored" in caught.value.__notes__[0]


def test_an_error_in_the_first_batch_passes_as_it_is(opened, fake):
    def fault(texts):
        raise OSError("no")

    store = opened(Qdrant, Embedder(fake.qwen3))
    fake.fault = fault
    with pytest.raises(BackendError):
        store.store(["a", "b"])


def test_an_embedder_checks_documents_without_computing(fake):
    embedder, gemma = Embedder(fake.qwen3, max_tokens=3, truncate="error"), Embedder(fake.gemma)
    embedder.check_documents(["one two", "three"])
    embedder.check_documents([])
    with pytest.raises(InputTooLongError, match="index 2") as caught:
        embedder.check_documents(["one", "one", "one two three four"])
    assert caught.value.index == 2
    with pytest.raises(InputTooLongError):
        asyncio.run(embedder.acheck_documents(["one two three four"]))
    with pytest.raises(ArgumentTypeError, match=r"titles\[1\]"):
        gemma.check_documents(["a", "b"], titles=["t", 1])
    assert fake.texts == fake.runs == []


@pytest.mark.parametrize("backend", ["engine", "sentence-transformers"])
def test_a_title_that_fills_the_limit_is_found_beforehand(gemma_folder, backend):
    embedder = Embedder(gemma_folder, max_tokens=24, truncate="silent", backend=backend, dtype="float32")
    titles = [None, "word " * 40]
    embedder.check_documents(["long text " * 40, "short"], titles=None)
    with pytest.raises(InputTooLongError, match="leaves no room for text") as caught:
        embedder.check_documents(["long text " * 40, "long text " * 40], titles=titles)
    assert caught.value.index == 1
    with pytest.raises(InputTooLongError, match="leaves no room for text"):
        Embedder(gemma_folder, max_tokens=3, truncate="silent", backend=backend, dtype="float32").check_documents(
            ["a b"]
        )


def test_a_payload_that_is_no_json_is_refused_with_its_index(opened, fake):
    store = opened(Qdrant, Embedder(fake.qwen3))
    for value in (np.int64(3), object(), {"a": [np.float32(1)]}):
        with pytest.raises(ArgumentError, match=r"payloads\[1\] cannot be stored as JSON") as caught:
            store.store(["a", "b"], metadatas=[{}, {"n": value}])
        assert caught.value.index == 1
    assert (store.count(), fake.texts) == (0, [])


def test_ids_of_numpy_are_ids():
    for kind in (np.int64, np.uint64, np.int8):
        assert type(point_id(kind(5))) is int
    assert point_id(np.uint64(2**64 - 1)) == 2**64 - 1
    for wrong in (np.True_, np.float64(1), True):
        with pytest.raises(ArgumentTypeError):
            point_id(wrong)


def test_one_embedder_for_a_named_vector(fake):
    client, embedder = QdrantClient(":memory:"), Embedder(fake.qwen3)
    assert create_collection(client, "docs", embedder, using="dense")
    assert not create_collection(client, "docs", embedder, using="dense")
    check_collection(client, "docs", embedder, using="dense")
    assert vectors_config(embedder, using="dense") == vectors_config({"dense": embedder})
    assert space_metadata(embedder, using="dense") == space_metadata({"dense": embedder})
    upsert_texts(client, "docs", embedder, ["red planet", "gas giant"], ids=[1, 2], using="dense")
    assert query_texts(client, "docs", embedder, "red planet", using="dense", limit=1)[0].id == 1
    assert set(client.retrieve("docs", [1], with_vectors=True)[0].vector) == {"dense"}
    for call in (
        lambda: upsert_texts(client, "docs", embedder, ["a"]),
        lambda: upsert_texts(client, "docs", {"dense": embedder}, ["a"], using="dense"),
        lambda: check_collection(client, "docs", embedder, using="other"),
        lambda: create_collection(client, "more", {"dense": embedder}, using="dense"),
    ):
        with pytest.raises(ArgumentError):
            call()
    with pytest.raises(ArgumentTypeError, match="using is the name of a vector"):
        upsert_texts(client, "docs", embedder, ["a"], using=3)
    client.close()


async def test_one_embedder_for_a_named_vector_on_an_event_loop(fake):
    client, embedder = AsyncQdrantClient(":memory:"), Embedder(fake.qwen3, instruction="")
    assert await acreate_collection(client, "docs", embedder, using="dense")
    assert not await acreate_collection(client, "docs", embedder, using="dense")
    await acheck_collection(client, "docs", embedder, using="dense")
    await aupsert_texts(client, "docs", embedder, ["red planet", "gas giant"], ids=[1, 2], using="dense")
    hits = await aquery_texts(client, "docs", embedder, "red planet", using="dense", score_threshold=0.5)
    assert [hit.id for hit in hits] == [1]
    await client.close()


def test_hits_under_a_threshold_are_left_out(fake):
    client, embedder = QdrantClient(":memory:"), Embedder(fake.qwen3, instruction="")
    create_collection(client, "docs", embedder)
    upsert_texts(client, "docs", embedder, ["red planet", "red giant", "sea"], ids=[1, 2, 3])
    everything = query_texts(client, "docs", embedder, "red planet")
    assert len(everything) == 3
    between = (everything[0].score + everything[1].score) / 2
    for least in (between, np.float32(between), np.float64(between)):
        assert [hit.id for hit in query_texts(client, "docs", embedder, "red planet", score_threshold=least)] == [1]
    assert len(query_texts(client, "docs", embedder, "red planet", score_threshold=-1, limit=np.int64(2))) == 2
    for wrong in (True, "0.5", [0.5]):
        with pytest.raises(ArgumentTypeError, match="score_threshold is a number"):
            query_texts(client, "docs", embedder, "red planet", score_threshold=wrong)
    with pytest.raises(ArgumentError, match="NaN"):
        query_texts(client, "docs", embedder, "red planet", score_threshold=float("nan"))
    client.close()


def test_metadata_of_a_collection_is_unicode(fake):
    client, embedder = QdrantClient(":memory:"), Embedder(fake.qwen3)
    with pytest.raises(ArgumentError, match="half a surrogate pair"):
        create_collection(client, "docs", embedder, metadata={"owner": HALF})
    assert not client.collection_exists("docs")
    chroma = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
    with pytest.raises(ArgumentError, match="half a surrogate pair"):
        open_collection(chroma, "half", Qwen3EmbeddingFunction(embedder=embedder), metadata={"owner": HALF})
    with pytest.raises(ArgumentError, match="text_key holds half a surrogate pair"):
        upsert_texts(client, "docs", embedder, ["a"], text_key=HALF)
    client.close()
