"""How often the picture that is meant is among the first ten, by style and by whether it was learnt from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from learn import keywords
from numpy.typing import NDArray
from pictures import Pictures, Split

from embrief import Embedder

Floats = NDArray[np.float32]
FIRST = 10


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many."""

    hits: int
    count: int

    def __str__(self) -> str:
        """Return the share with its interval of 95 %, by Wilson's formula."""
        share, count, spread = self.hits / self.count, self.count, 1.96
        middle = (share + spread**2 / (2 * count)) / (1 + spread**2 / count)
        half = spread * math.sqrt(share * (1 - share) / count + spread**2 / (4 * count**2)) / (1 + spread**2 / count)
        return f"{share:.3f} ({middle - half:.3f}-{middle + half:.3f})"


def first_ten(queries: Floats, items: Floats, asked: Sequence[int], pool: Sequence[int]) -> Share:
    """Return for how many of the queries fewer than ten others of the pool are nearer than their own item."""
    scores = queries[asked] @ items[pool].T
    own = (queries[asked] * items[asked]).sum(1, keepdims=True)
    return Share(int(((scores > own + 1e-7).sum(1) < FIRST).sum()), len(asked))


def table(
    pictures: Pictures, split: Split, embedder: Embedder, vectors: dict[str, Floats], held_out: Sequence[int]
) -> Iterator[str]:
    """Yield lines: what is asked, among how many, and the share that is found.

    Args:
        pictures: All of them.
        split: Which were learnt from.
        embedder: What embeds the texts.
        vectors: Of the pictures, (emoji, values), by style.
        held_out: Places of the emoji that were not learnt from and are counted here.
    """
    every = range(len(pictures.emoji))
    labels = embedder.embed_queries([item.label for item in pictures.emoji])
    words = embedder.embed_queries([keywords(item) for item in pictures.emoji])
    names = embedder.embed_documents([item.label for item in pictures.emoji])
    for style, found in vectors.items():
        yield f"{style}: names, learnt emoji, among all {len(every)}: {first_ten(labels, found, split.emoji, every)}"
        yield f"{style}: names, held-out emoji, among all: {first_ten(labels, found, held_out, every)}"
        yield f"{style}: names, held-out emoji, among {len(held_out)}: {first_ten(labels, found, held_out, held_out)}"
        yield f"{style}: keywords, all, among all: {first_ten(words, found, every, every)}"
        yield f"{style}: pictures to names, learnt, among all: {first_ten(found, names, split.emoji, every)}"
        yield f"{style}: pictures to names, held-out, among all: {first_ten(found, names, held_out, every)}"
