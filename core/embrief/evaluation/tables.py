"""Retrieval sets of mteb in its own files: tables of a data set on the Hugging Face Hub, copied to this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, MissingDependencyError
from embrief.evaluation import contents
from embrief.evaluation.retrieval_set import RetrievalSet, make_set

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facts.prompts import Content
    from embrief.images.image import Image

# As mteb's own loader calls them; the hub keeps a configuration called "default" in `data`.
_QUERIES = ("queries", "query")
_JUDGEMENTS = ("qrels", "default", "data")
_BEYOND = ("instruction", "top_ranked")
"""What makes another task of a set: instructions of each question's own, or its candidates."""
_NEITHER = ("audio", "video")
_ROWS = 32
"""Rows that are read at once: those with pages are large."""


def subsets(folder: Path) -> list[str]:
    """Return the names of the sets in a folder, "" for that without one; none if it holds no such tables."""
    named = [item for item in folder.iterdir() if item.name == "corpus" or item.name.endswith("-corpus")]
    # A folder may be called so for other reasons.
    tables = [item.name for item in named if item.is_dir() and any(item.rglob("*.parquet"))]
    return sorted(name.removesuffix("corpus").removesuffix("-") for name in tables)


def read_tables(folder: Path, split: str = "test") -> list[RetrievalSet]:
    """Read the parquet files of mteb: of each set the tables `corpus`, `queries` and `qrels`, perhaps with its name.

    A table is a folder, as the hub keeps a configuration of a data set: `corpus/test-00000-of-00001.parquet`, or
    `en-corpus/...` for the set `en`; also `corpus/test/0000.parquet`, as the hub converts others. Documents and
    questions have `id` and `text`, `image` or both. A document's `title` stands before its text with a blank between,
    as mteb has it. Where `modality` says which of both counts, the other is left out, and so are questions without a
    relevant document.

    Args:
        folder: Where the tables are, such as a snapshot in the hub's cache. Nothing outside it is read, but for what
            links of that cache lead to.
        split: Which rows; the only ones there are, if a table has one split.

    Raises:
        ArgumentError: A table is missing, cannot be read or holds sound or films; a row is not what it has to be, its
            picture is none or lies outside the table, or it is empty in a table of pictures, and the message has its
            number from 1 on; or questions have instructions or candidates of their own.
        MissingDependencyError: pyarrow is not installed, or Pillow, and there are pictures.
    """
    # A snapshot in the hub's cache is called by its commit: <kind>--<owner>--<name>/snapshots/<commit>.
    inside_cache = folder.resolve().parent.name == "snapshots"
    name = folder.resolve().parent.parent.name.rpartition("--")[2] if inside_cache else folder.resolve().name
    return [_read(folder, subset, f"{name}-{subset}" if subset else name, split) for subset in subsets(folder)]


def _read(folder: Path, subset: str, name: str, split: str) -> RetrievalSet:
    prefix = f"{subset}-" if subset else ""
    for other in _BEYOND:
        if (folder / f"{prefix}{other}").is_dir():
            raise ArgumentError(
                f"{folder} has {prefix}{other}: its questions have instructions or candidates of their own, so that a "
                "search for all alike is another task; measure it with mteb itself"
            )
    corpus = _contents(_files(folder, (f"{prefix}corpus",), split), "corpus-id", _document_words)
    queries = _contents(_files(folder, tuple(prefix + each for each in _QUERIES), split), "query-id", _words)
    judged = _judgements(_files(folder, tuple(prefix + each for each in _JUDGEMENTS), split), corpus, queries)
    return make_set(name, corpus, queries, judged)


def _files(folder: Path, names: tuple[str, ...], split: str) -> list[Path]:
    """Return the files of one table, in order."""
    splits: dict[str, list[Path]] = {}
    table = next((folder / name for name in names if any((folder / name).rglob("*.parquet"))), None)
    if table is None:
        raise ArgumentError(f"{folder} has no parquet files in {' or '.join(names)}; a set of mteb has them")
    for file in sorted(table.rglob("*.parquet")):
        parent = file.parent.relative_to(table).parts
        splits.setdefault(parent[0] if parent else file.stem.partition("-")[0], []).append(file)
    if split in splits:
        return splits[split]
    if len(splits) == 1:
        return next(iter(splits.values()))
    raise ArgumentError(f"{table} has no split {split!r}; there are: {', '.join(splits)}")


def _contents(
    files: list[Path], own_id: str, words: Callable[[Mapping[str, Any], str], str | None]
) -> dict[str, Content]:
    """Return what the rows of a table hold, by their names."""
    found: dict[str, Content] = {}
    for where, row in _rows(files, ("id", "_id", own_id, "title", "text", "query", "image", "modality")):
        name = next((row[key] for key in ("id", "_id", own_id) if row.get(key) is not None), None)
        if not isinstance(name, str | int):
            raise ArgumentError(f"{where} has no id that is a string or a number")
        if str(name) in found:
            raise ArgumentError(f"{where} repeats the id {name!r}")
        kind = row["modality"] if isinstance(row.get("modality"), str) else "image, text"
        picture = row.get("image") if "image" in kind else None
        text = words(row, where) if "text" in kind else None
        if picture is not None:
            image = _picture(picture, where)
            found[str(name)] = (image, text) if text else (image,)
        # An empty text is one, as in BEIR's sets, unless a picture could stand there.
        elif text is None or ("image" in row and not text.strip()):
            raise ArgumentError(
                f"{where} has no text and no image, and nothing is embedded in a picture's place; take it out of the "
                "table"
            )
        else:
            found[str(name)] = text
    return found


def _words(row: Mapping[str, Any], where: str) -> str | None:
    return _string(row, "query" if row.get("text") is None else "text", where)


def _document_words(row: Mapping[str, Any], where: str) -> str | None:
    title, text = _string(row, "title", where), _words(row, where)
    return text if text is None else f"{title or ''} {text}".strip()


def _string(row: Mapping[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value
    raise ArgumentError(f"{where} has a {key} that is no string")


def _picture(cell: Any, where: str) -> Image:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not isinstance(data, bytes):
        # A table comes from anywhere: it names no file of this machine.
        raise ArgumentError(f"{where} has an image without bytes; pictures are read from the table alone")
    return contents.decoded(data, where)


def _judgements(
    files: list[Path], corpus: Mapping[str, Content], queries: Mapping[str, Content]
) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for where, row in _rows(files, ("query-id", "corpus-id", "score")):
        query, document, grade = (row.get(key) for key in ("query-id", "corpus-id", "score"))
        if str(query) not in queries or str(document) not in corpus:
            raise ArgumentError(f"{where}: {query!r} is no question, or {document!r} no document")
        if not isinstance(grade, int | float) or not float(grade).is_integer():
            raise ArgumentError(f"{where} has the score {grade!r}; it must be a whole number")
        found.setdefault(str(query), {})[str(document)] = int(grade)
    return found


def _rows(files: list[Path], columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a table, those of these columns that it has, each with its place for errors."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingDependencyError(
            "mteb's tables are parquet files, which pyarrow reads: pip install pyarrow"
        ) from error
    for file in files:
        number = 0
        try:
            with ParquetFile(file) as table:
                names = table.schema_arrow.names
                if beyond := [name for name in _NEITHER if name in names]:
                    raise ArgumentError(f"{file} has {' and '.join(beyond)}; texts and pictures are embedded here")
                there = [name for name in columns if name in names]
                for batch in table.iter_batches(_ROWS, columns=there):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{file}, row {number}", row
        except (ArrowException, OSError) as error:
            raise ArgumentError(f"{file} cannot be read as a parquet file: {error}") from error
