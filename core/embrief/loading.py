"""From a model's name to one loaded model that every facade on it shares."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from embrief import exiting, foreign
from embrief.backends.base import Backend, EmbeddingBackend, LoadRequest, RerankBackend
from embrief.errors import ArgumentError, EmbriefError, WeightsUnavailableError, WrongKindError
from embrief.folders import Stamp, check_unchanged, check_weights, missing_files, weights_digest
from embrief.folders import stamp as folder_stamp
from embrief.identify import (
    ModelFiles,
    identify_embedder,
    identify_reranker,
    read_files,
    unused_prompts,
    verify_files,
)
from embrief.jobs import runtime_error
from embrief.lanes import Lane
from embrief.log import logger
from embrief.plugins import plugins
from embrief.scheduler import Worker, forget_other_workers
from embrief.specs import EmbeddingSpec, ModelSpec, RerankerSpec
from embrief.weights import COMMIT, CachedModel, ModelSource, fetch

if TYPE_CHECKING:
    from embrief.registry import Registry

S = TypeVar("S", EmbeddingSpec, RerankerSpec)
B = TypeVar("B", EmbeddingBackend, RerankBackend)
M = TypeVar("M")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What the caller asked for, as far as it decides which model is loaded."""

    kind: type[EmbeddingSpec] | type[RerankerSpec]
    model: str
    backend: str | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    like: str | None = None


class LoadedModel(Worker[M]):
    """One model in memory, and the number of facades that hold it."""

    def __init__(self, key: Hashable, load: Callable[[], M]) -> None:
        super().__init__(load)
        self.key = key
        self.holders = 0


# Re-entrant: a garbage collection inside a locked section may finalise a facade, which releases its model.
_table_lock = threading.RLock()
_loaded: dict[Hashable, LoadedModel[Any]] = {}


def _acquire(key: Hashable, load: Callable[[], B]) -> LoadedModel[B]:
    with _table_lock:
        model = _loaded.get(key)
        if model is None:
            model = _loaded[key] = LoadedModel(key, load)
        model.holders += 1
        return model


def _release(model: LoadedModel[Any]) -> None:
    with _table_lock:
        model.holders -= 1
        if model.holders:
            return
        _loaded.pop(model.key, None)
    model.close()


@contextmanager
def _runtime_errors(what: str) -> Iterator[None]:
    """Turn what a runtime raises by itself into an error of ours, whose cause it is."""
    try:
        yield
    except EmbriefError:
        raise
    except Exception as error:
        raise runtime_error(what, error) from error


def _load(
    backend: Backend, kind: type[EmbeddingSpec] | type[RerankerSpec], request: LoadRequest, known: Stamp | None
) -> Any:
    """Load a model from the very files that its facts were read from.

    Raises:
        ModelMismatchError: They changed meanwhile, or are damaged.
    """
    load: Any = backend.load_embedder if kind is EmbeddingSpec else backend.load_reranker
    folder = request.folder
    place = f" from {folder}" if folder is not None else ""

    def check() -> None:
        if folder is not None and known is not None:
            check_unchanged(folder, known)

    logger.info("loading %s with %r", request.spec.id, backend.name)
    start = time.perf_counter()
    check()
    if folder is not None:
        check_weights(folder)
    try:
        with _runtime_errors(f"the runtime {backend.name!r} failed to load {request.spec.id}{place}"):
            model = load(request)
    except Exception:
        # Half-written files fail in many ways; this is the reason.
        check()
        raise
    try:
        check()
    except EmbriefError:
        model.close()
        raise
    logger.info("loaded %s with %r in %.1f s", request.spec.id, backend.name, time.perf_counter() - start)
    return model


def _require_complete(folder: Path) -> None:
    if missing := missing_files(folder):
        raise WeightsUnavailableError(
            f"{folder} lacks {', '.join(missing)}: the folder {foreign.folder_problem(folder)}"
        )


class settled(Generic[T]):
    """A property that is computed once per instance, under the instance's lock.

    functools' `cached_property` has one lock for all instances before Python 3.12, so that one model's download would
    hold up another's; and none since, so that two threads would both compute.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type) -> T:
        # Reached only until the value is in the instance's dictionary, which goes first.
        with instance._lock:
            if self._name not in instance.__dict__:
                instance.__dict__[self._name] = self._compute(instance)
            value: T = instance.__dict__[self._name]
            return value


class SharedModel(Generic[S, B]):
    """One choice of model, resolved step by step and each step once; shared by all facades that chose the same.

    A name costs nothing until it is used: a recorded name has its facts at once, a folder after reading small files, a
    name on the hub without a record after fetching them, and only a first text loads weights.
    """

    def __init__(self, choice: ModelChoice, stamp: Stamp = ()) -> None:
        self.choice = choice
        self._stamp = stamp
        self._model: LoadedModel[B] | None = None
        self.reset()

    def reset(self) -> None:
        """Take a new lock and new threads: at the start, and in a child process."""
        self._lock = threading.RLock()
        # Two, so that queries do not wait until a corpus is tokenised.
        self.lanes = {urgent: Lane() for urgent in (True, False)}
        """By whether somebody waits, as for a query."""

    @property
    def _registry(self) -> Registry:
        return plugins().registry

    @settled
    def _resolved(self) -> ModelSpec | Path | None:
        return self._registry.resolve(self.choice.model, pinned=self.choice.revision is not None)

    @property
    def folder(self) -> Path | None:
        """Return the model folder, if the name is one or its record has one."""
        found = self._resolved
        return found if found is None or isinstance(found, Path) else found.folder

    @settled
    def recorded(self) -> S | None:
        """Return the record, `None` for a folder or a name without one.

        Raises:
            UnknownModelError: The name is a known mistake, or nearly a recorded one.
            ArgumentError: The record is of the other kind.
        """
        spec = self._resolved
        if spec is None or isinstance(spec, Path):
            return None
        if not isinstance(spec, self.choice.kind):
            is_reranker = isinstance(spec, RerankerSpec)
            other, what = ("Reranker", "a reranker") if is_reranker else ("Embedder", "an embedding model")
            raise WrongKindError(f"{spec.id} is {what}", use=f"{other}({spec.id!r})")
        if self.choice.like is not None:
            raise ArgumentError(f"like={self.choice.like!r} is for models without a record; {spec.id} has one")
        if self.choice.revision is not None and self.choice.revision != spec.revision:
            spec = replace(spec, revision=self.choice.revision)
        return cast("S", spec)

    def check(self) -> None:
        """Refuse what can be seen to be wrong without loading or downloading anything."""
        recorded = self.recorded
        trust, revision = self.choice.trust_remote_code, self.choice.revision
        # A record's own revision names what is here: stores keep it, and give it back.
        if self.folder is not None and revision is not None and self._resolved != recorded:
            kind = "comes with its package" if self.recorded is not None else "is a folder"
            raise ArgumentError(f"revision={revision!r} is for models on the hub; {self.choice.model!r} {kind}")
        if trust and self.folder is None and not (revision and COMMIT.fullmatch(revision)):
            raise ArgumentError(
                f"trust_remote_code=True runs code from {self.choice.model!r}; pin what you have read: revision='<40 "
                "hex digits>'"
            )
        if recorded is not None or self.folder is not None:
            backend = self.backend_for(self.spec)
            if isinstance(self._resolved, Path):
                _require_complete(self._resolved)
            if revision is not None and not backend.needs_files and self._resolved != recorded:
                raise ArgumentError(
                    f"revision={revision!r} is for models on the hub; {self.spec.id} has no files there"
                )

    @property
    def spec(self) -> S:
        """Return the facts about the model. May read small files, or fetch a model without a record."""
        return self._spec

    @settled
    def _spec(self) -> S:
        if self.recorded is not None:
            return self.recorded
        files = self.files
        like: Any = self._like()
        spec: ModelSpec
        if self.choice.kind is EmbeddingSpec:
            spec = identify_embedder(files, self._registry, like=like)
        else:
            spec = identify_reranker(files, self._registry, like=like)
        if self.folder is None:
            spec = replace(spec, id=self.choice.model, revision=self.cached.revision)
        return cast("S", spec)

    def _like(self) -> S | None:
        if self.choice.like is None:
            return None
        spec = self._registry.find_model(self.choice.like)
        if spec is None:
            raise self._registry.unknown(self.choice.like)
        if not isinstance(spec, self.choice.kind):
            raise ArgumentError(f"like={self.choice.like!r} is a model of another kind")
        return cast("S", spec)

    @settled
    def cached(self) -> CachedModel:
        """Return the files from the hub, fetching them if they are missing."""
        choice = self.choice
        return fetch(
            ModelSource.of(
                choice.model,
                self.recorded,
                revision=choice.revision,
                cache_dir=foreign.path_of(choice.cache_dir, "cache_dir") if choice.cache_dir else None,
                local_files_only=choice.local_files_only,
                code=choice.trust_remote_code,
                kind=choice.kind,
            )
        )

    @property
    def _place(self) -> Path:
        return self.folder if self.folder is not None else self.cached.folder

    @settled
    def _known(self) -> Stamp:
        """Return what the files looked like before the first of them was read."""
        return self._stamp or folder_stamp(self._place)

    @settled
    def files(self) -> ModelFiles:
        """Return the small files of the model."""
        _ = self._known
        return read_files(self._place, trusted=self.choice.trust_remote_code)

    @property
    def unused_prompts(self) -> list[str]:
        """Return the names of a folder's prompts that nothing uses."""
        return [] if self.recorded is not None else unused_prompts(self.files, self.spec)

    @settled
    def weights(self) -> str:
        """Return what names the weights: a commit id, or a digest of a folder. Settled once, at the latest at load."""
        if self.folder is not None:
            known = self._known
            digest = weights_digest(self.folder)
            # Facts of one model and a digest of another would name a space that nobody has.
            check_unchanged(self.folder, known)
            return digest
        revision = self.spec.revision
        # A branch or tag may point elsewhere tomorrow; what was fetched has a commit.
        return revision if self._is_settled(revision) else self.cached.revision

    def _is_settled(self, revision: str) -> bool:
        return COMMIT.fullmatch(revision) is not None or not self.backend.needs_files

    def backend_for(self, spec: S) -> Backend:
        """Return the runtime that serves the model."""
        found, refusals = plugins(), self._refusals(spec)
        serving = (item for item in found.registry.backends_for(spec) if item.name not in refusals)
        available = tuple(item.name for item in serving if not item.missing())
        preferred = None if self.choice.backend is not None else found.preferred_backend(spec, available)
        return found.registry.choose_backend(spec, self.choice.backend, preferred, refusals)

    def _refusals(self, spec: S) -> dict[str, str]:
        # A record says all that a runtime asks; its files may not be here yet.
        return {} if self.recorded is not None else self._registry.refusals(spec, self.files)

    @property
    def backend_reason(self) -> str:
        """Say why this runtime runs the model and not another."""
        if self.choice.backend is not None:
            return "asked for"
        chosen, refusals = self.backend, self._refusals(self.spec)
        best = self._registry.choose_backend(self.spec, None, None, refusals)
        return self._registry.passed_over(self.spec, chosen, refusals) if chosen is best else "a plugin chose it"

    @settled
    def backend(self) -> Backend:
        """Return the runtime that serves the model, chosen once."""
        return self.backend_for(self.spec)

    @property
    def device_and_dtype(self) -> tuple[str, str]:
        """Return the device and number format in use."""
        if "_chosen" not in self.__dict__:
            # Before the lock: threads that are refused at exit are held for a while, and should not queue for it.
            exiting.check()
        return self._chosen

    @settled
    def _chosen(self) -> tuple[str, str]:
        failed = f"the runtime {self.backend.name!r} failed to choose a device for {self.spec.id}"
        with exiting.native(), _runtime_errors(failed):
            device, dtype = self.backend.resolve(self.spec, self.choice.device, self.choice.dtype)
        if dtype in self.spec.banned_dtypes:
            raise ArgumentError(f"{self.spec.id} gives wrong results in {dtype}; use dtype='float32' or 'bfloat16'")
        return device, dtype

    @property
    def loaded(self) -> bool:
        """Return whether the weights are in memory."""
        return self._model is not None and self._model.loaded

    def batch_tokens(self, asked: int | None) -> int | None:
        """Return the tokens per batch in use, less than asked where memory was short; `None` if not known yet."""
        return asked if self._model is None else self._model.batch_tokens(asked)

    @property
    def model(self) -> LoadedModel[B]:
        """Return the model, whose weights load with its first call."""
        if self._model is None:
            exiting.check()
        with self._lock:
            if self._model is None:
                self._model = self._acquire()
                # Not at exit: it would wait for a call under way, perhaps for an hour.
                weakref.finalize(self, _release, self._model).atexit = False
            return self._model

    def _acquire(self) -> LoadedModel[B]:
        device, dtype = self.device_and_dtype
        spec, backend, trust = self.spec, self.backend, self.choice.trust_remote_code
        folder = self.files.folder if backend.needs_files else None
        if folder is not None:
            _require_complete(folder)
        if folder is not None and self.recorded is not None:
            verify_files(self.files, spec)
        if isinstance(spec, EmbeddingSpec):
            # Before the weights are read: what is in the folder later is another model's.
            _ = self.weights
        logger.info("%s runs with %r on %s in %s: %s", spec.id, backend.name, device, dtype, self.backend_reason)
        request = LoadRequest(spec, folder, device, dtype, trust)
        # A commit on the hub is what its name says.
        known = self._known if self.folder is not None else None
        return _acquire((backend.name, request, self._stamp), partial(_load, backend, self.choice.kind, request, known))


_shared_lock = threading.RLock()
_shared: weakref.WeakValueDictionary[tuple[ModelChoice, Stamp], SharedModel[Any, Any]] = weakref.WeakValueDictionary()


def shared_model(choice: ModelChoice) -> SharedModel[Any, Any]:
    """Return the one `SharedModel` of a choice, checked."""
    # A folder that merely has the name of a record is not that model.
    found = plugins().registry.resolve(choice.model, pinned=choice.revision is not None)
    key = (choice, folder_stamp(found) if isinstance(found, Path) else ())
    with _shared_lock:
        model = _shared.get(key)
        if model is None:
            model = SharedModel(*key)
            model.check()
            _shared[key] = model
        return model


def _after_fork() -> None:
    """Give a child process its own locks and threads: those of the parent may be held, or gone."""
    global _table_lock, _shared_lock
    _table_lock, _shared_lock = threading.RLock(), threading.RLock()
    forget_other_workers()
    for model in _loaded.values():
        model.reset()
    for shared in list(_shared.values()):
        shared.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
