"""Patterns of .gitignore files, with git's rules: which entry of a folder is left out.

`pathspec` turns each pattern into a regular expression, and looks at whole paths. Git looks at one entry after the
other on the way down, and never goes into a folder that is left out, so each pattern is asked here about the entry
itself only: with `*`, `!*/` and `!*.py` the file `a/x.txt` is left out, though the folder `a` is not.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError, MissingDependencyError
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from pathlib import Path

_BOM = b"\xef\xbb\xbf"
# Git's own characters for the classes, all of them ASCII: https://git-scm.com/docs/gitignore and wildmatch.c.
_CLASSES = {
    b"alnum": b"a-zA-Z0-9",
    b"alpha": b"a-zA-Z",
    b"blank": rb" \t",
    b"digit": b"0-9",
    b"lower": b"a-z",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t\n\r\f\v",
    b"upper": b"A-Z",
    b"xdigit": b"0-9A-Fa-f",
}
_CLASS = re.compile(rb"(\[[^\]/]*?)\[:(\w+):\]")


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: re.Pattern[bytes]
    contents: bool
    """Whether it is of what is inside a folder (`docs/**`), and not of the folder itself."""
    leaves_out: bool
    """`False` for a pattern with `!`."""


class Rules:
    """The patterns of one file, in order; the last one that matches decides."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        """Compile. As in git, a line that is no pattern counts as absent."""
        self._patterns: list[_Pattern] = []
        for line in lines:
            try:
                found = _pattern(line)
            except (ValueError, re.error):
                continue
            if found is not None:
                self._patterns.insert(0, found)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def leave_out(self, path: str, is_folder: bool) -> bool | None:
        """Return whether an entry is left out; `None`: these patterns say nothing about it.

        Args:
            path: Its path, with slashes, below the folder that the patterns are relative to.
            is_folder: What it is; some patterns are of folders only.
        """
        name = path.encode("utf-8", "surrogateescape")
        marked = name + b"/" if is_folder else name
        for pattern in self._patterns:
            if pattern.regex.search(name if pattern.contents else marked):
                return pattern.leaves_out
        return None

    def matches(self, path: str) -> bool:
        """Return whether the patterns match a file or a folder that it is in, as a whole list of globs is meant."""
        parts = path.split("/")
        found = False
        for depth in range(1, len(parts) + 1):
            found = bool(_or(self.leave_out("/".join(parts[:depth]), depth < len(parts)), found))
        return found


def read_rules(file: Path) -> Rules:
    """Return the patterns of a .gitignore file; none where it is not there or cannot be read."""
    try:
        data = file.read_bytes()
    except OSError:
        return Rules(())
    # What is left of CR LF is white space at the end, which no pattern has.
    return Rules(data.removeprefix(_BOM).split(b"\n"))


def globs(patterns: Sequence[str], option: str) -> Rules:
    """Return patterns in the form of .gitignore that a user gave.

    Args:
        patterns: The patterns.
        option: What they were given as, for the message.

    Raises:
        ArgumentError: One of them is no pattern.
    """
    lines = []
    for pattern in patterns:
        line = pattern.encode("utf-8", "surrogateescape")
        try:
            found = _pattern(line)
        except (ValueError, re.error):
            found = None
        if found is None:
            raise ArgumentError(
                f"{option}={pattern!r} is no pattern; write it as in a .gitignore file, such as '*.md' or 'docs/'"
            )
        lines.append(line)
    return Rules(lines)


def _or(first: bool | None, second: bool) -> bool:
    return second if first is None else first


def _pattern(line: bytes) -> _Pattern | None:
    try:
        from pathspec import GitIgnoreSpec, RegexPattern
    except ImportError as error:
        raise MissingDependencyError(
            f"indexing needs the package pathspec, which is not installed; run {install_command('index')}"
        ) from error

    # Bytes, as git has it: `?` and `[!a]` are one byte each.
    line = _without_classes(line)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Python's re wonders about "[[", and reads it as git does
        compiled = next(iter(GitIgnoreSpec.from_lines([line], backend="simple").patterns), None)
        if not isinstance(compiled, RegexPattern) or compiled.regex is None or compiled.include is None:
            return None
        source: bytes = compiled.regex.pattern
        if source == b".":  # all there is, at any depth
            return _Pattern(re.compile(b""), False, compiled.include)
        if line.rstrip().endswith(b"/**"):
            return _Pattern(re.compile(source, re.DOTALL), True, compiled.include)
        # To the end of the path: without it the expression also matches all that is below the entry.
        return _Pattern(re.compile(source + rb"\Z", re.DOTALL), False, compiled.include)


def _without_classes(line: bytes) -> bytes:
    while (found := _CLASS.search(line)) and found[2] in _CLASSES:
        line = line[: found.start()] + found[1] + _CLASSES[found[2]] + line[found.end() :]
    return line
