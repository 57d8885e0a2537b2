"""Ollama: what it is told so that it changes no text, and what its files may have wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from embrief import Embedder, Reranker, plugins
from embrief.errors import (
    ArgumentError,
    BackendError,
    EmbriefError,
    InputTooLongError,
    ItemFailedError,
    ModelMismatchError,
    NonFiniteVectorError,
    TruncationWarning,
    UnavailableError,
)
from embrief.servers import Ollama, http
from embrief.testing import Asked, LoopbackServer, Reply

from .helpers import payload, posted, rows, words

QWEN = "Qwen/Qwen3-Embedding-0.6B"
TAG = "qwen3-embedding:0.6b"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_pause", lambda attempt, after: after or 0.0)


def shown(**changes: Any) -> Reply:
    """What /api/show says; `None` takes a fact away."""
    told = payload("ollama", "show")
    info = {**told.body["model_info"], **changes}
    told.body["model_info"] = {name: value for name, value in info.items() if value is not None}
    return told


def serving(
    answer: Callable[[Asked], Reply | None] = lambda _: None, show: Reply | None = None, width: int = 1024
) -> LoopbackServer:
    """A server: `answer` says what becomes of a request for vectors, `None` for a healthy answer."""

    def reply(asked: Asked) -> Reply:
        if asked.path == "/api/show":
            return show or shown()
        if asked.path != "/api/embed":
            return payload("ollama", "no_page")
        found = rows(asked.body["input"], width)
        return answer(asked) or Reply({"model": asked.body["model"], "embeddings": found, "prompt_eval_count": 3})

    return LoopbackServer(reply)


def at(server: LoopbackServer, **options: Any) -> Ollama:
    return Ollama(base_url=server.url, **options)


def test_what_is_sent() -> None:
    """Left alone, Ollama cuts at 4096 tokens, and after an error of its runner at 512, with 200 each time."""
    with serving() as server:
        here = Embedder(QWEN, backend=at(server, keep_alive="10m"), dim=64)
        here.embed_documents(["a document", ""])
        here.embed_query("a query")
        Embedder(QWEN, backend=at(server), max_tokens=100).embed_documents(["short"])
        assert [body["model"] for body in posted(server, "/api/show")] == [TAG] * 2
    documents, query, short = posted(server, "/api/embed")
    options = {"num_ctx": 8192, "num_batch": 8192}
    assert documents == {
        "model": TAG, "input": ["a document", ""], "truncate": False, "options": options, "keep_alive": "10m",
    }  # fmt: skip
    own = "Given a web search query, retrieve relevant passages that answer the query"
    assert query["input"] == [f"Instruct: {own}\nQuery:a query"]
    assert short["options"] == {"num_ctx": 100, "num_batch": 100}
    assert "keep_alive" not in short


def test_a_file_with_less_context_than_the_model() -> None:
    with serving(show=shown(**{"qwen3.context_length": 2048})) as server:
        Embedder(QWEN, backend=at(server)).embed_documents(["a"])
        assert posted(server, "/api/embed")[0]["options"] == {"num_ctx": 2048, "num_batch": 2048}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (QWEN, TAG),
        ("Qwen/Qwen3-Embedding-4B", "qwen3-embedding:4b"),
        ("google/embeddinggemma-300m", "embeddinggemma"),
        ("BAAI/bge-m3", "bge-m3"),
        ("nomic-ai/nomic-embed-text-v1.5", "nomic-embed-text"),
        ("mixedbread-ai/mxbai-embed-large-v1", "mxbai-embed-large"),
        ("sentence-transformers/all-MiniLM-L6-v2", "all-minilm:l6-v2"),
        ("Snowflake/snowflake-arctic-embed-xs", "snowflake-arctic-embed:xs"),
        ("jinaai/jina-embeddings-v2-base-es", "jina/jina-embeddings-v2-base-es"),
    ],
)
def test_the_names_that_it_has_for_models(model: str, name: str) -> None:
    """Slashes and tags are part of a name."""
    with serving(show=Reply({}), width=plugins().catalog.models[model].dim) as server:  # type: ignore[union-attr]
        Embedder(model, backend=at(server)).embed_documents(["a"])
        assert {body["model"] for body in (*posted(server, "/api/show"), *posted(server, "/api/embed"))} == {name}


def test_another_name_is_the_users() -> None:
    with serving() as server:
        Embedder(QWEN, backend=at(server, model="hf.co/me/q3:Q4_K_M")).embed_documents(["a"])
        assert posted(server, "/api/embed")[0]["model"] == "hf.co/me/q3:Q4_K_M"
    with pytest.raises(ArgumentError, match=r"no known name.*Ollama\(model="):
        Embedder("Alibaba-NLP/gte-multilingual-base", backend=at(server))


def test_where_it_is_comes_from_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.port}")
        assert Embedder(QWEN, backend="ollama").embed_documents(["a"]).shape == (1, 1024)


@pytest.mark.parametrize("case", ["no_model", "no_model_with_hint"])
def test_a_model_that_is_missing_has_to_be_pulled(case: str) -> None:
    with serving(show=payload("ollama", case)) as server, pytest.raises(ModelMismatchError) as caught:
        Embedder(QWEN, backend=at(server)).embed_documents(["a", "b"])
    assert f"`ollama pull {TAG}`" in str(caught.value)
    # It may also be removed while it is in use.
    with serving(lambda _: payload("ollama", case)) as server, pytest.raises(ModelMismatchError, match="ollama pull"):
        Embedder(QWEN, backend=at(server)).embed_documents(["a", "b"])


def test_a_wrong_address_is_no_missing_model() -> None:
    with serving() as server, pytest.raises(BackendError, match="is base_url right") as caught:
        Embedder(QWEN, backend=Ollama(base_url=f"{server.url}/v1")).embed_documents(["a"])
    assert "pull" not in str(caught.value)


def test_the_legacy_route_is_refused_with_the_reason() -> None:
    with pytest.raises(ArgumentError, match=r"not normalised.*cuts it without saying so.*'http://127\.0\.0\.1:9'"):
        Embedder(QWEN, backend=Ollama(base_url="http://127.0.0.1:9/api/embeddings"))


def test_rerankers_are_refused_with_the_reason() -> None:
    with pytest.raises(ArgumentError, match="no such route"):
        Reranker("Qwen/Qwen3-Reranker-0.6B", backend="ollama")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"qwen3.embedding_length": 2560}, "2560 values.*1024"),
        ({"qwen3.pooling_type": 1}, "pools by 'mean'.*'last'"),
        ({"qwen3.pooling_type": 0}, "pools by 'none'"),
        ({"qwen3.pooling_type": 4}, "pools by 'rank'"),
    ],
)
def test_a_file_that_is_another_model_or_made_wrongly(changes: dict[str, Any], problem: str) -> None:
    with serving(show=shown(**changes)) as server:
        with pytest.raises(ModelMismatchError, match=problem):
            Embedder(QWEN, backend=at(server)).embed_documents(["a"])
        assert not posted(server, "/api/embed")


@pytest.mark.parametrize("told", [Reply({}), Reply([]), Reply({"model_info": {"general.architecture": ["qwen3"]}})])
def test_a_file_of_which_nothing_is_said(told: Reply) -> None:
    with serving(show=told) as server:
        assert Embedder(QWEN, backend=at(server)).embed_documents(["a"]).shape == (1, 1024)


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, ""),
        ({"tokenizer.ggml.add_eos_token": False}, "<|endoftext|>"),
        # Many files leave it out, and so does Ollama then.
        ({"tokenizer.ggml.add_eos_token": None}, "<|endoftext|>"),
        ({"tokenizer.ggml.add_eos_token": None, "tokenizer.ggml.model": "bert"}, ""),
    ],
)
def test_the_final_token_is_appended_where_the_file_leaves_it_out(changes: dict[str, Any], end: str) -> None:
    with serving(show=shown(**changes)) as server:
        Embedder(QWEN, backend=at(server)).embed_documents(["a text", ""])
        assert posted(server, "/api/embed")[0]["input"] == [f"a text{end}", end]


def test_a_file_with_another_final_token_is_refused_where_that_is_known(qwen3_folder: Path) -> None:
    """The tokenizer at hand says which number is right: 0 in this one."""
    wrong = pytest.raises(ModelMismatchError, match=r"token 151645 behind a text.*\(0\)")
    with serving(show=shown(**{"tokenizer.ggml.eos_token_id": 151645})) as server, wrong:
        Embedder(QWEN, backend=at(server, tokenizer=str(qwen3_folder))).embed_documents(["a"])
    with serving(show=shown(**{"tokenizer.ggml.eos_token_id": 0})) as server:
        Embedder(QWEN, backend=at(server, tokenizer=str(qwen3_folder))).embed_documents(["a"])


@pytest.mark.parametrize("case", ["too_long", "not_cut_further"])
def test_a_text_over_the_context(case: str) -> None:
    def refuses(asked: Asked) -> Reply | None:
        return payload("ollama", case) if any(len(text) > 50 for text in asked.body["input"]) else None

    with serving(refuses) as server:
        for truncate in ("warn", "silent", "error"):
            here = Embedder(QWEN, backend=at(server), max_tokens=64, truncate=truncate)
            with pytest.raises(InputTooLongError, match=r"takes 64;.*tokenizer") as caught:
                here.embed_documents(["a", "b", "x" * 60, "c"])
            assert (caught.value.index, caught.value.limit) == (2, 64)


def test_a_long_text_is_cut_here_with_the_tokenizer_at_hand(qwen3_folder: Path) -> None:
    with serving(show=shown(**{"tokenizer.ggml.eos_token_id": 0})) as server:
        here = Embedder(QWEN, backend=at(server, tokenizer=str(qwen3_folder)), max_tokens=20)
        with pytest.warns(TruncationWarning):
            found = here.encode(["a", words(100)], role="document")
        assert found.truncated is not None
        assert found.truncated.tolist() == [False, True]
        sent = posted(server, "/api/embed")[0]
        assert sent["input"][0] == "a"
        assert words(100).startswith(sent["input"][1])
        assert sent["options"] == {"num_ctx": 20, "num_batch": 20}


@pytest.mark.parametrize("case", ["nan", "nan_of_the_runner"])
def test_the_text_that_becomes_nan_is_named_among_many(case: str) -> None:
    """Ollama refuses the whole request."""
    texts = [f"text {number}" for number in range(100)]

    def spoiled(asked: Asked) -> Reply | None:
        return payload("ollama", case) if texts[77] in asked.body["input"] else None

    with serving(spoiled) as server, pytest.raises(NonFiniteVectorError, match="index 77") as caught:
        Embedder(QWEN, backend=at(server)).embed_documents(texts)
    assert caught.value.index == 77
    asked = [tuple(body["input"]) for body in posted(server, "/api/embed")]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(("case", "kind"), [("wrong_type", ItemFailedError), ("busy", UnavailableError)])
def test_errors_have_types(case: str, kind: type[EmbriefError]) -> None:
    with serving(lambda _: payload("ollama", case)) as server, pytest.raises(kind) as caught:
        Embedder(QWEN, backend=at(server)).embed_documents(["a secret diary of mine"])
    assert "secret" not in str(caught.value)


def test_an_answer_without_vectors_is_none() -> None:
    """What it gives for an empty prompt of its own."""
    with serving(lambda asked: Reply({"model": "q", "embeddings": []})) as server, pytest.raises(BackendError):
        Embedder(QWEN, backend=at(server)).embed_documents([""])


def test_vectors_are_cut_and_normalised_here() -> None:
    with serving() as server:
        found = Embedder(QWEN, backend=at(server), dim=32).embed_documents(["abc"])
        assert "dimensions" not in posted(server, "/api/embed")[0]
    np.testing.assert_allclose(found[0, :2], np.array([1, 0.03]) / np.hypot(1, 0.03), rtol=1e-5)
