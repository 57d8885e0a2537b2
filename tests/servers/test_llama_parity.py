"""`check_parity` of a real llama-server, on files that are right and on files that lack something."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")

from embrief import Embedder, check_parity
from embrief.errors import InputTooLongError
from embrief.parity import ParityReport
from embrief.servers import OpenAI

from ..gguf_writer import write_embedder
from .conftest import Record, StartLlama
from .helpers import words
from .llama import LlamaServer

pytestmark = pytest.mark.slow

LIMIT = 1600
# A bidirectional model has to see a text in one batch; each text of a batch has a context of its own.
ROOM = ("--embedding", "-c", "2048", "-b", "2048", "-ub", "2048", "-np", "1")


@pytest.fixture(scope="module")
def folders(qwen3_folder: Path, wide_gemma_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints with room for the long texts."""
    qwen3 = tmp_path_factory.mktemp("llama-parity") / "qwen3"
    shutil.copytree(qwen3_folder, qwen3)
    config = json.loads((qwen3 / "config.json").read_text("utf-8"))
    (qwen3 / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}), "utf-8")
    return {"qwen3": qwen3, "gemma": wide_gemma_folder}


@pytest.fixture(scope="module")
def models(record: Record) -> dict[str, str]:
    size = {"dim": 48, "hidden_size": 48, "max_tokens": LIMIT, "context": LIMIT}
    return {
        "qwen3": record("Qwen/Qwen3-Embedding-0.6B", **size, mrl=range(8, 49)),
        "gemma": record("google/embeddinggemma-300m", **size, mrl=(16, 48)),
    }


@pytest.fixture(scope="module")
def references(folders: dict[str, Path]) -> dict[str, Embedder]:
    """The engine on the same folders."""
    return {name: Embedder(folder, max_tokens=LIMIT, dtype="float32", device="cpu") for name, folder in folders.items()}


def at(server: LlamaServer, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", **options)


def causes(report: ParityReport) -> list[str]:
    return [finding.cause for finding in report.findings]


@pytest.mark.parametrize("model", ["qwen3", "gemma"])
def test_a_file_that_is_right_has_no_fault(
    model: str, folders: dict[str, Path], models: dict[str, str], references: dict[str, Embedder], gguf_folder: Path,
    llama_server: StartLlama,
) -> None:  # fmt: skip
    server = llama_server(write_embedder(folders[model], gguf_folder / f"parity-{model}.gguf"), *ROOM)
    report = check_parity(Embedder(models[model], backend=at(server)), references[model])
    assert report.findings == (), report
    assert report.verdict == "equal"
    assert {"over 512 tokens", "at the limit", "empty", "white space at the edges"} <= set(report.cosines)


@pytest.mark.parametrize(("model", "pooling"), [("qwen3", "mean"), ("gemma", "last")])
def test_another_pooling_is_named(
    model: str, pooling: Any, folders: dict[str, Path], models: dict[str, str], references: dict[str, Embedder],
    gguf_folder: Path, llama_server: StartLlama,
) -> None:  # fmt: skip
    file = write_embedder(folders[model], gguf_folder / f"parity-{model}-{pooling}.gguf", pooling=pooling)
    report = check_parity(Embedder(models[model], backend=at(llama_server(file, *ROOM))), references[model])
    assert causes(report) == ["wrong pooling"], report
    assert report.verdict == "differs"


def test_missing_dense_layers_are_named(
    folders: dict[str, Path], models: dict[str, str], references: dict[str, Embedder], gguf_folder: Path,
    llama_server: StartLlama,
) -> None:  # fmt: skip
    file = write_embedder(folders["gemma"], gguf_folder / "parity-no-dense.gguf", dense=False)
    report = check_parity(Embedder(models["gemma"], backend=at(llama_server(file, *ROOM))), references["gemma"])
    assert causes(report) == ["dense layers missing"], report
    assert "--sentence-transformers-dense-modules" in str(report)


@pytest.mark.parametrize("model", ["qwen3", "gemma"])
def test_a_missing_end_token_is_put_right_before(
    model: str, folders: dict[str, Path], models: dict[str, str], references: dict[str, Embedder], gguf_folder: Path,
    llama_server: StartLlama,
) -> None:  # fmt: skip
    """Hence nothing is left to be named."""
    file = write_embedder(folders[model], gguf_folder / f"parity-no-end-{model}.gguf", adds_end=False)
    report = check_parity(Embedder(models[model], backend=at(llama_server(file, *ROOM))), references[model])
    assert report.findings == (), report


def test_long_texts_of_a_bidirectional_model_are_refused_by_default(
    folders: dict[str, Path], models: dict[str, str], references: dict[str, Embedder], gguf_folder: Path,
    llama_server: StartLlama,
) -> None:  # fmt: skip
    """A batch holds 512 tokens unless it is started with more."""
    server = llama_server(write_embedder(folders["gemma"], gguf_folder / "parity-gemma.gguf"), "--embedding")
    here = Embedder(models["gemma"], backend=at(server))
    with pytest.raises(InputTooLongError, match="takes 512") as caught:
        here.embed_documents(["short", words(1200)])
    assert (caught.value.index, caught.value.limit) == (1, 512)
    report = check_parity(here, references["gemma"])
    assert set(causes(report)) == {"refused"}, report
    assert "over 512 tokens" in str(report)
    assert report.verdict == "differs"
