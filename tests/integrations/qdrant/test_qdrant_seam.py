from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import qdrant_client
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.embed.model_embedder import ModelEmbedder

from embrief import Embedder
from embrief.errors import ArgumentError, ArgumentTypeError, UnsupportedVersionError
from embrief.system.installed import install_command
from qdrant_embrief import attach, create_collection, query_texts, upsert_texts
from qdrant_embrief.inference import seam


@pytest.mark.parametrize("installed", ["1.17.1", "1.21.0", "2.0.0", "0.9"])
def test_another_version_is_refused_and_the_supported_ones_named(client, monkeypatch, installed):
    monkeypatch.setattr(seam, "version", lambda name: installed)
    with pytest.raises(UnsupportedVersionError, match=rf"1\.18,<1\.21.*{installed}"):
        attach(client, Embedder("hash"))


@pytest.mark.parametrize("installed", ["1.18.0", "1.19.3", "1.20.7", "1.20.0rc1"])
def test_supported_versions(client, monkeypatch, installed):
    monkeypatch.setattr(seam, "version", lambda name: installed)
    assert attach(client, Embedder("hash")) is client


@pytest.mark.parametrize("name", ["_model_embedder", "_inference_inspector", "local_inference_batch_size"])
def test_a_client_without_an_attribute_is_refused(client, name):
    delattr(client, name)
    with pytest.raises(UnsupportedVersionError, match=rf"{name}.*1\.18,<1\.21"):
        attach(client, Embedder("hash"))


@pytest.mark.parametrize("name", ["_embed_accumulator", "embed_models_strict", "_resolve_inference_object"])
def test_a_renamed_method_is_refused(client, monkeypatch, name):
    monkeypatch.delattr(ModelEmbedder, name)
    before = client._model_embedder
    with pytest.raises(UnsupportedVersionError, match=rf"_model_embedder\.{name}"):
        attach(client, Embedder("hash"))
    assert client._model_embedder is before


def test_the_helpers_need_no_seam(client, monkeypatch):
    monkeypatch.setattr(seam, "version", lambda name: "9.9.9")
    del client._model_embedder
    embedder = Embedder("hash", dim=32)
    create_collection(client, "docs", embedder)
    upsert_texts(client, "docs", embedder, ["a"])
    assert query_texts(client, "docs", embedder, "a")[0].text == "a"


def test_cloud_inference_is_refused():
    client = QdrantClient(url="http://127.0.0.1:9", cloud_inference=True, check_compatibility=False)
    with pytest.raises(ArgumentError, match="cloud_inference=True"):
        attach(client, Embedder("hash"))
    client.close()


def test_not_a_client():
    with pytest.raises(ArgumentTypeError, match="str"):
        attach("http://localhost:6333", Embedder("hash"))


@pytest.mark.parametrize("kind", [QdrantClient, AsyncQdrantClient])
def test_contract_the_private_seam_of_the_installed_client(kind):
    """A failure means that qdrant-client changed what `attach` builds on: read its source, then widen the versions."""
    arguments = {**seam.QUERY_CALLS, **seam.WRITE_CALLS}
    for name, expected in arguments.items():
        method = getattr(kind, name)
        assert list(inspect.signature(method).parameters)[1] == "collection_name"
        assert set(expected) <= set(inspect.signature(method).parameters)
        assert inspect.iscoroutinefunction(method) == (kind is AsyncQdrantClient)
    for name in seam.UPLOAD_CALLS:
        assert list(inspect.signature(getattr(kind, name)).parameters)[1] == "collection_name"
        assert not inspect.iscoroutinefunction(getattr(kind, name))

    def parameters(name: str) -> list[str]:
        return list(inspect.signature(getattr(ModelEmbedder, name)).parameters)[1:]

    assert parameters("__init__") == ["parser", "is_local_mode", "kwargs"]
    assert parameters("embed_models") == ["raw_models", "is_query", "batch_size"]
    assert parameters("embed_models_strict") == ["raw_models", "batch_size", "parallel"]
    assert parameters("embed_models_batch") == ["raw_models", "is_query", "inference_batch_size"]
    assert parameters("_embed_accumulator") == ["is_query", "inference_batch_size"]
    assert parameters("_resolve_inference_object") == ["data"]
    source = inspect.getsource(kind)
    # Every call that embeds is one we wrap.
    embedding = {
        name
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if "_embed_models" in inspect.getsource(method) and not name.startswith("_embed_models")
    }
    assert embedding == {*arguments, *seam.UPLOAD_CALLS}
    assert "batch_size=self.local_inference_batch_size" in source


def test_without_qdrant_client_the_command_is_named():
    code = (
        "import sys; sys.modules['qdrant_client'] = None\n"
        "from embrief.errors import MissingDependencyError\n"
        "try:\n    import qdrant_embrief\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert install_command("qdrant") in done.stdout


def test_installed_version_is_one_of_ours():
    assert qdrant_client is not None
    seam.check_client(client := QdrantClient(":memory:"))
    client.close()
