"""The hash model against a plain implementation of its definition; its vectors are a storage format."""

from __future__ import annotations

import math
import re

import numpy as np

from embrief import Embedder

MASK = 2**64 - 1


def fnv(text: str) -> int:
    state = 0xCBF29CE484222325
    for character in text:
        state = ((state ^ ord(character)) * 0x100000001B3) & MASK
    state ^= state >> 33
    state = (state * 0xFF51AFD7ED558CCD) & MASK
    return state ^ (state >> 33)


def reference(text: str, dim: int) -> np.ndarray:
    counts: dict[str, int] = {}
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        marked = f"<{word}>"
        grams = [f"c:{marked[i : i + n]}" for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
        for feature in (f"w:{word}", *grams):
            counts[feature] = counts.get(feature, 0) + 1
    vector = np.zeros(dim)
    for feature, count in (counts or {"empty": 1}).items():
        value = fnv(feature)
        weight = math.sqrt(count) * (0.3 if feature.startswith("c:") else 1.0)
        vector[value % dim] += -weight if value >> 63 else weight
    return vector / np.linalg.norm(vector)


def test_vectors_follow_the_definition(texts: list[str], corpus: list[str]) -> None:
    many = [*texts, *corpus, "ab", "a a a b"]
    for dim in (8, 100, 1024):
        ours = Embedder("embrief/hash", dim=dim).embed_documents(many)
        np.testing.assert_allclose(ours, [reference(text, dim) for text in many], atol=1e-6)


def test_an_empty_text_has_a_direction() -> None:
    vectors = Embedder("embrief/hash").embed_documents(["", "  \n"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_blocks_change_nothing(corpus: list[str]) -> None:
    embedder = Embedder("embrief/hash", dim=64)
    many = [f"{text[:200]} {number}" for number in range(12) for text in corpus]
    assert len(many) > 1100
    batch = embedder.embed_documents(many)
    for index in (0, 1023, 1024, len(many) - 1):
        np.testing.assert_allclose(embedder.embed_documents([many[index]])[0], batch[index], atol=1e-6)


def test_shared_words_and_shared_parts_bring_texts_near() -> None:
    embedder = Embedder("embrief/hash")
    query = embedder.embed_query("copy a directory")
    near, part, far = embedder.embed_documents(["Copy a directory tree.", "directories copied", "open network sockets"])
    assert query @ near > query @ part > query @ far
