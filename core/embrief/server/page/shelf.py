"""The collections that the page shows, and to whom."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embrief.discovery.plugins import plugins
from embrief.errors import ArgumentError, EmbriefError, SpaceMismatchError, StoreError, StoreInUseError
from embrief.server.failures import RETRY_AFTER, Refused, refused
from embrief.server.keys import ANYBODY
from embrief.system.log import logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from embrief.facades.embedder import Embedder
    from embrief.indexing.collection import Collection
    from embrief.indexing.table import CollectionInfo
    from embrief.indexing.workspace import Workspace
    from embrief.server.keys import Caller


@dataclass(frozen=True, slots=True)
class Shelf:
    """Which of the user's collections callers may look at."""

    workspace: Workspace
    names: Sequence[str] | None = None
    """Only those of these names; `None`: all of the user's."""

    def check(self) -> None:
        """Refuse a name that no collection has.

        Raises:
            ArgumentError: There is none of it.
        """
        known = {info.name for info in self.workspace.collections()}
        if missing := [name for name in self.names or () if name not in known]:
            has = ", ".join(sorted(known)) or "none"
            raise ArgumentError(f"no collection is called {missing[0][:80]!r}; there is: {has}")

    def described(self) -> str:
        """Return for people which collections there are now."""
        names = [info.name for info in self.listed(ANYBODY)]
        return f"the collections {', '.join(names)}" if names else "texts that are pasted; there is no collection yet"

    def listed(self, caller: Caller) -> list[CollectionInfo]:
        """Return what a caller may read, by name. Reads files; opens no collection."""
        return [
            info
            for info in self.workspace.collections()
            if (self.names is None or info.name in self.names) and caller.may_read(info.name)
        ]

    def find(self, given: str, caller: Caller) -> CollectionInfo:
        """Return the collection of an id.

        Raises:
            Refused: There is none, or the caller may not read it: the answer is the same, so that nobody can find out
                by guessing what there is.
        """
        found = next((info for info in self.listed(caller) if identity(info) == given), None)
        if found is None:
            raise refused(404, "collection_not_found", "there is no such collection for you here", param="collection")
        return found

    @contextmanager
    def opened(self, info: CollectionInfo) -> Iterator[Collection]:
        """Use a collection.

        Raises:
            Refused: It cannot be opened. What its error says is for the operator: it names places on this machine.
        """
        with ExitStack() as held:
            try:
                collection = held.enter_context(self.workspace.opened(info))
            except EmbriefError as error:
                raise _unusable(info, error) from None
            try:
                yield collection
            except (StoreError, SpaceMismatchError) as error:
                raise _unusable(info, error) from None

    @contextmanager
    def embedder(self, info: CollectionInfo) -> Iterator[Embedder]:
        """Use the model that a collection was indexed with, loaded.

        Raises:
            Refused: It cannot be loaded. What its error says is for the operator here too.
        """
        with ExitStack() as held:
            try:
                embedder = held.enter_context(self.workspace.embedder(info.model, max_pixels=info.max_pixels))
                embedder.load()
            except EmbriefError as error:
                raise _unusable(info, error) from None
            yield embedder


def _unusable(info: CollectionInfo, error: EmbriefError) -> Refused:
    logger.warning("a collection cannot be used: %s", type(error).__name__)
    if isinstance(error, StoreInUseError):
        told = f"another process has the collection {info.name!r} open; ask again when it has ended"
        return refused(503, "collection_in_use", told, retry=RETRY_AFTER)
    why = type(error).__name__
    told = f"the collection {info.name!r} cannot be used ({why}); `embrief search` on the server's machine says why"
    return refused(503, "collection_unusable", told, retry=RETRY_AFTER)


def identity(info: CollectionInfo) -> str:
    """Return what a collection is called in requests: two may have one name, and places are nobody's business."""
    said = "\0".join((info.store, info.to, info.name))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def told(info: CollectionInfo) -> dict[str, Any]:
    """Return what the page says of a collection."""
    return {
        "id": identity(info),
        "name": info.name,
        "store": info.store,
        "model": model_name(info.model),
        "files": info.files,
        "passages": info.passages,
        "updated": info.updated,
        "takes_pictures": _takes_pictures(info.model),
    }


def _takes_pictures(model: str) -> bool | None:
    """Return whether a collection can be asked with a picture, `None` where only loading its model would tell."""
    try:
        spec = plugins().catalog.find_model(model)
    except EmbriefError:
        spec = None
    return None if spec is None else spec.images is not None


def model_name(model: str) -> str:
    """Return a model's name without the folders that it lies in."""
    is_path = model.startswith(("/", "\\", "~", ".")) or model[1:3] in (":\\", ":/")
    return model.replace("\\", "/").rstrip("/").rpartition("/")[2] if is_path else model
