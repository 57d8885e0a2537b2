"""What is open in a process, each once: shared by all who use it, closed when nobody did for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from embrief.errors import ClosedError

K = TypeVar("K")
T = TypeVar("T")


@dataclass(slots=True)
class _Slot(Generic[T]):
    """One thing, open or not."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while it is opened or closed: whoever wants it meanwhile waits, and nobody else."""
    value: T | None = None
    users: int = 0
    last: float = 0.0
    """When the last user left, by the monotonic clock."""


class Pool(Generic[K, T]):
    """Things that are opened by a key. Every method may be called from any thread."""

    def __init__(self, close: Callable[[T], None], *, most: int) -> None:
        """Begin empty.

        Args:
            close: What closes a thing.
            most: How many stay open without a user; beyond that the one goes that was used least recently.
        """
        self._close, self._most = close, most
        self._lock = threading.Lock()
        self._slots: dict[K, _Slot[T]] = {}
        self._closed = False

    @contextmanager
    def use(self, key: K, make: Callable[[], T], *, idle_seconds: float | None) -> Iterator[T]:
        """Use a thing, opened if it is not; it is not closed before the block ends.

        Args:
            key: Which one.
            make: Opens it. Whatever it raises is the caller's.
            idle_seconds: For how long things stay open without a user; `None`: until others need the room.

        Raises:
            ClosedError: The pool is closed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("the workspace was closed")
            slot: _Slot[T] = self._slots.setdefault(key, _Slot())
            slot.users += 1
        try:
            with slot.lock:
                if slot.value is None:
                    slot.value = make()
                value = slot.value
            yield value
        finally:
            self._leave(slot, idle_seconds)

    def _leave(self, slot: _Slot[T], idle_seconds: float | None) -> None:
        with self._lock:
            slot.users -= 1
            slot.last = time.monotonic()
            closed = self._closed
        self.shrink(0.0 if closed else idle_seconds)

    def shrink(self, idle_seconds: float | None) -> float | None:
        """Close what nobody has used for so long, and what is too much.

        Returns:
            Seconds until the next thing will have been idle for that long; `None`: nothing is open without a user.
        """
        now = time.monotonic()
        with self._lock:
            idle = sorted(
                (slot for slot in self._slots.values() if slot.value is not None and not slot.users),
                key=lambda slot: slot.last,
            )
            surplus = max(len(idle) - self._most, 0)
            late = [slot for slot in idle[surplus:] if idle_seconds is not None and now - slot.last >= idle_seconds]
        for slot in [*idle[:surplus], *late]:
            self._close_slot(slot)
        left = [slot.last for slot in idle[surplus:] if slot not in late]
        return None if idle_seconds is None or not left else max(min(left) + idle_seconds - now, 0.0)

    def close(self) -> None:
        """Close everything; what is in use, when its last user leaves. Nothing can be used after that."""
        with self._lock:
            self._closed = True
            slots = list(self._slots.values())
        for slot in slots:
            self._close_slot(slot)

    def _close_slot(self, slot: _Slot[T]) -> None:
        with slot.lock:
            with self._lock:
                if slot.users or slot.value is None:
                    return
                value, slot.value = slot.value, None
            self._close(value)

    def abandon(self) -> list[T]:
        """In a forked child: forget everything and return it. What is the parent's must not be closed here."""
        kept = [slot.value for slot in self._slots.values() if slot.value is not None]
        self._lock, self._slots = threading.Lock(), {}
        return kept
