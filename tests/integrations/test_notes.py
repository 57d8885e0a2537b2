"""Stores note what made their vectors; nothing is decided by it. Less than 8 bits of a weight are told of once."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import chromadb
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as LlamaDocument
from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from qdrant_client import AsyncQdrantClient, QdrantClient

import chroma_embrief
import langchain_embrief
import llama_index_embrief
import qdrant_embrief
from embrief import Embedder, PrecisionWarning
from embrief.stores import KEY, NOTE, MadeBy, note, read_note, read_stamp, stamp
from embrief.testing import FakeRuntime

OTHER = json.dumps({"fingerprint": "ef1-0", "runtime": "gguf", "dtype": "q4_k_m", "new": 1})


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


@pytest.fixture
def coarse() -> Iterator[FakeRuntime]:
    with FakeRuntime(dtype="q4_k_m") as runtime:
        yield runtime


def in_chroma(model: str, metadata: dict[str, Any] | None = None) -> Callable[[], list[Any]]:
    client = chromadb.EphemeralClient()
    name = f"docs-{id(client)}-{model}".replace("/", "-")
    function = chroma_embrief.Qwen3EmbeddingFunction(embedder=Embedder(model))
    if metadata:
        client.create_collection(name, embedding_function=function, metadata=metadata)

    def use() -> list[Any]:
        collection = chroma_embrief.open_collection(client, name, function)
        collection.add(ids=["a"], documents=["Mars"])
        return [collection.metadata]

    return use


def in_qdrant(model: str, metadata: dict[str, Any] | None = None) -> Callable[[], list[Any]]:
    client, embedder = QdrantClient(":memory:"), Embedder(model)
    if metadata:
        client.create_collection("docs", qdrant_embrief.vectors_config(embedder), metadata=metadata)

    def use() -> list[Any]:
        qdrant_embrief.create_collection(client, "docs", embedder)
        qdrant_embrief.upsert_texts(client, "docs", embedder, ["Mars"])
        return [client.get_collection("docs").config.metadata]

    return use


def in_langchain(model: str, metadata: dict[str, Any] | None = None) -> Callable[[], list[Any]]:
    store = InMemoryVectorStore(langchain_embrief.Qwen3Embeddings(model))
    if metadata:
        store.add_documents([Document("Saturn")], ids=["old"])
        store.store["old"].update(metadata)

    def use() -> list[Any]:
        langchain_embrief.guard(store).add_documents([Document("Mars")], ids=["new"])
        return [record for _, record in sorted(store.store.items(), reverse=True)]

    return use


def in_llama_index(model: str, metadata: dict[str, Any] | None = None) -> Callable[[], list[Any]]:
    index = VectorStoreIndex([], embed_model=llama_index_embrief.Qwen3Embedding(model))
    data = index.vector_store.data
    if metadata:
        index.insert(LlamaDocument(text="Saturn"))
        (old,) = data.metadata_dict
        data.metadata_dict[old].update(metadata)

    def use() -> list[Any]:
        llama_index_embrief.guard(index).insert(LlamaDocument(text="Mars"))
        return list(data.metadata_dict.values())

    return use


STORES = [in_chroma, in_qdrant, in_langchain, in_llama_index]


@pytest.mark.parametrize("store", STORES)
def test_a_store_notes_what_makes_its_vectors(store: Any, fake: FakeRuntime) -> None:
    embedder = Embedder(fake.qwen3)
    (metadata,) = store(fake.qwen3)()
    assert read_note(metadata) == MadeBy(embedder.fingerprint, embedder.info()["backend"], "float32")
    assert {KEY: metadata[KEY]} == stamp(embedder.space)
    # Some stores take only scalars.
    assert isinstance(metadata[NOTE], str)


@pytest.mark.parametrize("value", [OTHER, "", "{", "[]", "{}", '{"fingerprint": 1}', "[" * 100_000])
@pytest.mark.parametrize("store", STORES)
def test_no_note_decides_anything(store: Any, value: str, fake: FakeRuntime) -> None:
    first, *more = store(fake.qwen3, {**stamp(Embedder(fake.qwen3).space), NOTE: value})()
    # Nor is it written over: the vectors that are there were not made again.
    assert first[NOTE] == value
    assert all(read_note(metadata) == read_note(note(Embedder(fake.qwen3))) for metadata in more)
    assert read_note(first) == (MadeBy("ef1-0", "gguf", "q4_k_m") if value is OTHER else None)


@pytest.mark.parametrize("store", STORES)
def test_a_stamp_without_a_note_is_as_good(store: Any, fake: FakeRuntime) -> None:
    first, *_ = store(fake.qwen3, stamp(Embedder(fake.qwen3).space))()
    assert read_note(first) is None
    assert read_stamp(first, where="here") == Embedder(fake.qwen3).space


@pytest.mark.parametrize("metadata", [None, 7, [], {}, {NOTE: None}, {NOTE: {"fingerprint": "x"}}, {NOTE: 1.5}])
def test_anything_may_be_in_the_place_of_a_note(metadata: object) -> None:
    assert read_note(metadata) is None


def test_each_named_vector_has_its_own_note(fake: FakeRuntime) -> None:
    embedders = {"a": Embedder(fake.qwen3), "b": Embedder(fake.gemma)}
    metadata = qdrant_embrief.space_metadata(embedders)["embrief_vectors"]
    for name, embedder in embedders.items():
        found = read_note(metadata[name])
        assert found is not None
        assert found.fingerprint == embedder.fingerprint


def test_a_model_that_changes_its_runtime_is_noted_for_what_comes(fake: FakeRuntime) -> None:
    """One space, another limit: another fingerprint."""
    short = Embedder(fake.qwen3, max_tokens=9)
    store = langchain_embrief.guard(InMemoryVectorStore(langchain_embrief.Qwen3Embeddings(fake.qwen3)))
    index = llama_index_embrief.guard(
        VectorStoreIndex([], embed_model=llama_index_embrief.Qwen3Embedding(fake.qwen3)), adopt=True
    )
    store.add_documents([Document("Mars")], ids=["a"])
    index.insert(LlamaDocument(text="Mars"))
    store.embedding = langchain_embrief.Qwen3Embeddings(fake.qwen3, max_tokens=9)
    index._embed_model = llama_index_embrief.Qwen3Embedding(fake.qwen3, max_tokens=9)
    store.add_documents([Document("Venus")], ids=["b"])
    index.insert(LlamaDocument(text="Venus"))
    for records in (store.store.values(), index.vector_store.data.metadata_dict.values()):
        before, after = map(read_note, records)
        assert before is not None
        assert after is not None
        assert after.fingerprint == short.fingerprint != before.fingerprint


def test_a_persisted_index_keeps_its_notes(fake: FakeRuntime, tmp_path: Any) -> None:
    model = llama_index_embrief.Qwen3Embedding(fake.qwen3)
    index = llama_index_embrief.guard(VectorStoreIndex([], embed_model=model))
    index.insert(LlamaDocument(text="Mars"))
    index.storage_context.persist(str(tmp_path))
    context = StorageContext.from_defaults(persist_dir=str(tmp_path))
    again = llama_index_embrief.guard(load_index_from_storage(context, embed_model=model))
    (metadata,) = again.vector_store.data.metadata_dict.values()
    assert read_note(metadata) == read_note(note(model.embedder))


@pytest.mark.parametrize("store", STORES)
def test_less_than_eight_bits_are_told_of_once(store: Any, coarse: FakeRuntime) -> None:
    with pytest.warns(PrecisionWarning, match="q4_k_m, which keeps 4 bits") as told:
        store(coarse.qwen3)()
    assert [item.filename for item in told if item.category is PrecisionWarning] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        store(coarse.qwen3)()
    with pytest.warns(PrecisionWarning):
        store(coarse.gemma)()


async def test_it_is_told_of_in_asynchronous_programs_too(coarse: FakeRuntime) -> None:
    client = AsyncQdrantClient(":memory:")
    with pytest.warns(PrecisionWarning):
        await qdrant_embrief.acreate_collection(client, "docs", Embedder(coarse.qwen3))
    assert read_note((await client.get_collection("docs")).config.metadata) == read_note(note(Embedder(coarse.qwen3)))


@pytest.mark.parametrize("dtype", ["float32", "int8", "int7", "q8_0", "server", ""])
def test_eight_bits_and_servers_are_not_told_of(dtype: str) -> None:
    with FakeRuntime(dtype=dtype) as runtime, warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        in_qdrant(runtime.qwen3)()
