"""The caches that this process has: one per equal options in memory, one per file."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from embrief.cache.memory import MemoryStore
from embrief.cache.options import MemoryCache
from embrief.cache.places import cache_file
from embrief.cache.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.cache.options import CacheOptions
    from embrief.cache.store import Store

_lock = threading.Lock()
_in_memory: dict[MemoryCache, MemoryStore] = {}
_files: dict[Path, SqliteStore] = {}


def store_of(options: CacheOptions) -> Store:
    """Return the cache that options mean. Opens no file.

    Raises:
        ArgumentError: The file cannot be one: it is a folder, or on a network file system.
    """
    if isinstance(options, MemoryCache):
        with _lock:
            return _in_memory.setdefault(options, MemoryStore(options.max_bytes))
    file = cache_file(options.path)
    with _lock:
        store = _files.setdefault(file, SqliteStore(file, options.max_bytes))
        store.max_bytes = max(store.max_bytes, options.max_bytes)
        return store


def _before_fork() -> None:
    _lock.acquire()
    for store in _files.values():
        store.before_fork()


def _after_fork_in_parent() -> None:
    for store in _files.values():
        store.after_fork_in_parent()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for memory in _in_memory.values():
        memory.reset()
    for store in _files.values():
        store.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
