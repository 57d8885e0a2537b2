"""Features of pictures that were seen before: a query's is in all its pairs, and several texts may be about one."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.engine.media import Picture
    from embrief.engine.seeing import Features

MAX_TOKENS = 4096
"""Tokens whose features are kept for the next batch."""


class SeenPictures:
    """The pictures seen last, bounded by their tokens. Used by one thread."""

    def __init__(self, compute: Callable[[list[NDArray[np.uint8]]], list[Features]]) -> None:
        """Start empty.

        Args:
            compute: Takes the pixels of pictures and returns their features.
        """
        self._compute = compute
        self._known: OrderedDict[bytes, Features] = OrderedDict()

    def get(self, pictures: Sequence[Picture]) -> list[Features]:
        """Return the features of each picture; equal ones, and those seen before, are not computed again."""
        keys = [_key(picture.pixels) for picture in pictures]
        # What is there often comes last: it is the last to be forgotten.
        often = [key for key, _ in reversed(Counter(keys).most_common())]
        pixels = {key: picture.pixels for key, picture in zip(keys, pictures, strict=True)}
        new = [key for key in often if key not in self._known]
        found = {key: self._known[key] for key in often if key in self._known}
        computed = dict(zip(new, self._compute([pixels[key] for key in new]), strict=True)) if new else {}
        self._known.update(computed)
        for key in found:
            self._known.move_to_end(key)
        while sum(len(known.tokens) for known in self._known.values()) > MAX_TOKENS and len(self._known) > 1:
            self._known.popitem(last=False)
        found |= computed
        return [found[key] for key in keys]


def _key(pixels: NDArray[np.uint8]) -> bytes:
    """Return what two pictures have in common only if they are equal."""
    height, width = pixels.shape[:2]
    return hashlib.sha256(b"%d %d " % (height, width) + pixels.tobytes()).digest()
