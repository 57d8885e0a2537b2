"""Real servers, where they are on this machine, and small files for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .llama import LlamaServer, build_folder

StartLlama = Callable[..., LlamaServer]


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
        return servers[file, flags]

    yield start
    for server in servers.values():
        server.stop()


@pytest.fixture
def own_llama_server(llama_build: Path, tmp_path: Path) -> Iterator[StartLlama]:
    """Like `llama_server`, but each call starts one of its own, which a test may end."""
    servers: list[LlamaServer] = []

    def start(file: Path, *flags: str) -> LlamaServer:
        servers.append(LlamaServer(llama_build, file, flags, tmp_path / f"llama-server-{len(servers)}.log"))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def gguf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where GGUF files go."""
    return tmp_path_factory.mktemp("gguf")


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
