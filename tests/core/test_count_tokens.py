"""Lengths of texts without running the model: the same as those that running it tells, before any cut."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from embrief import ArgumentTypeError, Embedder, FallbackEmbedder, FallbackReranker, Reranker
from embrief.testing import FakeRuntime

TEXTS = ["", "one", "two words", "naïve café — 日本語 🙂", "long " * 700]
TINY, JUDGE = "embrief/tiny-embedding", "embrief/tiny-reranker"


@pytest.mark.parametrize("model", ["embrief/hash", TINY])
@pytest.mark.parametrize("role", ["document", "query"])
def test_counts_are_those_of_a_run_before_the_cut(model, role):
    embedder = Embedder(model, truncate="silent", max_tokens=64)
    counted = embedder.count_tokens(TEXTS, role=role)
    assert counted.dtype == np.int64
    assert counted.tolist() == embedder.encode(TEXTS, role=role).token_counts.tolist()
    assert counted[-1] > 600
    assert asyncio.run(embedder.acount_tokens(TEXTS, role=role)).tolist() == counted.tolist()
    # A text that may not be cut has a length all the same.
    assert embedder.with_settings(truncate="error").count_tokens(TEXTS, role=role).tolist() == counted.tolist()


def test_a_prompt_and_an_instruction_count():
    embedder = Embedder(TINY)
    plain = embedder.count_tokens(["a"], role="query", instruction="")[0]
    assert embedder.count_tokens(["a"], role="query")[0] > plain
    assert embedder.count_tokens(["a"], role="query", instruction="find " * 50)[0] >= plain + 50


def test_what_stands_above_a_model_counts_as_it_does():
    expected = Embedder(TINY).count_tokens(TEXTS, role="document").tolist()
    assert Embedder(TINY, cache="memory").count_tokens(TEXTS, role="document").tolist() == expected
    chain = FallbackEmbedder([TINY, Embedder(TINY, device="cpu", dtype="float32")], unprobed="warn")
    assert chain.count_tokens(TEXTS, role="document").tolist() == expected


def test_pairs_count_with_their_template():
    judge = Reranker(JUDGE, truncate="silent", max_tokens=256)
    counted = judge.count_tokens("red planet", TEXTS)
    assert counted.tolist() == Reranker(JUDGE).count_tokens("red planet", TEXTS).tolist()
    assert counted[1] - counted[0] == 1
    assert counted[-1] > 600
    assert judge.count_tokens("red planet", []).shape == (0,)
    assert asyncio.run(judge.acount_tokens("red planet", TEXTS)).tolist() == counted.tolist()
    assert FallbackReranker([judge]).count_tokens("red planet", TEXTS).tolist() == counted.tolist()


def test_nothing_is_run_and_no_text_is_no_error():
    with FakeRuntime() as fake:
        embedder = Embedder(fake.qwen3)
        assert embedder.count_tokens([], role="document").shape == (0,)
        assert embedder.count_tokens(["one two"], role="document")[0] == 2
        assert fake.texts == []


def test_a_runtime_that_cannot_tell_says_so():
    with FakeRuntime() as fake:
        assert Reranker(fake.reranker).count_tokens("q", ["a"]) is None


def test_bad_input_is_refused_with_its_index():
    with pytest.raises(ArgumentTypeError) as caught:
        Embedder("embrief/hash").count_tokens(["a", 3], role="document")
    assert caught.value.index == 1
