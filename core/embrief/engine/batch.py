"""Packing: many token sequences as one long row without padding, sorted so that equal lengths lie side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from embrief.engine import media

if TYPE_CHECKING:
    from embrief.engine.media import Picture
    from embrief.engine.prefix import Prefix

IdRow = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sequences:
    """Neighbours in a packed batch that have the same number of tokens and the same prefix."""

    start: int
    """Place of their first token."""
    count: int
    length: int
    prefix: Prefix | None

    @property
    def tokens(self) -> slice:
        """Return their place in the batch."""
        return slice(self.start, self.start + self.count * self.length)

    @property
    def keys(self) -> int:
        """Return how many tokens each can see, its prefix included."""
        return self.length + (self.prefix.length if self.prefix is not None else 0)


@dataclass(frozen=True, slots=True)
class Packed:
    """One batch."""

    ids: torch.Tensor
    """(tokens,) without prefixes."""
    positions: torch.Tensor
    """(tokens,) place of each token in its own text; (3, tokens) for M-RoPE in a batch that holds pictures."""
    groups: tuple[Sequences, ...]
    last: torch.Tensor
    """(n,) place of the last token of each sequence."""
    order: NDArray[np.int64]
    """(n,) which input each sequence is."""
    pads: NDArray[np.int64]
    """Places of pictures' tokens, ascending."""


def pack(
    rows: Sequence[IdRow],
    prefixes: Sequence[Prefix | None],
    device: str,
    pictures: Sequence[Sequence[Picture]] | None = None,
    *,
    spatial: bool = False,
) -> Packed:
    """Pack sequences, each without the prefix that it shares.

    Args:
        rows: Token ids, at least one each.
        prefixes: What stands before each.
        device: Where the batch will run.
        pictures: Those of each sequence, none of them in its prefix; their places count from the prefix's start.
        spatial: Whether the tokens of pictures have positions by rows and columns (M-RoPE).
    """
    marks = [(id(prefix) if prefix is not None else 0, len(row)) for row, prefix in zip(rows, prefixes, strict=True)]
    order = sorted(range(len(rows)), key=lambda index: marks[index])
    groups: list[Sequences] = []
    place = 0
    for at, index in enumerate(order):
        if at and marks[index] == marks[order[at - 1]]:
            group = groups[-1]
            groups[-1] = Sequences(group.start, group.count + 1, group.length, group.prefix)
        else:
            groups.append(Sequences(place, 1, len(rows[index]), prefixes[index]))
        place += len(rows[index])
    lengths = np.array([len(rows[index]) for index in order])
    befores = [prefix.length if prefix is not None else 0 for prefix in (prefixes[index] for index in order)]
    shown = [pictures[index] if pictures is not None else () for index in order]
    positions: list[NDArray[np.int64]] = []
    pads = [np.empty(0, np.int64)]
    for before, length, end, held in zip(befores, lengths, lengths.cumsum(), shown, strict=True):
        if spatial and any(shown):
            positions.append(media.positions(before + length, held)[:, before:])
        else:
            positions.append(np.arange(before, before + length))
        first = end - length - before
        pads.extend(first + picture.start + np.arange(picture.tokens) for picture in held)
    return Packed(
        torch.from_numpy(np.concatenate([rows[index] for index in order]).astype(np.int64)).to(device),
        torch.from_numpy(np.concatenate(positions, -1)).to(device),
        tuple(groups),
        torch.from_numpy(lengths.cumsum() - 1).to(device),
        np.array(order),
        np.concatenate(pads),
    )
