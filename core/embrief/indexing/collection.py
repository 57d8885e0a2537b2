"""What indexing asks of a store, whichever it is, and how one is opened."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from embrief.errors import ArgumentError, MissingDependencyError, SpaceMismatchError
from embrief.indexing.lock import FolderLock
from embrief.indexing.stored import FileKey, StoredFile, check_layout, read_mark
from embrief.servers.address import parse_address
from embrief.stores import read_stamp, require_same
from embrief.system.installed import install_command, is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embrief.facades.embedder import Embedder
    from embrief.facts.space import VectorSpace
    from embrief.facts.vectors import Matrix, Vector
    from embrief.indexing.stored import StoredPassage

StoreName = Literal["chroma", "qdrant"]
STORES: dict[StoreName, str] = {"chroma": "chromadb", "qdrant": "qdrant_client"}
"""The stores, and what each needs to be installed; the first that is there is the default."""
PATIENCE = 2.0
"""Seconds to wait for another process that has the store open: a search has it for moments only."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a collection is."""

    store: StoreName
    to: str
    """An absolute folder, or the address of a server."""
    name: str

    def __str__(self) -> str:
        return f"the {self.store.capitalize()} collection {self.name!r} in {self.to}"

    @property
    def folder(self) -> Path | None:
        """The folder of a local store."""
        return None if is_address(self.to) else Path(self.to)


def is_address(to: str) -> bool:
    """Return whether a place is a server's and no folder."""
    return to.lower().startswith(("http://", "https://"))


def store_name(given: str | None) -> StoreName:
    """Return the store that somebody named, or the default one.

    Raises:
        ArgumentError: There is none of this name.
        MissingDependencyError: It is not installed, or none is.
    """
    if given is None:
        found = next((name for name, package in STORES.items() if is_installed(package)), None)
        if found is None:
            raise MissingDependencyError(f"no store is installed; for Chroma: {install_command('index,chroma')}")
        return found
    if given not in STORES:
        raise ArgumentError(f"store={given!r} is not known; use {' or '.join(STORES)}")
    if not is_installed(STORES[given]):
        raise MissingDependencyError(f"{given} is not installed: {install_command(given)}")
    return given


class Collection(ABC):
    """An open collection. Its methods may be called from any thread."""

    def __init__(self, place: Place, metadata: Mapping[str, object] | None, lock: FolderLock | None) -> None:
        """Check what a collection says of itself.

        Args:
            place: Where it is.
            metadata: What the store keeps of it.
            lock: The lock of its folder, released with `close`; `None` for a server's.

        Raises:
            SpaceMismatchError: Nothing says which model made its vectors, or that cannot be read.
            ArgumentError: `index` did not make it.
        """
        self.place = place
        self.updating = threading.Lock()
        """Held by whoever brings it up to date."""
        self._lock = lock
        check_layout(metadata, where=str(place))
        space = read_stamp(metadata, where=str(place))
        if space is None:
            raise SpaceMismatchError(f"{place} does not say which model made its vectors; index into another one")
        self.space: VectorSpace = space
        """The space of its vectors."""

    def require(self, embedder: Embedder) -> None:
        """Refuse an embedder whose vectors do not belong here.

        Raises:
            SpaceMismatchError: They are of another space.
        """
        require_same(self.space, embedder.space, where=str(self.place))

    def files(self) -> dict[FileKey, StoredFile]:
        """Return what is there of each file. What cannot be read belongs to the file `("", "")`."""
        found: dict[FileKey, StoredFile] = {}
        for passage_id, metadata in self._metadata():
            mark = read_mark(metadata)
            found.setdefault(mark.key if mark else FileKey("", ""), StoredFile()).add(passage_id, mark)
        return found

    def paths(self) -> dict[str, str]:
        """Return the ids of all passages, with the path of each one's file."""
        return {passage_id: mark.key.path for passage_id, metadata in self._metadata() if (mark := read_mark(metadata))}

    def close(self) -> None:
        """Close it, and let other processes open it."""
        try:
            self._close()
        finally:
            if self._lock is not None:
                self._lock.release()

    @abstractmethod
    def put(self, passages: Sequence[StoredPassage], vectors: Matrix) -> None:
        """Store passages with their vectors; those that are there with the same ids are replaced."""

    @abstractmethod
    def drop(self, ids: Sequence[str]) -> None:
        """Remove passages by their ids. One that is not there is no error."""

    @abstractmethod
    def nearest(
        self, vector: Vector, count: int, filetypes: Sequence[str] = ()
    ) -> list[tuple[StoredPassage | None, float]]:
        """Return the passages nearest to a query vector with their cosine similarities, best first.

        Args:
            vector: float32, (dim,), of unit length.
            count: How many at most.
            filetypes: Only of these extensions or kinds; empty: of all.

        Returns:
            The passages; `None` for one that cannot be read. Fewer than `count` where there are no more.
        """

    @abstractmethod
    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Return stored vectors by the ids of their passages, for whoever draws them. What is not there is left out."""

    @abstractmethod
    def count(self) -> int:
        """Return how many passages there are."""

    @abstractmethod
    def _metadata(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield id and metadata of every passage."""

    @abstractmethod
    def _close(self) -> None: ...


def open_collection(place: Place, embedder: Embedder | None, *, patience: float = PATIENCE) -> Collection:
    """Open a collection.

    Args:
        place: Where it is.
        embedder: Whose vectors are to come into it: it is made if it is not there. `None`: it must be there.
        patience: Seconds to wait for another process that has a local store open.

    Raises:
        StoreInUseError: Another process has the local store open.
        SpaceMismatchError: It holds vectors of another or an unknown space.
        ArgumentError: There is no such collection, or `index` did not make it, or no store can be there.
        StoreError: The store cannot be opened.
        MissingDependencyError: The store's package is not installed.
    """
    store_name(place.store)
    lock = None
    if (folder := place.folder) is not None:
        if embedder is None and not folder.is_dir():
            raise missing(place)
        lock = FolderLock(folder, patience=patience)
    try:
        # Inside the function: importing a store takes most of a second.
        if place.store == "chroma":
            from embrief.indexing.chroma_store import open_chroma as open_one
        else:
            from embrief.indexing.qdrant_store import open_qdrant as open_one
        found = open_one(place, embedder, lock)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    if embedder is not None:
        try:
            found.require(embedder)
        except BaseException:
            found.close()
            raise
    return found


def missing(place: Place) -> ArgumentError:
    """Return the error for a collection that is not there."""
    return ArgumentError(f"there is no {place.store.capitalize()} collection {place.name!r} in {place.to}; index first")


def address(to: str) -> str:
    """Return the address of a server, checked.

    Raises:
        ArgumentError: It is none, or has a password in it.
    """
    return parse_address(to, "to").url
