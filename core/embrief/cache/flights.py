"""What is being computed at the moment, so that callers who want the same at the same time compute it once.

A call claims the keys that nobody computes: these are its flight. Whoever wants one of them meanwhile joins. A flight
that ends without a key (it failed, or its caller has gone) leaves it to those who joined, who then claim it themselves:
nobody gets an error that may be about another's texts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from embrief.errors import (
    BackendError,
    ClosedError,
    IndexedError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
)


@dataclass(slots=True)
class _Wanted:
    """What others wait for."""

    future: Future[bytes | None]
    count: int = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """A key of another call's flight that somebody waits for."""

    flight: Flight
    key: bytes
    future: Future[bytes | None]
    """The entry; `None` if the flight ended without it."""

    def leave(self) -> None:
        """Wait no more."""
        self.flight.leave(self.key)


class Flight:
    """The keys that one call computes."""

    def __init__(self, flights: Flights, *, urgent: bool) -> None:
        self._flights, self.urgent = flights, urgent
        self.keys: list[bytes] = []
        """In the order in which they are computed."""
        self.left: dict[bytes, None] = {}
        """Those that have not come."""
        self.wanted: dict[bytes, _Wanted] = {}
        self.owned = True
        """Whether the caller who claimed them still waits."""
        self.stop: Callable[[], object] | None = None
        """Gives the computation up, from any thread."""
        self.stranded: Callable[[], bool] = bool
        """Whether nothing goes on any more: its event loop is closed. Then nobody would ever end it."""
        self.done: Future[Any] = Future()
        """What the computation gave; `None` if it was given up."""

    def deliver(self, entries: Mapping[bytes, bytes]) -> None:
        """Hand out entries that are in the store by now."""
        self._flights.remove(self, entries, None)

    def finish(self, output: Any) -> None:
        """End with what the computation gave."""
        self._end(output, None)

    def fail(self, error: BaseException) -> None:
        """End with an error, or without a result where the computation was given up."""
        self._end(None, error)

    def rescue(self) -> None:
        """End without a result if nothing goes on any more, so that those who wait compute it themselves."""
        if self.stranded():
            self.finish(None)

    def leave(self, key: bytes | None) -> None:
        """Take note that somebody waits no more: for a key, or the caller who claimed them all, for `None`.

        The computation is given up if nobody is left.
        """
        self._flights.leave(self, key)

    def _end(self, output: Any, error: BaseException | None) -> None:
        self._flights.remove(self, dict.fromkeys(list(self.left)), error)
        if self.done.done():
            return
        if isinstance(error, Exception):
            self.done.set_exception(error)
        else:
            self.done.set_result(output)


class Flights:
    """All flights of one cache."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A query never waits for bulk work, which may take hours; bulk work may wait for a query.
        self._tables: dict[bool, dict[bytes, Flight]] = {True: {}, False: {}}
        self.delivered = 0
        """Changes with every delivery: who found nothing before may find something after it."""

    def claim(self, keys: Iterable[bytes], *, urgent: bool) -> tuple[Flight, list[Joined]]:
        """Return a flight with the keys that nobody computes, and the others.

        Args:
            keys: Distinct ones, that are not in the store.
            urgent: Whether somebody waits, as for a query.
        """
        flight, joined = Flight(self, urgent=urgent), []
        with self._lock:
            for key in keys:
                there = self._tables[True].get(key) or (None if urgent else self._tables[False].get(key))
                if there is None:
                    self._tables[urgent][key] = flight
                    flight.keys.append(key)
                else:
                    wanted = there.wanted.setdefault(key, _Wanted(Future()))
                    wanted.count += 1
                    joined.append(Joined(there, key, wanted.future))
            flight.left = dict.fromkeys(flight.keys)
        return flight, joined

    def remove(self, flight: Flight, entries: Mapping[bytes, bytes | None], error: BaseException | None) -> None:
        """Take keys out of a flight, with their entries or without."""
        settled: list[tuple[Future[bytes | None], bytes | None]] = []
        with self._lock:
            table = self._tables[flight.urgent]
            for key, data in entries.items():
                if key in flight.left:
                    del flight.left[key], table[key]
                    if (wanted := flight.wanted.pop(key, None)) is not None:
                        settled.append((wanted.future, data))
            self.delivered += 1
            stop = flight.stop if _is_lost(flight) else None
        for future, data in settled:
            if data is None and _is_for_all(error):
                future.set_exception(error)
            else:
                future.set_result(data)
        if stop is not None:
            stop()

    def leave(self, flight: Flight, key: bytes | None) -> None:
        """Take note that somebody waits no more."""
        with self._lock:
            if key is None:
                flight.owned = False
            elif (wanted := flight.wanted.get(key)) is not None:
                wanted.count -= 1
                if not wanted.count:
                    del flight.wanted[key]
            stop = flight.stop if _is_lost(flight) else None
        if stop is not None:
            stop()


def _is_lost(flight: Flight) -> bool:
    return not flight.owned and not flight.wanted


def _is_for_all(error: BaseException | None) -> bool:
    """Return whether an error would meet whoever tried the same now: the model cannot be loaded, the server is away."""
    if isinstance(error, IndexedError) and error.index is not None:
        return False
    if isinstance(error, BackendError):
        return isinstance(error, (UnavailableError, RateLimitedError, UnauthorizedError))
    return isinstance(error, Exception) and not isinstance(error, ClosedError)


def all_done(futures: Sequence[Future[Any]]) -> Future[None]:
    """Return a future that is done when all of these are, however they ended."""
    found: Future[None] = Future()
    lock, left = threading.Lock(), len(futures)

    def count(_: Future[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = not left
        if last:
            found.set_result(None)

    for future in futures:
        future.add_done_callback(count)
    if not futures:
        found.set_result(None)
    return found
