"""Asking a collection: the nearest passages, each once, perhaps in a reranker's order, and where they stand today."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from embrief.errors import ArgumentError
from embrief.indexing.decoding import decode
from embrief.indexing.documents import PICTURES
from embrief.indexing.kinds import size_limit
from embrief.indexing.lines import Lines
from embrief.indexing.making import file_digest

if TYPE_CHECKING:
    from embrief.facades.embedder import Embedder
    from embrief.facades.reranker import Reranker
    from embrief.facts.prompts import Input
    from embrief.facts.vectors import Vector
    from embrief.images.image import Image
    from embrief.indexing.collection import Collection
    from embrief.indexing.stored import StoredPassage

TOP_K = 10
LEAST_CANDIDATES = 20
CANDIDATES_PER_HIT = 4
_MOST_CONTEXT = 1000
_NO_LINES = {"html", "pdf", "ipynb"} | PICTURES
"""Kinds and file types whose passages are not the lines of the file."""

State = Literal["current", "changed", "gone", "unknown"]


@dataclass(frozen=True, slots=True)
class Context:
    """Lines of a file around a passage."""

    start_line: int
    """The number of the first one."""
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found."""

    path: str
    """The file's path below the folder that was indexed, with slashes."""
    start_line: int
    """The passage's first line in the file, counted from 1; in a page of a PDF. 0: it is a picture and has no lines."""
    end_line: int
    """Its last line, inclusive."""
    page: int | None
    """Of a PDF: the page that it begins on, or that it is, counted from 1."""
    title: str | None
    """The document's title and the headings above the passage, or what the code defines."""
    kind: str
    """`code`, `html`, `markdown`, `pdf` or `text`; `image`: a picture file, `page`: a page of a PDF as a picture."""
    text: str
    """What was embedded; empty for a picture."""
    score: float
    """Cosine similarity to the question, -1 to 1."""
    rerank_score: float | None
    """What the reranker gave it, 0 to 1 where its scores are probabilities; `None`: no reranker was asked, or it is a
    picture whose file is no longer what was indexed."""
    filetype: str = ""
    """The file's extension in lower case, without the dot."""
    file: Path | None = None
    """The file on this machine; `None`: it is not known where the folder is."""
    state: State = "unknown"
    """Whether the file still has the bytes that were indexed. If it has `changed`, lines and text are the old ones."""
    context: Context | None = None
    """The passage with lines around it, from the file; `None`: they were not asked for, or the file is not `current`,
    or its lines are not what was indexed (HTML, PDF)."""
    id: str = ""
    """Of the passage, in the store."""
    digest: str = ""
    """SHA-256 of the bytes of the file that was indexed, hexadecimal."""

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture: it has a path, perhaps a page, and neither text nor lines."""
        return self.kind in PICTURES

    @property
    def has_lines(self) -> bool:
        """Whether the text is exactly the lines of the file, and not text that was found in it."""
        return self.kind not in _NO_LINES and self.filetype not in _NO_LINES

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        context = self.context
        return {
            "path": self.path,
            "file": None if self.file is None else str(self.file),
            "start_line": None if self.is_picture else self.start_line,
            "end_line": None if self.is_picture else self.end_line,
            "page": self.page,
            "title": self.title,
            "kind": self.kind,
            "filetype": self.filetype,
            "score": self.score,
            "rerank_score": self.rerank_score,
            "state": self.state,
            "text": self.text,
            "context": None if context is None else {"start_line": context.start_line, "lines": list(context.lines)},
            "id": self.id,
        }


def search(
    collection: Collection,
    embedder: Embedder,
    question: Input,
    *,
    top_k: int = TOP_K,
    threshold: float | None = None,
    filetypes: Sequence[str] = (),
    reranker: Reranker | None = None,
    instruction: str | None = None,
    context: int = 0,
    roots: Mapping[str, Path] | None = None,
) -> list[Hit]:
    """Return the passages that answer a question, best first, each text once.

    Args:
        collection: The collection.
        embedder: Whose vectors it holds.
        question: The question, without a prompt; for models that take pictures, also one, or both.
        top_k: How many at most.
        threshold: The least cosine similarity, before a reranker.
        filetypes: Extensions (`py`, `.md`) or kinds (`code`); empty: all.
        reranker: Puts the nearest passages in order by reading them with the question: four times `top_k`, and at
            least 20. Pictures it judges as far as their files are still what was indexed; others come last.
        instruction: What the question is for, in a sentence; for models with a place for it.
        context: Lines to show before and after each passage.
        roots: Where the folders are that the collection's names mean.

    Raises:
        ArgumentError: A value cannot be, or the model has no place for an instruction.
        ArgumentTypeError: The question holds a picture, and the model takes texts only; or a picture was found, and the
            reranker does.
        SpaceMismatchError: The embedder's vectors do not belong to the collection. Nothing was embedded.
        StoreError: The store failed.
        EmbriefError: The model failed.
    """
    check(question, top_k, threshold, context)
    collection.require(embedder)
    vector = embedder.embed_query(question, instruction=instruction)
    wanted = max(CANDIDATES_PER_HIT * top_k, LEAST_CANDIDATES) if reranker is not None else top_k
    types = [name.lower().removeprefix(".") for name in filetypes]
    found = _distinct(collection, vector, wanted, types)
    if threshold is not None:
        found = [item for item in found if item[1] >= threshold]
    hits = [_hit(passage, score, roots or {}) for passage, score in found]
    if reranker is not None and hits:
        hits = _judged(reranker, question, hits, instruction)
    states: dict[Path, str | None] = {}
    return [_today(hit, context, states) for hit in hits[:top_k]]


def _judged(reranker: Reranker, question: Input, hits: Sequence[Hit], instruction: str | None) -> list[Hit]:
    """Return hits in a reranker's order; behind them the pictures that it cannot be shown."""
    # Inside the function: few searches need a picture.
    from embrief.indexing.picture_files import PicturesOfHits

    pictures = PicturesOfHits()
    contents: list[str | Image | None] = [hit.text for hit in hits]
    # By their files, each of which is read once then.
    for place in sorted(range(len(hits)), key=lambda place: (hits[place].path, hits[place].page or 0)):
        if hits[place].is_picture:
            contents[place] = pictures.of(hits[place])
    # In the order of their similarity, which decides between equal scores.
    shown = [(hit, content) for hit, content in zip(hits, contents, strict=True) if content is not None]
    unseen = [hit for hit, content in zip(hits, contents, strict=True) if content is None]
    told = instruction if reranker.spec.instructed else None
    ranked = reranker.rerank_items(question, shown, text=lambda item: item[1], instruction=told)
    judged = [replace(place.item[0], rerank_score=place.score) for place in ranked]
    return [*judged, *unseen]


def check(question: Input, top_k: int, threshold: float | None, context: int) -> None:
    """Refuse what cannot be asked, before anything is opened.

    Raises:
        ArgumentError: A value cannot be.
    """
    if isinstance(question, str) and not question.strip():
        raise ArgumentError("the question is empty; ask for something")
    if top_k < 1:
        raise ArgumentError(f"top_k={top_k} finds nothing; take 1 or more")
    if threshold is not None and not -1.0 <= threshold <= 1.0:
        raise ArgumentError(f"threshold={threshold} is no cosine similarity; take one from -1 to 1")
    if not 0 <= context <= _MOST_CONTEXT:
        raise ArgumentError(f"context={context} is no number of lines from 0 to {_MOST_CONTEXT}")


def _distinct(
    collection: Collection, vector: Vector, wanted: int, filetypes: Sequence[str]
) -> list[tuple[StoredPassage, float]]:
    """Return the nearest passages of different texts."""
    count = wanted + LEAST_CANDIDATES
    while True:
        rows = collection.nearest(vector, count, filetypes)
        found: dict[str | tuple[str, int], tuple[StoredPassage, float]] = {}
        for passage, score in rows:
            if passage is not None:
                # Pictures are known by the file's bytes and the page.
                same = (passage.digest, passage.part) if passage.kind in PICTURES else passage.text
                found.setdefault(same, (passage, score))
        if len(found) >= wanted or len(rows) < count:
            # A store may give equal scores in another order each time.
            order = sorted(found.values(), key=lambda item: (-item[1], item[0].key, item[0].part))
            return order[:wanted]
        count *= 2


def _hit(passage: StoredPassage, score: float, roots: Mapping[str, Path]) -> Hit:
    return Hit(
        path=passage.key.path,
        start_line=passage.start_line,
        end_line=passage.end_line,
        page=passage.page,
        title=passage.title,
        kind=passage.kind,
        text=passage.text,
        score=score,
        rerank_score=None,
        filetype=passage.filetype,
        file=file_of(passage, roots),
        id=passage.id,
        digest=passage.digest,
    )


def _today(hit: Hit, context: int, digests: dict[Path, str | None]) -> Hit:
    """Return a hit with what has become of its file, and the lines around it."""
    if hit.file is None:
        return hit
    if hit.file not in digests:
        digests[hit.file] = _digest(hit.file)
    digest = digests[hit.file]
    state: State = "gone" if digest is None else "current" if digest == hit.digest else "changed"
    lines = _context(hit.file, hit, context) if context and state == "current" else None
    return replace(hit, state=state, context=lines)


def file_of(passage: StoredPassage, roots: Mapping[str, Path]) -> Path | None:
    """Return where a passage's file is, `None` where that is not known.

    What a store says never leads out of the folder that the user has indexed.
    """
    root = roots.get(passage.key.root)
    if root is None:
        return None
    below = PurePosixPath(passage.key.path)
    if below.is_absolute() or not below.parts or "\0" in passage.key.path:
        return None
    if passage.key.path == root.name and not root.is_dir():
        return root
    file = root.joinpath(*below.parts)
    # Whatever `..`, links, and on Windows drives make of it.
    return file if file.resolve().is_relative_to(root.resolve()) else None


def _digest(file: Path) -> str | None:
    """Return the digest of a file, `None` where there is none; empty for one that is too large to be indexed."""
    try:
        found = file.stat()
        # A pipe would be waited for.
        if not stat.S_ISREG(found.st_mode):
            return None
        return "" if found.st_size > size_limit(file.name) else file_digest(file)
    except OSError:
        return None


def _context(file: Path, hit: Hit, around: int) -> Context | None:
    if not hit.has_lines:
        return None
    try:
        lines = Lines(decode(file.read_bytes()))
    except (OSError, ValueError):
        return None
    first = max(hit.start_line - around, 1)
    last = min(hit.end_line + around, len(lines))
    return Context(first, tuple(lines[number] for number in range(first, last + 1)))
