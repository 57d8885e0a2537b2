"""When a member that fails is left alone for a while."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

FAILURES = 5
"""Failures within `SPAN` seconds that open a breaker."""
SPAN = 30.0
PAUSE = 30.0
"""Seconds for which a member is left alone; then one call tries it."""


class Breaker:
    """Counts one member's failures. May be used from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: deque[float] = deque(maxlen=FAILURES)
        self._opened: float | None = None
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Take a new lock: at first, and in a child process, where a parent's thread may hold the old one.

        Nor will a trial that a parent's thread has begun end there.
        """
        self._lock = threading.Lock()
        self._trial = False

    @property
    def state(self) -> str:
        """Return `"closed"`, `"open"` or `"half-open"`."""
        with self._lock:
            if self._opened is None:
                return "closed"
            return "half-open" if self._clock() - self._opened >= PAUSE else "open"

    def lets_through(self) -> bool:
        """Return whether the member may be asked; of those that come after the pause, one alone."""
        with self._lock:
            if self._opened is None:
                return True
            if self._clock() - self._opened < PAUSE or self._trial:
                return False
            self._trial = True
            return True

    def succeeded(self) -> None:
        """Note an answer."""
        with self._lock:
            self._failed.clear()
            self._opened, self._trial = None, False

    def failed(self) -> bool:
        """Note a failure that another member may make up for; return whether the breaker is open now and was not."""
        with self._lock:
            now = self._clock()
            self._failed.append(now)
            many = len(self._failed) == FAILURES and now - self._failed[0] <= SPAN
            was_open = self._opened is not None
            if many or self._trial:
                self._opened, self._trial = now, False
            return self._opened is not None and not was_open

    def gave_up(self) -> None:
        """Note that a call ended without saying anything of the member, such as a cancelled one."""
        with self._lock:
            self._trial = False


_all: weakref.WeakSet[Breaker] = weakref.WeakSet()


def _after_fork() -> None:
    for breaker in list(_all):
        breaker.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
