"""Which files are worth reading, by how they begin: not binaries, and nothing that a program wrote for another."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from embrief.indexing.decoding import is_binary, plausible_start
from embrief.indexing.kinds import kind, suffix

if TYPE_CHECKING:
    from embrief.indexing.documents import Pictures

HEAD = 64 * 1024
"""How many bytes of a file are looked at."""
LONG_LINE = 10_000
"""Bytes of a line of code that nobody has written by hand."""

_LOCKS_WORDS = (
    "bun.lock cargo.lock composer.lock deno.lock flake.lock gemfile.lock go.sum gradle.lockfile mix.lock "
    "npm-shrinkwrap.json package-lock.json packages.lock.json pdm.lock pipfile.lock pixi.lock pnpm-lock.yaml "
    "podfile.lock poetry.lock pubspec.lock uv.lock yarn.lock"
)
_LOCKS = frozenset(_LOCKS_WORDS.split())
_GENERATED_NAMES = re.compile(
    r"\.min\.(?:js|css|mjs)$|\.bundle\.(?:js|css)$|\.map$|_pb2(?:_grpc)?\.pyi?$|\.pb\.(?:go|cc|h)$|\.g\.dart$|\.designer\.cs$"
)
_DRAWINGS = {".svg", ".eps", ".ps", ".xpm", ".ai"}
# A comment near the top, in the words that generators have agreed on.
_COMMENT = re.compile(rb"^[ \t]*(?:#|//|/\*|\*|--|;|<!--|%|\"\"\")(.*)$", re.MULTILINE)
_MARK = re.compile(rb"(?:^|\s)@generated\b|\bDO NOT (?:EDIT|MODIFY)\b|(?i:generated\b.*\bdo not (?:edit|modify))")
_TOP = 10
"""Lines in which such a comment stands."""


def why_not_name(name: str) -> str | None:
    """Return why a file is left out by its name alone, `None` for none."""
    last = PurePosixPath(name).name.lower()
    if last in _LOCKS or _GENERATED_NAMES.search(last):
        return "generated"
    return "picture" if suffix(name) in _DRAWINGS else None


def why_not(name: str, head: bytes, pictures: Pictures = "none") -> str | None:
    """Return why a file is left out by how it begins, `None` for none.

    Args:
        name: Its name.
        head: Its first `HEAD` bytes, or all of it.
        pictures: Which pictures are taken.
    """
    what, _ = kind(name)
    if what == "image":
        return "binary" if pictures == "none" else None
    if what == "pdf":
        return None
    if is_binary(head):
        return "binary"
    if what != "html" and not plausible_start(head, whole=len(head) < HEAD):
        return "not text"
    if what in ("code", "text"):
        top = b"\n".join(head.splitlines()[:_TOP])
        if any(_MARK.search(comment[1]) for comment in _COMMENT.finditer(top)):
            return "generated"
    if what == "code" and any(len(line) > LONG_LINE for line in re.split(rb"[\r\n]", head)):
        return "generated"
    return None
