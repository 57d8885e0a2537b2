"""A cache in one SQLite file: many threads and processes, and nothing that goes wrong there reaches a caller.

Whoever computes something puts it here and goes on; a thread of the store's writes it. What is not written yet is found
all the same. A file that is damaged, or another program's, is set aside and a new one begun. Where the file cannot be
read or written (no room, no rights, locked for long) everything is a miss, and one warning says so.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from embrief.cache import store
from embrief.cache.flights import Flights
from embrief.errors import CacheWarning, ClosedError, warn
from embrief.system import exiting

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

_Side = Literal["read", "write"]
_Pending = tuple[bytes, float, float | None]
"""A value that is to be written, when it was made, and when it expires."""
_Identity = tuple[int, int] | None
"""Device and number of a file, `None` if it is not there."""

APPLICATION = 0x656D6266
"""`application_id` of our files: "embf"."""
LAYOUT = 2
"""`user_version`: the layout of the tables."""
BUSY_SECONDS = 10.0
"""How long a write waits for another process's."""
_READ_SECONDS = 2.0
"""How long a reader does: only while another process makes or repairs the file."""
PAUSE_SECONDS = 30.0
"""For how long a file that made trouble is left alone."""
_SETTLE_SECONDS = 0.25
_MOST_PENDING = 64 * 1024 * 1024
"""Bytes that may wait to be written; callers beyond that wait for the disk."""
_IDLE_SECONDS = 2.0
_FORK_SECONDS = 1.0
_AT_ONCE = 256
"""Rows in one statement or transaction."""
_LAZY_SECONDS = 60.0
"""A use is noted where the last one that is noted is older: so that reading writes little."""
_FILL = 0.9
"""Share of the size that is left after entries had to go: else each further one would make room for itself alone."""
_MAKE = f"""
CREATE TABLE IF NOT EXISTS entries (
    key BLOB PRIMARY KEY NOT NULL, crc INTEGER NOT NULL, size INTEGER NOT NULL, used REAL NOT NULL, expires REAL,
    value BLOB NOT NULL, made REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS entries_used ON entries (used);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {LAYOUT};
"""
_OURS = {("table", "entries"), ("index", "entries_used"), ("index", "sqlite_autoindex_entries_1")}
_SUFFIXES = ("-wal", "-shm", "")

# What was warned of, and where. The file's name counts: another file is another matter.
_told: set[tuple[str, str]] = set()
# Connections of a parent process, which are never closed here.
_inherited: list[sqlite3.Connection] = []


class NotOursError(Exception):
    """A file is no cache of ours; the message says what it is."""


class NewerError(Exception):
    """A file was written by a newer release."""


class SqliteStore:
    """The cache in one file, in this process. Opened with the first use."""

    def __init__(self, file: Path, max_bytes: int) -> None:
        self.file, self.max_bytes = file, max_bytes
        self.reset()

    def reset(self) -> None:
        """Start afresh: at first, and in a child process."""
        self.flights = Flights()
        self._changed = threading.Condition()
        self._pending: dict[bytes, _Pending] = {}
        """What is to be written, by key."""
        self._pending_bytes = 0
        self._touched: dict[bytes, float] = {}
        """When entries were used last."""
        self._dropped: dict[bytes, int] = {}
        """Rows that are damaged or too old, with the checksum that they had."""
        self._unsaid: list[str] = []
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._paused: dict[_Side, float] = {"read": 0.0, "write": 0.0}
        """Until when nothing is tried, by the monotonic clock."""
        # One connection per side, each used under its lock alone.
        self._locks: dict[_Side, threading.Lock] = {"read": threading.Lock(), "write": threading.Lock()}
        self._held: list[threading.Lock] = []
        """Those that a fork has taken."""
        self._connections: dict[_Side, sqlite3.Connection] = {}
        self._seen: dict[_Side, _Identity] = {"read": None, "write": None}
        """The file that a side has opened."""

    # For callers, on any thread.

    def get(self, keys: Sequence[bytes], ttl: float | None = None) -> Mapping[bytes, bytes]:
        """Return the entries that are there."""
        with self._changed:
            at = store.now()
            waiting = {key: self._pending[key] for key in keys if key in self._pending}
            found = {key: data for key, (data, made, _) in waiting.items() if not store.is_too_old(made, ttl, at)}
        left = [key for key in keys if key not in found]
        if left and not self._is_paused("read"):
            with self._locks["read"]:
                try:
                    for start in range(0, len(left), _AT_ONCE):
                        self._read(left[start : start + _AT_ONCE], ttl, found)
                except Exception as error:
                    # Whatever it is: a cache that fails is none, and the texts can still be computed.
                    self._trouble(error, "read")
        self._say()
        return found

    def put(self, entries: Mapping[bytes, bytes], ttl: float | None) -> None:
        """Take entries. A thread writes them."""
        if self._is_paused("write") or self._stopping:
            return
        made = store.now()
        expires = None if ttl is None else made + ttl
        with self._changed:
            for key, data in entries.items():
                self._pending_bytes += len(data) - len(self._pending.get(key, (b"",))[0])
                self._pending[key] = data, made, expires
            self._wake()

    def settle(self) -> None:
        """Wait until all is written that was put; not for long, unless too much waits. Say what went wrong."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending or self._thread is None, _SETTLE_SECONDS)
            self._changed.wait_for(lambda: self._pending_bytes <= _MOST_PENDING or self._thread is None, BUSY_SECONDS)
        self._say()

    def _say(self) -> None:
        while self._unsaid:
            with contextlib.suppress(IndexError):
                warn(self._unsaid.pop(0), CacheWarning)

    def _is_paused(self, side: _Side) -> bool:
        return time.monotonic() < self._paused[side]

    # For the process: its exit, and its forks.

    def stop(self) -> None:
        """Take nothing more; what was put is written."""
        self._stopping = True
        with self._changed:
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the last write, and not for long where the file is locked."""
        if (thread := self._thread) is not None:
            thread.join(exiting.PATIENCE)

    def refuse(self, error: ClosedError) -> None:
        """Do nothing: nobody waits here for long."""

    def before_fork(self) -> None:
        """Close the connections, since SQLite's must not get into a child process (sqlite.org/howtocorrupt.html, 2.6).

        A side that is busy for long, waiting for another process, keeps its own; the child then goes without the cache.
        """
        for side, lock in self._locks.items():
            if lock.acquire(timeout=_FORK_SECONDS):
                self._held.append(lock)
                self._disconnect(side)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        while self._held:
            self._held.pop().release()

    def after_fork_in_child(self) -> None:
        """Start afresh; a connection that came along is neither used nor closed."""
        inherited = list(self._connections.values())
        self.reset()
        if inherited:
            _inherited.extend(inherited)
            self._paused = {"read": math.inf, "write": math.inf}

    # Reading.

    def _read(self, keys: Sequence[bytes], ttl: float | None, found: dict[bytes, bytes]) -> None:
        connection = self._connected("read", _READ_SECONDS)
        marks = ",".join("?" * len(keys))
        rows = connection.execute(
            f"SELECT key, value, crc, size, used, expires, made FROM entries WHERE key IN ({marks})",  # noqa: S608 - marks
            keys,
        ).fetchall()
        at = store.now()
        for key, value, crc, size, used, expires, made in rows:
            if not is_whole(key, value, crc, size) or not _counts(expires, at):
                self._drop(key, crc)
                continue
            if store.is_too_old(made, ttl, at):
                continue
            found[key] = value
            if not isinstance(used, float) or used < at - _LAZY_SECONDS:
                self._touch(key, at)

    def _connected(self, side: _Side, seconds: float) -> sqlite3.Connection:
        """Return the connection of a side. Under its lock."""
        connection = self._connections.get(side)
        if connection is not None and _identity(self.file) != self._seen[side]:
            # What is written there now, nobody would find again.
            self._disconnect(side)
            self._tell("gone", f"the cache {self.file} was removed or replaced while it was used; a new one is begun")
            connection = None
        if connection is None:
            create(self.file)
            self._seen[side] = _identity(self.file)
            connection = self._connections[side] = connect(self.file, seconds)
        return connection

    def _disconnect(self, side: _Side) -> None:
        """Close the connection of a side. Under its lock."""
        if (connection := self._connections.pop(side, None)) is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _drop(self, key: Any, crc: Any) -> None:
        with self._changed:
            self._dropped[key] = crc
            self._wake()

    def _touch(self, key: bytes, at: float) -> None:
        with self._changed:
            self._touched[key] = at
            if len(self._touched) >= _AT_ONCE:
                self._wake()

    # Writing, on the store's thread.

    def _wake(self) -> None:
        """Start the thread, or wake it. Under the lock."""
        if self._thread is None and not self._stopping:
            try:
                self._thread = exiting.start(self, self._serve, "embrief-cache")
            except (ClosedError, RuntimeError):
                # The interpreter is going, and takes no new thread.
                self._stopping = True
                self._forget()
        self._changed.notify_all()

    def _forget(self) -> None:
        self._pending.clear()
        self._touched.clear()
        self._dropped.clear()
        self._pending_bytes = 0

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            with self._locks["write"]:
                try:
                    self._write(self._connected("write", BUSY_SECONDS), *work)
                except Exception as error:
                    self._trouble(error, "write")
                    with self._changed:
                        self._forget()
                        self._changed.notify_all()
                else:
                    self._written(work[0])

    def _next(self) -> tuple[dict[bytes, _Pending], dict[bytes, float], dict[bytes, int]] | None:
        """Return what is to be written next; `None` to end the thread, which a later put starts again."""
        with self._changed:
            while True:
                if self._pending or self._dropped or len(self._touched) >= _AT_ONCE:
                    break
                if self._stopping or not self._changed.wait(_IDLE_SECONDS):
                    if self._touched:
                        break
                    if self._pending or self._dropped:
                        continue
                    exiting.ended(self)
                    self._thread = None
                    self._changed.notify_all()
                    return None
            some = {key: self._pending[key] for key, _ in zip(self._pending, range(_AT_ONCE), strict=False)}
            touched, self._touched = self._touched, {}
            dropped, self._dropped = self._dropped, {}
            return some, touched, dropped

    def _written(self, some: Mapping[bytes, _Pending]) -> None:
        with self._changed:
            for key, value in some.items():
                # It may have been put again meanwhile.
                if self._pending.get(key) is value:
                    del self._pending[key]
                    self._pending_bytes -= len(value[0])
            self._changed.notify_all()

    def _write(
        self,
        connection: sqlite3.Connection,
        some: Mapping[bytes, _Pending],
        touched: Mapping[bytes, float],
        dropped: Mapping[bytes, int],
    ) -> None:
        at = store.now()
        with transaction(connection):
            connection.executemany("DELETE FROM entries WHERE key = ? AND crc IS ?", dropped.items())
            connection.executemany(
                "UPDATE entries SET used = ? WHERE key = ?", [(used, key) for key, used in touched.items()]
            )
            connection.executemany(
                "INSERT OR REPLACE INTO entries (key, value, crc, size, used, expires, made) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (key, data, _crc(key, data), len(data), at, expires, made)
                    for key, (data, made, expires) in some.items()
                ],
            )
        shrink(connection, self.max_bytes)

    # Trouble.

    def _trouble(self, error: Exception, side: _Side) -> None:
        """Put right what can be put right; else leave the file alone for a while, and have it said once.

        Under the side's lock.
        """
        cause, sentence = cause_of(error)
        self._disconnect(side)
        if cause in ("damaged", "foreign"):
            try:
                moved = self._set_aside(side)
            except OSError as other:
                cause, sentence = "stuck", f"{sentence}, and cannot be moved out of the way ({other})"
            else:
                if moved is not None:
                    told = f"the cache {self.file} {sentence}; it was moved to {moved}, and a new one is begun"
                    self._tell(f"{cause} {moved}", told)
                return
        # Where nothing can be written, what is there can still be read.
        until = time.monotonic() + PAUSE_SECONDS
        self._paused["write"] = until
        if side == "read":
            self._paused["read"] = until
        told = f"the cache {self.file} {sentence}; texts are computed without it. {_REMEDIES.get(cause, _REMEDY)}"
        self._tell(cause, told)

    def _tell(self, cause: str, sentence: str) -> None:
        if (cause, str(self.file)) not in _told:
            _told.add((cause, str(self.file)))
            self._unsaid.append(sentence)

    def _set_aside(self, side: _Side) -> Path | None:
        """Move the file that a side found to be bad; return where it is, `None` if it is another one by now."""
        with self._changed:
            there = _identity(self.file)
            return set_aside(self.file) if there is not None and there == self._seen[side] else None


_REMEDY = "Name another file: SqliteCache(path=...), or use cache='memory'"
_REMEDIES = {
    "full": "Make room, or give it less: SqliteCache(max_bytes=...)",
    "locked": "Find the process that holds it; it is tried again later",
    "newer": "Upgrade embrief, or name another file: SqliteCache(path=...)",
}


def cause_of(error: Exception) -> tuple[str, str]:
    """Return a word for what is wrong, and the rest of a sentence that begins with the file's name."""
    import errno
    import sqlite3

    if isinstance(error, NotOursError):
        return "foreign", f"is no cache of embrief ({error})"
    if isinstance(error, NewerError):
        return "newer", "was written by a newer release of embrief"
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC)
        return ("full", "has no room on its disk") if full else ("rights", f"cannot be opened ({error.strerror})")
    code = getattr(error, "sqlite_errorcode", None)
    kind = None if code is None else code & 0xFF
    if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "damaged", f"is damaged ({error})"
    if kind == sqlite3.SQLITE_FULL:
        return "full", "has no room on its disk"
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "locked", "is locked by another process"
    if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return "rights", f"cannot be opened or written ({error})"
    return "failed", f"cannot be used ({type(error).__name__}: {error})"


def _crc(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def is_whole(key: object, value: object, crc: object, size: object) -> bool:
    """Return whether a row is as it was written."""
    if not isinstance(key, bytes) or not isinstance(value, bytes):
        return False
    return size == len(value) and crc == _crc(key, value)


def _counts(expires: object, at: float) -> bool:
    return expires is None or (isinstance(expires, (int, float)) and expires > at)


def _identity(file: Path) -> _Identity:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write all or nothing. Waits for the writers of other processes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def create(file: Path) -> None:
    """Make an empty file for its owner alone, or keep others out of the one that is there.

    Raises:
        OSError: It cannot be made.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if os.name == "posix" and file.stat().st_mode & 0o077:
            # Not ours, or on a file system without modes: then it is used as it is.
            with contextlib.suppress(OSError):
                file.chmod(0o600)


def connect(file: Path, seconds: float) -> sqlite3.Connection:
    """Open a cache, and make its tables in an empty file.

    Args:
        file: Where it is.
        seconds: How long statements wait for other processes.

    Raises:
        NotOursError: Another program's file is there.
        NewerError: A newer release wrote it.
        sqlite3.Error: It cannot be opened.
    """
    import sqlite3

    connection = sqlite3.connect(file, timeout=seconds, isolation_level=None, check_same_thread=False)
    # Whatever type a damaged row has, it is bytes with another checksum, and no error of decoding.
    connection.text_factory = bytes
    try:
        _prepare(connection, seconds)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, seconds: float) -> None:
    """Check whose file it is, and make the tables of a new one."""
    import sqlite3

    # Nothing that a file says about itself is run, and damage is looked for.
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    # A mapped file that is cut short would end the process.
    connection.execute("PRAGMA mmap_size = 0")
    if not _check(connection):
        # Before the first table. Making the log waits for nobody by itself.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        end = time.monotonic() + seconds
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)
        if mode != b"wal":
            raise sqlite3.OperationalError("its file system cannot have a write-ahead log")
        with transaction(connection):
            for statement in _MAKE.split(";"):
                connection.execute(statement)
        _check(connection)
    connection.execute("PRAGMA synchronous = NORMAL")


def _check(connection: sqlite3.Connection) -> bool:
    """Return whether the tables are there.

    Raises:
        NotOursError: There are others.
        NewerError: They have a later layout.
    """
    application, layout = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    listed = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
    there = {(kind.decode("utf-8", "replace"), name.decode("utf-8", "replace")) for kind, name in listed}
    if not there and not application and not layout:
        return False
    if application != APPLICATION:
        raise NotOursError("another program's database")
    if layout > LAYOUT:
        raise NewerError
    if layout not in (1, LAYOUT) or there != _OURS:
        raise NotOursError("its tables are others")
    if layout == 1:
        _migrate(connection)
    return True


def _migrate(connection: sqlite3.Connection) -> None:
    """Give an older file the column that it lacks. How old its entries are is not known: as old as can be."""
    with transaction(connection):
        # Another process may have done it meanwhile.
        if _pragma(connection, "user_version") == 1:
            connection.execute("ALTER TABLE entries ADD COLUMN made REAL NOT NULL DEFAULT 0")
            connection.execute(f"PRAGMA user_version = {LAYOUT}")


def size_of(connection: sqlite3.Connection) -> int:
    """Return the bytes of the file that hold something."""
    pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return pages * _pragma(connection, "page_size")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def shrink(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Let entries go until the file holds less than it may: the expired, then what was used least recently."""
    if size_of(connection) <= max_bytes:
        return
    with transaction(connection):
        connection.execute("DELETE FROM entries WHERE expires <= ?", (store.now(),))
    while (over := size_of(connection) - int(_FILL * max_bytes)) > 0:
        (mean,) = connection.execute(
            "SELECT avg(size) FROM (SELECT size FROM entries ORDER BY used LIMIT ?)", (_AT_ONCE,)
        ).fetchone()
        if mean is None:
            break
        count = min(int(over / (mean + 1)) + 1, 4 * _AT_ONCE)
        with transaction(connection):
            connection.execute(
                "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries ORDER BY used, rowid LIMIT ?)", (count,)
            )
    if _pragma(connection, "page_count") * _pragma(connection, "page_size") > max_bytes:
        give_back(connection)


def give_back(connection: sqlite3.Connection) -> None:
    """Cut the file to what it holds, as far as no other process reads at the moment."""
    # It is done a page per step, and `execute` takes one step.
    connection.executescript("PRAGMA incremental_vacuum")
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def set_aside(file: Path) -> Path | None:
    """Move a file and what SQLite keeps beside it out of the way.

    Returns:
        Where it is now; `None` if it is not there any more.

    Raises:
        OSError: It cannot be moved.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        aside = file.with_name(f"{file.name}.aside-{moment}{f'-{number}' if number else ''}")
        if not aside.exists():
            break
    found = None
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            file.with_name(file.name + suffix).rename(aside.with_name(aside.name + suffix))
            found = aside
    return found
