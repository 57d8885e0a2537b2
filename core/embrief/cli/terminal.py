"""Where a command prints and stands: this process's own streams, or the terminal of somebody who asked a process."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Terminal:
    """What a command must know of whoever typed it."""

    out: TextIO
    err: TextIO
    width: int
    """Columns."""
    colour: bool
    """Whether `out` shows colours."""
    cwd: Path
    """Where it was typed: relative paths are read from there."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when whoever typed it has gone: long work ends then, in order."""


_given: ContextVar[Terminal | None] = ContextVar("embrief_terminal", default=None)


@contextmanager
def belonging_to(given: Terminal) -> Iterator[None]:
    """Let what runs on this thread belong to a terminal."""
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)


def terminal() -> Terminal:
    """Return the terminal that the running command belongs to."""
    given = _given.get()
    if given is not None:
        return given
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return Terminal(sys.stdout, sys.stderr, shutil.get_terminal_size().columns, colour, Path.cwd())
