"""Questions whose answers are known, asked of a collection: what retrieval is worth on the files that are in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from embrief.indexing.searching import Hit


@dataclass(frozen=True, slots=True)
class Golden:
    """Questions, and what answers each."""

    questions: dict[str, str] = field(default_factory=dict)
    """The text of each, by its name."""
    expected: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each question: places (`path:line`, or `path` for any line) or ids of passages, with grades above 0."""


def read_golden(file: Path) -> Golden:
    """Read questions with their answers.

    Lines of JSON: `{"query": "...", "expected": ["docs/cache.md:12", "src/cache.py"]}`, with `expected` also one
    string, or grades by place; `_id` is optional. Or, in a file that ends in `.tsv`: question, place, and perhaps a
    grade.

    Raises:
        ArgumentError: The file or a line is not like that; the message has the line's number.
    """
    found = Golden()
    names: dict[str, str] = {}
    try:
        for where, name, question, expected in (_table if file.suffix == ".tsv" else _objects)(file):
            key = names.setdefault(question, name or str(len(names) + 1))
            if found.questions.setdefault(key, question) != question:
                raise ArgumentError(f"{where} has the _id {key!r} of another question")
            if not expected or any(not place for place in expected):
                raise ArgumentError(f"{where} names nothing that answers the question")
            if any(grade < 1 for grade in expected.values()):
                raise ArgumentError(f"{where} has a grade below 1; leave out what does not answer the question")
            found.expected.setdefault(key, {}).update(expected)
    except FileNotFoundError as error:
        raise ArgumentError(f"there is no file {str(file)!r}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{file} cannot be read: {type(error).__name__}") from error
    if not found.questions:
        raise ArgumentError(f"{file} has no questions")
    return found


_Row = tuple[str, str, str, dict[str, int]]


def _objects(file: Path) -> Iterator[_Row]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{file}, line {number}"
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ArgumentError(f"{where} is no JSON") from error
            if not isinstance(item, dict) or not isinstance(item.get("query"), str) or not item["query"].strip():
                raise ArgumentError(f'{where} is no object with a "query"')
            yield where, str(item.get("_id", "")), item["query"], _grades(item.get("expected"), where)


def _grades(expected: Any, where: str) -> dict[str, int]:
    if isinstance(expected, str):
        expected = [expected]
    if isinstance(expected, list):
        expected = dict.fromkeys(map(str, expected), 1)
    if not isinstance(expected, dict) or not all(type(grade) is int for grade in expected.values()):
        raise ArgumentError(f'{where} has no "expected" that is a place, a list of places, or grades by place')
    return expected


def _table(file: Path) -> Iterator[_Row]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for number, cells in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if not cells or (number == 1 and cells[0] in ("query", "question")):
                continue
            grade = cells[2].strip() if len(cells) == 3 else "1"
            if len(cells) not in (2, 3) or not cells[0].strip() or not grade.isdecimal():
                raise ArgumentError(f"{file}, line {number} is not question, place, and perhaps a grade, between tabs")
            yield f"{file}, line {number}", "", cells[0], {cells[1].strip(): int(grade)}


def place_of(expected: str) -> tuple[str, int | None]:
    """Return the path and the line that a place names; without a line, `None`."""
    path, colon, line = expected.rpartition(":")
    return (path, int(line)) if colon and line.isascii() and line.isdigit() else (expected, None)


def answers(hit: Hit, expected: str) -> bool:
    """Return whether a passage is what was expected."""
    path, line = place_of(expected)
    if hit.path == path:
        return line is None or hit.start_line <= line <= hit.end_line
    return hit.id == expected


def rank(golden: Golden, search: Callable[[str], Sequence[Hit]]) -> dict[str, list[str]]:
    """Ask all questions, and return for each what was found, best first: what was expected by its name there.

    A second passage that answers the same expectation is left out: it was found already.
    """
    ranking: dict[str, list[str]] = {}
    for name, question in golden.questions.items():
        found: dict[str, None] = {}
        for hit in search(question):
            right = [place for place in golden.expected[name] if answers(hit, place)]
            found.update(dict.fromkeys(right or [hit.id]))
        ranking[name] = list(found)
    return ranking


def missing(golden: Golden, ids: Mapping[str, str]) -> list[str]:
    """Return the places that nothing in the collection is from: no search could find them.

    Args:
        golden: The questions.
        ids: Of the passages in the collection, with the path of each.
    """
    paths = set(ids.values())
    places = {place for expected in golden.expected.values() for place in expected}
    return sorted(place for place in places if place not in ids and place_of(place)[0] not in paths)
