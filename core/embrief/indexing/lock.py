"""One process at a time in a store's folder: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import os
import re
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError, StoreInUseError

if TYPE_CHECKING:
    from typing import Self

NAME = "embrief.lock"
"""The file in the store's folder. It stays there: who removed it could remove another's lock."""
_POLL_SECONDS = 0.05
_FAR = 1 << 30
"""On Windows nobody else may read what is locked, so the locked byte is far behind the text."""
_WORD = re.compile(r"[a-z][a-z-]*")

_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """The lock of a folder, held from construction until `release`."""

    def __init__(self, folder: Path, *, patience: float) -> None:
        """Take the lock.

        Args:
            folder: The folder, made if it is not there.
            patience: Seconds to wait for whoever holds it.

        Raises:
            StoreInUseError: Another process, or another part of this one, holds it.
            ArgumentError: The folder cannot be made or written.
        """
        if folder.exists() and not folder.is_dir():
            raise ArgumentError(f"{folder} is a file, and a store is a folder; name another place")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Not inherited by the programs that this process starts.
            self._file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ArgumentError(f"{folder} cannot hold a store: {error.strerror or error}") from error
        end = time.monotonic() + patience
        while not _take(self._file):
            if time.monotonic() >= end:
                holder = _holder(self._file)
                os.close(self._file)
                raise StoreInUseError(
                    f"the store in {folder} is in use by {holder}, and no two processes open one; let it end, or ask "
                    "through that process"
                )
            time.sleep(_POLL_SECONDS)
        try:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, f"{os.getpid()} {_command()}\n".encode("utf-8", "replace"))
        except OSError:
            pass  # It is for a message only, and the disk may be full.
        self._open = True
        _held.add(self)

    def release(self) -> None:
        """Let go of the folder. Twice is once."""
        if self._open:
            self._open = False
            if sys.platform == "win32":
                _unlock_on_windows(self._file)
            os.close(self._file)

    def forget(self) -> None:
        """In a forked child: close the copy, which leaves the parent's lock as it is."""
        if self._open:
            self._open = False
            os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _command() -> str:
    """Return what this process is called, without anything that may be a user's text."""
    program = Path(sys.argv[0] if sys.argv and sys.argv[0] else "python")
    words = [program.parent.name if program.name == "__main__.py" else program.name]
    if len(sys.argv) > 1 and _WORD.fullmatch(sys.argv[1]):
        words.append(sys.argv[1])
        words += ["--watch"] if "--watch" in sys.argv[2:] else []
    return " ".join(words)


def _holder(file: int) -> str:
    """Return who holds a lock, for a message. Whoever may write to the folder could have written the text."""
    os.lseek(file, 0, os.SEEK_SET)
    pid, _, command = os.read(file, 200).decode("utf-8", "replace").strip().partition(" ")
    if not pid.isascii() or not pid.isdigit():
        return "another process"
    shown = "".join(letter for letter in command if letter.isprintable())
    return f"process {pid} ({shown})" if shown else f"process {pid}"


if sys.platform == "win32":
    import msvcrt

    def _take(file: int) -> bool:
        os.lseek(file, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock_on_windows(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _take(file: int) -> bool:
        # Not `lockf`: that one lets go as soon as anybody in this process closes the file once more.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _after_fork() -> None:
        # Otherwise the lock would last as long as the child.
        for lock in list(_held):
            lock.forget()

    os.register_at_fork(after_in_child=_after_fork)
