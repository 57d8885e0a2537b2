"""Bringing a collection up to date: only what is new or changed is read and embedded, and what is gone is removed.

The store itself says what is indexed. A file counts as indexed if all its passages are there, made from the bytes that
it has now and under the settings of now; anything else of it is removed and made again. So whatever ends a run, the
next one goes on where it stopped.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError, BackendError, EmbriefError, IndexedError, UnreadableFileError
from embrief.indexing.documents import PICTURES
from embrief.indexing.making import Maker, file_digest
from embrief.indexing.report import Failure, Progress, Update
from embrief.indexing.stored import FileKey, StoredFile, StoredPassage
from embrief.indexing.table import root_name

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facades.embedder import Embedder
    from embrief.facts.vectors import Matrix
    from embrief.images.image import Image
    from embrief.indexing import collection as collections
    from embrief.indexing.documents import Pictures, SourceFile
    from embrief.indexing.making import Made
    from embrief.indexing.walking import Walk

BLOCK = 256
"""Passages that are embedded and stored at a time."""
PIXEL_BYTES = 48 << 20
"""Bytes of the pixels of pictures that are embedded and stored at a time: some seven pages, or fifty photographs in 640
x 480. A processor without a graphics card takes minutes for them, which is what a run that is interrupted loses."""


def resolved(paths: Sequence[Path]) -> list[Path]:
    """Return folders and files with their real paths, each once.

    Raises:
        ArgumentError: One is not there.
    """
    found: dict[Path, None] = {}
    for path in paths:
        try:
            found[path.resolve(strict=True)] = None
        except (OSError, RuntimeError) as error:  # a RuntimeError is a loop of links, before Python 3.13
            raise ArgumentError(f"{str(path)!r} cannot be indexed: there is no such folder or file") from error
    return list(found)


def update(
    collection: collections.Collection,
    embedder: Embedder,
    roots: Sequence[Path],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    pictures: Pictures = "none",
    changed: Collection[Path] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> Update:
    """Bring the files of some folders up to date in a collection. What it holds of other folders stays as it is.

    Args:
        collection: The collection; its `updating` lock is held by the caller.
        embedder: Whose vectors it holds.
        roots: Folders and files, as `resolved` returns them.
        include: As of `walk`.
        exclude: As of `walk`.
        limit: Files that are taken at most. What is in the collection beyond them stays, as long as the file is there.
        pictures: Which pictures are taken; a model that takes texts only can have none.
        changed: Only these files, and what is below these folders, may differ from what is stored; `None`: any may.
        on_progress: Called now and then, on this thread.
        stop: Set where it shall end early.

    Raises:
        SpaceMismatchError: The embedder's vectors do not belong into the collection. Nothing was embedded.
        ArgumentError: A folder is not there, or a pattern is none.
        StoreError: The store failed.
        EmbriefError: The model failed on more than a single text.
    """
    from embrief.indexing.walking import UNREADABLE, walk

    collection.require(embedder)
    begun = time.monotonic()
    found = walk(roots, include=include, exclude=exclude, limit=limit, pictures=pictures)
    run = _Run(collection, embedder, pictures, stop or threading.Event(), on_progress)
    run.report.left_out.update(found.left_out)
    # Of these nobody knows whether they are to be there, so they are no choice but a failure, and what is stored stays.
    run.report.left_out.pop(UNREADABLE, None)
    run.report.failed += [Failure(path, why) for path, why in found.unreadable.items()]
    files = _keyed(found, roots, collection.place.folder)
    run.report.files = len(files)
    stored = collection.files()
    named = {root_name(root): root for root in roots}
    run.remove(_gone(stored, files, named, found.unreadable, limited=limit is not None))
    run.bring(files, stored, changed)
    run.report.estimated = run.estimated
    run.report.passages = collection.count()
    run.report.seconds = time.monotonic() - begun
    return run.report


def _keyed(found: Walk, roots: Sequence[Path], store: Path | None) -> dict[FileKey, SourceFile]:
    """Return the files by what they are called in the collection; without those of the store itself."""
    files: dict[FileKey, SourceFile] = {}
    for file in found.files:
        if store is not None and store in file.path.parents:
            continue
        root = next(root for root in roots if root == file.path or root in file.path.parents)
        below = file.path.relative_to(root).as_posix() if root != file.path else root.name
        files[FileKey(root_name(root), below)] = file
    return files


def _gone(
    stored: Mapping[FileKey, StoredFile],
    files: Collection[FileKey],
    roots: Mapping[str, Path],
    unreadable: Collection[Path],
    *,
    limited: bool,
) -> list[StoredFile]:
    """Return what is stored and no longer to be there, and what nobody can say the file of."""
    gone = []
    for key, item in stored.items():
        if key in files or (key.root and key.root not in roots):
            continue
        if key.root:
            root = roots[key.root]
            place = root if key.path == root.name and not root.is_dir() else root / key.path
            if (limited and os.path.lexists(place)) or _touches(place, unreadable):
                continue
        gone.append(item)
    return gone


def _touches(path: Path, places: Collection[Path]) -> bool:
    """Return whether a file, or a folder that it is in, is among some places."""
    return bool(places) and (path in places or any(parent in places for parent in path.parents))


@dataclass(slots=True)
class _Waiting:
    """A file some of whose passages wait to be embedded."""

    key: FileKey
    path: Path
    old: list[str]
    """Passages that are to go before the new ones come."""
    is_new: bool
    counted: bool = False
    """Whether the report has it among the new or changed ones."""


class _Run:
    """One update: passages of several files are embedded together, a block at a time."""

    def __init__(
        self,
        collection: collections.Collection,
        embedder: Embedder,
        pictures: Pictures,
        stop: threading.Event,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.report = Update(collection.place.name)
        self._collection, self._embedder, self._stop = collection, embedder, stop
        self._maker = Maker(embedder, pictures)
        self._on_progress = on_progress or (lambda progress: None)
        self._block: list[tuple[_Waiting, StoredPassage, str | Image]] = []
        self._pixel_bytes = 0
        """Of the pictures in the block."""
        self._failed: set[FileKey] = set()
        self._looked_at = 0

    @property
    def estimated(self) -> bool:
        """Whether passages were measured by their bytes."""
        return self._maker.estimated

    def remove(self, gone: Iterable[StoredFile]) -> None:
        """Remove files."""
        ids: list[str] = []
        for item in gone:
            ids += item.ids
            self.report.removed += 1
        if ids:
            self._collection.drop(ids)

    def bring(
        self,
        files: Mapping[FileKey, SourceFile],
        stored: Mapping[FileKey, StoredFile],
        changed: Collection[Path] | None,
    ) -> None:
        """Index what is new or changed."""
        for key, file in files.items():
            if self._stop.is_set():
                self.report.stopped = True
                return
            there = stored.get(key)
            # Of a folder that took another one's place the system tells nothing but its own name.
            same = changed is not None and not _touches(file.path, changed)
            if same and there and there.is_whole(self._maker.settings(file.name)):
                self.report.unchanged += 1
            else:
                self._file(key, file, there)
            self._looked_at += 1
            self._tell()
        self._flush()
        self._tell()

    def _file(self, key: FileKey, file: SourceFile, there: StoredFile | None) -> None:
        settings = self._maker.settings(file.name)
        try:
            digest = file_digest(file.path)
        except OSError as error:
            return self._fail(key, file.path, error.strerror or type(error).__name__)
        if there is not None and there.is_complete(digest, settings):
            self.report.unchanged += 1
            return
        # Not before there is anything to do; and what is wrong with the model is no file's fault.
        self._embedder.load()
        old = there.ids if there else []
        # Each page takes long, so those that an interrupted run has stored are not made again.
        kept = there.parts_of(digest, settings) if there and self._maker.is_picture(file.name) else frozenset()
        waiting = _Waiting(key, file.path, [] if kept else old, is_new=there is None)
        made = self._maker.made(key, file, digest, kept)
        while (item := self._next(waiting, made)) is not None:
            if not waiting.counted:
                self._count(waiting)
            passage, content = item
            self._block.append((waiting, passage, content))
            self._pixel_bytes += 0 if isinstance(content, str) else content.size[0] * content.size[1] * 3
            if len(self._block) >= BLOCK or self._pixel_bytes >= PIXEL_BYTES:
                self._flush()
            if key in self._failed:
                return
            if passage.kind in PICTURES and passage.part + 1 < passage.parts and self._stop.is_set():
                self._take_out(waiting)
                self.report.stopped = True
                return
        if not waiting.counted and key not in self._failed:
            if waiting.old:
                self._collection.drop(waiting.old)
                self.report.removed += 1
            self.report.left_out["without text"] += 1

    def _next(self, waiting: _Waiting, made: Made) -> tuple[StoredPassage, str | Image] | None:
        """Return the next passage of a file, `None` behind the last one or where the file fails."""
        try:
            return next(made, None)
        except EmbriefError as error:
            if isinstance(error, BackendError):
                raise
            if isinstance(error, UnreadableFileError) and error.reason == "no text":
                # Nothing is wrong with it.
                return None
            reason = str(error)
        except OSError as error:
            reason = error.strerror or type(error).__name__
        except Exception as error:
            # Whatever a parser raises at a file it cannot take; its words may hold the file's.
            reason = f"it cannot be read ({type(error).__name__})"
        self._drop_file(waiting, reason)
        return None

    def _flush(self) -> None:
        """Embed and store what waits."""
        while self._block:
            passages = [passage for _, passage, _ in self._block]
            # Of a picture the model is told nothing but the picture.
            titles = [None if passage.kind in PICTURES else passage.title for passage in passages]
            try:
                vectors = self._embedder.encode(
                    [content for _, _, content in self._block],
                    role="document",
                    titles=titles if self._maker.titled else None,
                ).vectors
            except IndexedError as error:
                if error.index is None:
                    raise
                self._drop_file(self._block[error.index][0], str(error))
                continue
            self._store(passages, vectors)
        self._tell()

    def _store(self, passages: list[StoredPassage], vectors: Matrix) -> None:
        files = {id(waiting): waiting for waiting, _, _ in self._block}.values()
        if old := [passage_id for waiting in files for passage_id in waiting.old]:
            self._collection.drop(old)
        for waiting in files:
            waiting.old = []
        self._collection.put(passages, vectors)
        self.report.embedded += len(passages)
        self._block, self._pixel_bytes = [], 0

    def _drop_file(self, waiting: _Waiting, reason: str) -> None:
        """Leave out a file that cannot be read, or one of whose texts the model cannot take: the others go on."""
        self._take_out(waiting)
        self._fail(waiting.key, waiting.path, reason)

    def _take_out(self, waiting: _Waiting) -> None:
        """Let nothing of a file wait."""
        if waiting.counted:
            self._count(waiting, -1)
        self._block = [item for item in self._block if item[0] is not waiting]

    def _count(self, waiting: _Waiting, by: int = 1) -> None:
        waiting.counted = by > 0
        if waiting.is_new:
            self.report.added += by
        else:
            self.report.changed += by

    def _fail(self, key: FileKey, path: Path, reason: str) -> None:
        if key not in self._failed:
            self._failed.add(key)
            self.report.failed.append(Failure(path, reason))

    def _tell(self) -> None:
        self._on_progress(Progress(self._looked_at, self.report.files, self.report.embedded))
