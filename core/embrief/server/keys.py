"""Keys of callers: from the environment or a file, compared in constant time, never shown."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from embrief.errors import ArgumentError
from embrief.system.log import logger

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "EMBRIEF_API_KEYS"
"""Keys of callers, separated by commas or blanks; each may have a name in front, as in `team-a:KEY`."""
_COLLECTIONS = "collections="
"""Behind a key in a file: the only collections that it may read, separated by commas."""
_LOOK_AGAIN = 1.0
"""Seconds after which a file is looked at again."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    key: str = ""
    """The name of the caller's key; empty where the server has no keys."""
    known: bool = True
    """Whether the caller may see what the server is about: always where it has no keys."""
    collections: frozenset[str] | None = None
    """The only collections that the key may read, by name; `None`: all."""

    def may_read(self, collection: str) -> bool:
        """Return whether the caller may see what is in a collection of this name."""
        return self.known and (self.collections is None or collection in self.collections)


ANYBODY = Caller()
STRANGER = Caller(known=False)
"""Without a key, at a route that needs none."""


class Keys(Protocol):
    """Tells callers by their keys."""

    def caller(self, given: str) -> Caller | None:
        """Return who has a key, `None` if nobody has."""


class FixedKeys:
    """Keys that do not change."""

    def __init__(self, keys: Mapping[str, str], collections: Mapping[str, frozenset[str]] | None = None) -> None:
        """Keep their digests alone.

        Args:
            keys: Key by name.
            collections: The collections that a key may read, by the key's name; a key without an entry may read all.
        """
        self._digests = {name: _digest(key) for name, key in keys.items()}
        self._collections = dict(collections or {})

    def caller(self, given: str) -> Caller | None:
        """Return who has a key, `None` if nobody has. Takes as long whichever it is."""
        digest = _digest(given)
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return None if found is None else Caller(found, collections=self._collections.get(found))


class FileKeys:
    """Keys of a file, read again when it changes; `#` comments.

    One a line, perhaps with a name, and perhaps with the only collections that it may read:
    `team-a:KEY collections=docs,wiki`.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ArgumentError: It cannot be read, or holds no key.
        """
        self._path = path
        self._lock = threading.Lock()
        self._mark = self._told = self._stamp()
        self._keys = self._read()
        self._looked = time.monotonic()

    def caller(self, given: str) -> Caller | None:
        """Return who has a key, `None` if nobody has."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked >= _LOOK_AGAIN:
                self._looked = now
                self._look()
            keys = self._keys
        return keys.caller(given)

    def _look(self) -> None:
        mark = self._stamp()
        if mark == self._mark:
            return
        try:
            self._keys = self._read()
        except ArgumentError as error:
            # Half written, or gone: the keys that were there hold until it can be read.
            if mark != self._told:
                self._told = mark
                logger.warning("%s; those that were there before hold", error)
            return
        self._mark = mark

    def _stamp(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_size

    def _read(self) -> FixedKeys:
        try:
            lines = self._path.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ArgumentError(f"the file of keys {self._path} cannot be read ({type(error).__name__})") from error
        said = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
        keys, read = zip(*(_parted(line) for line in said), strict=True) if said else ((), ())
        named = named_keys(keys, str(self._path))
        limited = {name: names for name, names in zip(named, read, strict=True) if names is not None}
        return FixedKeys(named, limited)


def _parted(line: str) -> tuple[str, frozenset[str] | None]:
    """Return a line's key, perhaps with a name, and the collections that it may read; `None`: all."""
    match = re.fullmatch(rf"(.*?)\s+{_COLLECTIONS}(.*)", line)
    if match is None:
        return line, None
    return match[1], frozenset(name.strip() for name in match[2].split(",") if name.strip())


def named_keys(lines: Sequence[str], source: str) -> dict[str, str]:
    """Return keys by name; those without one are `key-1`, `key-2` and so on.

    Args:
        lines: Each a key, or `NAME:KEY`.
        source: Where they come from, for errors. No error holds a key.

    Raises:
        ArgumentError: There is none, or a name or a key stands twice.
    """
    found: dict[str, str] = {}
    for place, line in enumerate([line for line in lines if line], 1):
        name, colon, key = line.partition(":")
        if not colon:
            name, key = f"key-{place}", line
        if not name.strip() or not key.strip():
            raise ArgumentError(f"{source}: key {place} is empty; write KEY or NAME:KEY")
        name, key = name.strip(), key.strip()
        if not key.isascii():
            raise ArgumentError(f"{source}: key {place} holds signs that clients cannot send; use ASCII alone")
        if key.startswith(_COLLECTIONS):
            raise ArgumentError(f"{source}: {_COLLECTIONS} stands where key {place} should be; write it behind a key")
        if name in found:
            raise ArgumentError(f"{source}: two keys are called {name!r}")
        if twin := next((other for other, known in found.items() if known == key), None):
            # Which of the two it is would say what it may read.
            raise ArgumentError(f"{source}: {twin!r} and {name!r} have the same key; give each its own")
        found[name] = key
    if not found:
        raise ArgumentError(f"{source} holds no key; write one a line, KEY or NAME:KEY")
    return found


def keys_of(file: Path | None) -> Keys | None:
    """Return the keys of a file, or of the environment; `None` where there are none.

    Raises:
        ArgumentError: The file cannot be read, or there is no key where there should be.
    """
    if file is not None:
        return FileKeys(file)
    said = os.environ.get(VARIABLE, "")
    words = said.replace(",", " ").split()
    if any(word.startswith(_COLLECTIONS) for word in words):
        # Its names would be taken for keys.
        raise ArgumentError(f"{VARIABLE} says {_COLLECTIONS}...; say what a key may read in a file, with --key-file")
    return FixedKeys(named_keys(words, f"the variable {VARIABLE}")) if words else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
