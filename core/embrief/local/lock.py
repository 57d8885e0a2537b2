"""A lock on a file that ends with the process that holds it, however it ends."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def take(path: Path) -> int | None:
    """Lock a file, which is made if it is not there.

    Returns:
        The open file, to be given to `release`; `None` if another process has the lock.

    Raises:
        OSError: The file cannot be opened.
    """
    # A link in its place is not followed.
    file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


def release(file: int) -> None:
    """Let go of a lock. The file stays: removing it would let two processes lock two files of one name."""
    os.close(file)
