"""What vision towers have in common: how pictures of any sizes go through one side by side, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 512
"""Patches that pass through the products at a time: their intermediate results stay in the processor's cache."""
_TOGETHER = 4096
"""Patches of pictures that are computed side by side; a larger picture runs alone."""
_CUDA_BLOCK, _CUDA_TOGETHER = 16384, 32768
"""The same on an NVIDIA GPU."""


@dataclass(frozen=True, slots=True)
class Features:
    """What stands in the place of pictures' tokens, in their order."""

    tokens: torch.Tensor
    """(tokens, width) instead of embeddings."""
    added: tuple[torch.Tensor, ...]
    """(tokens, width) each: what is added to the stream after the first layer, the second, ..."""

    @classmethod
    def joined(cls, parts: Sequence[Features]) -> Features:
        """Return features of pictures one after the other."""
        return cls(
            torch.cat([part.tokens for part in parts]),
            tuple(torch.cat(layer) for layer in zip(*(part.added for part in parts), strict=True)),
        )


class Packing:
    """How much of pictures passes through a tower at a time."""

    def __init__(self, device: str) -> None:
        """Choose for a device."""
        cuda = device.startswith("cuda")
        self.block, self._together = (_CUDA_BLOCK, _CUDA_TOGETHER) if cuda else (_BLOCK, _TOGETHER)

    def run(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        patch: int,
        forward: Callable[[list[NDArray[np.uint8]], list[tuple[int, int]]], list[Features]],
    ) -> list[Features]:
        """Return the features of each picture.

        Args:
            pictures: (height, width, 3) each.
            patch: Pixels per side of a patch.
            forward: Takes pictures that fit side by side and their patches per column and row, equal sizes next to each
                other.
        """
        grids = [(pixels.shape[0] // patch, pixels.shape[1] // patch) for pixels in pictures]
        found: list[Features | None] = [None] * len(pictures)
        for places in _bounded(grids, self._together):
            features = forward([pictures[place] for place in places], [grids[place] for place in places])
            for place, part in zip(places, features, strict=True):
                found[place] = part
        return [part for part in found if part is not None]


def _bounded(grids: Sequence[tuple[int, int]], most: int) -> Iterator[list[int]]:
    """Yield places of pictures that fit side by side, equal sizes next to each other."""
    taken: list[int] = []
    patches_taken = 0
    for place in sorted(range(len(grids)), key=lambda place: grids[place]):
        own = grids[place][0] * grids[place][1]
        if taken and patches_taken + own > most:
            yield taken
            taken, patches_taken = [], 0
        taken.append(place)
        patches_taken += own
    if taken:
        yield taken


def neighbours(grids: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield start, count and patches of each of neighbours with equally many patches."""
    start = count = length = 0
    for rows, columns in grids:
        if count and rows * columns != length:
            yield start, count, length
            start, count = start + count * length, 0
        length = rows * columns
        count += 1
    if count:
        yield start, count, length


def blocks(count: int, block: int) -> Iterator[slice]:
    """Yield the parts of so many rows."""
    for start in range(0, count, block):
        yield slice(start, min(count, start + block))


def turned(x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return queries or keys turned by the places of their patches (rotary embedding, arXiv 2104.09864)."""
    cos, sin = angles
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
