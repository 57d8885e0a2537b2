"""The demo's vectors in an embedded Chroma database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, MissingDependencyError, SpaceMismatchError
from embrief.evaluation.corpus import Entry, corpus_id
from embrief.stores import read_stamp, require_same, stamp
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from embrief.facades.embedder import Embedder
    from embrief.facts.space import VectorSpace
    from embrief.facts.specs import EmbeddingSpec
    from embrief.facts.vectors import Vector

_PREFIX = "embrief-demo-"
_QUICK_PARAMETERS = 50_000_000


def is_quick(spec: EmbeddingSpec) -> bool:
    """Return whether all docstrings take the model no more than a few minutes on a CPU."""
    # A model without a record may not say how large it is.
    return spec.parameters is not None and spec.parameters < _QUICK_PARAMETERS


def _piece(spec: EmbeddingSpec) -> int:
    """Return how many docstrings to embed and store at a time.

    Small pieces keep the bar moving with a slow model, and an interruption costs one; with a fast one, storing and
    batches that are not full would cost more.
    """
    if spec.lexical:
        return 1024
    return 256 if is_quick(spec) else 64


@dataclass(frozen=True, slots=True)
class Hit:
    """One found docstring."""

    entry: Entry
    score: float
    """Cosine similarity to the question, -1 to 1."""


class DemoIndex:
    """All docstrings of one corpus in one Chroma collection, whose metadata names the vector space."""

    def __init__(self, collection: Any, entries: Sequence[Entry], batch: int) -> None:
        self._collection = collection
        self._entries = {entry.name: entry for entry in entries}
        self._batch = batch
        there = set(collection.get(include=[])["ids"])
        self.missing = [entry for entry in entries if entry.name not in there]
        """What is not embedded yet: everything, nothing, or the rest of a run that was interrupted."""

    def fill(self, embedder: Embedder, on_progress: Callable[[int], None]) -> int:
        """Embed and store what is missing, piece by piece: an interrupted run goes on where it stopped.

        Returns:
            How many docstrings were longer than the model's limit and lost their end.
        """
        step = min(self._batch, _piece(embedder.spec))
        truncated = 0
        for start in range(0, len(self.missing), step):
            piece = self.missing[start : start + step]
            texts = [entry.text for entry in piece]
            result = embedder.encode(texts, role="document")
            self._collection.add(ids=[entry.name for entry in piece], embeddings=result.vectors, documents=texts)
            truncated += 0 if result.truncated is None else int(result.truncated.sum())
            on_progress(len(piece))
        self.missing = []
        return truncated

    def search(self, query: Vector, count: int) -> list[Hit]:
        """Return the docstrings nearest to a query vector, best first."""
        count = min(count, len(self._entries))
        found = self._collection.query(query_embeddings=[query], n_results=count, include=["distances"])
        pairs = zip(found["ids"][0], found["distances"][0], strict=True)
        return [Hit(self._entries[name], 1.0 - float(distance)) for name, distance in pairs]


def _chromadb() -> Any:
    try:
        # Inside the function: it is an extra, and importing it takes most of a second.
        import chromadb
    except ImportError as error:
        raise MissingDependencyError(f"the demo stores its vectors in Chroma: {install_command('demo')}") from error
    return chromadb


class DemoStore:
    """An open Chroma database that may hold a demo's collections, all of one vector space."""

    def __init__(self, client: Any, embedder: Embedder, where: str) -> None:
        self._client = client
        self._space = embedder.space
        for item in client.list_collections():
            if item.name.startswith(_PREFIX):
                stored = read_stamp(item.metadata, where=where)
                if stored is None and item.count():
                    raise SpaceMismatchError(
                        f"{where} has vectors in the collection {item.name!r}, and nothing says which model made them; "
                        "delete that collection or take another folder"
                    )
                _require_same(stored, self._space, where)

    def index(self, entries: Sequence[Entry]) -> DemoIndex:
        """Return the collection of exactly these docstrings, made if it is not there."""
        collection = self._client.get_or_create_collection(
            _PREFIX + corpus_id(list(entries)),
            metadata=stamp(self._space),
            configuration={"hnsw": {"space": "cosine"}},
            # Vectors come ready-made. Left to itself, Chroma would set up a model of its own.
            embedding_function=None,
        )
        return DemoIndex(collection, entries, self._client.get_max_batch_size())


def _require_same(stored: VectorSpace | None, space: VectorSpace, where: str) -> None:
    try:
        require_same(stored, space, where=where)
    except SpaceMismatchError as error:
        raise SpaceMismatchError(f"{error} (another folder)") from None


@contextmanager
def open_store(folder: Path | None, embedder: Embedder) -> Iterator[DemoStore]:
    """Open the database in a folder, made if it is not there; without a folder, in one that is removed again.

    Raises:
        MissingDependencyError: chromadb is not installed.
        SpaceMismatchError: The folder holds a demo of another vector space.
        ArgumentError: The folder cannot hold a database.
    """
    chromadb = _chromadb()
    # An embedded database may still hold a file open when it is removed; on Windows that is an error.
    with TemporaryDirectory(prefix="embrief-demo-", ignore_cleanup_errors=True) as temporary:
        path = folder if folder is not None else Path(temporary)
        if path.exists() and not path.is_dir():
            raise ArgumentError(f"{path} is a file; the demo needs a folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
            client = chromadb.PersistentClient(os.fspath(path), settings=chromadb.Settings(anonymized_telemetry=False))
        except Exception as error:
            raise ArgumentError(f"{path} cannot be opened as a Chroma database: {error}") from error
        try:
            yield DemoStore(client, embedder, f"the demo in {path}")
        finally:
            # Chroma before 1.5 has no way to close.
            if hasattr(client, "close"):
                client.close()
