"""What is kept for one text: its whole vector as the model gave it, and what happened to the text. Never the text."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from embrief.facts.vectors import Vector

_HEAD = struct.Struct("<BBHIq")
_FORMAT = 1
_COUNTED, _TOLD, _CUT = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer of a model."""

    vector: Vector
    """float32, (width,): neither cut nor normalised."""
    tokens: int | None
    """Length of the input before truncation, in tokens; `None`: it is not known."""
    truncated: bool | None
    """Whether its end was cut off; `None`: it is not known."""
    answered_by: str = ""
    """Who answered, where that can differ."""

    def to_bytes(self) -> bytes:
        """Return the entry as it is kept: a head, who answered, and the values in little-endian order."""
        flags = (
            (_COUNTED if self.tokens is not None else 0)
            | (_TOLD if self.truncated is not None else 0)
            | (_CUT if self.truncated else 0)
        )
        name = self.answered_by.encode("utf-8", "replace")[:0xFFFF]
        head = _HEAD.pack(_FORMAT, flags, len(name), len(self.vector), self.tokens or 0)
        return head + name + self.vector.astype("<f4", copy=False).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Entry:
        """Read an entry. Its vector is read-only.

        Raises:
            ValueError: It is none of ours.
        """
        if len(data) < _HEAD.size:
            raise ValueError("an entry of the cache is too short")
        kind, flags, named, width, tokens = _HEAD.unpack_from(data)
        start = _HEAD.size + named
        if kind != _FORMAT or len(data) != start + 4 * width:
            raise ValueError("an entry of the cache has another format")
        vector = np.frombuffer(data, "<f4", width, start).astype(np.float32, copy=False)
        return cls(
            vector,
            tokens if flags & _COUNTED else None,
            bool(flags & _CUT) if flags & _TOLD else None,
            data[_HEAD.size : start].decode("utf-8", "replace"),
        )
