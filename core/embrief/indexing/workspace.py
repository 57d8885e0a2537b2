"""`Workspace`: the models and collections that a process has open, each once, for every face that asks."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.config.offline import usual_embedding, usual_reranker
from embrief.config.process import current_config
from embrief.discovery.plugins import plugins
from embrief.errors import ArgumentError
from embrief.facades.arguments import model_for_images
from embrief.facades.embedder import Embedder
from embrief.facades.reranker import Reranker
from embrief.facts.space import LOCAL
from embrief.files import foreign
from embrief.indexing import searching, table, updating
from embrief.indexing.collection import Collection, Place, open_collection, store_name
from embrief.indexing.pool import Pool
from embrief.indexing.report import Update
from embrief.indexing.table import CollectionInfo
from embrief.stores import stored_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from collections.abc import Collection as Several
    from typing import Self

    from embrief.facts.prompts import Input
    from embrief.indexing.documents import Pictures
    from embrief.indexing.report import Progress
    from embrief.indexing.searching import Hit

__all__ = ["CollectionInfo", "Workspace", "shared_workspace"]

IDLE_SECONDS = 900.0
MOST_COLLECTIONS = 8
MOST_MODELS = 6
USUAL = "default"
"""The reranker that the environment or the configuration names, or that comes with the package."""
_WAIT_SECONDS = 0.1


class Workspace:
    """The models and collections that are open. Every method may be called from any thread.

    Examples:
        >>> from embrief.indexing.workspace import Workspace
        >>> with Workspace() as workspace:
        ...     names = [info.name for info in workspace.collections()]
    """

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS, data: Path | None = None) -> None:
        """Open nothing yet.

        Args:
            idle_seconds: For how long a collection or a model that nobody uses stays open. While a collection in a
                folder is open, no other process can open it. 0: it is closed right after each use, and models stay
                until `close`.
            data: Where the table of collections is, and the stores that no place is named for; `None`: among the
                user's data.
        """
        self._data = data
        self._idle_seconds = idle_seconds
        self._collections: Pool[Place, Collection] = Pool(Collection.close, most=MOST_COLLECTIONS)
        self._models: Pool[tuple[type, str, int | None], Embedder | Reranker] = Pool(
            lambda model: model.close(), most=MOST_MODELS
        )
        self._changed = threading.Condition()
        self._janitor: threading.Thread | None = None
        self._closed = False
        _workspaces.add(self)

    def keep_open(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """Keep what is open for so long after its last use: for a process that answers many. 0: no longer."""
        self._idle_seconds = idle_seconds
        if not idle_seconds:
            self._collections.shrink(0.0)

    def collections(self) -> list[CollectionInfo]:
        """Return this user's collections, by name. Opens none."""
        return table.known(self._folder)

    def choose(
        self,
        collection: str | None = None,
        *,
        to: str | None = None,
        store: str | None = None,
        cwd: Path | None = None,
    ) -> CollectionInfo:
        """Return the collection that somebody means; see `table.choose`.

        Args:
            collection: Its name; `None`: the one with the deepest folder around `cwd`, else the only one.
            to: Its folder, relative to `cwd`, or the address of its server.
            store: `chroma` or `qdrant`.
            cwd: Where whoever asks is; `None`: where this process is.

        Raises:
            ArgumentError: There is none, or it could be several; the message lists them.
        """
        here = (cwd or Path.cwd()).resolve()
        return table.choose(
            self.collections(),
            collection,
            to=None if to is None else table.place_text(to, here),
            store=None if store is None else store_name(store),
            cwd=here,
        )

    def search(
        self,
        question: Input,
        collection: str | None = None,
        *,
        cwd: Path | None = None,
        to: str | None = None,
        store: str | None = None,
        model: str | None = None,
        top_k: int = searching.TOP_K,
        threshold: float | None = None,
        filetypes: Sequence[str] = (),
        rerank: str | None = None,
        instruction: str | None = None,
        context: int = 0,
    ) -> list[Hit]:
        """Return the passages of a collection that answer a question, best first.

        Args:
            question: The question; for a collection whose model takes pictures, also one, or both.
            collection: As of `choose`.
            cwd: As of `choose`.
            to: As of `choose`.
            store: As of `choose`.
            model: The embedding model; `None`: the one that the collection was made with.
            top_k: As of `searching.search`.
            threshold: As of `searching.search`.
            filetypes: As of `searching.search`.
            rerank: A reranker, or `"default"`; `None`: none.
            instruction: As of `searching.search`.
            context: As of `searching.search`.

        Raises:
            ArgumentError: As of `choose` and `searching.search`; or nothing says which model the collection is for.
            StoreInUseError: Another process has the collection open.
            SpaceMismatchError: The model's vectors are of another space than the collection's.
            EmbriefError: The model or the store failed.
        """
        searching.check(question, top_k, threshold, context)
        info = self.choose(collection, to=to, store=store, cwd=cwd)
        with ExitStack() as held:
            opened = held.enter_context(self._open(info.place, None))
            named = named_here(model, (cwd or Path.cwd()).resolve()) if model else info.model or _model_of(opened)
            embedder = held.enter_context(self.embedder(named))
            kept = opened.space.max_pixels
            # Of a model of texts the collection says in all its words why it does not belong here.
            if kept and embedder.max_pixels not in (None, kept):
                embedder = held.enter_context(self.embedder(named, max_pixels=kept))
            judge = None if rerank is None else held.enter_context(self.reranker(rerank))
            return searching.search(
                opened,
                embedder,
                question,
                top_k=top_k,
                threshold=threshold,
                filetypes=filetypes,
                reranker=judge,
                instruction=instruction,
                context=context,
                roots={name: Path(root) for name, root in info.roots},
            )

    def target(
        self,
        paths: Sequence[Path] = (),
        collection: str | None = None,
        *,
        cwd: Path | None = None,
        to: str | None = None,
        store: str | None = None,
        model: str | None = None,
        pages: bool | None = None,
        max_pixels: int | None = None,
    ) -> CollectionInfo:
        """Return the collection that an update would be for, perhaps a new one, and its model. Opens nothing.

        Args:
            paths: As of `update`.
            collection: As of `update`.
            cwd: As of `update`.
            to: As of `update`.
            store: As of `update`.
            model: As of `update`.
            pages: As of `update`.
            max_pixels: As of `update`.

        Raises:
            ArgumentError: A path is not there, a value cannot be, or it could be several collections.
            MissingDependencyError: The store is not installed.
        """
        here = (cwd or Path.cwd()).resolve()
        name = table.default_name(roots_of(paths, cwd)) if collection is None else table.checked_name(collection)
        there = None if to is None else table.place_text(to, here)
        kind = None if store is None else store_name(store)
        known = [
            info
            for info in self.collections()
            if info.name == name and there in (None, info.to) and kind in (None, info.store)
        ]
        if known:
            found = known[0] if len(known) == 1 else table.choose(known, name)
        else:
            kind = kind or store_name(None)
            usual = self._folder / name / kind
            found = CollectionInfo(name, kind, str(usual) if there is None else there, model="")
        return replace(
            found,
            model=named_here(model, here) if model else found.model or usual_embedding(),
            pages=found.pages if pages is None else pages,
            max_pixels=found.max_pixels if max_pixels is None else max_pixels,
        )

    def update(
        self,
        paths: Sequence[Path] = (),
        collection: str | None = None,
        *,
        cwd: Path | None = None,
        to: str | None = None,
        store: str | None = None,
        model: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        limit: int | None = None,
        pages: bool | None = None,
        max_pixels: int | None = None,
        changed: Several[Path] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Update:
        """Bring folders and files up to date in a collection, which is made if it is not there.

        Args:
            paths: Folders and files, relative to `cwd`; none: `cwd` itself.
            collection: Its name; `None`: one that is made of the folder's name and place.
            cwd: Where whoever asks is; `None`: where this process is.
            to: As of `choose`; `None`: where it was, or a folder of its own among the user's data.
            store: As of `choose`; `None`: the one it is in, else Chroma where it is installed, else Qdrant.
            model: The embedding model; `None`: the collection's, else what the environment or the configuration names,
                else one that comes with the package.
            include: As of `walk`.
            exclude: As of `walk`.
            limit: As of `updating.update`.
            pages: Whether every page of a PDF is taken as a picture, in the place of its text; `None`: as it was last
                time. Picture files are taken by every model that takes pictures.
            max_pixels: Largest area, height times width, in which the model sees a picture; `None`: the collection's,
                else the model's own.
            changed: As of `updating.update`.
            on_progress: As of `updating.update`.
            stop: Set where it shall end early.

        Raises:
            ArgumentError: A path is not there, a value cannot be, or the model takes no pictures and pages are wanted.
            SpaceMismatchError: The collection holds vectors of another model. Nothing was embedded.
            StoreInUseError: Another process has the collection open.
            EmbriefError: The model or the store failed.
        """
        roots = roots_of(paths, cwd)
        before = self.target(
            paths, collection, cwd=cwd, to=to, store=store, model=model, pages=pages, max_pixels=max_pixels
        )
        stop = stop or threading.Event()
        with ExitStack() as held:
            embedder = held.enter_context(self.embedder(before.model, max_pixels=before.max_pixels))
            pictures = pictures_for(embedder, pages=before.pages)
            if not before.updated:
                # A model that cannot be had leaves no empty collection, which would take no other one.
                embedder.load()
            opened = held.enter_context(self._open(before.place, embedder))
            opened.require(embedder)
            info = replace(
                _described(before, embedder, roots),
                include=tuple(include),
                exclude=tuple(exclude),
                limit=limit,
            )
            # Before the work: a run that is interrupted can be asked, too.
            table.remember(info, self._folder)
            with _alone(opened, stop) as got:
                if not got:
                    return Update(info.name, stopped=True)
                done = updating.update(
                    opened,
                    embedder,
                    roots,
                    include=include,
                    exclude=exclude,
                    limit=limit,
                    pictures=pictures,
                    changed=changed,
                    on_progress=on_progress,
                    stop=stop,
                )
                files = len(opened.files()) if done.did_something or not info.updated else info.files
        now = datetime.now(UTC).isoformat(timespec="seconds")
        table.remember(replace(info, files=files, passages=done.passages, updated=now), self._folder)
        return done

    @contextmanager
    def embedder(self, name: str, *, max_pixels: int | None = None) -> Iterator[Embedder]:
        """Use an embedding model: one facade for all who use it. It cuts long texts without a word.

        Args:
            name: The model.
            max_pixels: As of `Embedder`: that of the collection that its vectors are for.

        Raises:
            EmbriefError: As of `Embedder`.
        """
        with self._models.use(
            (Embedder, name, max_pixels),
            lambda: Embedder(name, truncate="silent", max_pixels=max_pixels),
            idle_seconds=self._model_seconds,
        ) as found:
            assert isinstance(found, Embedder)
            yield found
        self._wake()

    @contextmanager
    def reranker(self, name: str = USUAL) -> Iterator[Reranker]:
        """Use a reranker, or with `"default"` the one that is usual here; see `embedder`.

        Raises:
            EmbriefError: As of `Reranker`.
        """
        named = usual_reranker() if name == USUAL else name
        with self._models.use(
            (Reranker, named, None), lambda: Reranker(named, truncate="silent"), idle_seconds=self._model_seconds
        ) as found:
            assert isinstance(found, Reranker)
            yield found
        self._wake()

    @contextmanager
    def opened(self, info: CollectionInfo) -> Iterator[Collection]:
        """Use a collection that is there.

        Raises:
            ArgumentError, StoreInUseError, StoreError, MissingDependencyError: As of `open_collection`.
        """
        with self._open(info.place, None) as found:
            yield found

    def close(self) -> None:
        """Close everything; what is in use, when its last user leaves."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._collections.close()
        self._models.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _folder(self) -> Path:
        return table.usual_folder() if self._data is None else self._data

    @property
    def _model_seconds(self) -> float | None:
        return self._idle_seconds or None

    @contextmanager
    def _open(self, place: Place, embedder: Embedder | None) -> Iterator[Collection]:
        with self._collections.use(
            place, lambda: open_collection(place, embedder), idle_seconds=self._idle_seconds
        ) as found:
            yield found
        self._wake()

    def _wake(self) -> None:
        """See to it that idle things are closed in time."""
        if not self._idle_seconds:
            return
        with self._changed:
            if self._closed:
                return
            if self._janitor is None:
                self._janitor = threading.Thread(
                    target=_close_idle, args=(weakref.ref(self),), name="embrief-workspace", daemon=True
                )
                self._janitor.start()
            self._changed.notify_all()

    def _shrink(self) -> float:
        """Close what is idle. Returns the seconds until that is to be done again."""
        seconds = self._idle_seconds
        waits = [pool.shrink(seconds) for pool in (self._collections, self._models)]
        return max(min([wait for wait in waits if wait is not None], default=seconds), 1.0)

    def _abandon(self) -> list[Any]:
        self._changed, self._janitor = threading.Condition(), None
        return [*self._collections.abandon(), *self._models.abandon()]


def _close_idle(workspace: weakref.ref[Workspace]) -> None:
    wait = 1.0
    while True:
        found = workspace()
        if found is None or found._closed:
            return
        changed = found._changed
        wait = found._shrink()
        del found
        with changed:
            changed.wait(wait)


@contextmanager
def _alone(collection: Collection, stop: threading.Event) -> Iterator[bool]:
    """Be the only one who updates a collection; `False` where it was to stop before that."""
    while not collection.updating.acquire(timeout=_WAIT_SECONDS):
        if stop.is_set():
            yield False
            return
    try:
        yield True
    finally:
        collection.updating.release()


def _model_of(collection: Collection) -> str:
    """Return the model of a collection that the user's table does not know, as far as a store may name one."""
    return stored_model(collection.space.model, collection.space.weights, where=str(collection.place))


def pictures_for(embedder: Embedder, *, pages: bool) -> Pictures:
    """Return which pictures are indexed with a model. Loads nothing.

    Args:
        embedder: The model.
        pages: Whether the pages of PDF files are wanted.

    Raises:
        ArgumentError: They are, and the model or its runtime takes texts only.
    """
    if embedder.spec.images is not None and "image" in embedder.modalities:
        return "pages" if pages else "files"
    if pages:
        raise ArgumentError(
            f"{embedder.spec.id} takes texts only here, so pages cannot be indexed as pictures; "
            f"{model_for_images(embedder.spec)}"
        )
    return "none"


def roots_of(paths: Sequence[Path], cwd: Path | None) -> list[Path]:
    """Return folders and files with their real paths; without any, the working folder.

    Raises:
        ArgumentError: One is not there.
    """
    here = cwd or Path.cwd()
    return updating.resolved([here / path for path in paths] or [here])


def named_here(model: str, here: Path) -> str:
    """Return a model's name, and a folder that is named relative to `here` with its whole path."""
    if plugins().catalog.find_model(model) is not None or model in current_config().models:
        return model
    folder = foreign.folder_of(os.fspath(here / model)) if not model.startswith("~") else None
    return model if folder is None else os.fspath(folder)


def _described(before: CollectionInfo, embedder: Embedder, roots: Sequence[Path]) -> CollectionInfo:
    space = embedder.space
    known = dict(before.roots)
    known.update((table.root_name(root), str(root)) for root in roots)
    revision = "" if space.model == LOCAL else space.weights
    return replace(before, revision=revision, space=space.id, roots=tuple(known.items()))


_workspaces: weakref.WeakSet[Workspace] = weakref.WeakSet()
_shared: Workspace | None = None
_lock = threading.Lock()
_inherited: list[Any] = []
"""What a parent process has open: if it were collected here, it would be closed here."""


def shared_workspace() -> Workspace:
    """Return this process's workspace. It closes a collection right after each use, unless `keep_open` was called."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = Workspace(idle_seconds=0.0)
            atexit.register(_shared.close)
        return _shared


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for workspace in list(_workspaces):
        _inherited.extend(workspace._abandon())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
