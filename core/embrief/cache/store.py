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

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the entries that are there, by their keys."""

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


def now() -> float:
    """Return the time, in seconds since the epoch."""
    return time.time()
