"""Two files in the shapes that people have: they load, what can run runs, and the rest says what to change."""

from __future__ import annotations

import pytest

from embrief import ArgumentTypeError, ConfigError, Image, Registry, load_config, plugins
from embrief.servers import HttpSimple, Ollama, OpenAI


@pytest.fixture
def examples(data):
    return data / "configs" / "examples"


def test_a_chain(examples, records):
    config = load_config(examples / "chain.yaml")
    assert config.default_model == "openai-3-small"
    assert list(config.models) == ["openai-3-small", "openai-3-large", "bge-m3", "all-mpnet-base-v2", "local-fallback"]
    assert config.fallback_chain == ("openai-3-small", "bge-m3", "all-mpnet-base-v2", "local-fallback")
    assert [note.rpartition(".yaml:")[2] for note in config.notes] == [
        "7:5: bge-m3: gpu_enabled has no effect: the server decides where its model runs"
    ]
    registry = Registry(config)
    assert [row.dim for row in registry.list()] == [1536, 3072, 1024, 768, 1536]
    small = registry.default()
    assert (small.dim, small.max_tokens) == (1536, 8191)
    assert small.settings.backend == OpenAI(model="text-embedding-3-small", timeout=30.0, batch_rows=100)
    assert registry.get("openai-3-large").dim == 3072
    bge = registry.get("bge-m3")
    assert (bge.spec.id, bge.settings.backend) == ("BAAI/bge-m3", Ollama(model="bge-m3"))
    mpnet = registry.get("all-mpnet-base-v2")
    assert (mpnet.settings.model, mpnet.info()["backend"]) == (
        "sentence-transformers/all-mpnet-base-v2", "sentence-transformers",
    )  # fmt: skip
    last = registry.get("local-fallback")
    assert last.embed_query("q").shape == (1536,)
    assert len({registry.get(name).space.id for name in config.fallback_chain}) == 4, "and these are four spaces"


def test_a_service_for_texts_and_images(examples, servers, write, loopback):
    path = examples / "multimodal.yaml"
    config = load_config(path)
    assert [note.rpartition(".yaml:")[2] for note in config.notes] == [
        "3:3: qwen3-vl-embed-8b: image_endpoint has no effect: images are not embedded by this release; texts are"
    ]
    [row] = Registry(config).list()
    assert (row.name, row.provider) == ("qwen3-vl-embed-8b", "local")
    text = path.read_text("utf-8")
    if plugins().catalog.find_model("qwen3-vl-embed-8b") is None:
        with pytest.raises(
            ConfigError, match=r"3:3: qwen3-vl-embed-8b: nothing is recorded .* add the line dim: with the"
        ):
            Registry(config).get("qwen3-vl-embed-8b")
        text = text.replace("    base_url:", "    dim: 4096\n    base_url:")
    embedder = Registry(load_config(write(text))).get("qwen3-vl-embed-8b")
    assert embedder.dim == 4096
    assert embedder.settings.backend == HttpSimple(base_url="http://localhost:8003", text_endpoint="/txt/embed")
    url = loopback({"/txt/embed": 4096})
    there = Registry(load_config(write(text.replace("http://localhost:8003", url)))).get("qwen3-vl-embed-8b")
    assert there.embed_documents(["a", "b"]).shape == (2, 4096)
    with pytest.raises(ArgumentTypeError, match="holds an image, and qwen3-vl-embed-8b takes texts only"):
        embedder.embed_documents([Image(b"")])
