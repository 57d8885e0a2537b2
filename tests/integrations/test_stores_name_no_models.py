"""What comes back from a store names published weights or nothing: no configured model, reference, address or path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embrief import ArgumentError, Config, Embedder, Registry, SpaceMismatchError, use_config
from embrief.stores import KEY, stored_model

CONFIGURED = "my-model"
NAMES = [
    CONFIGURED, "hash", "openai:text-embedding-3-small", "tei:http://169.254.169.254", "tei+http://169.254.169.254#x",
    "tei:http://169.254.169.254#BAAI/bge-m3", "ollama:bge-m3", "hf:owner/name", f"hf:owner/name@{'a' * 40}",
    "local:/etc", "native:embrief/hash", "/etc", "./model", "http://169.254.169.254/x",
]  # fmt: skip
REVISIONS = [None, "a" * 40, "v1"]


@pytest.fixture(autouse=True)
def configured(monkeypatch):
    """A configuration that knows the name, a server for everything, and a network that nobody may ask."""
    registry = Registry()
    registry.register(CONFIGURED, provider="hash", dim=64)
    use_config(Config(models=registry.config.models, default_model=CONFIGURED))
    monkeypatch.setattr("embrief.servers.asking._get", lambda url, key: pytest.fail(f"asked {url}"))
    assert Embedder(CONFIGURED).dim == 64
    yield
    use_config(None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("revision", REVISIONS)
def test_the_gate(name, revision):
    with pytest.raises(ArgumentError, match="what comes from a store may only be"):
        stored_model(name, revision, where="the store")


@pytest.mark.parametrize("name", NAMES)
def test_llama_index(name):
    llama = pytest.importorskip("llama_index_embrief")
    embedding = llama.Qwen3Embedding("embrief/hash").to_dict()
    rerank = llama.Qwen3Rerank("embrief/tiny-reranker").to_dict()
    for revision in REVISIONS:
        with pytest.raises(ArgumentError, match="the stored Qwen3Embedding names the model"):
            llama.Qwen3Embedding.from_dict({**embedding, "model_name": name, "revision": revision})
        with pytest.raises(ArgumentError, match="the stored Qwen3Rerank names the model"):
            llama.Qwen3Rerank.from_dict({**rerank, "model": name, "revision": revision})


@pytest.mark.parametrize("name", NAMES)
def test_chroma(name, monkeypatch):
    chroma = pytest.importorskip("chroma_embrief")
    config = chroma.Qwen3EmbeddingFunction("embrief/hash").get_config()
    monkeypatch.setattr("embrief.facades.facade.meaning", lambda *_: pytest.fail("looked a name up"))
    for revision in ("a" * 40, "v1"):
        hostile = {**config, "model": name, "revision": revision, "space": None}
        with pytest.raises(
            ArgumentError, match=r"what comes from a store may only be|does not match .* at path 'model'"
        ):
            chroma.Qwen3EmbeddingFunction.build_from_config(hostile)(["text"])


def stamped(name: str) -> dict[str, str]:
    """A stamp that is whole, and names a model that somebody made up."""
    from dataclasses import replace

    return {KEY: json.dumps(replace(Embedder("embrief/hash", dim=64).space, model=name).to_json())}


@pytest.mark.parametrize("name", NAMES)
def test_qdrant(name, monkeypatch):
    qdrant = pytest.importorskip("qdrant_embrief")
    from qdrant_client import QdrantClient

    ours = Embedder("embrief/hash", dim=64)
    client = QdrantClient(":memory:")
    client.create_collection("docs", vectors_config=qdrant.vectors_config(ours), metadata=stamped(name))
    monkeypatch.setattr("embrief.facades.facade.meaning", lambda *_: pytest.fail("looked a name up"))
    for call in (
        lambda: qdrant.check_collection(client, "docs", ours),
        lambda: qdrant.upsert_texts(client, "docs", ours, ["text"]),
        lambda: qdrant.query_texts(client, "docs", ours, "text"),
        lambda: qdrant.create_collection(client, "docs", ours),
    ):
        with pytest.raises(SpaceMismatchError):
            call()
    client.close()


@pytest.mark.parametrize("name", NAMES)
def test_langchain(name, monkeypatch, tmp_path: Path):
    langchain = pytest.importorskip("langchain_embrief")
    from langchain_core.vectorstores import InMemoryVectorStore

    ours = langchain.Qwen3Embeddings("embrief/hash", dim=64)
    store = langchain.guard(InMemoryVectorStore(ours))
    store.add_texts(["text"])
    file = tmp_path / "store.json"
    store.dump(str(file))
    data = json.loads(file.read_text("utf-8"))
    [record] = data.values()
    assert KEY in record
    record.update(stamped(name))
    file.write_text(json.dumps(data), "utf-8")
    monkeypatch.setattr("embrief.facades.facade.meaning", lambda *_: pytest.fail("looked a name up"))
    with pytest.raises(SpaceMismatchError):
        langchain.guard(InMemoryVectorStore.load(str(file), ours)).similarity_search("text")


def test_a_recorded_id_from_a_store_is_that_record_whatever_is_configured():
    """A configured name cannot be a recorded id, nor an id on the hub: what a store may say is never one."""
    llama = pytest.importorskip("llama_index_embrief")
    data = llama.Qwen3Embedding(CONFIGURED).to_dict()
    assert data["model_name"] == "embrief/hash"
    assert data["dim"] == 64
    assert llama.Qwen3Embedding.from_dict(data).embedder.settings.model == "embrief/hash"
    chroma = pytest.importorskip("chroma_embrief")
    assert chroma.Qwen3EmbeddingFunction(CONFIGURED).get_config()["model"] == "embrief/hash"
