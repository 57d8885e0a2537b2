"""Pictures inside a sequence of tokens: where they stand, and which positions the tokens around them have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a sequence, in the size in which the model sees it."""

    pixels: NDArray[np.uint8]
    """(height, width, 3)."""
    start: int
    """Place of its first token in the sequence."""
    grid: tuple[int, int]
    """Tokens per column and per row: it has as many as their product."""

    @property
    def tokens(self) -> int:
        """Return how many tokens it has."""
        return self.grid[0] * self.grid[1]


def positions(length: int, pictures: Sequence[Picture]) -> NDArray[np.int64]:
    """Return the positions of a sequence's tokens for M-RoPE: (3, length), of time, height and width.

    A text counts on in all three. A picture's tokens have one time, and their row and column from there; what follows
    goes on behind the larger of its sides (transformers' Qwen3-VL, `get_rope_index`).
    """
    found = np.empty((3, length), np.int64)
    place = following = 0
    for picture in pictures:
        text = picture.start - place
        found[:, place : picture.start] = following + np.arange(text)
        following += text
        rows, columns = picture.grid
        end = picture.start + picture.tokens
        found[0, picture.start : end] = following
        found[1, picture.start : end] = following + np.repeat(np.arange(rows), columns)
        found[2, picture.start : end] = following + np.tile(np.arange(columns), rows)
        following += max(rows, columns)
        place = end
    found[:, place:] = following + np.arange(length - place)
    return found
