"""A collection in Qdrant: a server's, or a database in a folder, which takes one call at a time."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from qdrant_client import QdrantClient, models

from embrief.errors import EmbriefError, StoreError
from embrief.indexing.collection import Collection, address, missing
from embrief.indexing.stored import LAYOUT, LAYOUT_KEY, read_passage
from qdrant_embrief import create_collection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embrief.facades.embedder import Embedder
    from embrief.facts.vectors import Matrix, Vector
    from embrief.indexing.collection import Place
    from embrief.indexing.lock import FolderLock
    from embrief.indexing.stored import StoredPassage

KEY_VARIABLE = "QDRANT_API_KEY"
_TEXT = "document"
"""Payload key of the text: the one of `qdrant_embrief`."""
_PAGE = 1024
_BATCH = 256
"""Points in one request: with long texts, well below what a server takes."""
_TIMEOUT_SECONDS = 60


def open_qdrant(place: Place, embedder: Embedder | None, lock: FolderLock | None) -> Collection:
    """Open a collection; see `open_collection`."""
    with _told(place):
        if place.folder is None:
            # A key without a server to send it to would be refused.
            key = os.environ.get(KEY_VARIABLE) or None
            client = QdrantClient(url=address(place.to), api_key=key, timeout=_TIMEOUT_SECONDS)
        else:
            client = QdrantClient(path=place.to)
    try:
        with _told(place):
            if not client.collection_exists(place.name):
                if embedder is None:
                    raise missing(place)
                create_collection(client, place.name, embedder, metadata={LAYOUT_KEY: LAYOUT})
                if place.folder is None:
                    # Servers may refuse to filter by what has no index. A local database has none, and says so.
                    for name in ("filetype", "kind"):
                        client.create_payload_index(place.name, name, models.PayloadSchemaType.KEYWORD)
            metadata = client.get_collection(place.name).config.metadata
            return QdrantCollection(place, client, metadata, lock)
    except BaseException:
        client.close()
        raise


class QdrantCollection(Collection):
    """An open collection in Qdrant."""

    def __init__(
        self, place: Place, client: QdrantClient, metadata: Mapping[str, object] | None, lock: FolderLock | None
    ) -> None:
        """Take a collection that was just fetched; see `Collection`."""
        self._client = client
        self._one_at_a_time = threading.Lock()
        super().__init__(place, metadata, lock)

    def put(self, passages: Sequence[StoredPassage], vectors: Matrix) -> None:  # noqa: D102 - see Collection
        for start in range(0, len(passages), _BATCH):
            points = [
                models.PointStruct(id=passage.id, vector=row, payload={**passage.metadata(), _TEXT: passage.text})
                for passage, row in zip(
                    passages[start : start + _BATCH], vectors[start : start + _BATCH].tolist(), strict=True
                )
            ]
            with self._call() as client:
                client.upsert(self.place.name, points, wait=True)

    def drop(self, ids: Sequence[str]) -> None:  # noqa: D102
        for start in range(0, len(ids), _PAGE):
            part: list[Any] = list(ids[start : start + _PAGE])
            with self._call() as client:
                client.delete(self.place.name, models.PointIdsList(points=part), wait=True)

    def nearest(  # noqa: D102
        self, vector: Vector, count: int, filetypes: Sequence[str] = ()
    ) -> list[tuple[StoredPassage | None, float]]:
        wanted = models.MatchAny(any=list(filetypes))
        conditions = [models.FieldCondition(key=name, match=wanted) for name in ("filetype", "kind")]
        query_filter = models.Filter(should=list(conditions)) if filetypes else None
        with self._call() as client:
            found = client.query_points(self.place.name, vector.tolist(), limit=count, query_filter=query_filter)
        return [
            (read_passage(point.payload, (point.payload or {}).get(_TEXT)), float(point.score))
            for point in found.points
        ]

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:  # noqa: D102
        rows: dict[str, Vector] = {}
        for start in range(0, len(ids), _PAGE):
            with self._call() as client:
                points = client.retrieve(
                    self.place.name, list(ids[start : start + _PAGE]), with_payload=False, with_vectors=True
                )
            rows.update((str(point.id), np.asarray(point.vector, np.float32)) for point in points)
        return rows

    def count(self) -> int:  # noqa: D102
        with self._call() as client:
            return int(client.count(self.place.name, exact=True).count)

    def _metadata(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        kept = models.PayloadSelectorExclude(exclude=[_TEXT])
        start: Any = None
        while True:
            with self._call() as client:
                points, start = client.scroll(self.place.name, limit=_PAGE, offset=start, with_payload=kept)
            yield from ((str(point.id), point.payload or {}) for point in points)
            if start is None:
                return

    def _close(self) -> None:
        self._client.close()

    @contextmanager
    def _call(self) -> Iterator[QdrantClient]:
        with _told(self.place):
            if self.place.folder is None:
                yield self._client
                return
            with self._one_at_a_time:
                yield self._client


@contextmanager
def _told(place: Place) -> Iterator[None]:
    """Turn Qdrant's own errors into ours."""
    try:
        yield
    except EmbriefError:
        raise
    except Exception as error:
        raise StoreError(f"{place} cannot be used: {type(error).__name__}: {str(error)[:300]}") from error
