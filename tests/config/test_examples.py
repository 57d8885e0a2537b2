"""Two files in the shapes that people have: they load, what can run runs, and the rest says what to change."""

from __future__ import annotations

import pytest

from embrief import ConfigError, Embedder, Registry, load_config
from embrief.runtimes.engine_options import EngineOptions
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


def test_a_service_for_texts_and_images(examples):
    path = examples / "multimodal.yaml"
    config = load_config(path)
    assert config.notes == []
    [row] = Registry(config).list()
    assert (row.name, row.provider, row.dim) == ("qwen3-vl-embed-8b", "local", 4096)
    embedder = Registry(config).get("qwen3-vl-embed-8b")
    assert embedder.spec.id == "Qwen/Qwen3-VL-Embedding-8B"
    assert embedder.modalities == ("text", "image")
    assert embedder.settings.backend == HttpSimple(
        base_url="http://localhost:8003", text_endpoint="/txt/embed", image_endpoint="/img/embed"
    )


def test_a_route_for_images_needs_a_model_that_takes_them(write):
    text = "models: {mine: {provider: http-simple, base_url: 'http://localhost:8003', image_endpoint: /i, %s}}"
    for said in ("dim: 8", "model_id: BAAI/bge-m3"):
        with pytest.raises(ConfigError, match="mine: image_endpoint: is for models that take pictures"):
            Registry(load_config(write(text % said))).get("mine")


def test_how_pictures_and_special_tokens_are_read(write):
    text = "models: {mine: {model_id: Qwen/Qwen3-VL-Embedding-2B, %s}}"
    embedder = Registry(load_config(write(text % "max_pixels: 100000, special_tokens: text"))).get("mine")
    assert (embedder.max_pixels, embedder.settings.special_tokens) == (100000, "text")
    with pytest.raises(ConfigError, match=r"special_tokens is one of parsed, text, not 'letters'"):
        load_config(write(text % "special_tokens: letters"))
    with pytest.raises(ConfigError, match=r"max_pixels is a whole number"):
        load_config(write(text % "max_pixels: many"))


@pytest.mark.parametrize("said", ["", "provider: engine, ", "provider: local, "])
def test_where_a_prompt_stands_beside_pictures(write, said):
    text = f"models: {{mine: {{{said}model_id: google/embeddinggemma-2, picture_prompt: behind}}}}"
    embedder = Registry(load_config(write(text))).get("mine")
    asked = Embedder("google/embeddinggemma-2", backend=EngineOptions(picture_prompt="behind"))
    assert embedder.space == asked.space
    assert embedder.modalities == ("text", "image")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("model_id: google/embeddinggemma-2, picture_prompt: around", "picture_prompt is one of behind, none, not 'ar"),
        (
            "model_id: google/embeddinggemma-2, provider: sentence-transformers, picture_prompt: none",
            "picture_prompt is for the provider engine, and does nothing for the provider sentence-transformers",
        ),
        (
            "model_id: google/embeddinggemma-2, provider: tei, base_url: 'http://127.0.0.1:1', picture_prompt: none",
            "picture_prompt is for the provider engine",
        ),
        (
            "model_id: 'tei:http://127.0.0.1:1#BAAI/bge-m3', picture_prompt: none",
            "is for embrief's own engine, and ",
        ),
        ("model_id: Qwen/Qwen3-VL-Embedding-2B, picture_prompt: none", "VL-Embedding-2B takes them as its authors do"),
        ("model_id: Qwen/Qwen3-Embedding-0.6B, picture_prompt: none", "Qwen3-Embedding-0.6B takes texts only"),
        ("provider: local, picture_prompt: none", "embrief/hash takes texts only"),
    ],
)
def test_where_nothing_is_open_about_prompts_beside_pictures(write, said, message):
    with pytest.raises(ConfigError, match=rf":1:.*{message}"):
        Registry(load_config(write(f"models: {{mine: {{{said}}}}}"))).get("mine")
