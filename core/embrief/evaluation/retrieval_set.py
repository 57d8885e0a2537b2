"""What a retrieval system is measured on: what is to be found, questions, and what answers which question."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError
from embrief.evaluation import contents

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facts.prompts import Content, Input


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, questions and judgements.

    Documents and questions are texts, or hold pictures: an `Image`, a sequence of both, or a mapping with "text"
    and "image". What holds a picture is kept as a tuple, pictures first.

    Raises:
        ArgumentError: Nothing to search or to ask, something that holds neither a text nor a picture, or a judgement
            names a document or question that is not there.
    """

    name: str
    corpus: Mapping[str, Input]
    """What each document holds."""
    queries: Mapping[str, Input]
    """What each question holds that has at least one relevant document."""
    judgements: Mapping[str, Mapping[str, int]]
    """For each question: grades of documents. Above 0 is relevant; what is not named is not."""
    instruction: str | None = None
    """What the questions are for, in a sentence, if the set says so."""

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        for side, what in (("corpus", "document"), ("queries", "question")):
            items: Mapping[str, Input] = getattr(self, side)
            # Not by `isinstance`: a string may carry pictures.
            if not all(type(item) is str for item in items.values()):
                found = {name: contents.content(item, f"{self.name}: {what} {name!r}") for name, item in items.items()}
                object.__setattr__(self, side, found)
        for what, there in (("documents", self.corpus), ("questions with a relevant document", self.queries)):
            if not there:
                raise ArgumentError(f"{self.name} has no {what}")
        if set(self.queries) != set(self.judgements):
            odd = sorted(set(self.queries) ^ set(self.judgements))[0]
            raise ArgumentError(f"{self.name}: question {odd!r} has no text or no judgement")
        for query, grades in self.judgements.items():
            if unknown := [document for document in grades if document not in self.corpus]:
                raise ArgumentError(f"{self.name}: question {query!r} is judged with {unknown[0]!r}, no document")
            if not any(grade > 0 for grade in grades.values()):
                raise ArgumentError(f"{self.name}: question {query!r} has no relevant document; leave it out")

    @cached_property
    def digest(self) -> str:
        """Return a name for exactly this content, 16 hexadecimal digits. Decodes pictures."""
        judged = sorted((query, sorted(grades.items())) for query, grades in self.judgements.items())
        sides = (self.corpus, self.queries)
        parts = [*([(name, contents.plain(side[name])) for name in sorted(side)] for side in sides), judged]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def first(self, count: int) -> RetrievalSet:
        """Return the same documents with at most this many questions, taken evenly."""
        names = list(self.queries)
        chosen = [names[place * len(names) // count] for place in range(count)] if count < len(names) else names
        return RetrievalSet(
            self.name,
            self.corpus,
            {name: self.queries[name] for name in chosen},
            {name: self.judgements[name] for name in chosen},
            self.instruction,
        )


def make_set(
    name: str,
    corpus: Mapping[str, Input],
    queries: Mapping[str, Input],
    judgements: Mapping[str, Mapping[str, int]],
    instruction: str | None = None,
) -> RetrievalSet:
    """Return a set of those questions that have a relevant document: others say nothing about a system."""
    asked = {
        query: held for query, held in queries.items() if any(grade > 0 for grade in judgements.get(query, {}).values())
    }
    return RetrievalSet(name, corpus, asked, {query: judgements[query] for query in asked}, instruction)


def read_beir(folder: Path, split: str = "test") -> RetrievalSet:
    """Read a folder in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv (arXiv 2104.08663).

    A document's title stands before its text, with a blank between, as in BEIR and MTEB. Beside the layout, a line may
    have `image`: the path of a picture from the folder on, or a list of several; then its text may be missing.

    Args:
        folder: Where the files are.
        split: Which judgements; the only ones there are, if there is one file.

    Raises:
        ArgumentError: A file is missing, a line is not what the layout asks for, or its picture lies outside the
            folder or is none; the message has its number.
        MissingDependencyError: A line has a picture, and Pillow is not installed.
    """
    corpus: dict[str, Content] = {}
    for where, item in _records(folder / "corpus.jsonl"):
        title = _text(item, "title", where) if item.get("title") else ""
        text = f"{title} {_text(item, 'text', where)}".strip()
        _put(corpus, _name(item, where), contents.read(item, text, folder, where), where)
    queries: dict[str, Content] = {}
    for where, item in _records(folder / "queries.jsonl"):
        _put(queries, _name(item, where), contents.read(item, _text(item, "text", where), folder, where), where)
    return make_set(folder.name, corpus, queries, _read_judgements(_judgements_file(folder, split), corpus, queries))


def write_beir(found: RetrievalSet, folder: Path, split: str = "test") -> None:
    """Write a set in BEIR's layout into a folder that is made if it is not there; pictures as PNG files beside it.

    Raises:
        ArgumentError: A document or question has several texts beside its picture.
    """
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    documents = [{"_id": name, "title": "", **fields} for name, fields in _fields(found.corpus, folder, "document")]
    questions = [{"_id": name, **fields} for name, fields in _fields(found.queries, folder, "question")]
    for name, items in (("corpus.jsonl", documents), ("queries.jsonl", questions)):
        lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
        (folder / name).write_text("".join(lines), "utf-8")
    with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("query-id", "corpus-id", "score"))
        for query, grades in found.judgements.items():
            writer.writerows((query, document, grade) for document, grade in grades.items())


def _fields(items: Mapping[str, Input], folder: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, item in items.items():
        yield name, contents.written(item, folder, f"{what} {name!r}")


def _judgements_file(folder: Path, split: str) -> Path:
    wanted = folder / "qrels" / f"{split}.tsv"
    there = sorted((folder / "qrels").glob("*.tsv"))
    if wanted in there:
        return wanted
    if len(there) == 1:
        return there[0]
    names = ", ".join(file.stem for file in there) or "none"
    raise ArgumentError(f"{folder} has no judgements of the split {split!r}; there are: {names}")


def _read_judgements(file: Path, corpus: Mapping[str, Any], queries: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for number, cells in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if not cells or (number == 1 and cells[-1:] == ["score"]):
                continue
            where = f"{file}, line {number}"
            if len(cells) != 3 or not cells[2].strip().lstrip("-").isdecimal():
                raise ArgumentError(f"{where} is {cells}; it must be question, document and a whole number")
            query, document, grade = cells
            if query not in queries or document not in corpus:
                raise ArgumentError(f"{where}: {query!r} is no question, or {document!r} no document")
            found.setdefault(query, {})[document] = int(grade)
    return found


def _records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = file.open(encoding="utf-8")
    except FileNotFoundError as error:
        raise ArgumentError(f"{file} is missing; a folder in BEIR's layout has it") from error
    with lines:
        for number, line in enumerate(lines, 1):
            where = f"{file}, line {number}"
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except ValueError as error:
                raise ArgumentError(f"{where} is no JSON: {error}") from error
            if not isinstance(item, dict):
                raise ArgumentError(f"{where} is no JSON object")
            yield where, item


def _name(item: dict[str, Any], where: str) -> str:
    name = item.get("_id")
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise ArgumentError(f"{where} has no _id that is a string")
    return str(name)


def _text(item: dict[str, Any], key: str, where: str) -> str:
    text = item.get(key)
    if text is None and item.get("image") is not None:
        # A picture needs no words.
        return ""
    if not isinstance(text, str):
        raise ArgumentError(f"{where} has no {key} that is a string")
    return text


def _put(items: dict[str, Content], name: str, item: Content, where: str) -> None:
    if name in items:
        raise ArgumentError(f"{where} repeats the _id {name!r}")
    items[name] = item
