"""The `hash` runtime: signed feature hashing of words and character n-grams, in numpy.

Lexical only: texts are near if they share words or parts of words. After Weinberger et al., "Feature hashing for large
scale multitask learning", 2009. The result depends on nothing but the text and the width, on every platform; a change
here that moves a vector needs a new `revision` in the record, which is part of the vector space.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embrief.runtimes.base import Output, RunOptions, too_long

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import EmbeddingSpec

_WORD = re.compile(r"\w+|[^\w\s]", re.UNICODE)
_NGRAMS = (3, 4, 5)
_NGRAM_WEIGHT = 0.3
_PRIME = np.uint64(0x100000001B3)
_BASIS = np.uint64(0xCBF29CE484222325)
_BLOCK = 1024


def _hash_strings(strings: Sequence[str]) -> NDArray[np.uint64]:
    """Return one 64-bit hash per string: FNV-1a over code points, then a finishing mix. Vectorised over strings."""
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    codes = np.frombuffer("".join(strings).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    starts = np.cumsum(lengths) - lengths
    state = np.full(len(strings), _BASIS)
    alive = np.arange(len(strings))
    for position in range(int(lengths.max(initial=0))):
        alive = alive[lengths[alive] > position]
        state[alive] = (state[alive] ^ codes[starts[alive] + position]) * _PRIME
    state ^= state >> np.uint64(33)
    state *= np.uint64(0xFF51AFD7ED558CCD)
    state ^= state >> np.uint64(33)
    return state


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _ngrams(word: str) -> list[str]:
    marked = f"<{word}>"
    return [f"c:{marked[start : start + size]}" for size in _NGRAMS for start in range(len(marked) - size + 1)]


def _count(rows: NDArray[np.int64], items: NDArray[np.int64], weights: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return each distinct (row, item) once: rows, items, and the sum of their weights."""
    width = int(items.max(initial=0)) + 1
    keys, place = np.unique(rows * width + items, return_inverse=True)
    totals = np.zeros(len(keys), np.int64)
    np.add.at(totals, place, weights)
    return [keys // width, keys % width, totals]


def _hash_block(texts: Sequence[Sequence[str]], dim: int) -> NDArray[np.float32]:
    """Return one vector per text, given as words. Each distinct word and n-gram of the block is hashed once."""
    # An empty text needs a direction too: stores refuse or mishandle vectors of zeros.
    words = [[f"w:{word}" for word in text] or ["empty"] for text in texts]
    vocabulary = list(dict.fromkeys(word for text in words for word in text))
    grams_of = [_ngrams(word[2:]) if word != "empty" else [] for word in vocabulary]
    grams = list(dict.fromkeys(gram for found in grams_of for gram in found))
    word_ids = {word: number for number, word in enumerate(vocabulary)}
    gram_ids = {gram: number for number, gram in enumerate(grams)}

    lengths = [len(text) for text in words]
    ids = np.fromiter((word_ids[word] for text in words for word in text), np.int64, sum(lengths))
    rows, items, counts = _count(np.repeat(np.arange(len(texts)), lengths), ids, np.ones(len(ids), np.int64))

    # The n-grams of all (row, word) pairs: each word's slice of one long list of n-grams.
    sizes = np.fromiter(map(len, grams_of), np.int64, len(vocabulary))
    flat = np.fromiter((gram_ids[gram] for found in grams_of for gram in found), np.int64, int(sizes.sum()))
    taken = sizes[items]
    first = np.cumsum(sizes) - sizes
    places = np.arange(int(taken.sum())) + np.repeat(first[items] - (np.cumsum(taken) - taken), taken)
    gram_rows, gram_items, gram_counts = _count(np.repeat(rows, taken), flat[places], np.repeat(counts, taken))

    hashes = _hash_strings([*vocabulary, *grams])
    signs = np.where(hashes >> np.uint64(63), -1.0, 1.0)
    signs[len(vocabulary) :] *= _NGRAM_WEIGHT
    buckets = (hashes % np.uint64(dim)).astype(np.int64)
    features = np.concatenate((items, gram_items + len(vocabulary)))
    cells = np.concatenate((rows, gram_rows)) * dim + buckets[features]
    # Repeated words count with the square root of their number.
    weights = np.sqrt(np.concatenate((counts, gram_counts))) * signs[features]
    return np.bincount(cells, weights, minlength=len(texts) * dim).reshape(len(texts), dim).astype(np.float32)


class HashBackend:
    """Feature hashing behind the protocol of an embedding runtime."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        self._dim = spec.dim

    def check(self, inputs: Sequence[Rendered], options: RunOptions) -> None:
        """Refuse texts over the limit that may not be cut."""
        if options.refuse_long:
            for index, item in enumerate(inputs):
                if (tokens := len(_words(item.text))) > options.max_tokens:
                    raise too_long(index, tokens, options)

    def run(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Return one hashed vector per text, as wide as `options.dim` asks. Its tokens are words and signs."""
        dim = options.dim or self._dim
        self.check(inputs, options)
        vectors = np.empty((len(inputs), dim), np.float32)
        counts = np.empty(len(inputs), np.int64)
        # The words of all texts at once would take more memory than the vectors.
        for start in range(0, len(inputs), _BLOCK):
            words = [_words(item.text) for item in inputs[start : start + _BLOCK]]
            rows = slice(start, start + len(words))
            counts[rows] = [len(text) for text in words]
            vectors[rows] = _hash_block([text[: options.max_tokens] for text in words], dim)
            if options.on_progress:
                options.on_progress(len(words))
        return Output.dense(vectors, counts, counts > options.max_tokens)

    def close(self) -> None:
        """Do nothing: it holds nothing."""
