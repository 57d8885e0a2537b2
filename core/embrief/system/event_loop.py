"""The one event loop for servers, on a thread of its own: whatever loops the program has, and however many in turn."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from concurrent.futures import wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from embrief.errors import BackendError
from embrief.system import exiting

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from concurrent.futures import Future

    from embrief.errors import ClosedError

T = TypeVar("T")
_LOOK = 0.1
"""Seconds between two looks at whether the interpreter is exiting."""


class _Loop:
    """A loop and its thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._calls: set[Future[Any]] = set()
        self._stopped = False
        self._thread = exiting.start(self, self._serve, "embrief-servers")
        exiting.stop_first()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._stopped:
            # A task that ends with an exit or an interrupt ends the loop's run, too; its own future has the error.
            with suppress(BaseException):
                self._loop.run_forever()

    def is_here(self) -> bool:
        return threading.current_thread() is self._thread

    def submit(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    def stop(self) -> None:
        """Start nothing more, at exit."""
        self._stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def join(self) -> None:
        """Wait until the loop has stopped; a server that is being waited for is not."""
        self._thread.join(exiting.PATIENCE)

    def refuse(self, error: ClosedError) -> None:
        """Fail what waits for an answer."""
        for future in list(self._calls):
            # Not `set_exception` on one that a task of the loop may still settle: nothing runs there any more.
            if not future.done():
                future.set_exception(error)


_lock = threading.Lock()
_current: _Loop | None = None


def submit(call: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the loop of servers. Cancelling the future cancels it.

    Raises:
        ClosedError: The interpreter is exiting.
    """
    global _current
    try:
        exiting.check()
        with _lock:
            if _current is None:
                _current = _Loop()
            return _current.submit(call)
    except BaseException:
        call.close()
        raise


def must_not_wait() -> None:
    """Refuse to wait for a server on the thread that all servers' answers come in on.

    Raises:
        BackendError: This is that thread.
    """
    if _current is not None and _current.is_here():
        raise BackendError("a model on a server waited for another one inside of `arun`; await its asynchronous method")


def wait_for(futures: Iterable[Future[Any]], *, seconds: float = math.inf) -> None:
    """Wait until all are done, or the interpreter is exiting: the loop has stopped then, and nobody settles them."""
    left, end = list(futures), time.monotonic() + seconds
    while left and not exiting.begun() and time.monotonic() < end:
        left = list(wait(left, timeout=_LOOK).not_done)


def _after_fork() -> None:
    """Start another one in a child process: the parent's thread is gone there."""
    global _lock, _current
    _lock, _current = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
