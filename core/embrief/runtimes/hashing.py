r"""The `hash` runtime: signed feature hashing of words and parts of words, in numpy.

Lexical only: texts are near if they share words or parts of words. After Weinberger et al., "Feature hashing for large
scale multitask learning", 2009. The result depends on nothing but the text and the width, on every platform (and on
Python's tables of Unicode, for characters that are new in one of its releases); a change here that moves a vector needs
a new `revision` in the record, which is part of the vector space.

The definition, revision "v2". A text is lower-cased and read as words (runs of `\w`) and signs (every other character
that is no space). Its features are

- every word and every sign;
- every run of 3, 4 and 5 characters of a word with a mark before and behind it;
- every two characters side by side in a word that are both from U+2E80 on: scripts that are mostly written without
  spaces, in words of one or two characters.

A feature's hash is the sum of its code points (a mark is 0), the i-th times the i-th power of a constant, i from 0,
plus a constant for the kind of feature, mixed; all of it modulo 2**32. The upper 16 bits choose one of the `dim`
values, in equal shares, the lowest bit a sign, and 1 with that sign is added to the value. A text whose values are all
0, since it has no features or they cancel out each other, has one feature that stands for that. At last every value
becomes its square root, with its sign: what comes twice counts less than twice.

All texts of a block are computed as one array of characters; nothing is done per word in Python.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embrief.facts.prompts import RenderedTexts
from embrief.runtimes.base import Output, RunOptions, too_long

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import EmbeddingSpec

    Words = NDArray[np.uint32]

_SIZES = (3, 4, 5)
_EAST_ASIA = 0x2E80

_BASE = 0x9E3779B1
_INVERSE = pow(_BASE, -1, 2**32)
# What is added to the sum of a word or sign, of a run of n characters (by n), and alone where there is nothing.
_WORD_SALT, _RUN_SALT, _EMPTY_SALT = 0x3C6EF372, 0x51ED270B, 0x7F4A7C15

# A block's values, and what is made of its characters, fit a processor's second cache.
_BLOCK_VALUES = 1 << 18
_BLOCK_CHARACTERS = 1 << 14

_UNKNOWN, _SPACE, _SIGN, _WORD = range(4)
_IS_WORD, _IS_SPACE = re.compile(r"\w"), re.compile(r"\s")
_kinds = np.zeros(0x110000, np.uint8)
"""By code point what a character is, as far as one has come up; pages that are never used take no memory."""


def _kinds_of(codes: Words) -> NDArray[np.uint8]:
    """Return what each character is, by what `re` says of it."""
    found = _kinds.take(codes)
    if not found.all():
        for code in np.unique(codes[found == _UNKNOWN]).tolist():
            character = chr(code)
            _kinds[code] = _WORD if _IS_WORD.match(character) else _SPACE if _IS_SPACE.match(character) else _SIGN
        found = _kinds.take(codes)
    return found


def _powers(base: int, count: int) -> Words:
    return np.multiply.accumulate(np.full(count, base, np.uint32), dtype=np.uint32)


def _both_powers(count: int) -> tuple[Words, Words]:
    """Return the powers of the constant and of its inverse, from the first on."""
    return _powers(_BASE, count), _powers(_INVERSE, count)


_POWERS, _INVERSES = _both_powers(2 * _BLOCK_CHARACTERS)


def _mix(state: Words) -> Words:
    """Mix hashes in place: each bit of the result depends on each of the argument (lowbias32, by Chris Wellons)."""
    state ^= state >> np.uint32(16)
    state *= np.uint32(0x7FEB352D)
    state ^= state >> np.uint32(15)
    state *= np.uint32(0x846CA68B)
    state ^= state >> np.uint32(16)
    return state


class _Block:
    """Some texts as one array of characters: a space and a text, again and again, and a space."""

    def __init__(self, texts: Sequence[str], max_tokens: int) -> None:
        """Read the texts; what is behind the last token that counts is as good as spaces."""
        lowered = "\n".join(texts).lower()
        lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 1
        if len(lowered) + 1 != lengths.sum():
            # A few characters become two.
            lengths = np.fromiter((len(text.lower()) for text in texts), np.int64, len(texts)) + 1
        data = f"\n{lowered}\n".encode("utf-32-le", "surrogatepass")
        self.codes = np.frombuffer(data, "<u4").astype(np.uint32, copy=False)
        lengths[-1] += 1
        self.lengths = lengths
        kinds = _kinds_of(self.codes)
        self._read(kinds)
        starts = np.cumsum(lengths) - lengths
        self.token_counts: NDArray[np.int64] = np.add.reduceat(self._tokens(), starts, dtype=np.int64)
        if (self.token_counts > max_tokens).any():
            before = np.cumsum(self.token_counts) - self.token_counts
            number = np.cumsum(self._tokens(), dtype=np.int64) - np.repeat(before, lengths)
            kinds[number > max_tokens] = _SPACE
            self._read(kinds)

    def _read(self, kinds: NDArray[np.uint8]) -> None:
        self.word = kinds == _WORD
        self.sign = kinds == _SIGN
        # Spaces at both ends: what begins also ends.
        edges = np.flatnonzero(self.word[1:] != self.word[:-1]) + 1
        self.begins, self.ends = edges[::2], edges[1::2]

    def _tokens(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.sign.copy()
        found[self.begins] = True
        return found

    def features(self) -> Iterator[tuple[NDArray[np.intp], Words]]:
        """Yield places of features, by their first character, and their hashes before they are mixed."""
        count = len(self.codes)
        # A text that is longer than a block is one by itself.
        powers, inverses = (_POWERS, _INVERSES) if count <= len(_POWERS) else _both_powers(count)
        sums = np.cumsum(self.codes * powers[:count], dtype=np.uint32)
        words = (sums[self.ends - 1] - sums[self.begins - 1]) * inverses[self.begins]
        signs = np.flatnonzero(self.sign)
        yield self.begins, words + np.uint32(_WORD_SALT)
        yield signs, self.codes[signs] + np.uint32(_WORD_SALT)

        marked = self.codes * self.word
        run = marked[:-1] + marked[1:] * np.uint32(_BASE)
        if int(self.codes.max()) >= _EAST_ASIA:
            east = marked >= _EAST_ASIA
            places = np.flatnonzero(east[:-1] & east[1:])
            yield places, run[places] + np.uint32(2 * _RUN_SALT % 2**32)
        # Whether all of a run is in one word, from its second character to the last but one: the outer may be marks.
        inside = self.word[1:]
        for size in _SIZES:
            run = run[:-1] + marked[size - 1 :] * np.uint32(pow(_BASE, size - 1, 2**32))
            inside = inside[:-1] & self.word[size - 2 : -1]
            places = np.flatnonzero(inside)
            yield places, run[places] + np.uint32(size * _RUN_SALT % 2**32)

    def add_to(self, vectors: NDArray[np.float32]) -> None:
        """Add the features of each text to its row, (count, dim), which is zeros."""
        count, dim = vectors.shape
        found = list(self.features())
        hashes = _mix(np.concatenate([hashes for _, hashes in found]))
        rows = np.repeat(np.arange(count, dtype=np.intp) * dim, self.lengths)
        cells = rows[np.concatenate([places for places, _ in found])]
        cells += (hashes >> np.uint32(16)) * np.uint32(dim) >> np.uint32(16)
        np.add.at(vectors.reshape(-1), cells, _signs(hashes))
        empty = np.flatnonzero(~vectors.any(axis=1))
        if len(empty):
            # Each text needs a direction: stores refuse or mishandle vectors of zeros.
            hashes = _mix(np.full(1, _EMPTY_SALT, np.uint32))
            vectors[empty, (int(hashes[0]) >> 16) * dim >> 16] = _signs(hashes)


def _signs(hashes: Words) -> NDArray[np.float32]:
    return np.float32(1) - (hashes & np.uint32(1)).astype(np.float32) * np.float32(2)


def _take_roots(vectors: NDArray[np.float32]) -> None:
    """Replace values by their square roots, with their signs."""
    # On the bits: `copysign` takes longer than all of this.
    bits = vectors.view(np.uint32)
    signs = bits & np.uint32(1 << 31)
    bits ^= signs
    np.sqrt(vectors, out=vectors)
    bits |= signs


def _texts(inputs: Sequence[Rendered]) -> Sequence[str]:
    return inputs.texts if isinstance(inputs, RenderedTexts) else [item.text for item in inputs]


def _blocks(texts: Sequence[str], dim: int) -> Iterator[slice]:
    """Yield the texts of each block."""
    most, start, characters = max(1, _BLOCK_VALUES // dim), 0, 0
    for place, text in enumerate(texts):
        if place > start and (place - start == most or characters + len(text) > _BLOCK_CHARACTERS):
            yield slice(start, place)
            start, characters = place, 0
        characters += len(text)
    if texts:
        yield slice(start, len(texts))


class HashBackend:
    """Feature hashing behind the protocol of an embedding runtime."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        self._dim = spec.dim

    def check(self, inputs: Sequence[Rendered], options: RunOptions) -> None:
        """Refuse texts over the limit that may not be cut."""
        if not options.refuse_long:
            return
        texts = _texts(inputs)
        for rows in _blocks(texts, self._dim):
            counts = _Block(texts[rows], options.max_tokens).token_counts
            if (long := counts > options.max_tokens).any():
                index = int(long.argmax())
                raise too_long(rows.start + index, int(counts[index]), options)

    def count(self, inputs: Sequence[Rendered], options: RunOptions) -> NDArray[np.int64]:
        """Return the number of words and signs of each text."""
        texts = _texts(inputs)
        found = [_Block(texts[rows], sys.maxsize).token_counts for rows in _blocks(texts, self._dim)]
        return np.concatenate([np.empty(0, np.int64), *found])

    def run(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Return one hashed vector per text, as wide as `options.dim` asks. Its tokens are words and signs."""
        dim = options.dim or self._dim
        self.check(inputs, options)
        texts = _texts(inputs)
        vectors = np.zeros((len(texts), dim), np.float32)
        counts = np.empty(len(texts), np.int64)
        for rows in _blocks(texts, dim):
            block = _Block(texts[rows], options.max_tokens)
            block.add_to(vectors[rows])
            _take_roots(vectors[rows])
            counts[rows] = block.token_counts
            if options.on_progress:
                options.on_progress(rows.stop - rows.start)
        return Output.dense(vectors, counts, counts > options.max_tokens)

    def close(self) -> None:
        """Do nothing: it holds nothing."""
