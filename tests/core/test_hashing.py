"""The hash model against a plain implementation of its definition; its vectors are a storage format."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from embrief import Embedder, EmbeddingSpec, InputTooLongError, Rendered, RunOptions, TruncationWarning
from embrief.discovery.plugins import plugins
from embrief.runtimes.base import Ask, Offer, Refusal
from embrief.runtimes.hashing import HashBackend

MODULUS = 2**32
WORD, RUN, EMPTY = 0x3C6EF372, 0x51ED270B, 0x7F4A7C15


POWERS = [pow(0x9E3779B1, place, MODULUS) for place in range(6000)]


def mixed(characters: str, salt: int) -> int:
    state = (sum(ord(character) * POWERS[place] for place, character in enumerate(characters)) + salt) % MODULUS
    state ^= state >> 16
    state = state * 0x7FEB352D % MODULUS
    state ^= state >> 15
    state = state * 0x846CA68B % MODULUS
    return state ^ state >> 16


@cache
def features(text: str) -> list[int]:
    found: list[int] = []
    for token in re.findall(r"\w+|[^\w\s]", text.lower()):
        found.append(mixed(token, WORD))
        if re.match(r"\w", token):
            marked = f"\0{token}\0"
            runs = [marked[start : start + size] for size in (3, 4, 5) for start in range(len(marked) - size + 1)]
            found += [mixed(run, len(run) * RUN) for run in runs]
            found += [mixed(a + b, 2 * RUN) for a, b in pairwise(token) if min(a, b) >= "\u2e80"]
    return found


def reference(text: str, dim: int) -> np.ndarray:
    vector = np.zeros(dim)
    for value in features(text):
        vector[(value >> 16) * dim >> 16] += -1 if value & 1 else 1
    if not vector.any():
        value = mixed("", EMPTY)
        vector[(value >> 16) * dim >> 16] = -1 if value & 1 else 1
    vector = np.sign(vector) * np.sqrt(np.abs(vector))
    return vector / np.linalg.norm(vector)


HARD = [
    "ab", "a a a b", "a", "x" * 5000, "the " * 3000, "C++ and C#", "?", "\U0001f44d", "\U0001f44e", "\0", "\0\0a\0",
    "_", "İstanbul İİ", "ΟΔΟΣ ΟΔΟΣ, Σ", "straße ﬁn", "中文分词", "日本語のテキスト", "한국어 문장", "中a文", "ⅷ ²",
    "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0645\u064e\u0631\u0652", "a\u2028b\x1cc\xa0d\u3000e", "tail\n",
    "\n\nhead", "a.b.c", "\U0001d54f\U0010ffff",
]  # fmt: skip


def test_vectors_follow_the_definition(texts: list[str], corpus: list[str]) -> None:
    many = [*texts, *corpus, *HARD]
    for dim in (8, 100, 1024, 65536):
        ours = Embedder("embrief/hash", dim=dim).embed_documents(many)
        np.testing.assert_allclose(ours, [reference(text, dim) for text in many], atol=1e-6)


def test_an_empty_text_has_a_direction() -> None:
    vectors = Embedder("embrief/hash").embed_documents(["", "  \n"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_allclose(vectors[0], reference("", 1024), atol=1e-6)


def test_a_text_whose_features_cancel_out_each_other_has_a_direction_too() -> None:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    for dim in range(8, 64):
        vectors = Embedder("embrief/hash", dim=dim).embed_documents(letters)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(vectors, [reference(text, dim) for text in letters], atol=1e-6)


def test_blocks_change_nothing(corpus: list[str]) -> None:
    embedder = Embedder("embrief/hash", dim=64)
    many = [f"{text[:200]} {number}" for number in range(12) for text in corpus]
    # One longer than a block's characters, in the middle.
    many[700] = "a long one 中文 " * 5000
    assert len(many) > 1100
    batch = embedder.embed_documents(many)
    for index in (*range(0, len(many), 97), 699, 700, 701, len(many) - 1):
        np.testing.assert_array_equal(embedder.embed_documents([many[index]])[0], batch[index])


def test_no_more_values_than_16_bits_choose() -> None:
    spec = plugins().catalog.models["embrief/hash"]
    assert isinstance(spec, EmbeddingSpec)
    runtime = plugins().catalog.backends["hash"]
    assert isinstance(runtime.offer(spec, Ask()), Offer)
    assert isinstance(runtime.offer(replace(spec, dim=65537), Ask()), Refusal)
    assert isinstance(runtime.offer(replace(spec, mrl=range(8, 70000)), Ask()), Refusal)


def test_half_a_surrogate_pair_is_a_sign() -> None:
    model = HashBackend(Embedder("embrief/hash").spec)
    output = model.run([Rendered("", "a \ud800 b"), Rendered("", "a b")], RunOptions(max_tokens=9, dim=64))
    assert output.token_counts is not None
    assert output.token_counts.tolist() == [3, 2]


def test_tokens_are_words_and_signs_and_the_rest_is_cut() -> None:
    text = "One, two (three) 中文!  four"
    embedder = Embedder("embrief/hash", max_tokens=4, truncate="silent")
    result = embedder.encode([text, "x", text + "\n", "", "one, two ("], role="document")
    assert result.token_counts is not None
    assert result.truncated is not None
    assert result.token_counts.tolist() == [9, 1, 9, 0, 4]
    assert result.truncated.tolist() == [True, False, True, False, False]
    whole = Embedder("embrief/hash").embed_documents(["One, two ("])
    np.testing.assert_array_equal(result.vectors[[0, 4]], whole[[0, 0]])
    with pytest.warns(TruncationWarning, match="index 0"):
        embedder.with_settings(truncate="warn").embed_documents([text])
    refusing = embedder.with_settings(truncate="error")
    with pytest.raises(InputTooLongError, match="9 tokens") as caught:
        refusing.embed_documents([*(f"short {number}" for number in range(3000)), text])
    assert caught.value.index == 3000


def test_shared_words_and_shared_parts_bring_texts_near() -> None:
    embedder = Embedder("embrief/hash")
    query = embedder.embed_query("copy a directory")
    near, part, far = embedder.embed_documents(["Copy a directory tree.", "directories copied", "open network sockets"])
    assert query @ near > query @ part > query @ far


def test_a_word_that_comes_often_counts_less_each_time() -> None:
    once, often = Embedder("embrief/hash", dim=8192, normalize=False).embed_documents(["word", " word" * 100])
    np.testing.assert_allclose(often, 10 * once, atol=1e-5)
    assert math.isclose(float(np.abs(once).max()), 1)


def test_a_prompt_is_part_of_the_text() -> None:
    model = HashBackend(plugins().catalog.models["embrief/hash"])  # type: ignore[arg-type] # it is an embedding model
    options = RunOptions(max_tokens=99, dim=64)
    whole, parts = (
        model.run([Rendered("", "query: red planet")], options),
        model.run([Rendered("query: ", "red", " planet")], options),
    )
    np.testing.assert_array_equal(whole.array("dense"), parts.array("dense"))
