"""Texts of one batch on several threads at once.

Between the large products of a layer there are many small operations, and two threads that share each of them wait for
each other more than they gain. Whole texts have nothing to wait for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import torch

from embrief.system import exiting

T = TypeVar("T")

_SMALLEST = 64
"""Tokens of a share: fewer do not pay for reading the weights once per thread."""
_EVEN = 0.85
"""The smallest share as a part of the largest: in worse ones, threads would wait for the last."""


class Threads:
    """A number of threads that compute shares of a batch side by side, or all together one text after the other."""

    def __init__(self, count: int) -> None:
        """Start nothing yet.

        Args:
            count: Threads that torch uses on the thread that calls `run`.
        """
        self.count = count
        self._pools: dict[int, _Pool] = {}

    def share(self, sizes: Sequence[int]) -> list[list[int]]:
        """Return which texts go together: as many shares as there are threads if they can be even, or half as many, ...

        Args:
            sizes: Tokens of each text.

        Returns:
            Places of `sizes`: shares to compute side by side, and last what all threads compute together, which may be
            nothing, or all there is.
        """
        order = sorted(range(len(sizes)), key=lambda place: -sizes[place])
        together = self.count
        while together > 1:
            for left in dict.fromkeys((0, len(sizes) % together)):
                if shares := _even(order[left:], sizes, together):
                    return [*shares, order[:left]]
            together //= 2
        return [order]

    def run(self, call: Callable[[list[int]], T], shares: list[list[int]]) -> list[T]:
        """Return what the call gives for each share that is not empty, in their order.

        Args:
            call: Takes places.
            shares: As `share` returns them.
        """
        *parts, rest = shares
        found = self._pool(len(parts)).run(call, parts) if parts else []
        return [*found, call(rest)] if rest else found

    def close(self) -> None:
        """End the threads; they have nothing to do by now."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _pool(self, together: int) -> _Pool:
        pool = self._pools.get(together)
        if pool is None or pool.process != os.getpid():
            pool = self._pools[together] = _Pool(together, self.count // together)
        return pool


class _Pool:
    """Threads that each use a number of threads of torch's.

    Not an executor of the standard library: those stop when the interpreter begins to exit, while threads of the
    caller's may still want results.
    """

    def __init__(self, count: int, each: int) -> None:
        self.process = os.getpid()
        """A forked child has the object, but not its threads."""
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        ready = threading.Barrier(count + 1)
        self._threads = [
            threading.Thread(target=self._serve, args=(ready, each), name="embrief-texts", daemon=True)
            for _ in range(count)
        ]
        # A thread that uses torch for the first time takes the number that was set last, by whichever thread. What the
        # caller's threads would have taken until now, they shall take again.
        before = _in_new_thread(torch.get_num_threads)
        for thread in self._threads:
            thread.start()
        ready.wait()
        _in_new_thread(partial(_set_threads, before))

    def run(self, call: Callable[[list[int]], T], parts: list[list[int]]) -> list[T]:
        """Return the results; raise the first error once all have ended."""
        futures: list[Future[T]] = []
        try:
            for part in parts:
                futures.append(Future())
                self._tasks.put(partial(_settle, futures[-1], partial(call, part)))
            # Nobody may go on, or free the weights, while a thread still computes.
            wait(futures)
            return [future.result() for future in futures]
        finally:
            # An error holds this frame; the frame must not hold the error, and with it the memory of what failed.
            del futures

    def close(self) -> None:
        if self.process != os.getpid():
            return
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, ready: threading.Barrier, each: int) -> None:
        _set_threads(each)
        ready.wait()
        while task := self._tasks.get():
            with exiting.part():
                task()
                # It holds weights and results until the next one comes.
                del task


def _set_threads(count: int) -> None:
    """Set the number for this thread, and for those that use torch for the first time after it."""
    # Torch sets a new thread's number when it is first asked for it: later, that would undo ours.
    torch.get_num_threads()
    torch.set_num_threads(count)


def _in_new_thread(call: Callable[[], T]) -> T:
    found: Future[T] = Future()
    thread = threading.Thread(target=_settle, args=(found, call))
    thread.start()
    thread.join()
    return found.result()


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)


def _even(order: Sequence[int], sizes: Sequence[int], together: int) -> list[list[int]]:
    """Return shares of nearly equal tokens, none if there are none worth it."""
    shares: list[list[int]] = [[] for _ in range(together)]
    loads = [0] * together
    for place in order:
        least = loads.index(min(loads))
        shares[least].append(place)
        loads[least] += sizes[place]
    return shares if min(loads) >= max(_SMALLEST, _EVEN * max(loads)) else []
