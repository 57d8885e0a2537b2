"""A YAML file as a tree in which every value knows its line and column.

Values are read by the core schema of YAML 1.2: `no` and `on` are texts, `012` is twelve, and what is a text by its
setting stays as it was written, such as a commit id that is made of digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embrief.errors import ConfigError, MissingDependencyError
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 256 * 1024
"""Bytes of a file: a configuration has a few thousand."""
_DEEPEST = 16
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("null", "Null", "NULL", "~", "")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Longer ones are texts: nothing here counts that far.
_WHOLE = re.compile(r"[-+]?[0-9]{1,15}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]{1,15}|[0-9]{1,15}(\.[0-9]{0,15})?)([eE][-+]?[0-9]{1,3})?")
_STRING = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, as it was written."""

    text: str
    plain: bool
    """Whether it has no quotes, so that it may be a number, a flag or nothing."""
    place: Place

    @property
    def value(self) -> str | int | float | bool | None:
        """Return what it is by the core schema."""
        if not self.plain:
            return self.text
        if self.text in _WORDS:
            return _WORDS[self.text]
        if _WHOLE.fullmatch(self.text):
            return int(self.text)
        return float(self.text) if _NUMBER.fullmatch(self.text) else self.text


@dataclass(frozen=True, slots=True)
class Listing:
    """A sequence."""

    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping. Its keys are texts, each once."""

    entries: tuple[tuple[Scalar, Node], ...]
    place: Place


Node = Scalar | Listing | Table


@dataclass(slots=True)
class Problems:
    """What is wrong with a file, collected to be told at once."""

    file: str
    found: list[tuple[Place, str]] = field(default_factory=list)
    most: int = 20

    def add(self, place: Place, message: str) -> None:
        """Note one."""
        self.found.append((place, message))

    def raise_if_any(self) -> None:
        """Tell them all, in the order of the file.

        Raises:
            ConfigError: There are some.
        """
        if not self.found:
            return
        ordered = sorted(self.found, key=lambda item: (item[0].line, item[0].column))
        told = [f"{where(self.file, place)}: {message}" for place, message in ordered[: self.most]]
        if more := len(ordered) - len(told):
            told.append(f"and {more} more")
        raise ConfigError(*told, file=self.file)


def where(file: str, place: Place) -> str:
    """Return a place as editors and terminals understand it."""
    return f"{file}:{place.line}:{place.column}"


def read_tree(path: Path) -> Node | None:
    """Return what a YAML file holds, `None` for an empty one.

    Raises:
        ConfigError: It cannot be read, is no YAML, or holds what a configuration does not need: anchors, tags, several
            documents.
        MissingDependencyError: PyYAML is not installed.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{file}: the configuration cannot be read ({error.strerror or error})") from error
    if len(data) > LARGEST:
        raise ConfigError(f"{file}: the file has more than {LARGEST // 1024} KiB, so it is no configuration")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}:1: the file is not in UTF-8; save it in that encoding") from error
    return _parse(text, file)


def _parse(text: str, file: str) -> Node | None:
    try:
        import yaml
    except ImportError as error:
        raise MissingDependencyError(f"{file} is read with PyYAML: {install_command('config')}") from error
    problems = Problems(file)
    try:
        # Events and not nodes: there, references to anchors are followed already.
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        found = _document(events, problems, yaml)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        raise ConfigError(f"{where(file, place)}: this is no YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{file}:{line}:1: there is a character that YAML does not allow") from error
    problems.raise_if_any()
    return found


def _document(events: Iterator[Any], problems: Problems, yaml: Any) -> Node | None:
    found: Node | None = None
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise ConfigError(
                    f"{where(problems.file, _place(event))}: a second document begins here; a configuration is one"
                )
            found = _node(next(events), events, problems, yaml, 0)
    return None if isinstance(found, Scalar) and found.value is None else found


def _node(event: Any, events: Iterator[Any], problems: Problems, yaml: Any, depth: int) -> Node:
    place = _place(event)
    if depth > _DEEPEST:
        raise ConfigError(f"{where(problems.file, place)}: this is nested too deeply for a configuration")
    if isinstance(event, yaml.AliasEvent):
        problems.add(place, f"*{event.anchor} repeats what stands elsewhere, which is not followed; write it out")
        return Scalar("", True, place)
    if event.tag not in (None, "!") and not (event.tag == _STRING and isinstance(event, yaml.ScalarEvent)):
        problems.add(place, f"the tag {event.tag[:80]!r} is not known; write the value without it")
    if isinstance(event, yaml.ScalarEvent):
        return Scalar(event.value, event.style is None and event.tag is None, place)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Node] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events, problems, yaml, depth + 1))
        return Listing(tuple(items), place)
    entries: list[tuple[Scalar, Node]] = []
    seen: dict[str, Place] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _node(event, events, problems, yaml, depth + 1)
        value = _node(next(events), events, problems, yaml, depth + 1)
        if not isinstance(key, Scalar):
            problems.add(key.place, "a key is a text; this is a mapping or a list")
        elif key.plain and key.text == "<<":
            problems.add(key.place, "'<<' merges mappings, which is not followed; write the settings out")
        elif key.text in seen:
            first = seen[key.text]
            problems.add(key.place, f"{key.text[:80]!r} is here a second time (first in line {first.line}); leave one")
        else:
            seen[key.text] = key.place
            entries.append((key, value))
    return Table(tuple(entries), place)


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)
