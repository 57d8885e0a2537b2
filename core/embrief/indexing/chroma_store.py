"""A collection in Chroma: a database in a folder, or a server's."""

from __future__ import annotations

import heapq
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import chromadb
import numpy as np
from chromadb.config import Settings

from embrief.errors import EmbriefError, StoreError
from embrief.indexing.collection import Collection, missing
from embrief.indexing.stored import LAYOUT, LAYOUT_KEY, read_passage
from embrief.servers.address import parse_address
from embrief.stores import note, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embrief.facades.embedder import Embedder
    from embrief.facts.vectors import Matrix, Vector
    from embrief.indexing.collection import Place
    from embrief.indexing.lock import FolderLock
    from embrief.indexing.stored import StoredPassage

_EFFORT = 500
"""Neighbours that Chroma's index looks at. With its default of 100, 150 equal passages, such as a licence in each file,
hide others that answer better."""
_PAGE = 4096
"""Passages whose metadata are read at a time."""


def open_chroma(place: Place, embedder: Embedder | None, lock: FolderLock | None) -> Collection:
    """Open a collection; see `open_collection`."""
    settings = Settings(anonymized_telemetry=False)
    with _told(place):
        if place.folder is None:
            server = parse_address(place.to, "to")
            client = chromadb.HttpClient(server.host, server.port, ssl=server.scheme == "https", settings=settings)
        else:
            client = chromadb.PersistentClient(place.to, settings=settings)
    try:
        with _told(place):
            return ChromaCollection(place, client, _collection(place, client, embedder), lock)
    except BaseException:
        _close(client)
        raise


def _collection(place: Place, client: Any, embedder: Embedder | None) -> Any:
    try:
        # Vectors come ready-made. Left to itself, Chroma would set up a model of its own.
        return client.get_collection(place.name, embedding_function=None)
    except chromadb.errors.NotFoundError:
        if embedder is None:
            raise missing(place) from None
    return client.get_or_create_collection(
        place.name,
        metadata={**stamp(embedder.space), **note(embedder), LAYOUT_KEY: LAYOUT},
        configuration={"hnsw": {"space": "cosine", "ef_construction": _EFFORT, "ef_search": _EFFORT}},
        embedding_function=None,
    )


class ChromaCollection(Collection):
    """An open collection in Chroma."""

    def __init__(self, place: Place, client: Any, collection: Any, lock: FolderLock | None) -> None:
        """Take a collection that was just fetched; see `Collection`."""
        self._client, self._collection = client, collection
        self._most = client.get_max_batch_size()
        super().__init__(place, collection.metadata, lock)

    def put(self, passages: Sequence[StoredPassage], vectors: Matrix) -> None:  # noqa: D102 - see Collection
        with _told(self.place):
            for start in range(0, len(passages), self._most):
                part = passages[start : start + self._most]
                self._collection.upsert(
                    ids=[passage.id for passage in part],
                    embeddings=vectors[start : start + self._most],
                    documents=[passage.text for passage in part],
                    metadatas=[passage.metadata() for passage in part],
                )

    def drop(self, ids: Sequence[str]) -> None:  # noqa: D102
        with _told(self.place):
            for start in range(0, len(ids), self._most):
                self._collection.delete(ids=list(ids[start : start + self._most]))

    def nearest(  # noqa: D102
        self, vector: Vector, count: int, filetypes: Sequence[str] = ()
    ) -> list[tuple[StoredPassage | None, float]]:
        wanted = {"$in": list(filetypes)}
        where = {"$or": [{"filetype": wanted}, {"kind": wanted}]} if filetypes else None
        with _told(self.place):
            found = self._collection.query(
                query_embeddings=[vector],
                n_results=count,
                where=where,
                include=["documents", "metadatas", "distances"],
            )
        rows = list(zip(found["metadatas"][0], found["documents"][0], found["distances"][0], strict=True))
        if len(rows) < count and (where is not None or len(rows) < self.count()):
            # Its index does not reach all of them.
            return self._nearest_of_all(vector, count, where)
        return [(read_passage(metadata, text), 1.0 - float(distance)) for metadata, text, distance in rows]

    def _nearest_of_all(self, vector: Vector, count: int, where: Any) -> list[tuple[StoredPassage | None, float]]:
        """Compare with every vector that there is, a page at a time."""
        best: list[tuple[float, str]] = []
        start = 0
        while True:
            with _told(self.place):
                found = self._collection.get(where=where, include=["embeddings"], limit=_PAGE, offset=start)
            ids = found["ids"]
            if len(ids):
                scores = np.asarray(found["embeddings"], np.float32) @ vector
                best = heapq.nlargest(count, [*best, *zip(scores.tolist(), ids, strict=True)])
            if len(ids) < _PAGE:
                break
            start += len(ids)
        texts: dict[str, tuple[Any, str]] = {}
        names = [name for _, name in best]
        for start in range(0, len(names), self._most):
            with _told(self.place):
                found = self._collection.get(ids=names[start : start + self._most], include=["documents", "metadatas"])
            texts.update(zip(found["ids"], zip(found["metadatas"], found["documents"], strict=True), strict=True))
        return [(read_passage(*texts[name]), score) for score, name in best if name in texts]

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:  # noqa: D102
        rows: dict[str, Vector] = {}
        for start in range(0, len(ids), self._most):
            with _told(self.place):
                found = self._collection.get(ids=list(ids[start : start + self._most]), include=["embeddings"])
            rows.update(zip(found["ids"], np.asarray(found["embeddings"], np.float32), strict=True))
        return rows

    def count(self) -> int:  # noqa: D102
        with _told(self.place):
            return int(self._collection.count())

    def _metadata(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        start = 0
        while True:
            with _told(self.place):
                found = self._collection.get(include=["metadatas"], limit=_PAGE, offset=start)
            ids = found["ids"]
            yield from zip(ids, (metadata or {} for metadata in found["metadatas"]), strict=True)
            if len(ids) < _PAGE:
                return
            start += len(ids)

    def _close(self) -> None:
        _close(self._client)


def _close(client: Any) -> None:
    # Chroma before 1.5 has no way to close.
    if hasattr(client, "close"):
        client.close()


@contextmanager
def _told(place: Place) -> Iterator[None]:
    """Turn Chroma's own errors into ours."""
    try:
        yield
    except EmbriefError:
        raise
    except Exception as error:
        raise StoreError(f"{place} cannot be used: {type(error).__name__}: {str(error)[:300]}") from error
