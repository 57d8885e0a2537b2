"""Servers with OpenAI's `/embeddings`: what a real llama-server gives, and what others are known to answer."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import shutil
import struct
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from embrief import Embedder
from embrief.errors import (
    ArgumentError,
    BackendError,
    BadAnswerError,
    EmbriefError,
    InputTooLongError,
    ItemFailedError,
    ModelMismatchError,
    RateLimitedError,
    ServerModelWarning,
    TruncationWarning,
    UnauthorizedError,
)
from embrief.servers import OpenAI, http
from embrief.testing import Asked, LoopbackServer, Reply

from ..gguf_writer import write_embedder, write_reranker
from .conftest import Record, StartLlama
from .helpers import cosines, payload, posted, rows, words

EMBEDDINGS = "/v1/embeddings"
QUERIES = ["what is the red planet?", "", "日本語 and émoji 🙂", "x " * 150]
LONG = [
    "a text of English words about planets and their moons, " * 30,
    "日本語のテキストです。" * 60,
    "🙂🚀" * 80,
    "Ünïcödé, accents ànd ligatures ﬁ ﬂ; " * 20,
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for between two tries."""
    monkeypatch.setattr(http, "_pause", lambda attempt, after: after or 0.0)


# ---- A real llama-server ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen3(qwen3_folder: Path, gguf_folder: Path) -> Path:
    return write_embedder(qwen3_folder, gguf_folder / "qwen3-openai.gguf")


@pytest.fixture(scope="module")
def gemma(gemma_folder: Path, gguf_folder: Path) -> Path:
    return write_embedder(gemma_folder, gguf_folder / "gemma-openai.gguf")


@pytest.fixture(scope="module")
def engine(qwen3_folder: Path) -> Embedder:
    return Embedder(str(qwen3_folder), device="cpu", dtype="float32", max_tokens=1024)


@pytest.fixture(scope="module")
def gemma_engine(gemma_folder: Path) -> Embedder:
    return Embedder(str(gemma_folder), device="cpu", dtype="float32")


def at(server: Any, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", **options)


pytest_real = pytest.mark.slow


@pytest_real
@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_vectors_are_those_of_the_engine(
    encoding: str, qwen3: Path, qwen3_model: str, engine: Embedder, texts: list[str], llama_server: StartLlama
) -> None:
    documents = [*texts, "a<|endoftext|>b<|im_end|>c", " blanks around ", words(120), words(700)]
    here = Embedder(qwen3_model, backend=at(llama_server(qwen3, "--embedding"), encoding=encoding, batch_rows=5))
    assert cosines(here.embed_documents(documents), engine.embed_documents(documents)).min() > 0.9999
    queries = np.array([here.embed_query(text) for text in QUERIES])
    assert cosines(queries, np.array([engine.embed_query(text) for text in QUERIES])).min() > 0.9999
    # A query has a prompt, and a document has none.
    assert cosines(queries, here.embed_documents(QUERIES)).max() < 0.99
    told = here.embed_query("Mars", instruction="Find recipes")
    assert cosines(told, engine.embed_query("Mars", instruction="Find recipes")) > 0.9999
    assert cosines(told, here.embed_query("Mars")) < 0.999


@pytest_real
def test_gemma_has_its_prompts_and_its_final_token(
    gemma: Path, gemma_model: str, gemma_engine: Embedder, texts: list[str], llama_server: StartLlama
) -> None:
    here = Embedder(gemma_model, backend=at(llama_server(gemma, "--embedding")))
    assert cosines(here.embed_documents(texts), gemma_engine.embed_documents(texts)).min() > 0.9999
    assert cosines(here.embed_query("Mars"), gemma_engine.embed_query("Mars")) > 0.9999
    titled = here.encode(["is red"], role="document", titles=["Mars"]).vectors
    assert cosines(titled, gemma_engine.encode(["is red"], role="document", titles=["Mars"]).vectors).min() > 0.9999
    assert here.encode(texts, role="document").truncated is None


@pytest_real
def test_a_text_is_the_same_in_any_company(
    qwen3: Path, qwen3_model: str, texts: list[str], llama_server: StartLlama
) -> None:
    here = Embedder(qwen3_model, backend=at(llama_server(qwen3, "--embedding"), batch_rows=3))
    found = here.embed_documents(texts)
    alone = np.concatenate([here.embed_documents([text]) for text in texts])
    assert cosines(found, alone).min() > 0.99999
    assert cosines(found, here.embed_documents(texts[::-1])[::-1]).min() > 0.99999
    other: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: other.append(here.embed_documents(texts))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(other) == 2
    assert min(cosines(found, each).min() for each in other) > 0.99999


@pytest_real
def test_a_shorter_vector_is_cut_here(
    qwen3: Path, qwen3_model: str, engine: Embedder, texts: list[str], llama_server: StartLlama
) -> None:
    """llama-server takes no notice of `dimensions`."""
    here = Embedder(qwen3_model, backend=at(llama_server(qwen3, "--embedding")), dim=16)
    found = here.embed_documents(texts)
    assert found.shape == (len(texts), 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    whole = engine.embed_documents(texts)
    assert cosines(found, whole[:, :16]).min() > 0.9999


@pytest_real
def test_counts_are_those_of_the_engine(
    qwen3: Path, qwen3_folder: Path, qwen3_model: str, engine: Embedder, texts: list[str], llama_server: StartLlama
) -> None:
    here = Embedder(qwen3_model, backend=at(llama_server(qwen3, "--embedding"), tokenizer=str(qwen3_folder)))
    for role in ("query", "document"):
        found, expected = here.encode(texts, role=role), engine.encode(texts, role=role)
        assert found.token_counts is not None
        assert found.token_counts.tolist() == expected.token_counts.tolist()
        assert found.truncated is not None
        assert not found.truncated.any()


@pytest_real
@pytest.mark.parametrize("family", ["qwen3", "gemma"])
@pytest.mark.parametrize("role", ["query", "document"])
def test_a_long_text_is_cut_as_the_engine_cuts_it(
    family: str, role: Any, request: pytest.FixtureRequest, llama_server: StartLlama
) -> None:
    file, model, folder = (request.getfixturevalue(f"{family}{part}") for part in ("", "_model", "_folder"))
    backend = at(llama_server(file, "--embedding"), tokenizer=str(folder))
    here = Embedder(model, backend=backend, max_tokens=70)
    engine = Embedder(str(folder), device="cpu", dtype="float32", max_tokens=70)
    with pytest.warns(TruncationWarning, match="4 of 5"):
        found = here.encode([*LONG, "short"], role=role)
    with pytest.warns(TruncationWarning):
        expected = engine.encode([*LONG, "short"], role=role)
    assert found.truncated is not None
    assert found.truncated.tolist() == [True] * 4 + [False]
    assert found.token_counts is not None
    assert found.token_counts.tolist() == expected.token_counts.tolist()
    near = cosines(found.vectors, expected.vectors)
    # Of letters that are several tokens, the engine keeps a part; a text that is sent ends between two.
    assert near[[0, 4]].min() > 0.999
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent = Embedder(model, backend=backend, max_tokens=70, truncate="silent").encode(LONG, role=role)
    assert cosines(silent.vectors, found.vectors[:4]).min() > 0.99999
    strict = Embedder(model, backend=backend, max_tokens=70, truncate="error")
    with pytest.raises(InputTooLongError) as caught:
        strict.encode(["short", *LONG], role=role)
    assert (caught.value.index, caught.value.limit) == (1, 70)
    assert caught.value.tokens == expected.token_counts[0]


@pytest_real
def test_a_limit_that_leaves_no_room(
    qwen3: Path, qwen3_folder: Path, qwen3_model: str, llama_server: StartLlama
) -> None:
    backend = at(llama_server(qwen3, "--embedding"), tokenizer=str(qwen3_folder))
    with pytest.raises(InputTooLongError, match="leaves no room") as caught:
        Embedder(qwen3_model, backend=backend, max_tokens=5).embed_query("a planet")
    assert caught.value.index in (0, None)


@pytest_real
def test_without_a_tokenizer_a_long_text_is_refused_with_the_remedy(
    qwen3: Path, qwen3_model: str, llama_server: StartLlama
) -> None:
    """Whatever `truncate` says: nobody can cut it, and the server does not."""
    backend = at(llama_server(qwen3, "--embedding"))
    for truncate in ("warn", "silent", "error"):
        here = Embedder(qwen3_model, backend=backend, truncate=truncate)
        with pytest.raises(InputTooLongError, match=r"takes 1023.*tokenizer") as caught:
            here.embed_documents(["a", "b", words(1400), "c"])
        assert (caught.value.index, caught.value.limit) == (2, 1023)
        assert 1300 < caught.value.tokens < 1500


@pytest_real
def test_a_lower_limit_without_a_tokenizer_holds_for_short_texts_only(
    qwen3: Path, qwen3_model: str, engine: Embedder, llama_server: StartLlama
) -> None:
    here = Embedder(qwen3_model, backend=at(llama_server(qwen3, "--embedding")), max_tokens=64)
    assert cosines(here.embed_documents(["short"]), engine.embed_documents(["short"])).min() > 0.9999
    with pytest.raises(ArgumentError, match=r"max_tokens=64.*tokenizer") as caught:
        here.embed_documents(["short", "x" * 60])
    assert caught.value.index == 1


@pytest_real
@pytest.mark.parametrize("counted", [True, False])
def test_a_server_that_takes_less_than_the_model(
    counted: bool, qwen3: Path, qwen3_folder: Path, qwen3_model: str, llama_server: StartLlama
) -> None:
    """Started with a smaller context: what it takes is said, and how to get there."""
    server = llama_server(qwen3, "--embedding", "-c", "256")
    here = Embedder(qwen3_model, backend=at(server, tokenizer=str(qwen3_folder) if counted else None))
    with pytest.raises(InputTooLongError, match=r"takes 255.*max_tokens=255") as caught:
        here.embed_documents(["a", words(500), "b"])
    assert (caught.value.index, caught.value.limit) == (1, 255)
    assert 450 < caught.value.tokens < 550
    if counted:
        cut = Embedder(qwen3_model, backend=here.settings.backend, max_tokens=255, truncate="silent")
        assert cut.embed_documents([words(500)]).shape == (1, 48)


@pytest_real
def test_a_file_without_the_end_token_is_put_right(
    qwen3_folder: Path, qwen3: Path, qwen3_model: str, gguf_folder: Path, engine: Embedder, texts: list[str],
    llama_server: StartLlama,
) -> None:  # fmt: skip
    file = write_embedder(qwen3_folder, gguf_folder / "no-end-openai.gguf", adds_end=False)
    server = llama_server(file, "--embedding")
    expected = engine.embed_documents(texts)
    found = Embedder(qwen3_model, backend=at(server)).embed_documents(texts)
    assert cosines(found, expected).min() > 0.9999
    named = Embedder(qwen3_model, backend=at(server, final_token="append"))
    assert cosines(named.embed_documents(texts), expected).min() > 0.9999
    assert named.fingerprint != Embedder(qwen3_model, backend=at(server)).fingerprint
    # Cut by the server's own count, the end token is there, too.
    counted = Embedder(qwen3_model, backend=at(server, tokenizer=str(qwen3_folder)), max_tokens=40, truncate="silent")
    short = Embedder(str(qwen3_folder), device="cpu", dtype="float32", max_tokens=40, truncate="silent")
    assert cosines(counted.embed_documents(LONG[:2]), short.embed_documents(LONG[:2])).min() > 0.999
    with pytest.raises(ModelMismatchError, match="by itself: leave out final_token"):
        Embedder(qwen3_model, backend=at(llama_server(qwen3, "--embedding"), final_token="append")).embed_query("a")


@pytest_real
def test_a_file_with_another_end_token_is_refused(
    qwen3_folder: Path, qwen3_model: str, gguf_folder: Path, llama_server: StartLlama
) -> None:
    folder = gguf_folder / "other-end"
    shutil.copytree(qwen3_folder, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["post_processor"]["single"][-1]["SpecialToken"]["id"] = "<|im_end|>"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    server = llama_server(write_embedder(folder, gguf_folder / "other-end.gguf"), "--embedding")
    with pytest.raises(ModelMismatchError, match="other tokens behind a text"):
        Embedder(qwen3_model, backend=at(server)).embed_query("a")


@pytest_real
def test_a_file_of_another_width_is_refused_at_load(qwen3: Path, record: Record, llama_server: StartLlama) -> None:
    wide = record("Qwen/Qwen3-Embedding-0.6B", dim=64, hidden_size=64, mrl=())
    with pytest.raises(ModelMismatchError, match=r"48 values.*64"):
        Embedder(wide, backend=at(llama_server(qwen3, "--embedding"))).load()


@pytest_real
def test_a_server_for_something_else_is_refused_at_load(
    qwen3: Path, qwen3_model: str, reranker_folder: Path, gguf_folder: Path, llama_server: StartLlama
) -> None:
    """llama-server answers 200 to a request for embeddings of a reranker."""
    reranker = write_reranker(reranker_folder, gguf_folder / f"openai-{reranker_folder.name}.gguf")
    with pytest.raises(ModelMismatchError, match=r"reranker.*--embedding"):
        Embedder(qwen3_model, backend=at(llama_server(reranker, "--rerank"))).load()
    generator = Embedder(qwen3_model, backend=at(llama_server(qwen3)))
    with pytest.raises(ModelMismatchError, match="does not embed"):
        generator.embed_documents(["a", "b"])
    tokens = Embedder(qwen3_model, backend=at(llama_server(qwen3, "--embedding", "--pooling", "none")))
    with pytest.raises(ModelMismatchError, match=r"does not pool.*start it with the model's pooling"):
        tokens.embed_documents(["a", "b"])


@pytest_real
def test_texts_that_do_not_fit_together_go_in_smaller_requests(
    qwen3: Path, qwen3_model: str, engine: Embedder, llama_server: StartLlama, quick: None
) -> None:
    texts = [words(800, first) for first in range(8)]
    here = Embedder(qwen3_model, backend=at(llama_server(qwen3, "--embedding"), in_flight=1))
    assert cosines(here.embed_documents(texts), engine.embed_documents(texts)).min() > 0.9999


@pytest_real
def test_a_text_over_the_physical_batch_is_said_to_be_too_long(
    gemma: Path, gemma_model: str, llama_server: StartLlama
) -> None:
    here = Embedder(gemma_model, backend=at(llama_server(gemma, "--embedding", "-ub", "32")))
    with pytest.raises(InputTooLongError, match="takes 32") as caught:
        here.embed_documents(["a", words(100), "b"])
    assert (caught.value.index, caught.value.limit) == (1, 32)
    assert 90 < caught.value.tokens < 120


@pytest_real
def test_a_server_that_still_loads_is_waited_for(
    slow_gguf: Path, qwen3_model: str, loading_llama_server: StartLlama
) -> None:
    from .process import free_port

    server = loading_llama_server(slow_gguf, "--embedding", port=free_port())
    here = Embedder(qwen3_model, backend=at(server, tries=30))
    assert here.embed_documents(["a"]).shape == (1, 48)


@pytest_real
def test_a_key_opens_a_real_server(
    qwen3: Path, qwen3_model: str, llama_server: StartLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = llama_server(qwen3, "--embedding", "--api-key", "sk-tests-0123")
    with pytest.raises(UnauthorizedError, match="api_key_env"):
        Embedder(qwen3_model, backend=at(server)).embed_query("a")
    monkeypatch.setenv("TINY_API_KEY", "sk-tests-0123")
    assert Embedder(qwen3_model, backend=at(server, api_key_env="TINY_API_KEY")).embed_query("a").shape == (48,)


@pytest_real
def test_a_real_server_has_what_it_lists(qwen3: Path, qwen3_model: str, llama_server: StartLlama) -> None:
    """It would answer to any name."""
    server = llama_server(qwen3, "--embedding")
    with pytest.raises(ModelMismatchError, match="has no model 'text-embedding-3-large'; it serves "):
        Embedder(qwen3_model, backend=at(server, model="text-embedding-3-large")).load()
    tiny = llama_server(qwen3, "--embedding", "--alias", "tiny")
    with pytest.warns(ServerModelWarning, match="serves 'tiny'"):
        Embedder(qwen3_model, backend=at(tiny)).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Embedder(qwen3_model, backend=at(tiny, model="tiny")).load()


# ---- What others answer -------------------------------------------------------------------------------

WIDTH = 48


def answered(asked: Asked, **more: Any) -> Reply:
    """A healthy answer, in base64 where that was asked for."""
    data = []
    for index, row in enumerate(rows(asked.body["input"], WIDTH)):
        item: Any = row
        if asked.body.get("encoding_format") == "base64":
            item = base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
        data.append({"object": "embedding", "index": index, "embedding": item})
    return Reply({"object": "list", "data": data, "model": asked.body["model"], **more})


def serving(answer: Callable[[Asked], Reply | None], models: Reply | None = None) -> LoopbackServer:
    """A server: `answer` says what becomes of a request for embeddings, `None` for a healthy answer."""

    def reply(asked: Asked) -> Reply:
        if asked.path == "/v1/models":
            return models or Reply({"error": {"message": "Not Found"}}, 404)
        return answer(asked) or answered(asked)

    return LoopbackServer(reply)


def healthy(_: Asked) -> None:
    return None


def test_what_is_sent(qwen3_model: str) -> None:
    """Prompts of queries, none of documents; the full width; nothing that a server might not know."""
    with serving(healthy) as server:
        here = Embedder(qwen3_model, backend=at(server), dim=8)
        here.embed_documents(["a document"])
        here.embed_query("a query")
        here.embed_query("a query", instruction="Find it")
    first, second, third = posted(server, EMBEDDINGS)
    assert first == {"model": qwen3_model, "input": ["a document"], "encoding_format": "base64"}
    own = "Given a web search query, retrieve relevant passages that answer the query"
    assert second["input"] == [f"Instruct: {own}\nQuery:a query"]
    assert third["input"] == ["Instruct: Find it\nQuery:a query"]


def test_another_width_is_another_model_and_not_looked_for_in_halves(qwen3_model: str) -> None:
    def short(asked: Asked) -> Reply:
        return Reply({"data": [{"index": n, "embedding": [1.0] * 16} for n in range(len(asked.body["input"]))]})

    with serving(short) as server:
        with pytest.raises(ModelMismatchError, match=r"16 values.*48"):
            Embedder(qwen3_model, backend=at(server)).embed_documents(["a", "b", "c"])
        assert len(posted(server, EMBEDDINGS)) == 1


def test_vectors_per_token_are_refused_with_the_remedy(qwen3_model: str) -> None:
    def unpooled(asked: Asked) -> Reply:
        return Reply({"data": [{"index": n, "embedding": [[1.0] * 48] * 3} for n in range(len(asked.body["input"]))]})

    with serving(unpooled) as server:
        with pytest.raises(BadAnswerError, match=r"one per token.*start it with the model's pooling"):
            Embedder(qwen3_model, backend=at(server)).embed_documents(["a", "b"])
        assert len(posted(server, EMBEDDINGS)) == 1


def test_a_server_that_does_not_know_the_encoding_is_asked_without(qwen3_model: str) -> None:
    def strict(asked: Asked) -> Reply | None:
        return payload("openai", "unknown_field") if "encoding_format" in asked.body else None

    with serving(strict) as server:
        here = Embedder(qwen3_model, backend=at(server, batch_rows=1, in_flight=2))
        # Two at once: the second one hears of it when the first has drawn the conclusion.
        assert here.embed_documents(["a", "bb"]).shape == (2, 48)
        here.embed_documents(["c"])
    assert [("encoding_format" in body) for body in posted(server, EMBEDDINGS)].count(True) <= 2
    assert "encoding_format" not in posted(server, EMBEDDINGS)[-1]


@pytest.mark.parametrize("case", ["over_context", "over_batch"])
def test_what_is_too_long_for_good_is_asked_once(case: str, qwen3_model: str, quick: None) -> None:
    def refuses(asked: Asked) -> Reply | None:
        return payload("llama_server", case) if any(len(text) > 100 for text in asked.body["input"]) else None

    with serving(refuses) as server:
        with pytest.raises(InputTooLongError) as caught:
            Embedder(qwen3_model, backend=at(server)).embed_documents(["a", "b", "x" * 200, "c"])
        asked = [tuple(body["input"]) for body in posted(server, EMBEDDINGS)]
    assert len(asked) == len(set(asked))
    assert caught.value.index == 2
    assert (caught.value.tokens, caught.value.limit) == {"over_context": (600, 255), "over_batch": (101, 32)}[case]


@pytest.mark.parametrize(("case", "tokens", "limit"), [("openai_too_long", 9001, 8192), ("vllm_too_long", 600, 512)])
def test_others_say_it_in_their_own_words(case: str, tokens: int, limit: int, qwen3_model: str) -> None:
    with serving(lambda _: payload("openai", case)) as server, pytest.raises(InputTooLongError) as caught:
        Embedder(qwen3_model, backend=at(server)).embed_documents(["a"])
    assert (caught.value.index, caught.value.tokens, caught.value.limit) == (0, tokens, limit)
    assert f"max_tokens={limit}" in str(caught.value)


def test_a_crowded_server_is_asked_again_and_then_for_less(qwen3_model: str, quick: None) -> None:
    def crowded(asked: Asked) -> Reply | None:
        return payload("llama_server", "over_shared_context") if len(asked.body["input"]) > 2 else None

    texts = ["x" * length for length in range(1, 9)]
    with serving(crowded) as server:
        found = Embedder(qwen3_model, backend=at(server)).embed_documents(texts)
        sizes = [len(body["input"]) for body in posted(server, EMBEDDINGS)]
    assert np.allclose(found[:, 1] / found[:, 0], np.arange(1, 9) / 100)
    assert sizes == [8, 8, 4, 4, 2, 2, 4, 4, 2, 2]


def test_a_text_that_others_are_in_the_way_of_is_asked_for_as_often_as_allowed(qwen3_model: str, quick: None) -> None:
    left = ["over_shared_context"] * 3
    with serving(lambda _: payload("llama_server", left.pop()) if left else None) as server:
        assert Embedder(qwen3_model, backend=at(server)).embed_documents(["a"]).shape == (1, 48)
        assert len(posted(server, EMBEDDINGS)) == 4


@pytest.mark.parametrize(
    ("file", "case", "kind"),
    [
        ("openai", "openai_no_model", ModelMismatchError),
        ("llama_server", "pooling_none", ModelMismatchError),
        ("llama_server", "embeddings_disabled", ModelMismatchError),
        ("infinity", "embeddings_of_a_reranker", ModelMismatchError),
        ("llama_server", "no_such_path", BackendError),
        ("infinity", "no_such_path", BackendError),
        ("openai", "openai_rate_limit", RateLimitedError),
        ("llama_server", "no_key", UnauthorizedError),
        ("infinity", "no_key", UnauthorizedError),
    ],
)
def test_errors_have_types(file: str, case: str, kind: type[EmbriefError], qwen3_model: str, quick: None) -> None:
    with serving(lambda _: payload(file, case)) as server, pytest.raises(kind) as caught:
        Embedder(qwen3_model, backend=at(server)).embed_documents(["a secret diary of mine"])
    assert "secret" not in str(caught.value)
    assert server.url in str(caught.value)


def test_more_texts_than_a_server_takes_go_in_smaller_requests(qwen3_model: str) -> None:
    """Infinity refuses a request of more than 2048, and names no text."""

    def refuses(asked: Asked) -> Reply | None:
        return payload("infinity", "too_many") if len(asked.body["input"]) > 2048 else None

    with serving(refuses) as server:
        texts = ["x" * (number % 90) + str(number) for number in range(2049)]
        found = Embedder(qwen3_model, backend=at(server, batch_rows=4096)).embed_documents(texts)
        sizes = [len(body["input"]) for body in posted(server, EMBEDDINGS)]
    assert np.allclose(found[:, 1] / found[:, 0] * 100, [len(text) for text in texts])
    assert sizes == [2049, 1024, 1025] or sizes == [2049, 1025, 1024]


def test_a_text_that_a_validation_repeats_is_not_shown(qwen3_model: str) -> None:
    with serving(lambda _: payload("infinity", "too_many")) as server, pytest.raises(ItemFailedError) as caught:
        Embedder(qwen3_model, backend=at(server)).embed_documents(["the text of a user"])
    assert "at most 2048 items" in str(caught.value)
    assert "the text of a user" not in str(caught.value)


@pytest.mark.parametrize("text", ["hunter2", "the middle of a long text is repeated, and only that, by a server"])
def test_a_part_of_a_text_is_not_shown_either(text: str, qwen3_model: str) -> None:
    def repeats(asked: Asked) -> Reply:
        sent = asked.body["input"][0]
        part = sent[len(sent) - len(text) :][: len(text)]
        return Reply({"error": {"message": f"bad input '{part[10:50] if len(part) > 10 else part}'"}}, 400)

    with serving(repeats) as server, pytest.raises(ItemFailedError, match="repeats the text") as caught:
        Embedder(qwen3_model, backend=at(server)).embed_query(text)
    assert text[10:40] not in str(caught.value) or not text[10:40]
    assert "hunter2" not in str(caught.value)


# ---- Which model it is


def models_of(*names: str, **more: Any) -> Reply:
    return Reply({"object": "list", "data": [{"id": name, "object": "model", **more} for name in names]})


QWEN = "Qwen/Qwen3-Embedding-0.6B"


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        ([QWEN], QWEN),
        (["qwen/qwen3-embedding-0.6b"], "qwen/qwen3-embedding-0.6b"),
        (["other", "Qwen3-Embedding-0.6B"], "Qwen3-Embedding-0.6B"),
        (["/models/Qwen3-Embedding-0.6B-Q8_0.gguf", "/models/other.gguf"], "/models/Qwen3-Embedding-0.6B-Q8_0.gguf"),
        (["ggml-org/Qwen3-Embedding-0.6B-GGUF:Q8_0"], "ggml-org/Qwen3-Embedding-0.6B-GGUF:Q8_0"),
        (["/data/model"], "/data/model"),
        (["C:\\models\\m.gguf"], "C:\\models\\m.gguf"),
        ([], QWEN),
    ],
)
def test_a_list_of_models_decides_what_is_asked_for(names: list[str], asked: str, record: Record) -> None:
    model = QWEN
    with serving(lambda asked: wide(asked), models_of(*names)) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        Embedder(model, backend=at(server)).embed_documents(["a"])
    assert [body["model"] for body in posted(server, EMBEDDINGS)] == [asked]


def wide(asked: Asked) -> Reply:
    return Reply({"data": [{"index": n, "embedding": row} for n, row in enumerate(rows(asked.body["input"], 1024))]})


@pytest.mark.parametrize(
    "names",
    [
        ["BAAI/bge-m3"],
        ["someone/Qwen3-Embedding-0.6B-medical"],
        ["Qwen/Qwen3-Embedding-4B", "Qwen/Qwen3-Embedding-8B"],
        ["a", "b"],
        ["/models/Qwen3-Embedding-0.6B-Q8_0.gguf", "/models/Qwen3-Embedding-0.6B-f16.gguf"],
    ],
)
def test_a_server_that_lists_other_models_is_refused(names: list[str]) -> None:
    """They have the same width, and most servers answer to any name."""
    with serving(wide, models_of(*names)) as server:
        with pytest.raises(ModelMismatchError, match=r"it serves .*model="):
            Embedder(QWEN, backend=at(server)).embed_documents(["a"])
        assert not posted(server, EMBEDDINGS)


def test_a_name_that_says_nothing_is_warned_of() -> None:
    with serving(wide, models_of("embedder")) as server:
        with pytest.warns(ServerModelWarning, match="model='embedder'"):
            Embedder(QWEN, backend=at(server)).embed_documents(["a"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Embedder(QWEN, backend=at(server, model="embedder")).embed_documents(["a"])


def test_a_list_that_cannot_be_had_now_is_waited_for(quick: None) -> None:
    """Else nobody would know what is served, nor who ends a text."""
    left = [503, 429, 500]

    def reply(asked: Asked) -> Reply:
        if asked.path == "/v1/models" and left:
            return Reply({"error": "busy"}, left.pop(0))
        return payload("infinity", "models") if asked.path == "/v1/models" else wide(asked)

    with LoopbackServer(reply) as server:
        assert Embedder(QWEN, backend=at(server)).embed_documents(["a"]).shape == (1, 1024)
    with serving(wide, Reply({"error": "busy"}, 429)) as server, pytest.raises(RateLimitedError):
        Embedder(QWEN, backend=at(server)).embed_documents(["a"])


def test_the_limit_of_vllm_is_in_its_list(tmp_path: Path, qwen3_folder: Path) -> None:
    with serving(wide, payload("openai", "vllm_models")) as server:
        here = Embedder(QWEN, backend=at(server, tokenizer=str(qwen3_folder)))
        with pytest.raises(InputTooLongError, match="takes 512") as caught:
            here.embed_documents(["a", words(800)])
        assert caught.value.limit == 512
        assert not posted(server, EMBEDDINGS)


# ---- What usage tells


def counting(asked: Asked, tokens: Callable[[list[str]], int]) -> Reply:
    return answered(asked, usage={"prompt_tokens": tokens(asked.body["input"]), "total_tokens": 1})


@pytest.fixture(scope="module")
def lengths(qwen3_folder: Path) -> Callable[[list[str]], list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(qwen3_folder / "tokenizer.json"))
    return lambda texts: [len(item) for item in tokenizer.encode_batch(texts)]


def test_usage_of_any_kind_is_tolerated(qwen3_model: str, qwen3_folder: Path, lengths: Any) -> None:
    texts = ["a", "日本語" * 9, "  🙂🚀" * 9]
    assert sum(map(len, texts)) + 6 < sum(lengths(texts))
    for tokens in (
        lambda found: sum(lengths(found)),
        lambda found: sum(map(len, found)),  # letters: here fewer than tokens
        lambda found: sum(len(text.strip()) for text in found),  # as Infinity counts them
        lambda found: sum(lengths(found)) - len(found),  # without the end token
        lambda found: 0,
        lambda found: None,
    ):
        with serving(lambda asked, tokens=tokens: counting(asked, tokens)) as server:
            here = Embedder(qwen3_model, backend=at(server, tokenizer=str(qwen3_folder)))
            assert here.embed_documents(texts).shape == (3, 48)
            assert len(posted(server, EMBEDDINGS)) == 1


def test_a_silent_cut_is_seen_in_the_usage(qwen3_model: str, qwen3_folder: Path, lengths: Any) -> None:
    """llama_cpp.server cuts at 512 tokens with 200, and usage says 512."""
    texts = [*(f"text {number}" for number in range(40)), words(560)]
    with serving(lambda asked: counting(asked, lambda found: sum(min(n, 512) for n in lengths(found)))) as server:
        here = Embedder(qwen3_model, backend=at(server, tokenizer=str(qwen3_folder)))
        with pytest.raises(ItemFailedError, match=r"512 of 5\d\d tokens: it cuts") as caught:
            here.embed_documents(texts)
    assert caught.value.index == 40


def test_a_text_that_was_cut_here_is_no_silent_cut(qwen3_model: str, qwen3_folder: Path, lengths: Any) -> None:
    """A text ends between two letters, which may be some tokens before the limit; what was sent is what counts."""
    limits = range(20, 32)
    for whole in LONG:
        with serving(lambda asked: counting(asked, lambda found: sum(lengths(found)))) as server:
            for limit in limits:
                backend = at(server, tokenizer=str(qwen3_folder))
                here = Embedder(qwen3_model, backend=backend, max_tokens=limit, truncate="silent")
                assert here.embed_documents([whole]).shape == (1, 48)
        for limit, body in zip(limits, posted(server, EMBEDDINGS), strict=True):
            sent = body["input"][0]
            assert whole.startswith(sent)
            # A letter is up to four tokens here.
            assert limit - 3 <= lengths([sent])[0] <= limit


# ---- OpenAI's own


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str], Any]]:
    """Requests to providers, which are answered here."""
    seen: list[tuple[str, dict[str, str], Any]] = []

    async def exchange(client: Any, method: str, url: str, headers: Any, content: bytes, options: Any) -> Any:
        body = json.loads(content)
        seen.append((url, headers, body))
        data = [
            {"index": n, "embedding": base64.b64encode(np.eye(1, 1536, n % 1536, np.float32).tobytes()).decode()}
            for n in range(len(body["input"]))
        ]
        return 200, {}, json.dumps({"data": data}).encode()

    monkeypatch.setattr(http, "_exchange", exchange)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-tests-0123")
    return seen


def test_openai_gets_no_more_than_it_takes(hosted: list[tuple[str, dict[str, str], Any]]) -> None:
    here = Embedder("text-embedding-3-small", backend=OpenAI(batch_rows=5000), dim=256)
    assert here.embed_documents([f"{number}" for number in range(5000)]).shape == (5000, 256)
    assert max(len(body["input"]) for _, _, body in hosted) == 2048
    url, headers, body = hosted[0]
    assert url == "https://api.openai.com:443/v1/embeddings"
    assert headers["Authorization"] == "Bearer sk-tests-0123"
    assert set(body) == {"model", "input", "encoding_format"}
    assert body["model"] == "text-embedding-3-small"
    hosted.clear()
    # Some 4,000 tokens each: 300,000 are not 64 of them at 8,000, which nobody counted.
    here = Embedder("text-embedding-3-small", backend="openai")
    here.embed_documents([f"{number} " + "word " * 8000 for number in range(80)])
    assert [len(body["input"]) for _, _, body in sorted(hosted, key=lambda item: -len(item[2]["input"]))] == [36, 36, 8]


# ---- Loops, threads, processes


def test_a_cancelled_caller_ends_its_request(qwen3_model: str) -> None:
    """The connection is closed: a server need not go on."""
    inside = threading.Event()

    def slow(asked: Asked) -> Reply:
        inside.set()
        return Reply(b" " * 100_000, drip=0.02)

    async def cancel(server: LoopbackServer) -> None:
        task = asyncio.ensure_future(Embedder(qwen3_model, backend=at(server)).aembed_documents(["a"]))
        while not inside.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serving(slow) as server:
        asyncio.run(cancel(server))
        end = time.monotonic() + 30
        while server.inside and time.monotonic() < end:
            time.sleep(0.01)
        assert server.inside == 0
        assert len(posted(server, EMBEDDINGS)) == 1


def test_event_loops_in_turn_and_pickles(qwen3_model: str) -> None:
    with serving(healthy) as server:
        here = Embedder(qwen3_model, backend=at(server, timeout=50), dim=8)
        first = asyncio.run(here.aembed_documents(["a", "bb"]))
        second = asyncio.run(here.aembed_query("a"))
        copy = pickle.loads(pickle.dumps(here))
        assert copy.settings.backend == here.settings.backend
        assert np.array_equal(copy.embed_documents(["a", "bb"]), first)
        assert np.array_equal(copy.embed_query("a"), second)


def test_half_a_letter_is_refused_before_it_is_sent(qwen3_model: str) -> None:
    with serving(healthy) as server:
        with pytest.raises(ArgumentError, match="surrogate"):
            Embedder(qwen3_model, backend=at(server)).embed_documents(["a", "\ud800"])
        assert not server.seen


# ---- Options


def test_a_final_token_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ArgumentError, match="final_token"):
        Embedder("text-embedding-3-small", backend=OpenAI(final_token="append"))


@pytest.mark.parametrize("content", ["", "{}", "no tokenizer"])
def test_a_tokenizer_that_is_none(content: str, tmp_path: Path, qwen3_model: str) -> None:
    with serving(healthy) as server:
        with pytest.raises(ArgumentError, match="tokenizer="):
            Embedder(qwen3_model, backend=at(server, tokenizer=str(tmp_path / "none"))).embed_query("a")
        (tmp_path / "tokenizer.json").write_text(content, "utf-8")
        with pytest.raises(ModelMismatchError, match="is not a tokenizer"):
            Embedder(qwen3_model, backend=at(server, tokenizer=str(tmp_path))).embed_query("a")
        assert not server.seen
