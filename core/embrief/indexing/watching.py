"""Keeping a collection current: what changes below some folders is brought up to date, until somebody stops it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError, MissingDependencyError, StoreInUseError
from embrief.system.installed import install_command

if TYPE_CHECKING:
    import threading

    from embrief.indexing.report import Update

_DEBOUNCE = 500
"""Milliseconds in which changes belong together."""
_LOOK_SECONDS = 1.0
"""How often it is looked whether the folders are still the same."""
_MANY = 1000
"""Changes at once after which the system may have left some out."""

Changed = Collection[Path] | None


def watch(
    roots: Sequence[Path],
    update: Callable[[Changed], Update],
    *,
    stop: threading.Event,
    leave: Collection[Path] = (),
    on_trouble: Callable[[str], None] = lambda message: None,
) -> Iterator[Update]:
    """Update whenever something changes, and yield each update that changed the collection.

    A folder that is gone is waited for; meanwhile the collection stays as it is.

    Args:
        roots: Folders and files.
        update: Brings the collection up to date: told which files may have changed, `None` for any.
        stop: Ends it.
        leave: Folders whose changes do not count: those that an update itself writes to.
        on_trouble: Told, once each time, what it waits for.

    Raises:
        MissingDependencyError: watchfiles is not installed.
        EmbriefError: As of `update`, but for a store that another process has open, which is waited for.
    """
    while not stop.is_set():
        if not _wait_for(roots, stop, on_trouble):
            return
        identity = _identity(roots)
        # Whatever changed since the last look, or before the first one.
        due: set[Path] | None = None
        waits = False
        for changes in _changes(roots, stop, leave):
            if due is not None:
                due |= changes
            if due is None or due:
                try:
                    done = update(None if due is None or len(due) > _MANY else due)
                except StoreInUseError as error:
                    if not waits:
                        on_trouble(str(error))
                    waits = True
                    continue
                except ArgumentError:
                    if _identity(roots) is None:
                        break
                    raise
                due, waits = set(), False
                if done.did_something or done.failed:
                    yield done
            if stop.is_set() or _identity(roots) != identity:
                break


def _changes(roots: Sequence[Path], stop: threading.Event, leave: Collection[Path]) -> Iterator[set[Path]]:
    """Yield what changed, and nothing now and then."""
    try:
        # Inside the function: it is an extra.
        from watchfiles import watch as changes_below
    except ImportError as error:
        raise MissingDependencyError(f"watching needs watchfiles: {install_command('index')}") from error
    for changes in changes_below(
        *roots,
        watch_filter=lambda _, path: _counts(Path(path), leave),
        debounce=_DEBOUNCE,
        stop_event=stop,
        rust_timeout=int(_LOOK_SECONDS * 1000),
        yield_on_timeout=True,
        raise_interrupt=True,
        ignore_permission_denied=True,
    ):
        yield {Path(path) for _, path in changes}


def _counts(path: Path, leave: Collection[Path]) -> bool:
    if any(path == folder or folder in path.parents for folder in leave):
        return False
    # What git does in its own folder says nothing about files; `.gitignore` does.
    return ".git" not in path.parts


def _wait_for(roots: Sequence[Path], stop: threading.Event, on_trouble: Callable[[str], None]) -> bool:
    """Wait until all folders are there; `False` where it was to stop before that."""
    told = False
    while (missing := next((root for root in roots if not root.exists()), None)) is not None:
        if not told:
            on_trouble(f"{missing} is gone; waiting for it")
        told = True
        if stop.wait(_LOOK_SECONDS):
            return False
    return True


def _identity(roots: Sequence[Path]) -> list[tuple[int, int]] | None:
    """Return which folders these are: another one may have taken the place of one. `None`: one is gone."""
    try:
        return [(found.st_dev, found.st_ino) for found in map(os.stat, roots)]
    except OSError:
        return None
