"""The `hash` runtime: signed feature hashing of words and character n-grams, in numpy.

Lexical only: texts are near if they share words or parts of words. After Weinberger et al., "Feature hashing for large
scale multitask learning", 2009. The result depends on nothing but the text and the width, on every platform;
a change here that moves a vector needs a new `revision` in the record, which is part of the vector space.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embrief.backends.base import Backend, Encoded, LoadRequest, RunOptions, too_long
from embrief.specs import EmbeddingSpec, ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+|[^\w\s]", re.UNICODE)
_NGRAMS = (3, 4, 5)
_NGRAM_WEIGHT = 0.3
_PRIME = np.uint64(0x100000001B3)
_BASIS = np.uint64(0xCBF29CE484222325)


def _hash_strings(strings: Sequence[str]) -> NDArray[np.uint64]:
    """Return one 64-bit hash per string: FNV-1a over the code points, then a finishing mix. Vectorised over strings."""
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    codes = np.frombuffer("".join(strings).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64)
    state = np.full(len(strings), _BASIS)
    alive = np.arange(len(strings))
    for position in range(int(lengths.max(initial=0))):
        alive = alive[lengths[alive] > position]
        state[alive] = (state[alive] ^ codes[starts[alive] + position]) * _PRIME
    state ^= state >> np.uint64(33)
    state *= np.uint64(0xFF51AFD7ED558CCD)
    state ^= state >> np.uint64(33)
    return state


def _features(words: Sequence[str]) -> dict[str, float]:
    """Return the weighted features of one text; repeated words count with the square root of their number."""
    counts: dict[str, float] = {}
    for word in words:
        counts["w:" + word] = counts.get("w:" + word, 0) + 1
        marked = f"<{word}>"
        for size in _NGRAMS:
            for start in range(len(marked) - size + 1):
                gram = "c:" + marked[start : start + size]
                counts[gram] = counts.get(gram, 0) + 1
    # An empty text needs a direction too: stores refuse or mishandle vectors of zeros.
    return counts or {"empty": 1.0}


class HashBackend:
    """Feature hashing behind the protocol of an embedding runtime."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        self._dim = spec.dim

    def encode(self, texts: Sequence[str], options: RunOptions) -> Encoded:
        """Return one hashed vector per text, as wide as `options.dim` asks. Its tokens are words and signs."""
        dim = options.dim or self._dim
        vectors = np.zeros((len(texts), dim), np.float32)
        words = [_WORD.findall(text.lower()) for text in texts]
        counts = np.fromiter(map(len, words), np.int64, len(texts))
        truncated = counts > options.max_tokens
        if options.refuse_long and truncated.any():
            raise too_long(int(np.argmax(truncated)), int(counts[np.argmax(truncated)]), options)
        for row in range(len(texts)):
            features = _features(words[row][: options.max_tokens])
            names = list(features)
            hashes = _hash_strings(names)
            weights = np.sqrt(np.fromiter(features.values(), np.float64, len(names)))
            weights *= np.fromiter((1.0 if name[0] != "c" else _NGRAM_WEIGHT for name in names), np.float64)
            signs = np.where(hashes >> np.uint64(63), -1.0, 1.0)
            buckets = (hashes % np.uint64(dim)).astype(np.int64)
            vectors[row] = np.bincount(buckets, weights * signs, minlength=dim)
            if options.on_progress:
                options.on_progress(1)
        return Encoded(vectors, counts, truncated)

    def close(self) -> None:
        """Do nothing: it holds nothing."""


def _load(request: LoadRequest) -> HashBackend:
    assert isinstance(request.spec, EmbeddingSpec)
    return HashBackend(request.spec)


def _supports(spec: ModelSpec) -> bool:
    return spec.architecture == "hash"


def _resolve(spec: ModelSpec, device: str, dtype: str) -> tuple[str, str]:
    return "cpu", "float32"


BACKEND = Backend(name="hash", supports=_supports, resolve=_resolve, load_embedder=_load, needs_files=False)
