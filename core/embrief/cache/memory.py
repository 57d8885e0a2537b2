"""A cache in memory: what was used least recently goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from embrief.cache import store
from embrief.cache.flights import Flights

_OVERHEAD = 250
"""Bytes that Python takes for one entry besides its key and value."""


class MemoryStore:
    """Entries by their keys, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, tuple[bytes, float, float | None]] = OrderedDict()
        """The value, when it was made, and when it expires."""
        self._bytes = 0
        self.reset()

    def reset(self) -> None:
        """Start with new locks in a child process. A parent's thread may have been in the middle of a change."""
        self._lock = threading.Lock()
        self.flights = Flights()
        self._bytes = sum(_size(key, data) for key, (data, _, _) in self._entries.items())

    def get(self, keys: Sequence[bytes], ttl: float | None = None) -> Mapping[bytes, bytes]:
        """Return the entries that are there."""
        time, found = store.now(), {}
        with self._lock:
            for key in keys:
                there = self._entries.get(key)
                if there is None:
                    continue
                data, made, expires = there
                if expires is not None and expires <= time:
                    self._drop(key)
                    continue
                if store.is_too_old(made, ttl, time):
                    continue
                self._entries.move_to_end(key)
                found[key] = data
        return found

    def put(self, entries: Mapping[bytes, bytes], ttl: float | None) -> None:
        """Take entries; one that is larger than the whole cache is not kept."""
        made = store.now()
        expires = None if ttl is None else made + ttl
        with self._lock:
            for key, data in entries.items():
                self._drop(key)
                if _size(key, data) > self._max_bytes:
                    continue
                self._entries[key] = data, made, expires
                self._bytes += _size(key, data)
                while self._bytes > self._max_bytes:
                    self._drop(next(iter(self._entries)))

    def settle(self) -> None:
        """Do nothing: all is there at once."""

    def _drop(self, key: bytes) -> None:
        there = self._entries.pop(key, None)
        if there is not None:
            self._bytes -= _size(key, there[0])


def _size(key: bytes, data: bytes) -> int:
    return len(key) + len(data) + _OVERHEAD
