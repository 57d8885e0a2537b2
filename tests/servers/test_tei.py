"""text-embeddings-inference: its limits, its errors, and that it serves what was asked for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from embrief import Embedder, Reranker
from embrief.errors import (
    ArgumentError,
    BackendError,
    EmbriefError,
    InputTooLongError,
    ItemFailedError,
    ModelMismatchError,
    RateLimitedError,
    ServerModelWarning,
    UnavailableError,
)
from embrief.servers import Tei, http
from embrief.testing import Asked, LoopbackServer, Reply

from .conftest import Record
from .helpers import payload, posted, rows, words

QWEN = "Qwen/Qwen3-Embedding-0.6B"
BGE = "BAAI/bge-reranker-v2-m3"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_pause", lambda attempt, after: after or 0.0)


def info(case: str = "info_embedding", **changes: Any) -> Reply:
    told = payload("tei", case)
    told.body.update(changes)
    return told


def serving(answer: Callable[[Asked], Reply | None] = lambda _: None, told: Reply | None = None) -> LoopbackServer:
    """A server: `answer` says what becomes of a request for vectors, `None` for a healthy answer."""

    def reply(asked: Asked) -> Reply:
        if asked.path == "/info":
            return told or info()
        return answer(asked) or Reply(rows(asked.body["inputs"], 1024))

    return LoopbackServer(reply)


def at(server: LoopbackServer, **options: Any) -> Tei:
    return Tei(base_url=server.url, **options)


def test_what_is_sent_and_in_how_many_requests() -> None:
    """TEI cuts and normalises by default; how many texts it takes at once is in /info."""
    with serving() as server:
        here = Embedder(QWEN, backend=at(server), dim=64, normalize=False)
        texts = ["x" * length for length in range(1, 10)]
        found = here.embed_documents(texts)
        here.embed_query("a", instruction="Find it")
    np.testing.assert_allclose(found[:, 1] / found[:, 0], np.arange(1, 10) / 100, rtol=1e-5)
    *bodies, query = posted(server, "/embed")
    assert sorted(len(body["inputs"]) for body in bodies) == [1, 4, 4]
    for body in bodies:
        assert {name: value for name, value in body.items() if name != "inputs"} == {
            "truncate": False,
            "normalize": False,
        }
    assert query["inputs"] == ["Instruct: Find it\nQuery:a"]


def test_fewer_texts_than_it_takes_can_be_asked_for_and_not_more() -> None:
    for wanted, size in ((2, 2), (100, 4)):
        with serving() as server:
            Embedder(QWEN, backend=at(server, batch_rows=wanted)).embed_documents([f"{n}" for n in range(8)])
            assert {len(body["inputs"]) for body in posted(server, "/embed")} == {size}


def test_tokens_per_request_are_kept() -> None:
    with serving(told=info(max_batch_tokens=100, max_client_batch_size=32)) as server:
        Embedder(QWEN, backend=at(server)).embed_documents(["x" * 120, "y" * 120, "z"])
        # In any order: they are on their way together.
        assert sorted(len(body["inputs"]) for body in posted(server, "/embed")) == [1, 2]


@pytest.mark.parametrize(
    ("case", "kind", "asked"),
    [
        ("tokenizer", ItemFailedError, 1),
        ("backend", ItemFailedError, 1),
        ("empty", ItemFailedError, 1),
        ("body_too_large", ItemFailedError, 1),
        ("overloaded", RateLimitedError, 4),
        ("unhealthy", UnavailableError, 4),
    ],
)
def test_errors_have_types(case: str, kind: type[EmbriefError], asked: int) -> None:
    with serving(lambda _: payload("tei", case)) as server, pytest.raises(kind) as caught:
        Embedder(QWEN, backend=at(server)).embed_documents(["a secret diary of mine"])
    assert isinstance(caught.value, BackendError)
    assert "secret" not in str(caught.value)
    assert len(posted(server, "/embed")) == asked


@pytest.mark.parametrize("case", ["batch_too_large", "body_too_large"])
def test_a_request_that_is_too_large_is_halved(case: str) -> None:
    def at_most_two(asked: Asked) -> Reply | None:
        return payload("tei", case) if len(asked.body["inputs"]) > 2 else None

    with serving(at_most_two, info(max_client_batch_size=32)) as server:
        found = Embedder(QWEN, backend=at(server)).embed_documents(["x" * length for length in range(1, 10)])
        assert np.allclose(found[:, 1] / found[:, 0], np.arange(1, 10) / 100)


def test_a_text_that_is_too_long_is_named_with_the_numbers() -> None:
    def refuses(asked: Asked) -> Reply | None:
        return payload("tei", "too_long") if any(len(text) > 50 for text in asked.body["inputs"]) else None

    with serving(refuses) as server, pytest.raises(InputTooLongError, match=r"600 tokens.*takes 512") as caught:
        Embedder(QWEN, backend=at(server)).embed_documents(["a", "b", "x" * 60, "c"])
    assert (caught.value.index, caught.value.tokens, caught.value.limit) == (2, 600, 512)
    # Without a tokenizer there is no telling where to cut.
    assert f"`embrief pull {QWEN} --tokenizer`" in str(caught.value)
    assert "max_tokens=512" in str(caught.value)


def test_a_lower_limit_is_seen_before_a_text_is_sent(qwen3_folder: Path) -> None:
    with serving() as server:
        here = Embedder(QWEN, backend=at(server, tokenizer=str(qwen3_folder)))
        with pytest.raises(InputTooLongError, match="takes 512") as caught:
            here.embed_documents(["a", words(800)])
        assert caught.value.index == 1
        assert not posted(server, "/embed")
        cut = Embedder(QWEN, backend=here.settings.backend, max_tokens=512, truncate="silent")
        assert cut.encode(["a", words(800)], role="document").truncated.tolist() == [False, True]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_id": "BAAI/bge-m3"}, r"serves 'BAAI/bge-m3'.*model='BAAI/bge-m3'"),
        ({"model_type": {"embedding": {"pooling": "mean"}}}, "pools .* by 'mean'.*'last'.*--pooling"),
        ({"model_type": {"embedding": {"pooling": "cls"}}}, "pools"),
        ({"model_type": {"reranker": {}}}, "as reranker"),
        ({"model_type": {"classifier": {}}}, "as classifier"),
    ],
)
def test_what_is_served_must_be_what_was_asked_for(changes: dict[str, Any], problem: str) -> None:
    with serving(told=info(**changes)) as server:
        with pytest.raises(ModelMismatchError, match=problem):
            Embedder(QWEN, backend=at(server)).embed_documents(["a"])
        assert not posted(server, "/embed")


@pytest.mark.parametrize(
    "changes",
    [
        {"model_id": QWEN.upper()},
        {"model_id": "/data/model", "model_sha": None},
        {"model_type": {"embedding": {"pooling": "LastToken"}}},
        {"model_type": {}},
        {"max_client_batch_size": None, "max_input_length": None, "max_batch_tokens": None},
    ],
)
def test_what_says_nothing_else_is_taken(changes: dict[str, Any]) -> None:
    with serving(told=info(**changes)) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Embedder(QWEN, backend=at(server)).embed_documents(["a"]).shape == (1, 1024)


def test_a_copy_is_served_where_the_user_says_so() -> None:
    with serving(told=info(model_id="mirror/Qwen3-Embedding-0.6B", model_sha=None)) as server:
        with pytest.raises(ModelMismatchError, match=r"model='mirror/Qwen3-Embedding-0\.6B'"):
            Embedder(QWEN, backend=at(server)).embed_documents(["a"])
        assert len(Embedder(QWEN, backend=at(server, model="mirror/Qwen3-Embedding-0.6B")).embed_documents(["a"])) == 1
        with pytest.raises(ModelMismatchError, match="other/copy is wanted"):
            Embedder(QWEN, backend=at(server, model="other/copy")).embed_documents(["a"])


def test_a_number_format_that_is_wrong_for_a_model() -> None:
    gemma = "google/embeddinggemma-300m"
    mean = {"embedding": {"pooling": "mean"}}
    told = info(model_dtype="float16", model_type=mean, model_id=gemma, model_sha=None)
    with serving(told=told) as server, pytest.raises(ModelMismatchError, match="float16"):
        Embedder(gemma, backend=at(server)).load()
    told = info(model_dtype="float32", model_type=mean, model_id=gemma, model_sha=None)
    with serving(told=told) as server:
        Embedder(gemma, backend=at(server)).load()


def test_other_weights_are_warned_of() -> None:
    with serving(told=info(model_sha="0" * 40)) as server, pytest.warns(ServerModelWarning, match="revision='0000"):
        Embedder(QWEN, backend=at(server)).load()
    with serving() as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        Embedder(QWEN, backend=at(server)).load()


@pytest.mark.parametrize("told", [Reply([]), Reply({"detail": "x"}), Reply("hello"), Reply(b"<html>")])
def test_what_is_no_tei_is_said_to_be_none(told: Reply) -> None:
    with serving(told=told) as server, pytest.raises(BackendError, match="/info"):
        Embedder(QWEN, backend=at(server)).load()


# ---- Rerankers


def ranking(logits: Callable[[str, str], float], told: Reply | None = None) -> LoopbackServer:
    def reply(asked: Asked) -> Reply:
        if asked.path == "/info":
            return told or info("info_reranker")
        found = [logits(asked.body["query"], text) for text in asked.body["texts"]]
        if not asked.body["raw_scores"]:
            found = [float(1 / (1 + np.exp(-value))) for value in found]
        ranked = sorted(enumerate(found), key=lambda item: -item[1])
        return Reply([{"index": index, "score": score} for index, score in ranked])

    return LoopbackServer(reply)


def test_scores_are_the_probabilities_of_raw_log_odds() -> None:
    texts = ["xx", "x", "xxxx", "xxx"]
    with ranking(lambda query, text: 3.0 * len(text) - 7.5) as server:
        here = Reranker(BGE, backend=at(server))
        found = here.score("q", texts)
        pairs = here.score_pairs([("a", "x"), ("b", "xx"), ("a", "xxx")])
    logits = np.array([3.0 * len(text) - 7.5 for text in texts])
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    np.testing.assert_allclose(pairs, 1 / (1 + np.exp([4.5, 1.5, -1.5])), rtol=1e-5)
    bodies = posted(server, "/rerank")
    assert bodies[0] == {"query": "q", "texts": texts, "raw_scores": True, "truncate": False}
    assert {(body["query"], *body["texts"]) for body in bodies[1:]} == {("a", "x", "xxx"), ("b", "xx")}


def test_a_reranker_with_a_template_is_refused() -> None:
    """TEI sends query and document as a pair, without the template."""
    with pytest.raises(ArgumentError, match="template"):
        Reranker("Qwen/Qwen3-Reranker-0.6B", backend=Tei(base_url="http://127.0.0.1:1"))


def test_an_embedder_does_not_rerank() -> None:
    with ranking(lambda *_: 0.0, info(model_id=BGE)) as server, pytest.raises(ModelMismatchError, match="as embedding"):
        Reranker(BGE, backend=at(server)).score("q", ["a"])


def test_a_pair_that_is_cut_is_the_one_that_the_model_would_see(classifier_folder: Path, record: Record) -> None:
    """Counted as a pair, with the special tokens between query and document."""
    model = record(BGE, hidden_size=48, max_tokens=64, context=256)
    engine = Reranker(str(classifier_folder), device="cpu", dtype="float32", max_tokens=64, truncate="silent")
    documents = ["short", "a long document about planets " * 20, "日本語" * 40]
    with ranking(lambda *_: 0.0, info("info_reranker", model_id="/data")) as server:
        here = Reranker(model, backend=at(server, tokenizer=str(classifier_folder)), truncate="silent")
        here.score("which planet is red?", documents)
        sent = posted(server, "/rerank")[0]["texts"]
        with pytest.raises(InputTooLongError) as caught:
            Reranker(model, backend=here.settings.backend, truncate="error").score("q", documents)
        with pytest.raises(InputTooLongError, match="query") as full:
            here.score("a query that fills it " * 30, ["a"])
    assert caught.value.index == 1
    strict = Reranker(str(classifier_folder), device="cpu", dtype="float32", max_tokens=64, truncate="error")
    with pytest.raises(InputTooLongError) as expected:
        strict.score("q", documents)
    assert str(caught.value) == str(expected.value)
    with pytest.raises(InputTooLongError) as expected:
        engine.score("a query that fills it " * 30, ["a"])
    assert (full.value.index, full.value.limit) == (expected.value.index, expected.value.limit)
    # What is sent gets the same scores, without being cut.
    assert sent[0] == documents[0]
    scores = [strict.score("which planet is red?", sent), engine.score("which planet is red?", documents)]
    np.testing.assert_allclose(scores[0][:2], scores[1][:2], atol=1e-3)


def test_payloads_have_a_source() -> None:
    for file in sorted((Path(__file__).parent / "payloads").glob("*.json")):
        stored = json.loads(file.read_text("utf-8"))
        assert stored["source"], file.name
        assert stored["software"], file.name
