"""Lines that come through a pipe or from files, each with its number: plain texts, or JSON objects."""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from embrief.errors import ArgumentError
from embrief.images.image import Image

if TYPE_CHECKING:
    from embrief.facts.prompts import Input

LONGEST = 32 << 20
"""Bytes that a line may have; a file without line ends would else be read whole."""
FORMS = ("auto", "text", "jsonl")
_SUFFIXES = (".jsonl", ".ndjson")
STDIN = Path("-")
IMAGE = "image"
"""The key of a picture, or of a list: a file, as seen from the current folder, or `data:image/...;base64,...`."""
_SIDE = frozenset(("text", IMAGE))
"""The keys of an object in the place of a text."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{40,}={0,2}\s*")
"""What may well be a picture: the smallest one has more characters. A path of so many mostly has a point."""
_LONGEST_SHOWN = 200
_NEAR = 0.8
"""From how alike two keys are taken for one that was misspelt, as `difflib` counts it: "images", but not "context"."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Which keys of a JSON object are read."""

    text: str
    """What is embedded or judged; beside a picture it may be missing."""
    title: str | None = None
    query: str | None = None
    default_query: str | None = None
    """The query of all lines that bring none."""


@dataclass(frozen=True, slots=True)
class Item:
    """What one line says, or what is wrong with it."""

    index: int
    """Counted from 0 over all inputs, without empty lines between JSON objects."""
    place: str
    """The input and the number of the line, for messages."""
    content: Input = ""
    """What is embedded or judged: a text, a picture, or both."""
    title: str | None = None
    query: Input | None = None
    id: str | int | None = None
    error: str | None = None
    """What is wrong; then it says nothing else."""
    size: int = 0
    """Bytes of its line."""

    @property
    def pictures(self) -> int:
        """How many pictures it holds."""
        return _pictures_of(self.content) + _pictures_of(self.query)


def _pictures_of(side: Input | None) -> int:
    if side is None or isinstance(side, str):
        return 0
    held = side[IMAGE] if isinstance(side, Mapping) else side
    return len(held) if isinstance(held, list) else 1


def read_items(sources: Sequence[Path], form: str, keys: Keys) -> Iterator[Item]:
    """Read items one after the other, in the memory of one.

    Args:
        sources: Files; `-` is stdin.
        form: `"text"`, `"jsonl"` or `"auto"`: by the file's name, else by its first line.
        keys: Which keys count.

    Raises:
        ArgumentError: A file cannot be read; or it is not clear what its lines are, since the first is an object with a
            key that is nearly one of these.
    """
    index = 0
    for source in sources:
        name = "stdin" if source == STDIN else str(source)
        if source == STDIN and not hasattr(sys.stdin, "buffer"):
            raise ArgumentError(f"{name}: cannot be read (it is closed)")
        try:
            with nullcontext(sys.stdin.buffer) if source == STDIN else source.open("rb") as file:
                for number, line in _lines(file, form, source, name, keys):
                    yield replace(_item(line, index, f"{name}:{number}", keys), size=line.size)
                    index += 1
        except OSError as error:
            raise ArgumentError(f"{name}: cannot be read ({error.strerror or error})") from error


def all_files(sources: Sequence[Path]) -> bool:
    """Return whether everything can be read twice."""
    try:
        return all(source != STDIN and stat.S_ISREG(source.stat().st_mode) for source in sources)
    except OSError:
        return False  # Reading says which and why.


def check_all(sources: Sequence[Path], form: str, keys: Keys) -> int:
    """Read everything once, before anything is computed, and return how many items there are.

    Raises:
        ArgumentError: A line is none; the message says which.
    """
    count = 0
    for item in read_items(sources, form, keys):
        if item.error is not None:
            raise ArgumentError(f"{item.place}: {item.error}")
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class _Line:
    text: str = ""
    value: Any = None
    error: str | None = None
    json: bool = False
    size: int = 0


def _lines(file: BinaryIO, form: str, source: Path, name: str, keys: Keys) -> Iterator[tuple[int, _Line]]:
    raw = _raw_lines(file)
    first = next(raw, None)
    if first is None:
        return
    if form == "auto":
        form = "jsonl" if source.suffix.lower() in _SUFFIXES else _form_of(first, keys, f"{name}:1")
    for number, line in enumerate(chain((first,), raw), 1):
        if isinstance(line, str):
            yield number, _Line(error=line)
            continue
        try:
            # A mark at the beginning, as some editors write it, belongs to no text.
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield number, _Line(error=f"is not UTF-8 (byte {error.start + 1} of the line)")
            continue
        if form == "text":
            yield number, _Line(text)
        elif text.strip():
            yield number, replace(_parsed(text), size=len(line))


def _raw_lines(file: BinaryIO) -> Iterator[bytes | str]:
    """Yield lines without their ends; a text in the place of one says what is wrong with it."""
    while line := file.readline(LONGEST + 1):
        if len(line) > LONGEST and not line.endswith(b"\n"):
            while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
                pass
            yield f"is longer than {LONGEST >> 20} MiB"
        else:
            yield line.removesuffix(b"\n").removesuffix(b"\r")


def _form_of(line: bytes | str, keys: Keys, place: str) -> str:
    """Return what lines are, by the first.

    Raises:
        ArgumentError: It is an object without the keys that count, and with one that is nearly such a key: its JSON
            would be embedded as a text.
    """
    if isinstance(line, str) or not line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{"):
        return "text"
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return "text"
    if not isinstance(value, dict):
        return "text"
    if keys.text in value or IMAGE in value:
        return "jsonl"
    known = [*_SIDE, keys.text, *([keys.query] if keys.query else [])]
    for key in value:
        if difflib.get_close_matches(key.lower(), known, 1, _NEAR):
            raise ArgumentError(
                f"{place}: is a JSON object with {key!r}, and has neither {keys.text!r} nor {IMAGE!r}; name its key "
                "so, or say --input text if the object itself is the text"
            )
    return "text"


def _parsed(text: str) -> _Line:
    try:
        return _Line(value=json.loads(text), json=True)
    except json.JSONDecodeError as error:
        return _Line(error=f"is no JSON ({error.msg} at column {error.colno})")
    except (ValueError, RecursionError):
        return _Line(error="is no JSON that can be read (nested too deep, or a number of very many digits)")


def _item(line: _Line, index: int, place: str, keys: Keys) -> Item:
    error = line.error
    if error is None and line.json:
        try:
            return _of_object(line.value, index, place, keys)
        except ArgumentError as fault:
            error = str(fault)
    if error is None and keys.query and keys.default_query is None:
        error = 'has no query; give --query, or lines such as {"query": "...", "document": "..."}'
    if error is not None:
        return Item(index, place, error=error)
    return Item(index, place, line.text, query=keys.default_query)


def _of_object(value: Any, index: int, place: str, keys: Keys) -> Item:
    """Return the item of an object.

    Raises:
        ArgumentError: What is wrong with it; never what it holds, but for the name of a file.
    """
    if not isinstance(value, dict):
        raise ArgumentError(f"is no JSON object with {keys.text!r}")
    if keys.title and not isinstance(value.get(keys.title), str | None):
        raise ArgumentError(f"has a {keys.title!r} that is no string")
    said = value.get(keys.text)
    if isinstance(said, str | None) and IMAGE in value:
        said = {"text": said, IMAGE: value[IMAGE]}
    elif _several(value.get(IMAGE)):
        raise ArgumentError(f"has an {IMAGE!r} beside a {keys.text!r} that is no string")
    content = _content(said, keys.text)
    query: Input | None = None
    if keys.query:
        asked = value.get(keys.query, keys.default_query)
        if asked is None:
            more = "" if keys.query in value else "; give --query for all"
            raise ArgumentError(f"has no {keys.query!r} that is a string{more}")
        query = _content(asked, keys.query)
    found = value.get("id")
    if isinstance(found, bool) or not isinstance(found, str | int | None):
        raise ArgumentError("has an 'id' that is neither a string nor a whole number")
    return Item(index, place, content, value.get(keys.title) if keys.title else None, query, found)


def _content(said: Any, key: str) -> Input:
    """Return a text, or of an object with "text" and "image" what of them is there."""
    if isinstance(said, str):
        return said
    if not isinstance(said, dict) or not set(said) <= _SIDE:
        raise ArgumentError(f"has no {key!r} that is a string")
    text, pictures = said.get("text"), [_picture(each) for each in _several(said.get(IMAGE))]
    if not isinstance(text, str | None):
        raise ArgumentError(f"has a {key!r} whose 'text' is no string")
    if not pictures:
        if text is None:
            raise ArgumentError("holds neither a text nor a picture")
        return text
    held: Any = pictures if len(pictures) > 1 else pictures[0]
    return held if text is None else {"text": text, IMAGE: held}


def _several(said: Any) -> list[Any]:
    return said if isinstance(said, list) else [] if said is None else [said]


def _picture(said: Any) -> Image:
    if not isinstance(said, str) or not said:
        raise ArgumentError(f"has an {IMAGE!r} that is no string; name a file, or write data:image/png;base64,...")
    if said[:5].lower() == "data:":
        return Image.from_base64(said)
    if _ADDRESS.match(said):
        raise ArgumentError(f"has an {IMAGE!r} that is an address, which is not fetched; name a file")
    file = Path(os.path.expanduser(said))  # noqa: PTH111 - where there is no home, the path stays as it is
    try:
        is_file = file.is_file()
    except (OSError, ValueError):  # a path of zeros, or too long
        is_file = False
    if is_file:
        return Image(file)
    if len(said) > _LONGEST_SHOWN or _BASE64.fullmatch(said):
        # Not shown: it may well be the picture itself.
        raise ArgumentError(
            f"has an {IMAGE!r} of {len(said):,} characters that is no file; a picture in base64 is written as "
            "data:image/png;base64,..."
        )
    raise ArgumentError(f"has an {IMAGE!r} that is no file: {said!r}; paths are seen from this folder")
