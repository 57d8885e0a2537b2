"""Published retrieval sets in the files that their authors publish, and which kind a path holds."""

from __future__ import annotations

import ast
import gzip
import inspect
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError
from embrief.evaluation.retrieval_set import RetrievalSet, make_set, read_beir
from embrief.evaluation.tables import read_tables, subsets

if TYPE_CHECKING:
    from pathlib import Path

_FIELD = re.compile(r"^\.([IWTAB])(?:\s+(\d+))?\s*$")


def load(path: Path, split: str = "test") -> list[RetrievalSet]:
    """Return the retrieval sets at a path.

    Args:
        path: A folder in BEIR's layout or with mteb's tables, or the files of Cranfield, XQuAD, CoSQA or HumanEval. A
            folder with XQuAD in several languages gives one set per language, one with several sets of mteb each of
            them; a single file gives that one.
        split: Which judgements of a BEIR folder, or which rows of mteb's tables.

    Raises:
        ArgumentError: Nothing at the path is of a known kind, or a file is broken.
        MissingDependencyError: What reads mteb's tables, or pictures, is not installed.
    """
    if not path.exists():
        raise ArgumentError(f"{path} does not exist")
    if path.is_dir() and (path / "corpus.jsonl").is_file():
        return [read_beir(path, split)]
    if path.is_dir() and subsets(path):
        return read_tables(path, split)
    if path.is_dir() and (path / "cran.all.1400").is_file():
        return [_cranfield(path)]
    for pattern, read in _FILES.items():
        files = [path] if path.is_file() and path.match(pattern) else sorted(path.glob(pattern))
        if files:
            return [read(file) for file in files]
    raise ArgumentError(
        f"{path} holds no retrieval set: BEIR's layout has corpus.jsonl, queries.jsonl and qrels/test.tsv, mteb's has "
        f"parquet files in corpus, queries and qrels; also known are cran.all.1400, {', '.join(_FILES)}"
    )


def _cranfield(folder: Path) -> RetrievalSet:
    """Read the Cranfield collection: 1400 abstracts of aerodynamics, 225 questions.

    Codes 1 to 4 count as relevant, -1 does not (cranqrel.readme). Judgements number the questions by their order, not
    by the numbers in cran.qry.
    """
    documents = _fields(folder / "cran.all.1400")
    # The abstract repeats the title.
    corpus = {number: " ".join(fields.get("W", "").split()) for number, fields in documents}
    queries = {
        str(place): " ".join(fields["W"].split()) for place, (_, fields) in enumerate(_fields(folder / "cran.qry"), 1)
    }
    judgements: dict[str, dict[str, int]] = {}
    for line in (folder / "cranqrel").read_text("utf-8").splitlines():
        query, document, code = line.split()
        judgements.setdefault(query, {})[document] = int(int(code) > 0)
    return make_set(
        "cranfield",
        {number: text for number, text in corpus.items() if text},
        queries,
        {
            query: {document: grade for document, grade in grades.items() if corpus.get(document)}
            for query, grades in judgements.items()
        },
        "Given a question about aerodynamics, retrieve abstracts of papers that answer it",
    )


def _fields(file: Path) -> list[tuple[str, dict[str, str]]]:
    """Return number and fields of each record of a SMART file."""
    found: list[tuple[str, dict[str, str]]] = []
    field = ""
    for line in file.read_text("latin-1").splitlines():
        if mark := _FIELD.match(line):
            field = mark[1]
            if field == "I":
                found.append((str(int(mark[2])), {}))
        elif found and field:
            parts = found[-1][1]
            parts[field] = f"{parts[field]}\n{line}" if field in parts else line
    return found


def _xquad(file: Path) -> RetrievalSet:
    """Read XQuAD (arXiv 1910.11856) in one language: a question's answer is in the paragraph it was asked about."""
    corpus: dict[str, str] = {}
    queries: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    for article in json.loads(file.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            name = f"p{len(corpus)}"
            corpus[name] = paragraph["context"]
            for item in paragraph["qas"]:
                queries[item["id"]] = item["question"]
                judgements[item["id"]] = {name: 1}
    return make_set(f"xquad-{file.name.split('.')[-2]}", corpus, queries, judgements)


def _cosqa(file: Path) -> RetrievalSet:
    """Read CoSQA (arXiv 2105.13239): web queries and the Python functions that people found to answer them."""
    places: dict[str, str] = {}
    asked: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    for item in json.loads(file.read_text("utf-8")):
        name = places.setdefault(item["code"], f"c{len(places)}")
        query = asked.setdefault(item["doc"], f"q{len(asked)}")
        grades = judgements.setdefault(query, {})
        grades[name] = max(grades.get(name, 0), int(item["label"]))
    return make_set(
        "cosqa",
        {name: code for code, name in places.items()},
        {name: text for text, name in asked.items()},
        judgements,
        "Given a web query, retrieve Python functions that do what it asks for",
    )


def _humaneval(file: Path) -> RetrievalSet:
    """Read HumanEval (arXiv 2107.03374): a function's docstring asks for its body."""
    opened: Any = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    queries = {item["task_id"]: _docstring(item["prompt"], item["entry_point"]) for item in items}
    return make_set(
        "humaneval",
        {item["task_id"]: item["canonical_solution"] for item in items},
        queries,
        {name: {name: 1} for name in queries},
        "Given a description of a function, retrieve its body in Python",
    )


def _docstring(source: str, name: str) -> str:
    """Return what a function promises. Its signature would be a part of the answer."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            # One of them imports something first: then it is no docstring to Python, but still says what is asked.
            texts = [
                statement.value.value
                for statement in node.body
                if isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ]
            if texts:
                return inspect.cleandoc(texts[0])
    raise ArgumentError(f"{name} has no docstring in its prompt")


_FILES: dict[str, Callable[[Path], RetrievalSet]] = {
    "xquad.*.json": _xquad,
    "cosqa-*.json": _cosqa,
    "HumanEval.jsonl*": _humaneval,
}
