"""Threads for event loops: what a coroutine hands over runs on a lane, and its result comes back by mail.

A loop does as little as possible per call: it puts it on a queue, and takes results some at a time.
"""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from embrief.errors import BackendError
from embrief.serving.jobs import in_short
from embrief.system import exiting

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from embrief.errors import ClosedError

T = TypeVar("T")

AT_ONCE = 32
"""Results that a loop takes before it turns to something else; each wakes a coroutine."""


class _Mailbox:
    """Results for one event loop, which is woken once for all that have come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._letters: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._called = False

    def post(self, future: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
        """Let the loop settle a future; from any thread."""
        with self._lock:
            self._letters.append((future, result, error))
            call, self._called = not self._called, True
        if call:
            try:
                future.get_loop().call_soon_threadsafe(self._take, future.get_loop())
            except RuntimeError:
                # The loop is closed, so nobody waits; what stayed here would keep it for ever.
                self._letters.clear()

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(AT_ONCE, len(self._letters))):
            future, result, error = self._letters.popleft()
            # Cancelled ones are done.
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
        with self._lock:
            self._called = bool(self._letters)
        if self._called:
            loop.call_soon(self._take, loop)


# One per event loop in use. Only the loop's own thread makes it.
_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Mailbox] = weakref.WeakKeyDictionary()


class _Errand:
    """A call of a coroutine's, and where its result goes."""

    def __init__(self, call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self._call, self._future = call, future
        self._context = contextvars.copy_context()
        loop = future.get_loop()
        mailbox = _mailboxes.get(loop)
        if mailbox is None:
            mailbox = _mailboxes[loop] = _Mailbox()
        self._mailbox = mailbox

    def run(self) -> None:
        """Call, unless nobody waits any more."""
        if self._future.done():
            return
        try:
            result = self._context.run(self._call)
        except BaseException as error:
            self.fail(error)
        else:
            self._mailbox.post(self._future, result, None)

    def fail(self, error: BaseException) -> None:
        """Let the coroutine have an error."""
        if not isinstance(error, Exception) or isinstance(error, (StopIteration, StopAsyncIteration)):
            # A loop would stop for an exit or an interrupt, and lose the end of an iteration.
            cause, error = error, BackendError(f"a call stopped with {in_short(error)}")
            error.__cause__ = cause
        self._mailbox.post(self._future, None, error)


class _Waiting(SimpleQueue[_Errand | None]):
    """The errands of one lane; `None` ends its thread."""

    _refused: ClosedError | None = None

    def add(self, errand: _Errand) -> None:
        """Take an errand; at exit, once those that waited were refused, fail it."""
        self.put(errand)
        self._again()

    def _again(self) -> None:
        # What is added after that has no thread to run it, and its coroutine would wait for ever.
        if self._refused is not None:
            self.refuse(self._refused)

    def serve(self) -> None:
        """Run errands on the lane's thread."""
        while (errand := self.get()) is not None:
            if exiting.begun():
                # Whoever gets its error first should not get it at once either.
                self.add(errand)
                return
            errand.run()
            # It holds texts and results until the next one comes.
            del errand
        exiting.ended(self)

    def stop(self) -> None:
        """Start nothing more: `serve` looks at the flag."""

    def join(self) -> None:
        """Wait for nothing: native code on a lane is inside `exiting.native`."""

    def refuse(self, error: ClosedError) -> None:
        """Fail what waits."""
        self._refused = error
        try:
            while True:
                if (errand := self.get_nowait()) is not None:
                    errand.fail(error)
        except Empty:
            pass


class Lane:
    """A thread that runs what coroutines hand over, in turn.

    Not an executor of the standard library: those take nothing more once the main thread has ended, while the loop of
    another thread may still run.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._waiting = _Waiting()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        # Only if the lane goes; not at exit.
        weakref.finalize(self, self._waiting.put, None).atexit = False

    def run(self, call: Callable[[], T], after: Future[Any] | None = None) -> Awaitable[T]:
        """Return what the call will return. To be called, and waited for, in an event loop.

        Args:
            call: Runs in the context of the caller.
            after: What must be done before it.

        Raises:
            ClosedError: The interpreter is exiting.
        """
        # Inside the function: programs without an event loop need not load it.
        import asyncio

        exiting.check()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = exiting.start(self._waiting, self._waiting.serve, "embrief")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        put = partial(self._waiting.add, _Errand(call, future))
        if after is None or after.done():
            put()
        else:
            after.add_done_callback(lambda _: put())
        return future
