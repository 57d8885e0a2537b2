"""`embrief.testing`: the contract checks accept a right runtime and refuse each kind of broken one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import embrief
from embrief import EmbeddingSpec, Output, Rendered, RerankerSpec, RunOptions
from embrief.runtimes.hashing import HashBackend
from embrief.serving.choosing import serving
from embrief.testing import FakeRuntime, check_runtime

HASH = embrief.Embedder("embrief/hash").spec
RERANKER = embrief.Reranker("Qwen/Qwen3-Reranker-0.6B").spec


class Embeds:
    """A right runtime whose answer may be spoilt on its way out."""

    def __init__(self, spoil: Callable[[Output], Output] | None = None) -> None:
        self._model = HashBackend(HASH)
        self._spoil = spoil

    def run(self, inputs, options: RunOptions) -> Output:
        encoded = self._model.run(inputs, options)
        return self._spoil(encoded) if self._spoil else encoded

    def close(self) -> None:
        pass


def with_vectors(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Output], Output]:
    return lambda encoded: Output.dense(change(encoded.array("dense").copy()), encoded.token_counts, encoded.truncated)


def poisoned(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(vectors: np.ndarray) -> np.ndarray:
        vectors[-1, 3] = value
        return vectors

    return change


def leaking(vectors: np.ndarray) -> np.ndarray:
    """Padding that leaks: a text's vector depends on its neighbours."""
    return vectors + 0.1 * vectors.mean(axis=0) if len(vectors) > 1 else vectors


def position_dependent(vectors: np.ndarray) -> np.ndarray:
    """The second of two equal texts gets another vector."""
    vectors[4:5] = -vectors[4:5]
    return vectors


BROKEN_EMBEDDERS = {
    "too narrow": (with_vectors(lambda v: v[:, :-1]), "shape"),
    "too wide": (with_vectors(lambda v: np.hstack([v, v[:, :1]])), "shape"),
    "one vector missing": (with_vectors(lambda v: v[:-1]), "shape"),
    "per token": (with_vectors(lambda v: v[:, None, :]), "shape"),
    "NaN": (with_vectors(poisoned(np.nan)), "finite"),
    "infinity": (with_vectors(poisoned(np.inf)), "finite"),
    "order reversed": (with_vectors(lambda v: v[::-1]), "order|single|equal"),
    "sorted by size": (with_vectors(lambda v: v[np.argsort(np.abs(v).sum(1), kind="stable")]), "order|single|equal"),
    "two mixed up": (with_vectors(lambda v: v[[1, 0, *range(2, len(v))]] if len(v) > 1 else v), "equal|single|order"),
    "batch is not single": (with_vectors(leaking), "equal to single"),
    "equal texts differ": (with_vectors(position_dependent), "equal texts"),
    "all texts equal": (with_vectors(np.ones_like), "different texts"),
    "counts missing": (lambda e: Output.dense(e.array("dense"), e.token_counts[:-1], e.truncated), "one count"),
    "flags missing": (lambda e: Output.dense(e.array("dense"), e.token_counts, e.truncated[:-1]), "one flag"),
}


@pytest.mark.parametrize("fault", sorted(BROKEN_EMBEDDERS))
def test_a_broken_embedding_runtime_is_refused(fault):
    spoil, message = BROKEN_EMBEDDERS[fault]
    with pytest.raises(AssertionError, match=message):
        check_runtime(Embeds(spoil), HASH)


def test_the_message_says_what_came_and_what_should_have():
    with pytest.raises(AssertionError, match=r"shape \(6, 1024\), not \(6, 1023\)"):
        check_runtime(Embeds(BROKEN_EMBEDDERS["too narrow"][0]), HASH)
    # "must give vectors that are not finite" would say the opposite.
    with pytest.raises(AssertionError, match="must give finite vectors"):
        check_runtime(Embeds(BROKEN_EMBEDDERS["NaN"][0]), HASH)


def test_right_embedding_runtimes_are_accepted():
    check_runtime(Embeds(), HASH)
    # Neither unit length nor float32 is asked of a runtime: the core sees to both.
    check_runtime(Embeds(with_vectors(lambda v: v.astype(np.float64) * 7)), HASH)
    with FakeRuntime() as fake:
        spec = embrief.Embedder(fake.qwen3).spec
        check_runtime(loaded(spec), spec)


def test_rounding_within_the_tolerance_is_accepted_and_beyond_it_refused():
    noise = with_vectors(lambda v: v + 0.002 * len(v) * np.linspace(-1, 1, v.shape[1], dtype=np.float32))
    check_runtime(Embeds(noise), HASH, tolerance=0.05)
    with pytest.raises(AssertionError):
        check_runtime(Embeds(noise), HASH, tolerance=1e-9)


def loaded(spec: EmbeddingSpec | RerankerSpec):
    """What the runtime that serves a record loads."""
    return serving(embrief.plugins().catalog, spec)[0].load(embrief.LoadRequest(spec, None, "cpu", "float32"))


class Scores:
    """A reranker that counts shared letters; `spoil` may change its scores."""

    def __init__(self, spoil: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self._spoil = spoil

    def run(self, pairs: list[Rendered], options: RunOptions) -> Output:
        logits = np.array([len(set(pair.body) & set("red planet")) - 3.0 + len(pair.body) / 100 for pair in pairs])
        count = len(pairs)
        if self._spoil:
            logits = self._spoil(logits)
        return Output.scores(logits, np.zeros(count, np.int64), np.zeros(count, np.bool_))

    def close(self) -> None:
        pass


BROKEN_RERANKERS = {
    "two columns": (lambda s: np.stack([s, -s], axis=1), "shape"),
    "one score missing": (lambda s: s[:-1], "shape"),
    "NaN": (lambda s: np.where(np.arange(len(s)) == len(s) - 1, np.nan, s), "finite"),
    "infinity": (lambda s: s - np.inf, "finite"),
    "sorted": (lambda s: np.sort(s)[::-1], "equal to single"),
    "softmax over the batch": (lambda s: np.exp(s) / np.exp(s).sum(), "equal to single"),
    "rank": (lambda s: s.argsort().astype(float), "equal to single"),
}


@pytest.mark.parametrize("fault", sorted(BROKEN_RERANKERS))
def test_a_broken_reranking_runtime_is_refused(fault):
    spoil, message = BROKEN_RERANKERS[fault]
    with pytest.raises(AssertionError, match=message):
        check_runtime(Scores(spoil), RERANKER)


def test_right_reranking_runtimes_are_accepted():
    check_runtime(Scores(), RERANKER)
    with FakeRuntime() as fake:
        spec = embrief.Reranker(fake.reranker).spec
        check_runtime(loaded(spec), spec)


def test_the_fake_runtime_leaves_nothing_behind():
    catalog = embrief.plugins().catalog
    before = list(catalog.models), list(catalog.backends)
    with FakeRuntime() as fake:
        assert {fake.qwen3, fake.gemma, fake.reranker} <= set(catalog.models)
    assert (list(catalog.models), list(catalog.backends)) == before
    assert catalog.find_model(fake.qwen3) is None
