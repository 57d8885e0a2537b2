"""payloads/llama_server.json: what llama-server answers, for tests that cannot start one. It still answers so.

To write the file anew: EMBRIEF_RECORD=1 python -m pytest tests/servers/test_llama_payloads.py
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..conftest import make_reranker
from ..gguf_writer import write_embedder, write_reranker
from .conftest import StartLlama
from .llama import LlamaServer
from .process import Answer
from .recording import KEPT, Recorded, check, record, words

PAYLOADS = Path(__file__).parent / "payloads" / "llama_server.json"
EMBEDDINGS = "/v1/embeddings"
KEY = "a-key-of-the-tests"
ABOUT = {
    "source": "recorded from that program with checkpoints of random weights (tests/conftest.py)",
    "shortened": f"every vector to its first {KEPT} values of 48; dates are left out",
}
# By model: the flags of all its cases.
FLAGS = {
    "embedder": ("--embedding", "--alias", "tiny", "-c", "256"),
    "gemma": ("--embedding", "--alias", "tiny"),
    "reranker": ("--rerank", "--alias", "tiny", "-c", "512"),
    "generator": ("--alias", "tiny"),
    "loading": ("--embedding", "--alias", "tiny"),
}


class Case(NamedTuple):
    """One request; without a body it is a GET."""

    model: str
    path: str
    body: Any = None
    flags: tuple[str, ...] = ()
    key: str | None = None


def inputs(*texts: Any, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "input": list(texts), **more}


def pairs(*documents: Any, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "query": "Mars", "documents": list(documents), **more}


CASES = {
    "embeddings": Case("embedder", EMBEDDINGS, inputs("Mars", "", "x")),
    "embeddings_base64": Case("embedder", EMBEDDINGS, inputs("Mars", "x", encoding_format="base64")),
    "embeddings_of_one_text": Case("embedder", EMBEDDINGS, {"model": "tiny", "input": "Mars"}),
    "embeddings_of_ids": Case("embedder", EMBEDDINGS, inputs([64, 65], [66])),
    "embeddings_asked_with_content": Case("embedder", EMBEDDINGS, {"content": ["Mars", "x"]}),
    "embedding": Case("embedder", "/embedding", {"content": ["Mars", "x"]}),
    "tokenize": Case("embedder", "/tokenize", {"content": "Mars", "add_special": True}),
    "models": Case("embedder", "/v1/models"),
    "health": Case("embedder", "/health"),
    "empty_list": Case("embedder", EMBEDDINGS, inputs()),
    "null": Case("embedder", EMBEDDINGS, {"model": "tiny", "input": None}),
    "null_in_list": Case("embedder", EMBEDDINGS, inputs("x", None)),
    "no_input": Case("embedder", EMBEDDINGS, {"model": "tiny"}),
    "ids_beyond_the_vocabulary": Case("embedder", EMBEDDINGS, inputs([99999])),
    "bad_encoding_format": Case("embedder", EMBEDDINGS, inputs("x", encoding_format="hex")),
    "over_context": Case("embedder", EMBEDDINGS, inputs("x", words(600))),
    "over_shared_context": Case("embedder", EMBEDDINGS, inputs(*(words(200, first) for first in range(8)))),
    "over_batch": Case("gemma", EMBEDDINGS, inputs("x", words(100)), ("-ub", "32")),
    "pooling_none": Case("embedder", EMBEDDINGS, inputs("x"), ("--pooling", "none")),
    "rerank_disabled": Case("embedder", "/v1/rerank", pairs("x")),
    "embeddings_disabled": Case("generator", EMBEDDINGS, inputs("x")),
    "no_such_path": Case("embedder", "/v2/embed", {"texts": ["x"]}),
    "no_key": Case("embedder", EMBEDDINGS, inputs("x"), ("--api-key", KEY)),
    "wrong_key": Case("embedder", EMBEDDINGS, inputs("x"), ("--api-key", KEY), "another-key"),
    "models_without_key": Case("embedder", "/v1/models", None, ("--api-key", KEY)),
    "health_without_key": Case("embedder", "/health", None, ("--api-key", KEY)),
    "loading": Case("loading", EMBEDDINGS, inputs("x")),
    "rerank": Case("reranker", "/v1/rerank", pairs("a planet", "yes yes", "cake")),
    "rerank_top_n": Case("reranker", "/v1/rerank", pairs("a planet", "yes yes", "cake", top_n=2)),
    "rerank_texts": Case("reranker", "/rerank", {"query": "Mars", "texts": ["a", "b"], "return_text": True}),
    "rerank_objects": Case("reranker", "/v1/rerank", pairs({"text": "a"})),
    "rerank_nothing": Case("reranker", "/v1/rerank", pairs()),
    "rerank_no_query": Case("reranker", "/v1/rerank", {"model": "tiny", "documents": ["a"]}),
    "rerank_over_context": Case("reranker", "/v1/rerank", pairs("a", words(600))),
}


@pytest.fixture(scope="module")
def files(
    qwen3_folder: Path, gemma_folder: Path, corpus: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    target = tmp_path_factory.mktemp("payloads")
    reranker = write_reranker(make_reranker(target / "reranker", corpus), target / "reranker.gguf")
    embedder = write_embedder(qwen3_folder, target / "embedder.gguf")
    gemma = write_embedder(gemma_folder, target / "gemma.gguf")
    return {"embedder": embedder, "generator": embedder, "gemma": gemma, "reranker": reranker}


def first_answer(server: LlamaServer, path: str, body: object) -> Answer:
    """What a server says that has just been started, as soon as it says anything."""
    end = time.monotonic() + 60  # only against hangs
    while True:
        try:
            return server.ask(path, body)
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_llama_server_still_answers_so(
    name: str, request: pytest.FixtureRequest, llama_build: Path, files: dict[str, Path], llama_server: StartLlama
) -> None:
    case = CASES[name]
    flags = (*FLAGS[case.model], *case.flags)
    if case.model == "loading":
        starting = request.getfixturevalue("loading_llama_server")
        answer = first_answer(starting(request.getfixturevalue("slow_gguf"), *flags), case.path, case.body)
    else:
        answer = llama_server(files[case.model], *flags).ask(case.path, case.body, key=case.key)
    found = Recorded({"model": case.model, "flags": list(flags)}, case.path, case.body, case.key, answer)
    if os.environ.get("EMBRIEF_RECORD"):
        build = json.loads((llama_build / "build.json").read_text("utf-8"))
        software = f"llama-server of llama.cpp at {build['commit']}, from llama-cpp-python {build['version']}"
        record(PAYLOADS, name, found, {"software": software, **ABOUT}, list(CASES))
    check(PAYLOADS, name, found)


def test_every_case_is_in_the_file() -> None:
    assert list(json.loads(PAYLOADS.read_text("utf-8"))["cases"]) == list(CASES)
