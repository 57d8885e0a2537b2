"""What a user may ask of a cache: plain values, that travel in pickles."""

from __future__ import annotations

import os
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from embrief.errors import ArgumentError, ArgumentTypeError

DAY = 24 * 60 * 60.0
"""Seconds that a vector of a model with a declared version is kept unless `ttl` says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCache:
    """A cache in this process, for `Embedder(..., cache=...)`; what was used least recently goes first.

    Equal options are one cache, which all embedders of the process share and which lives as long as the process.
    """

    max_bytes: int = 256 * 1024 * 1024
    """Bytes that it may hold."""
    ttl: float | None = None
    """Seconds after which an entry counts no more. `None`: never for a model that is pinned (by a commit or a digest of
    its files) and runs here, a day for one whose version is only declared, and for what a server answers."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ArgumentTypeError: A value has the wrong type.
            ArgumentError: It is not positive.
        """
        _check(self, type(self).__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteCache:
    """A cache in one file, for `Embedder(..., cache=...)`: shared by processes, and there again after a restart.

    One file is one cache: embedders that name it with different sizes share the largest.
    """

    path: str | None = None
    """The file; by default one in the user's cache folder. A path of another kind becomes a string."""
    max_bytes: int = 2 * 1024 * 1024 * 1024
    """Bytes of the file; what was used least recently goes first."""
    ttl: float | None = None
    """As in `MemoryCache`."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ArgumentTypeError: A value has the wrong type.
            ArgumentError: It is not positive, or the path is empty.
        """
        path: Any = self.path
        if isinstance(path, Path):
            object.__setattr__(self, "path", os.fspath(path))
        elif path is not None and not isinstance(path, str):
            raise ArgumentTypeError(f"SqliteCache(path=...) is a string or a path, not {type(path).__name__}")
        if self.path == "":
            raise ArgumentError("SqliteCache(path='') names no file; leave it out for the user's cache folder")
        _check(self, type(self).__name__)


CacheOptions = MemoryCache | SqliteCache

_NAMES: dict[str, type[CacheOptions]] = {"memory": MemoryCache, "sqlite": SqliteCache}
_REMEDY = "use False, 'memory', 'sqlite', embrief.MemoryCache(...) or embrief.SqliteCache(path=...)"


def chosen(value: object) -> CacheOptions | None:
    """Return the options behind a `cache=` keyword, `None` where it asks for none: for `None` and `False`.

    Raises:
        ArgumentTypeError: It has the wrong type.
        ArgumentError: It is a string that names no kind of cache.
    """
    # By identity: an array compares in ways of its own.
    if value is None or value is False:
        return None
    if isinstance(value, (MemoryCache, SqliteCache)):
        return value
    if isinstance(value, str):
        if (kind := _NAMES.get(value)) is not None:
            return kind()
        raise ArgumentError(f"cache={value[:80]!r} is not known; {_REMEDY}; where downloads are kept is cache_dir=")
    if value is MemoryCache or value is SqliteCache:
        raise ArgumentTypeError(f"cache is an instance of options, not their class; {_REMEDY}")
    shown = repr(value) if isinstance(value, bool) else type(value).__name__
    raise ArgumentTypeError(f"cache={shown} does not say which cache; {_REMEDY}")


def _check(options: CacheOptions, owner: str) -> None:
    size: Any = options.max_bytes
    if isinstance(size, bool) or not isinstance(size, Integral):
        raise ArgumentTypeError(f"{owner}(max_bytes=...) is a whole number of bytes, not {size!r}")
    if size < 1:
        raise ArgumentError(f"{owner}(max_bytes={size}) must be at least 1; for no cache leave cache= out")
    object.__setattr__(options, "max_bytes", int(size))
    ttl: Any = options.ttl
    if ttl is None:
        return
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise ArgumentTypeError(f"{owner}(ttl=...) is a number of seconds or None, not {ttl!r}")
    if not ttl > 0:
        raise ArgumentError(f"{owner}(ttl={ttl}) must be more than 0 seconds; for no cache leave cache= out")
    object.__setattr__(options, "ttl", float(ttl))
