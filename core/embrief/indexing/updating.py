"""Bringing a collection up to date: only what is new or changed is read and embedded, and what is gone is removed.

The store itself says what is indexed. A file counts as indexed if all its passages are there, made from the bytes that
it has now and under the settings of now; anything else of it is removed and made again. So whatever ends a run, the
next one goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError, BackendError, EmbriefError, IndexedError, UnreadableFileError
from embrief.facts.prompts import PromptChoice, active_task
from embrief.indexing.report import Failure, Progress, Update
from embrief.indexing.stored import LAYOUT, FileKey, StoredFile, StoredPassage
from embrief.indexing.table import root_name

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facades.embedder import Embedder
    from embrief.facts.vectors import Matrix
    from embrief.indexing import collection as collections
    from embrief.indexing.documents import SourceFile
    from embrief.indexing.walking import Walk

MAX_TOKENS = 512
"""Of a passage, prompt and special tokens included."""
CUTTING = 1
"""Raised where a release reads or cuts files in another way, so that they are indexed again."""
BLOCK = 256
"""Passages that are embedded and stored at a time."""
BYTES_PER_TOKEN = 2
"""Where a model's tokens cannot be counted: fewer than any text has, so that passages come out short, not cut."""
_TRIES = 3
"""Readings of a file that changes meanwhile."""
_CHUNK = 1 << 20


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
    found = walk(roots, include=include, exclude=exclude, limit=limit)
    run = _Run(collection, embedder, stop or threading.Event(), on_progress)
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


class _Run:
    """One update: passages of several files are embedded together, a block at a time."""

    def __init__(
        self,
        collection: collections.Collection,
        embedder: Embedder,
        stop: threading.Event,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.report = Update(collection.place.name)
        self._collection, self._embedder, self._stop = collection, embedder, stop
        self._on_progress = on_progress or (lambda progress: None)
        self._titled = takes_titles(embedder)
        self._max_tokens = min(MAX_TOKENS, embedder.max_tokens)
        self._settings = settings_digest(embedder)
        self._block: list[tuple[_Waiting, StoredPassage]] = []
        self._failed: set[FileKey] = set()
        self._looked_at = 0

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
            if same and there and there.is_whole(self._settings):
                self.report.unchanged += 1
            else:
                self._file(key, file, there)
            self._looked_at += 1
            self._tell()
        self._flush()
        self._tell()

    def _file(self, key: FileKey, file: SourceFile, there: StoredFile | None) -> None:
        try:
            digest = file_digest(file.path)
        except OSError as error:
            return self._fail(key, file.path, error.strerror or type(error).__name__)
        if there is not None and there.is_complete(digest, self._settings):
            self.report.unchanged += 1
            return
        # Not before there is anything to do; and what is wrong with the model is no file's fault.
        self._embedder.load()
        try:
            passages = self._passages(key, file, digest)
        except EmbriefError as error:
            if isinstance(error, BackendError):
                raise
            if not (isinstance(error, UnreadableFileError) and error.reason == "no text"):
                return self._fail(key, file.path, str(error))
            # Nothing is wrong with it.
            passages = []
        except OSError as error:
            return self._fail(key, file.path, error.strerror or type(error).__name__)
        except Exception as error:
            # Whatever a parser raises at a file it cannot take; its words may hold the file's.
            return self._fail(key, file.path, f"it cannot be read ({type(error).__name__})")
        waiting = _Waiting(key, file.path, there.ids if there else [], is_new=there is None)
        if not passages:
            if waiting.old:
                self._collection.drop(waiting.old)
                self.report.removed += 1
            self.report.left_out["without text"] += 1
            return
        self._count(waiting)
        for passage in passages:
            if key in self._failed:
                return
            self._block.append((waiting, passage))
            if len(self._block) >= BLOCK:
                self._flush()

    def _passages(self, key: FileKey, file: SourceFile, digest: str) -> list[StoredPassage]:
        """Return a file's passages. `digest` is of its bytes a moment ago; where they change, it is read again."""
        from embrief.indexing.passages import split
        from embrief.indexing.reading import read

        for _ in range(_TRIES):
            document = read(file)
            if (now := file_digest(file.path)) == digest:
                break
            digest = now
        else:
            raise ArgumentError("it changes while it is read; the next update tries again")
        pieces = split(document, self._tokens, self._max_tokens)
        return [
            StoredPassage(
                key=key,
                digest=digest,
                settings=self._settings,
                part=part,
                parts=len(pieces),
                start_line=piece.start_line,
                end_line=piece.end_line,
                page=piece.page,
                title=piece.title,
                kind=document.kind,
                filetype=file.path.suffix.lower().removeprefix("."),
                text=piece.text,
            )
            for part, piece in enumerate(pieces)
        ]

    def _tokens(self, texts: Sequence[str], titles: Sequence[str | None]) -> Sequence[int]:
        """Return how long texts are for the model, with all that stands around them."""
        counts = self._embedder.count_tokens(texts, role="document", titles=list(titles) if self._titled else None)
        if counts is not None:
            return [int(count) for count in counts]
        self.report.estimated = True
        pairs = zip(texts, titles, strict=True)
        return [
            -(-len(f"{title or ''}{text}".encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN) for text, title in pairs
        ]

    def _flush(self) -> None:
        """Embed and store what waits."""
        while self._block:
            passages = [passage for _, passage in self._block]
            titles = [passage.title for passage in passages] if self._titled else None
            try:
                made = self._embedder.encode([passage.text for passage in passages], role="document", titles=titles)
            except IndexedError as error:
                if error.index is None:
                    raise
                self._drop_file(self._block[error.index][0], str(error))
                continue
            self._store(passages, made.vectors)
        self._tell()

    def _store(self, passages: list[StoredPassage], vectors: Matrix) -> None:
        files = {id(waiting): waiting for waiting, _ in self._block}.values()
        if old := [passage_id for waiting in files for passage_id in waiting.old]:
            self._collection.drop(old)
        for waiting in files:
            waiting.old = []
        self._collection.put(passages, vectors)
        self.report.embedded += len(passages)
        self._block = []

    def _drop_file(self, waiting: _Waiting, reason: str) -> None:
        """Leave out a file one of whose texts the model cannot take: the others' passages go on."""
        self._count(waiting, -1)
        self._fail(waiting.key, waiting.path, reason)
        self._block = [item for item in self._block if item[0] is not waiting]

    def _count(self, waiting: _Waiting, by: int = 1) -> None:
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


def takes_titles(embedder: Embedder) -> bool:
    """Return whether a model's document prompt has a place for titles."""
    spec = embedder.spec
    task = active_task(spec.prompts, PromptChoice(), embedder.settings.prompt_choice, model=spec.id)
    return task.titled is not None


def settings_digest(embedder: Embedder) -> str:
    """Return a digest of all that decides how a file becomes passages and vectors."""
    limit = min(MAX_TOKENS, embedder.max_tokens)
    said = f"{LAYOUT} {CUTTING} {limit} {embedder.space.id} {takes_titles(embedder)}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
