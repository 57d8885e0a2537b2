"""Looking after a cache's file from outside: what is in it, emptying it, checking every row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from embrief.cache import sqlite, store
from embrief.cache.places import cache_file
from embrief.errors import ArgumentError

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Stats:
    """What a cache holds."""

    path: str
    entries: int
    """Those that count no more included."""
    expired: int
    bytes: int
    """Of the file's pages that hold something."""
    file_bytes: int
    """Of the file and its log."""
    oldest_use: float | None
    """When the entry was used that goes first, in seconds since the epoch; `None` for an empty cache."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of every row has found."""

    path: str
    checked: int
    bad: int
    """Rows whose checksum is wrong or that hold something else; they are removed."""
    damage: str = ""
    """What SQLite says of the file itself, empty where it is sound."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def stats(path: str | None = None) -> Stats:
    """Return what a cache holds.

    Args:
        path: Its file; by default the one in the user's cache folder.

    Raises:
        ArgumentError: There is none, or it is no cache of embrief.
    """
    with _opened(path) as (file, connection):
        entries, oldest = connection.execute("SELECT count(*), min(used) FROM entries").fetchone()
        (expired,) = connection.execute("SELECT count(*) FROM entries WHERE expires <= ?", (store.now(),)).fetchone()
        sizes = [
            beside.stat().st_size for suffix in ("", "-wal") if (beside := file.with_name(file.name + suffix)).exists()
        ]
        return Stats(str(file), entries, expired, sqlite.size_of(connection), sum(sizes), oldest)


def clear(path: str | None = None) -> int:
    """Remove all entries, and give their room back; other processes may go on using the cache.

    Args:
        path: As in `stats`.

    Returns:
        How many there were.

    Raises:
        ArgumentError: There is no cache, it is no cache of embrief, or it cannot be written.
    """
    with _opened(path) as (_, connection):
        with sqlite.transaction(connection):
            (entries,) = connection.execute("SELECT count(*) FROM entries").fetchone()
            connection.execute("DELETE FROM entries")
        sqlite.give_back(connection)
        return int(entries)


def verify(path: str | None = None) -> Verdict:
    """Check every row of a cache, and remove those that are bad.

    Args:
        path: As in `stats`.

    Raises:
        ArgumentError: There is no cache, it is no cache of embrief, or it cannot be read.
    """
    from embrief.cache.entries import Entry

    checked, bad, last = 0, 0, -(2**63)
    with _opened(path) as (file, connection):
        said = [row[0].decode("utf-8", "replace") for row in connection.execute("PRAGMA integrity_check(5)")]
        damage = [line for line in said if line != "ok"]
        while True:
            rows = connection.execute(
                "SELECT rowid, key, value, crc, size FROM entries WHERE rowid > ? ORDER BY rowid LIMIT ?",
                (last, _AT_ONCE),
            ).fetchall()
            if not rows:
                return Verdict(str(file), checked, bad, "; ".join(damage))
            wrong: list[tuple[int]] = []
            for row, key, value, crc, size in rows:
                checked, last = checked + 1, row
                try:
                    if not sqlite.is_whole(key, value, crc, size):
                        raise ValueError("its checksum is wrong")
                    Entry.from_bytes(value)
                except ValueError:
                    wrong.append((row,))
            if wrong:
                bad += len(wrong)
                with sqlite.transaction(connection):
                    connection.executemany("DELETE FROM entries WHERE rowid = ?", wrong)


@contextlib.contextmanager
def _opened(path: str | None) -> Iterator[tuple[Path, sqlite3.Connection]]:
    import sqlite3

    file = cache_file(path)
    if not file.is_file():
        raise ArgumentError(
            f"there is no cache at {file}; Embedder(..., cache='sqlite') makes one, or name another path"
        )
    try:
        connection = sqlite.connect(file, sqlite.BUSY_SECONDS)
        try:
            yield file, connection
        finally:
            connection.close()
    except (sqlite3.Error, OSError, sqlite.NotOursError, sqlite.NewerError) as error:
        raise ArgumentError(f"the cache {file} {sqlite.cause_of(error)[1]}") from error
