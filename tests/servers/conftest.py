"""Real servers, where they are on this machine, and small files for them."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embrief import plugins

from ..gguf_writer import write_embedder
from .infinity import InfinityServer
from .llama import LlamaServer, build_folder
from .process import free_port

StartLlama = Callable[..., LlamaServer]
StartInfinity = Callable[..., InfinityServer]
Record = Callable[..., str]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def record() -> Iterator[Record]:
    """Call it with the id of a recorded model, and what is different: a record of a small model, by its new id."""
    catalog, made = plugins().catalog, []

    def make(model: str, **changes: object) -> str:
        # Facades of one name share a model, in the next test too.
        name = f"acme/tiny-{next(_numbers)}"
        settings = {"id": name, "revision": "v1", "aliases": (), "served_names": (), "defines_family": False, **changes}
        catalog.add_model(replace(catalog.models[model], **settings))  # type: ignore[arg-type]
        made.append(name)
        return name

    yield make
    catalog.remove("none", made)


@pytest.fixture(scope="session")
def qwen3_model(record: Record) -> str:
    """The record of `qwen3_folder`."""
    return record("Qwen/Qwen3-Embedding-0.6B", dim=48, hidden_size=48, mrl=range(8, 49), max_tokens=1024, context=1024)


@pytest.fixture(scope="session")
def gemma_model(record: Record) -> str:
    """The record of `gemma_folder`."""
    return record("google/embeddinggemma-300m", dim=48, hidden_size=48, mrl=(16, 48), max_tokens=256, context=512)


@pytest.fixture(scope="session")
def reranker_model(record: Record) -> str:
    """The record of `reranker_folder`."""
    return record("Qwen/Qwen3-Reranker-0.6B", hidden_size=48, max_tokens=1024, context=1024)


@pytest.fixture(scope="session")
def llama_build() -> Path:
    """The folder with bin/llama-server, bin/llama-quantize and lib/ (LLAMA_CPP_LIB_PATH)."""
    folder = build_folder()
    if folder is None:
        pytest.skip("llama-server is not built here: make llama")
    return folder


@pytest.fixture(scope="session")
def llama_server(llama_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartLlama]:
    """Call it with a GGUF file and flags of llama-server; equal calls get the same server, which lives to the end."""
    servers: dict[tuple[Path, tuple[str, ...]], LlamaServer] = {}
    logs = tmp_path_factory.mktemp("llama-server")

    def start(file: Path, *flags: str) -> LlamaServer:
        if (file, flags) not in servers:
            log = logs / f"{len(servers)}-{file.stem}.log"
            servers[file, flags] = LlamaServer(llama_build, file, flags, log)
        # Again for one that a test has started in vain: each gets the reason.
        servers[file, flags].wait()
        return servers[file, flags]

    yield start
    for server in servers.values():
        server.stop()


@pytest.fixture
def loading_llama_server(llama_build: Path, tmp_path: Path) -> Iterator[StartLlama]:
    """Call it with a GGUF file, flags, and maybe `port=`: a server of this test alone, which may still load."""
    servers: list[LlamaServer] = []

    def start(file: Path, *flags: str, port: int | None = None) -> LlamaServer:
        log = tmp_path / f"llama-server-{len(servers)}.log"
        servers.append(LlamaServer(llama_build, file, flags, log, port=free_port() if port is None else port))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def own_llama_server(loading_llama_server: StartLlama) -> StartLlama:
    """Call it with a GGUF file, flags, and maybe `port=`: a server of this test alone, which it may end."""

    def start(file: Path, *flags: str, port: int = 0) -> LlamaServer:
        server = loading_llama_server(file, *flags, port=port)
        server.wait()
        return server

    return start


@pytest.fixture(scope="session")
def infinity_program() -> Path:
    """The command `infinity_emb`."""
    given = os.environ.get("EMBRIEF_INFINITY")
    if not given:
        pytest.skip("EMBRIEF_INFINITY does not name a program: make infinity")
    return Path(given)


@pytest.fixture(scope="session")
def infinity_server(infinity_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartInfinity]:
    """Call it with folders of checkpoints by name, and flags; equal calls get the same server, until the end."""
    servers: dict[tuple[tuple[tuple[str, Path], ...], tuple[str, ...]], InfinityServer] = {}

    def start(models: dict[str, Path], *flags: str) -> InfinityServer:
        key = tuple(models.items()), flags
        if key not in servers:
            servers[key] = InfinityServer(infinity_program, models, tmp_path_factory.mktemp("infinity"), flags)
        # It imports torch and much else, and is not alone on the machine.
        servers[key].wait(400)
        return servers[key]

    yield start
    for server in servers.values():
        server.stop()


@pytest.fixture(scope="session")
def gguf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where GGUF files go."""
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="session")
def slow_gguf(qwen3_folder: Path, gguf_folder: Path) -> Path:
    """An embedder with so many unused tokens that loading it takes about a second."""
    from safetensors.torch import load_file, save_file

    folder = gguf_folder / "many-tokens"
    shutil.copytree(qwen3_folder, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 200_000}), "utf-8")
    tensors = load_file(folder / "model.safetensors")
    few = tensors["embed_tokens.weight"]
    tensors["embed_tokens.weight"] = few.new_zeros(200_000, few.shape[1])
    tensors["embed_tokens.weight"][: len(few)] = few
    save_file(tensors, folder / "model.safetensors")
    return write_embedder(folder, gguf_folder / "many-tokens.gguf")


@pytest.fixture(scope="session")
def wide_gemma_folder(gemma_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`gemma_folder` with the published model's window and length: 512 in config.json, 2048 tokens."""
    folder = tmp_path_factory.mktemp("models") / "tiny-embeddinggemma-wide"
    shutil.copytree(gemma_folder, folder)
    for name, changes in (
        ("config.json", {"sliding_window": 512, "max_position_embeddings": 2048}),
        ("sentence_bert_config.json", {"max_seq_length": 2048}),
    ):
        values = json.loads((folder / name).read_text("utf-8"))
        (folder / name).write_text(json.dumps({**values, **changes}), "utf-8")
    return folder


@pytest.fixture
def hub_online(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to the hub's providers is switched on; all tests have it off."""
    pytest.importorskip("huggingface_hub")
    # Read once, when huggingface_hub is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
