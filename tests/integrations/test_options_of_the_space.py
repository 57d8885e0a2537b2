"""Options of a runtime that decide the vector space come back from wherever a wrapper or a store writes them down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from embrief import (
    ArgumentError,
    Embedder,
    EmbriefError,
    LoadRequest,
    Offer,
    Runtime,
    RuntimeOptions,
    SpaceMismatchError,
    WeightsUnavailableError,
    plugins,
)
from embrief.facts.specs import ModelSpec
from embrief.runtimes.base import Ask, Model
from embrief.runtimes.engine_options import EngineOptions
from embrief.stores import kept_backend, stored_backend
from embrief.wrapping import written_backend

GEMMA = "google/embeddinggemma-2"
CHOSEN = EngineOptions(picture_prompt="none")
KEPT = {"runtime": "engine", "picture_prompt": "none"}
SPACE = Embedder(GEMMA, backend=CHOSEN).space
HOSTILE: list[Any] = [
    {"runtime": "engine"},
    {"runtime": "engine", "threads": 1},
    {"runtime": "engine", "picture_prompt": "none", "to_json": "x"},
    {"runtime": "engine", "picture_prompt": "around"},
    {"runtime": "engine", "picture_prompt": ["none"]},
    {"runtime": "engine", "picture_prompt": {"none": 1}},
    {"runtime": "tei", "base_url": "http://evil"},
    {"runtime": "openai", "picture_prompt": "none"},
    {"runtime": "nobodys", "picture_prompt": "none"},
    {"runtime": ["engine"], "picture_prompt": "none"},
    {"runtime": None, "picture_prompt": "none"},
]


def test_what_decides_nothing_is_not_kept() -> None:
    assert Embedder(GEMMA).space != SPACE, "guards all below: losing the option would show"
    assert written_backend(CHOSEN) == kept_backend(CHOSEN) == KEPT
    for plain in (None, "engine", EngineOptions()):
        assert kept_backend(plain) is None
    assert [written_backend(plain) for plain in (None, "engine", EngineOptions())] == [None, "engine", "engine"]


@pytest.mark.parametrize("kept", HOSTILE, ids=str)
def test_a_store_can_only_say_what_decides_the_space(kept: dict[str, Any]) -> None:
    with pytest.raises(EmbriefError):
        stored_backend(kept, where="the store")


def test_llama_index() -> None:
    llama = pytest.importorskip("llama_index_embrief")
    made = llama.GemmaEmbedding(GEMMA, backend=CHOSEN)
    data = json.loads(json.dumps(made.to_dict()))
    again = llama.GemmaEmbedding.from_dict(data)
    assert again.embedder.settings.backend == CHOSEN
    assert again.embedder.space == SPACE
    assert again.to_dict() == made.to_dict()
    assert llama.GemmaEmbedding.from_json(made.to_json()).embedder.space == SPACE
    for hostile in HOSTILE:
        with pytest.raises(EmbriefError):
            llama.GemmaEmbedding.from_dict({**data, "backend": hostile})


def test_langchain() -> None:
    langchain = pytest.importorskip("langchain_embrief")
    made = langchain.GemmaEmbeddings(GEMMA, backend=CHOSEN)
    kind = type(made)
    for again in (
        kind(**made.model_dump()),
        kind.model_validate(made.model_dump()),
        kind.model_validate_json(made.model_dump_json()),
        made.model_copy(update={"truncate": "silent"}),
    ):
        assert again.embedder.settings.backend == CHOSEN
        assert again.cache_namespace() == made.cache_namespace() != kind(GEMMA).cache_namespace()
    with pytest.raises(ArgumentError, match=r"GemmaEmbeddings names the runtime 'tei' with base_url of its options"):
        kind(GEMMA, backend={"runtime": "tei", "base_url": "http://evil"})


def test_chroma() -> None:
    chroma = pytest.importorskip("chroma_embrief")
    made = chroma.GemmaEmbeddingFunction(GEMMA, backend=CHOSEN)
    config = json.loads(json.dumps(made.get_config()))
    assert config["backend"] == KEPT
    again = chroma.GemmaEmbeddingFunction.build_from_config(config)
    assert again.embedder.settings.backend == CHOSEN
    assert again.embedder.space == again.space == SPACE
    assert again.get_config() == config
    assert "backend" not in chroma.GemmaEmbeddingFunction(GEMMA).get_config(), "collections of before stay as they are"
    plain = chroma.GemmaEmbeddingFunction(GEMMA)
    with pytest.raises(SpaceMismatchError, match="picture_prompt"):
        plain.validate_config_update(config, plain.get_config())
    for hostile in HOSTILE:
        # A function that Chroma rebuilds finds its embedder at its first text.
        with pytest.raises(EmbriefError):
            _ = chroma.GemmaEmbeddingFunction.build_from_config({**config, "backend": hostile}).embedder


@dataclass(frozen=True, kw_only=True)
class Away(RuntimeOptions):
    """Of a server whose answers depend on an option."""

    OF_THE_SPACE: ClassVar[tuple[str, ...]] = ("level",)

    base_url: str = "http://localhost:1"
    level: int = 0


class AwayRuntime(Runtime):
    name = "away"
    Options = Away

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer:
        return Offer(device="server", dtype="float32", leaves_machine=True)

    def load(self, request: LoadRequest) -> Model:
        raise AssertionError("nothing is loaded here")


def test_options_of_a_server_name_none_in_a_store() -> None:
    """Where texts go is for the program to say, also where an option beside it decides the space."""
    llama, chroma = pytest.importorskip("llama_index_embrief"), pytest.importorskip("chroma_embrief")
    plugins().catalog.add_backend(AwayRuntime())
    try:
        kept = kept_backend(Away(base_url="http://a:7", level=3))
        assert kept == {"runtime": "away", "level": 3}
        assert stored_backend(kept, where="the store") == Away(level=3)
        data = llama.GemmaEmbedding(GEMMA).to_dict()
        config = chroma.GemmaEmbeddingFunction(GEMMA).get_config()
        with pytest.raises(ArgumentError, match="'away', which hands texts to a server"):
            llama.GemmaEmbedding.from_dict({**data, "backend": kept})
        with pytest.raises(ArgumentError, match="'away', which hands texts to a server"):
            _ = chroma.GemmaEmbeddingFunction.build_from_config({**config, "backend": kept}).embedder
    finally:
        plugins().catalog.remove("away", [])


def test_chroma_says_the_options_beside_a_folder(seeing_gemma2: Path) -> None:
    chroma = pytest.importorskip("chroma_embrief")
    config = chroma.GemmaEmbeddingFunction(seeing_gemma2, backend=CHOSEN).get_config()
    with pytest.raises(
        WeightsUnavailableError,
        match=r"embedding_function=GemmaEmbeddingFunction\(<the folder>, .*backend=EngineOptions\(picture_prompt='n",
    ):
        _ = chroma.GemmaEmbeddingFunction.build_from_config(config).embedder


@pytest.fixture
def seeing_gemma2(gemma2_folder: Path, tmp_path: Path) -> Path:
    pytest.importorskip("transformers.models.embedding_gemma2")
    from ..gemma2_pictures import write_seeing_gemma2

    return write_seeing_gemma2(gemma2_folder, tmp_path / "tiny")


def test_qdrant() -> None:
    """Nothing is rebuilt of a collection: who opens it passes the embedder, and the space is compared."""
    qdrant = pytest.importorskip("qdrant_embrief")
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    qdrant.create_collection(client, "kept", Embedder(GEMMA, backend=CHOSEN))
    qdrant.check_collection(client, "kept", Embedder(GEMMA, backend=EngineOptions(picture_prompt="none")))
    with pytest.raises(SpaceMismatchError, match=r"stored: picture_prompt='none', this embedder: picture_prompt=''"):
        qdrant.check_collection(client, "kept", Embedder(GEMMA))
    client.close()
