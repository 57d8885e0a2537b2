"""The end of the process: from one moment on, nothing of this library enters native code any more.

A thread that comes back from C++ or Rust to an interpreter that is gone is ended inside that code, and the process with
it (SIGABRT, before Python 3.14). So there is one flag for the whole process. It is set when the exit functions run;
what is inside native code by then ends, and nothing enters after it.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - torch needs it, and it cannot be imported once the main thread has ended
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from embrief.errors import ClosedError

PATIENCE = 3.0
"""Seconds that the exit waits for a call that cannot be cut."""
_MOMENT = 3.0
"""Seconds that daemon threads get nothing at exit. One that got its error at once would print a traceback or try again
while the interpreter goes, and one that is stopped while it writes to stderr ends the process with SIGABRT, too. By
then most processes are gone; whoever waits for the thread in an exit function waits no longer than that."""


class Owner(Protocol):
    """What has a thread for which calls wait."""

    def stop(self) -> None:
        """Start nothing more. Never blocks, and wakes nobody."""

    def join(self) -> None:
        """Wait for the native code under way."""

    def refuse(self, error: ClosedError) -> None:
        """Fail what still waits."""


_begun = False
# Re-entrant: a garbage collection inside a locked section may finalise an owner.
_gate = threading.Condition(threading.RLock())
_inside: list[int] = []
"""Threads in native code that no owner waits for, by their identity."""
_owners: set[Owner] = set()


def begun() -> bool:
    """Return whether the interpreter is exiting."""
    return _begun


def error() -> ClosedError:
    """Return what a call gets from now on."""
    return ClosedError(
        "the interpreter is exiting, so no model runs any more; let the program wait for its calls before it ends"
    )


def check() -> None:
    """Refuse a call at exit.

    Raises:
        ClosedError: The interpreter is exiting.
    """
    if _begun:
        if threading.current_thread().daemon:
            time.sleep(_MOMENT)
        raise error()


def start(owner: Owner, target: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread that the exit knows of before it runs.

    Raises:
        ClosedError: The interpreter is exiting.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    with _gate:
        if not _begun:
            _owners.add(owner)
            thread.start()
            return thread
    check()
    return thread


def ended(owner: Owner) -> None:
    """Forget an owner whose thread has nothing more to do."""
    _owners.discard(owner)


@contextmanager
def native() -> Iterator[None]:
    """Be in native code, on a thread of the caller's: the exit waits until the block ends.

    Raises:
        ClosedError: The interpreter is exiting.
    """
    with _gate:
        refused = _begun
        if not refused:
            _enter()
    if refused:
        check()
    try:
        yield
    finally:
        _leave()


@contextmanager
def part() -> Iterator[None]:
    """Be in native code as part of a batch that was begun before the exit, which is not refused any more."""
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    with _gate:
        _inside.append(threading.get_ident())


def _leave() -> None:
    with _gate:
        _inside.remove(threading.get_ident())
        _gate.notify_all()


def stop_between() -> None:
    """Stop at exit in the middle of native work that consists of several steps.

    Raises:
        ClosedError: The interpreter is exiting.
    """
    if _begun:
        raise error()


def stop_first() -> None:
    """Stop before the exit functions of whatever has been imported until now, torch's among them."""
    if not _begun:
        atexit.unregister(_before_others)
        atexit.register(_before_others)


def _before_others() -> None:
    _exit()


@atexit.register
def _exit() -> None:
    """Set the flag, and wait until nothing of ours is in native code."""
    # Registered when this is imported and never again: what is registered while exit functions run does not run.
    global _begun
    with _gate:
        first, _begun = not _begun, True
    if not first:
        return
    owners = list(_owners)
    for owner in owners:
        owner.stop()
    for owner in owners:
        _undisturbed(owner.join)
    _undisturbed(_wait_for_others)
    try:
        threading.Thread(target=_refuse_later, args=(owners,), name="embrief-exit", daemon=True).start()
    except RuntimeError:
        pass  # Too late for a new thread, hence for those that wait.


def _undisturbed(wait: Callable[[], None]) -> None:
    """Wait, whatever keys are pressed: going on now would end in SIGABRT."""
    while True:
        try:
            return wait()
        except KeyboardInterrupt:
            continue


def _wait_for_others() -> None:
    me = threading.get_ident()
    with _gate:
        _gate.wait_for(lambda: all(thread == me for thread in _inside))


def _refuse_later(owners: list[Owner]) -> None:
    time.sleep(_MOMENT)
    for owner in owners:
        owner.refuse(error())


def _after_fork() -> None:
    """Forget the parent's threads in a child process; its locks may be held."""
    global _gate
    me = threading.get_ident()
    _gate = threading.Condition(threading.RLock())
    _inside[:] = [thread for thread in _inside if thread == me]
    _owners.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
