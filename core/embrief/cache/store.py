"""What every cache does: it finds entries by their keys, and takes new ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from embrief.cache.flights import Flights


class Store(Protocol):
    """A place for entries. From any thread; what goes wrong inside is a miss, and never an error of the caller's."""

    flights: Flights
    """What is being computed for it at the moment."""

    def get(self, keys: Sequence[bytes], ttl: float | None = None) -> Mapping[bytes, bytes]:
        """Return the entries that are there, by their keys.

        Args:
            keys: Any number.
            ttl: Seconds after which an entry is too old for this reader, whoever put it; `None`: it may have any age.
        """

    def put(self, entries: Mapping[bytes, bytes], ttl: float | None) -> None:
        """Take entries, found from now on. Never waits for a disk.

        Args:
            entries: By their keys.
            ttl: Seconds after which they count no more; `None`: never.
        """

    def settle(self) -> None:
        """Let what was put be written, unless that takes long; say what went wrong."""

    def reset(self) -> None:
        """Start afresh in a child process, where the parent's threads are gone and its locks may be held."""


class Tally:
    """How many texts of one embedder, and of its views, were found in its cache.

    For graphs: without a lock, which a fork might leave held, calls at the same moment may be counted as one.
    """

    def __init__(self) -> None:
        self.found = self.missing = 0

    def note(self, found: int, missing: int) -> None:
        """Add what one call looked up."""
        self.found += found
        self.missing += missing


def now() -> float:
    """Return the time, in seconds since the epoch."""
    return time.time()


def is_too_old(made: object, ttl: float | None, at: float) -> bool:
    """Return whether an entry is too old for a reader, at a time in seconds since the epoch."""
    return ttl is not None and not (isinstance(made, (int, float)) and made + ttl > at)
