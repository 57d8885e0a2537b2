"""What llama-server really does to a text, to a bad request, and with a file that lacks something."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..gguf_writer import RERANK_TEMPLATE, write_embedder, write_reranker
from .conftest import StartLlama
from .llama import LlamaServer
from .process import Answer

pytestmark = pytest.mark.slow

EMBEDDINGS = "/v1/embeddings"


def embed(server: LlamaServer, texts: Any, **more: Any) -> np.ndarray:
    answer = server.ask(EMBEDDINGS, {"input": texts, "model": "tiny", **more})
    assert answer.status == 200, answer
    assert [item["index"] for item in answer.body["data"]] == list(range(len(texts)))
    return np.array([item["embedding"] for item in answer.body["data"]])


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    found: np.ndarray = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    return found


def oracle(folder: Path, texts: list[str]) -> np.ndarray:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return model.encode(texts, normalize_embeddings=True).astype(np.float64)


def words(count: int, first: int = 0) -> str:
    """A text of about `count` tokens; another one for each `first`."""
    return " ".join(str(number % 10) for number in range(first, first + count // 2))


@pytest.fixture(scope="module")
def probe(texts: list[str]) -> list[str]:
    """Texts of `texts`, one that looks like special tokens, and lengths to either side of the windows."""
    return [*texts, "a<|endoftext|>b<eos>c", " blanks around ", words(120), words(262)]


@pytest.fixture(scope="module")
def qwen3(qwen3_folder: Path, gguf_folder: Path) -> Path:
    return write_embedder(qwen3_folder, gguf_folder / "qwen3.gguf")


@pytest.fixture(scope="module")
def gemma(gemma_folder: Path, gguf_folder: Path) -> Path:
    return write_embedder(gemma_folder, gguf_folder / "gemma.gguf")


@pytest.fixture(scope="module")
def reranker(reranker_folder: Path, gguf_folder: Path) -> Path:
    return write_reranker(reranker_folder, gguf_folder / f"{reranker_folder.name}.gguf")


# ---- The same vectors and scores ---------------------------------------------------------------------


def test_qwen3_vectors_are_those_of_sentence_transformers(
    qwen3: Path, qwen3_folder: Path, probe: list[str], llama_server: StartLlama
) -> None:
    texts = [*probe, words(700)]
    server = llama_server(qwen3, "--embedding")
    expected = oracle(qwen3_folder, texts)
    assert cosines(embed(server, texts), expected).min() > 0.9999
    assert cosines(np.vstack([embed(server, [text]) for text in texts]), expected).min() > 0.9999


def test_gemma_vectors_are_those_of_sentence_transformers(
    gemma: Path, gemma_folder: Path, texts: list[str], llama_server: StartLlama
) -> None:
    # Windows of 16 tokens: every text but the shortest is longer.
    server = llama_server(gemma, "--embedding")
    assert cosines(embed(server, texts), oracle(gemma_folder, texts)).min() > 0.9999


def test_gemma_windows_of_the_published_width(
    wide_gemma_folder: Path, gguf_folder: Path, probe: list[str], llama_server: StartLlama
) -> None:
    texts = [*probe, words(600), words(1600)]
    file = write_embedder(wide_gemma_folder, gguf_folder / "wide-gemma.gguf")
    # A bidirectional model has to see a text in one batch.
    server = llama_server(file, "--embedding", "-b", "2048", "-ub", "2048")
    assert cosines(embed(server, texts), oracle(wide_gemma_folder, texts)).min() > 0.9999


def rank(server: LlamaServer, query: str, documents: list[str]) -> list[float]:
    answer = server.ask("/v1/rerank", {"model": "tiny", "query": query, "documents": documents})
    assert answer.status == 200, answer
    found = {item["index"]: item["relevance_score"] for item in answer.body["results"]}
    assert [item["relevance_score"] for item in answer.body["results"]] == sorted(found.values(), reverse=True)
    return [found[index] for index in range(len(documents))]


def probabilities(folder: Path, query: str, documents: list[str]) -> list[float]:
    """P(yes) by transformers, of the prompt that the file holds."""
    import torch
    from tokenizers import Tokenizer
    from transformers import Qwen3ForCausalLM

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    yes, no = tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    found = []
    for document in documents:
        ids = tokenizer.encode(RERANK_TEMPLATE.replace("{query}", query).replace("{document}", document)).ids
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        found.append(logits[[yes, no]].softmax(0)[0].item())
    return found


DOCUMENTS = ["Mars is a planet.", "A recipe for cake", "", "yes yes yes", "日本語 <|im_end|>\n and more\n" * 3]


def test_scores_are_those_of_transformers(reranker: Path, reranker_folder: Path, llama_server: StartLlama) -> None:
    found = rank(llama_server(reranker, "--rerank"), "What is Mars?", DOCUMENTS)
    expected = probabilities(reranker_folder, "What is Mars?", DOCUMENTS)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    # Equal scores would show nothing.
    assert np.ptp(expected) > 0.02


# ---- What it does to a text, and leaves undone -------------------------------------------------------


def test_ids_get_no_end_token(qwen3: Path, llama_server: StartLlama) -> None:
    server = llama_server(qwen3, "--embedding")
    ids = server.ask("/tokenize", {"content": "Mars", "add_special": True}).body["tokens"]
    assert ids[-1] == 0  # <|endoftext|>
    text, same, cut = embed(server, ["Mars", ids, ids[:-1]])
    assert cosines(text, same) > 0.99999
    assert cosines(text, cut) < 0.99


def test_dimensions_are_ignored(qwen3: Path, llama_server: StartLlama) -> None:
    assert embed(llama_server(qwen3, "--embedding"), ["Mars"], dimensions=8).shape == (1, 48)


def test_any_model_name_is_served(qwen3: Path, llama_server: StartLlama) -> None:
    answer = llama_server(qwen3, "--embedding").ask(EMBEDDINGS, {"input": ["Mars"], "model": "text-embedding-3-large"})
    assert (answer.status, answer.body["model"]) == (200, "text-embedding-3-large")


def test_base64_is_the_same_vector(qwen3: Path, llama_server: StartLlama) -> None:
    server = llama_server(qwen3, "--embedding")
    item = server.ask(EMBEDDINGS, {"input": ["Mars"], "encoding_format": "base64"}).body["data"][0]
    decoded = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
    np.testing.assert_allclose(decoded, embed(server, ["Mars"])[0], atol=1e-5)
    assert item["encoding_format"] == "base64"


def test_vectors_can_come_as_they_are(qwen3: Path, llama_server: StartLlama) -> None:
    server = llama_server(qwen3, "--embedding")
    np.testing.assert_allclose(np.linalg.norm(embed(server, ["Mars"])), 1, atol=1e-5)
    assert np.linalg.norm(embed(server, ["Mars"], embd_normalize=-1)) > 2


def test_an_instruction_for_reranking_is_ignored(reranker: Path, llama_server: StartLlama) -> None:
    server = llama_server(reranker, "--rerank")
    body = {"query": "What is Mars?", "documents": DOCUMENTS, "top_n": 2, "return_documents": True}
    answer = server.ask("/v1/rerank", {**body, "instruction": "Find recipes"})
    expected = sorted(rank(server, "What is Mars?", DOCUMENTS), reverse=True)[:2]
    np.testing.assert_allclose([item["relevance_score"] for item in answer.body["results"]], expected, atol=1e-4)
    assert "document" not in answer.body["results"][0]


def test_a_query_that_holds_the_place_of_the_document(
    reranker: Path, reranker_folder: Path, llama_server: StartLlama
) -> None:
    """The document is put there too: the score is that of another query."""
    server = llama_server(reranker, "--rerank")
    found = rank(server, "{document} and {document}", ["Mars"])
    np.testing.assert_allclose(found, probabilities(reranker_folder, "Mars and Mars", ["Mars"]), atol=2e-3)


# ---- Files that lack something: it answers all the same ----------------------------------------------


def test_a_file_that_does_not_ask_for_the_end_token(
    qwen3: Path, qwen3_folder: Path, gguf_folder: Path, llama_server: StartLlama
) -> None:
    texts = ["Mars is often called the Red Planet.", "x", words(50)]
    right = embed(llama_server(qwen3, "--embedding"), texts)
    server = llama_server(write_embedder(qwen3_folder, gguf_folder / "no-end.gguf", adds_end=False), "--embedding")
    assert cosines(embed(server, texts), right).max() < 0.99
    assert server.ask("/tokenize", {"content": "x", "add_special": True}).body["tokens"][-1] != 0
    # Special tokens in a text are read as such, so it can be put right from outside.
    assert cosines(embed(server, [f"{text}<|endoftext|>" for text in texts]), right).min() > 0.9999


def test_a_file_with_another_pooling(
    qwen3: Path, qwen3_folder: Path, gguf_folder: Path, llama_server: StartLlama
) -> None:
    texts = ["Mars is often called the Red Planet.", words(50)]
    right = embed(llama_server(qwen3, "--embedding"), texts)
    wrong = llama_server(write_embedder(qwen3_folder, gguf_folder / "mean.gguf", pooling="mean"), "--embedding")
    assert cosines(embed(wrong, texts), right).max() < 0.99
    by_flag = llama_server(qwen3, "--embedding", "--pooling", "mean")
    assert cosines(embed(by_flag, texts), embed(wrong, texts)).min() > 0.9999


def test_gemma_without_its_dense_layers(
    gemma: Path, gemma_folder: Path, gguf_folder: Path, texts: list[str], llama_server: StartLlama
) -> None:
    server = llama_server(write_embedder(gemma_folder, gguf_folder / "no-dense.gguf", dense=False), "--embedding")
    found, right = embed(server, texts), embed(llama_server(gemma, "--embedding"), texts)
    assert found.shape == right.shape
    assert cosines(found, right).max() < 0.9


def test_a_reranker_without_a_head(
    reranker: Path, reranker_folder: Path, gguf_folder: Path, llama_server: StartLlama
) -> None:
    file = write_reranker(reranker_folder, gguf_folder / f"{reranker_folder.name}-plain.gguf", head=False)
    found = rank(llama_server(file, "--rerank"), "What is Mars?", DOCUMENTS)
    right = rank(llama_server(reranker, "--rerank"), "What is Mars?", DOCUMENTS)
    assert min(abs(one - other) for one, other in zip(found, right, strict=True)) > 0.01


def test_embeddings_of_a_reranker(reranker: Path, llama_server: StartLlama) -> None:
    """Its first two values are the classes; the others are whatever was in memory, hence no more is said of them."""
    values = embed(llama_server(reranker, "--rerank"), ["Mars"], embd_normalize=-1)
    assert values.shape == (1, 48)
    np.testing.assert_allclose(values[0, :2].sum(), 1, atol=1e-4)


# ---- Limits ------------------------------------------------------------------------------------------


def test_a_text_longer_than_the_context_is_refused_not_cut(qwen3: Path, llama_server: StartLlama) -> None:
    answer = llama_server(qwen3, "--embedding").ask(EMBEDDINGS, {"input": ["x", words(3000)]})
    assert answer.status == 400
    assert answer.body["error"]["type"] == "exceed_context_size_error"
    assert answer.body["error"]["n_prompt_tokens"] > answer.body["error"]["n_ctx"] == 1024


def test_texts_that_fit_one_by_one_may_not_fit_together(qwen3: Path, llama_server: StartLlama) -> None:
    """By default four texts at once share one context: all that run fail, with a 500 that is not for good."""
    server = llama_server(qwen3, "--embedding")
    texts = [words(800, first) for first in range(8)]
    together = server.ask(EMBEDDINGS, {"input": texts})
    assert (together.status, together.body["error"]["message"]) == (500, "Context size has been exceeded.")
    one_by_one = np.vstack([embed(server, [text]) for text in texts])
    assert cosines(embed(llama_server(qwen3, "--embedding", "-np", "1"), texts), one_by_one).min() > 0.9999


def test_a_bidirectional_text_longer_than_a_batch(gemma: Path, llama_server: StartLlama) -> None:
    server = llama_server(gemma, "--embedding", "-ub", "32")
    for _ in range(2):  # for good: it is no use to ask again
        answer = server.ask(EMBEDDINGS, {"input": ["x", words(100)]})
        assert answer.status == 500
        assert re.fullmatch(
            r"input \(\d+ tokens\) is too large to process\. increase the physical batch size "
            r"\(current batch size: 32\)",
            answer.body["error"]["message"],
        )
    assert embed(server, ["x"]).shape == (1, 48)


def test_while_it_loads(slow_gguf: Path, loading_llama_server: StartLlama) -> None:
    answer = ask_while_loading(loading_llama_server(slow_gguf, "--embedding"), {"input": ["x"]})
    assert answer.status == 503
    assert answer.body["error"] == {"message": "Loading model", "type": "unavailable_error", "code": 503}
    assert "retry-after" not in answer.headers


def ask_while_loading(server: LlamaServer, body: object) -> Answer:
    """The first answer of a server that has just been started."""
    end = time.monotonic() + 60
    while True:
        try:
            return server.ask(EMBEDDINGS, body)
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.002)


# ---- What else is built ------------------------------------------------------------------------------


def test_quantize(
    qwen3: Path, tmp_path: Path, llama_build: Path, own_llama_server: StartLlama, texts: list[str]
) -> None:
    half = tmp_path / "f16.gguf"
    program = str(llama_build / "bin" / "llama-quantize")
    subprocess.run([program, str(qwen3), str(half), "F16", "1"], check=True, capture_output=True, timeout=120)
    assert half.stat().st_size < 0.7 * qwen3.stat().st_size
    right = embed(own_llama_server(qwen3, "--embedding"), texts)
    assert cosines(embed(own_llama_server(half, "--embedding"), texts), right).min() > 0.999


def test_the_libraries_can_be_loaded_from_their_folder(llama_build: Path) -> None:
    """In a process of its own, as a runtime in Python does it."""
    library = llama_build / "lib" / f"libllama.{'dylib' if sys.platform == 'darwin' else 'so'}"
    code = (
        "import ctypes, sys; lib = ctypes.CDLL(sys.argv[1]); lib.llama_backend_init();"
        "lib.llama_print_system_info.restype = ctypes.c_char_p; print(lib.llama_print_system_info().decode())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(library)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "CPU" in done.stdout
