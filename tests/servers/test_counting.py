"""Counting and cutting on this side of the wire: by the tokenizer that was given, or that is in the hub's cache."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from embrief import Embedder, Reranker, plugins
from embrief.errors import ArgumentError, InputTooLongError, MissingDependencyError, TruncationWarning
from embrief.servers import Ollama, OpenAI, RerankHttp, Tei
from embrief.testing import Asked, LoopbackServer, Reply

from .conftest import Record
from .helpers import rows, words

QWEN = "Qwen/Qwen3-Embedding-0.6B"


def anything(asked: Asked) -> Reply:
    """Whatever is asked for: vectors of the model that was meant."""
    if asked.path == "/v1/embeddings":
        model = plugins().catalog.models[asked.body["model"]]
        found = rows(asked.body["input"], model.dim)  # type: ignore[union-attr]
        return Reply({"data": [{"index": n, "embedding": row} for n, row in enumerate(found)]})
    return Reply({"detail": "Not Found"}, 404)


def at(server: LoopbackServer, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", **options)


def sent(server: LoopbackServer) -> list[str]:
    return [text for asked in server.seen if asked.method == "POST" for text in asked.body["input"]]


def test_a_tokenizer_is_a_file_or_a_folder(qwen3_folder: Path, qwen3_model: str) -> None:
    with LoopbackServer(anything) as server:
        for place in (qwen3_folder, qwen3_folder / "tokenizer.json"):
            found = Embedder(qwen3_model, backend=at(server, tokenizer=str(place))).encode(["abc"], role="document")
            assert found.token_counts is not None
        without = Embedder(qwen3_model, backend=at(server)).encode(["abc"], role="document")
        assert (without.token_counts, without.truncated) == (None, None)


def test_counting_alone_asks_for_no_vector(qwen3_folder: Path, qwen3_model: str) -> None:
    texts = ["abc", "", "a longer one " * 40]
    with LoopbackServer(anything) as server:
        counting = Embedder(qwen3_model, backend=at(server, tokenizer=str(qwen3_folder)), truncate="silent")
        counted = counting.with_settings(max_tokens=20).count_tokens(texts, role="query")
        assert Embedder(qwen3_model, backend=at(server)).count_tokens(texts, role="query") is None
        assert sent(server) == []
        told = counting.encode(texts, role="query").token_counts
    assert counted is not None
    assert told is not None
    assert counted.tolist() == told.tolist()


def test_the_hubs_cache_is_looked_at_first(
    qwen3_folder: Path, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the commit of the record, and at no other."""
    commit, other = "a" * 40, "b" * 40
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    changes = {"revision": commit, "dim": 48, "hidden_size": 48, "mrl": ()}
    model = record(QWEN, **changes)
    folder = tmp_path / f"models--{model.replace('/', '--')}" / "snapshots"
    with LoopbackServer(anything) as server:
        (folder / other).mkdir(parents=True)
        shutil.copy(qwen3_folder / "tokenizer.json", folder / other)
        with pytest.raises(ArgumentError, match=rf"`embrief pull {model} --tokenizer`") as caught:
            Embedder(model, backend=at(server), max_tokens=40).embed_documents(["a", words(100)])
        assert caught.value.index == 1
        shutil.copytree(folder / other, folder / commit)
        here = Embedder(model, backend=at(server, timeout=50), max_tokens=40)
        with pytest.warns(TruncationWarning):
            assert here.encode(["a", words(100)], role="document").token_counts is not None


@pytest.mark.parametrize("limit", range(24, 30))
def test_special_tokens_in_a_text_count_as_the_engine_counts_them(
    limit: int, qwen3_folder: Path, qwen3_model: str
) -> None:
    text = "a<|endoftext|>b<|im_end|>" * 20
    engine = Embedder(str(qwen3_folder), device="cpu", dtype="float32", max_tokens=limit, truncate="silent")
    with LoopbackServer(anything) as server:
        here = Embedder(
            qwen3_model, backend=at(server, tokenizer=str(qwen3_folder)), max_tokens=limit, truncate="silent"
        )
        found, expected = here.encode([text], role="document"), engine.encode([text], role="document")
        assert found.token_counts is not None
        assert expected.token_counts is not None
        assert found.token_counts.tolist() == expected.token_counts.tolist()
        # What is sent is what the engine keeps.
        whole = Embedder(str(qwen3_folder), device="cpu", dtype="float32").embed_documents(sent(server))
    np.testing.assert_allclose(whole, expected.vectors, atol=1e-4)


@pytest.mark.parametrize("limit", [12, 20, 33, 64])
def test_a_query_keeps_its_prompt_and_loses_its_end(limit: int, gemma_folder: Path, gemma_model: str) -> None:
    text = "which of the planets is the red one, and why is that so; " * 20
    engine = Embedder(str(gemma_folder), device="cpu", dtype="float32", max_tokens=limit + 20, truncate="silent")
    with LoopbackServer(anything) as server:
        backend = at(server, tokenizer=str(gemma_folder))
        here = Embedder(gemma_model, backend=backend, max_tokens=limit + 20, truncate="silent")
        here.embed_query(text)
        assert sent(server)[0].startswith("task: search result | query: which")
        part = sent(server)[0].removeprefix("task: search result | query: ")
        found = Embedder(str(gemma_folder), device="cpu", dtype="float32").embed_query(part)
    assert float(found @ engine.embed_query(text)) > 0.999


def test_a_tail_is_kept(qwen3_folder: Path, record: Record) -> None:
    """What stands behind the text is never cut, and is counted."""
    from dataclasses import replace

    from embrief.facts.specs import EmbeddingSpec, Template

    base = plugins().catalog.models[QWEN]
    assert isinstance(base, EmbeddingSpec)
    task = replace(base.prompts.tasks[0], document=Template("Document: ", " (the end)"))
    prompts = replace(base.prompts, tasks=(task,))
    model = record(QWEN, dim=48, hidden_size=48, mrl=(), max_tokens=1024, context=1024, prompts=prompts)
    with LoopbackServer(anything) as server:
        here = Embedder(model, backend=at(server, tokenizer=str(qwen3_folder)), max_tokens=40, truncate="silent")
        found = here.encode([words(200)], role="document")
        text = sent(server)[0]
    assert text.startswith("Document: 0 1 2")
    assert text.endswith(" (the end)")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(qwen3_folder / "tokenizer.json"))
    assert 38 <= len(tokenizer.encode(text)) <= 40
    assert found.token_counts is not None
    assert found.token_counts[0] == len(tokenizer.encode(here.render(words(200), role="document")))


def test_a_final_token_that_the_tokenizer_leaves_out_counts(mistral_folder: Path, record: Record) -> None:
    """As with the model itself, which sees it: what is sent leaves room for it."""
    folder = str(mistral_folder)
    model = record("intfloat/e5-mistral-7b-instruct", dim=48, hidden_size=48, max_tokens=256, context=512)
    with LoopbackServer(anything) as server:
        backend = at(server, tokenizer=folder, final_token="append")
        here = Embedder(model, backend=backend, max_tokens=30, truncate="silent")
        found = here.encode(["abc", words(200)], role="document")
        short, long = sent(server)
    assert (short, long[-4:]) == ("abc</s>", "</s>")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    assert found.token_counts is not None
    assert found.token_counts[0] == len(tokenizer.encode("abc</s>")) == len(tokenizer.encode("abc")) + 1
    assert len(tokenizer.encode(long)) == 30
    with LoopbackServer(anything) as server, pytest.raises(InputTooLongError) as caught:
        Embedder(model, backend=at(server, tokenizer=folder), max_tokens=30, truncate="error").embed_documents(
            ["abc", words(200)]
        )
    assert caught.value.tokens == found.token_counts[1]


def test_no_special_token_is_put_around_a_template(qwen3_folder: Path, reranker_model: str) -> None:
    """As where the model runs here, also if the tokenizer would put one there: this one does, behind a text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(qwen3_folder / "tokenizer.json"))
    with LoopbackServer(anything) as server:
        backend = RerankHttp(
            base_url=server.url, tokenizer=str(qwen3_folder), probe="off", scores="probability", template="client"
        )
        here = Reranker(reranker_model, backend=backend, max_tokens=300, truncate="error")
        with pytest.raises(InputTooLongError) as caught:
            here.score("Mars", [words(400)])
        assert not [asked for asked in server.seen if asked.method == "POST"]
    pair = here.render("Mars", words(400))
    parts = [tokenizer.encode(part, add_special_tokens=False).ids for part in (pair.head + pair.words, pair.tail)]
    assert caught.value.tokens == sum(map(len, parts))


def test_without_a_tokenizer_only_a_lower_limit_is_a_problem(qwen3_model: str) -> None:
    with LoopbackServer(anything) as server:
        Embedder(qwen3_model, backend=at(server)).embed_documents(["x" * 500])
        here = Embedder(qwen3_model, backend=at(server), max_tokens=100)
        here.embed_documents(["x" * 92])
        with pytest.raises(ArgumentError, match=r"index 1 may have more than max_tokens=100"):
            here.embed_documents(["a", "x" * 93])
        # Nobody knows where the tokenizer of a model without a commit is.
        with pytest.raises(ArgumentError, match=r"tokenizer= names a tokenizer\.json"):
            here.embed_documents(["é" * 50])


def test_a_corpus_is_checked_before_the_first_text_is_sent(qwen3_folder: Path, qwen3_model: str) -> None:
    with LoopbackServer(anything) as server:
        backend = at(server, tokenizer=str(qwen3_folder))
        here = Embedder(qwen3_model, backend=backend, max_tokens=50, truncate="error")
        with pytest.raises(InputTooLongError) as caught:
            here.check_documents(["a", "b", words(200)])
        assert caught.value.index == 2
        assert not sent(server)


def test_what_reads_a_tokenizer_may_be_missing(
    qwen3_folder: Path, qwen3_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torch and its company servers can be used all the same."""
    monkeypatch.setattr("embrief.servers.counting.is_installed", lambda name: False)
    with LoopbackServer(anything) as server:
        assert Embedder(qwen3_model, backend=at(server)).embed_documents(["a"]).shape == (1, 48)
        with pytest.raises(MissingDependencyError, match="pip install tokenizers"):
            Embedder(qwen3_model, backend=at(server, tokenizer=str(qwen3_folder))).embed_documents(["a"])


@pytest.mark.parametrize("options", [OpenAI, Tei, Ollama])
def test_nothing_is_asked_before_the_first_text(options: Any, qwen3_model: str) -> None:
    """Nor is a tokenizer read."""
    with LoopbackServer(anything) as server:
        here = Embedder(qwen3_model, backend=options(base_url=server.url, model="m", tokenizer="/nowhere"))
        assert here.info()["device"] == "server"
        assert here.fingerprint
        assert not server.seen
