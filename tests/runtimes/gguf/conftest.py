"""llama.cpp, where it is on this machine, and small GGUF files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embrief import plugins
from embrief.system.installed import is_installed

from ...gguf_writer import write_embedder, write_reranker
from ...servers.llama import build_folder

Record = Callable[..., str]


@pytest.fixture(scope="session")
def llama() -> Iterator[Path | None]:
    """llama.cpp and its Python package: as installed, or as `make llama` has laid them out."""
    if is_installed("llama_cpp"):
        yield None
        return
    build = build_folder()
    if build is None or not (build / "python" / "llama_cpp").is_dir():
        pytest.skip("llama.cpp is not built here: make llama")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_CPP_LIB_PATH", str(build / "lib"))
        # What is in this environment goes to other processes as it is.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(build / "python"), os.environ.get("PYTHONPATH")])))
        patch.syspath_prepend(str(build / "python"))
        yield build


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """ggml's threads wait for each other without sleeping, and this machine may be shared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def files(
    qwen3_folder: Path, gemma_folder: Path, reranker_file_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A GGUF file of each kind, as llama.cpp's converter writes them."""
    folder = tmp_path_factory.mktemp("gguf")
    return {
        "qwen3": write_embedder(qwen3_folder, folder / "tiny-qwen3-f32.gguf"),
        "gemma": write_embedder(gemma_folder, folder / "tiny-gemma-f32.gguf"),
        "reranker": write_reranker(reranker_file_folder, folder / "tiny-reranker-f32.gguf", head=False),
        "ranker": write_reranker(reranker_file_folder, folder / "tiny-ranker-f32.gguf"),
    }


@pytest.fixture(scope="session")
def reranker_file_folder(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    """A language model with an output layer of its own."""
    from ...conftest import make_reranker

    return make_reranker(tmp_path_factory.mktemp("models") / "tiny-reranker", corpus, tie_word_embeddings=False)


@pytest.fixture(scope="session")
def record() -> Iterator[Record]:
    """Call it with the id of a recorded model, and what is different: a record of a small model, by its new id."""
    catalog, made = plugins().catalog, []

    def make(model: str, **changes: object) -> str:
        name = f"acme/gguf-{len(made)}"
        settings = {"id": name, "aliases": (), "served_names": (), "defines_family": False, **changes}
        catalog.add_model(replace(catalog.models[model], **settings))  # type: ignore[arg-type]
        made.append(name)
        return name

    yield make
    catalog.remove("none", made)


@pytest.fixture(scope="session")
def qwen3_model(record: Record) -> str:
    """The record of `qwen3_folder`."""
    return record("Qwen/Qwen3-Embedding-0.6B", dim=48, hidden_size=48, mrl=range(8, 49), max_tokens=1024, context=1024)


def cosines(one: object, other: object) -> np.ndarray:
    """The cosine of each row with its partner."""
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    found: np.ndarray = (first * second).sum(-1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)
    return found
