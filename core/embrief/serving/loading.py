"""One loaded model per choice, that every facade on it shares."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from embrief.discovery.plugins import plugins
from embrief.errors import BackendError, EmbriefError
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.files.folders import Stamp, check_weights
from embrief.files.forms import SafetensorsFolder, local_model
from embrief.files.identify import verify_files
from embrief.runtimes.base import LoadRequest, Model, Runtime, RuntimeOptions
from embrief.serving.lanes import Lane
from embrief.serving.resolving import ModelChoice, ResolvedModel, runtime_errors
from embrief.serving.scheduler import Served, Worker, forget_other_workers
from embrief.system import exiting
from embrief.system.log import logger

if TYPE_CHECKING:
    from embrief.files.local import LocalModel

S = TypeVar("S", EmbeddingSpec, RerankerSpec)


class LoadedModel(Worker):
    """One model in memory, and the number of facades that hold it."""

    def __init__(self, key: Hashable, load: Callable[[], Model]) -> None:
        super().__init__(load)
        self.key = key
        self.holders = 0


# Re-entrant: a garbage collection inside a locked section may finalise a facade, which releases its model.
_table_lock = threading.RLock()
_loaded: dict[Hashable, LoadedModel] = {}


def _acquire(key: Hashable, load: Callable[[], Model]) -> LoadedModel:
    with _table_lock:
        model = _loaded.get(key)
        if model is None:
            model = _loaded[key] = LoadedModel(key, load)
        model.holders += 1
        return model


def _release(model: LoadedModel) -> None:
    with _table_lock:
        model.holders -= 1
        if model.holders:
            return
        _loaded.pop(model.key, None)
    model.close()


def _load(backend: Runtime, request: LoadRequest, local: LocalModel | None, known: Stamp) -> Model:
    """Load a model from the very files that its facts were read from.

    Args:
        backend: What runs it.
        request: What to load.
        local: A model that is no commit on the hub, which is what its name says.
        known: What its files looked like.

    Raises:
        ModelMismatchError: They changed meanwhile, or are damaged.
    """
    folder = request.folder
    place = f" from {folder}" if folder is not None else ""

    def check() -> None:
        if local is not None and folder is not None:
            local.check_unchanged(known)

    logger.info("loading %s with %r", request.spec.id, backend.name)
    start = time.perf_counter()
    check()
    if folder is not None and request.artifact is not None and request.artifact.is_safetensors:
        check_weights(folder)
    try:
        with runtime_errors(f"the runtime {backend.name!r} failed to load {request.spec.id}{place}"):
            model = backend.load(request)
        if not callable(getattr(model, "run", None)):
            raise BackendError(
                f"the runtime {backend.name!r} loaded a {type(model).__name__} without run(inputs, options), which "
                "returns an embrief.Output; encode and score were the contract before"
            )
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


class SharedModel(ResolvedModel[S]):
    """One choice of model, shared by all facades that chose the same. Only a first text loads weights."""

    def __init__(self, choice: ModelChoice, stamp: Stamp = ()) -> None:
        self._model: LoadedModel | None = None
        super().__init__(choice, stamp)

    def reset(self) -> None:
        """Take new locks and new threads: at the start, and in a child process."""
        super().reset()
        # Two, so that queries do not wait until a corpus is tokenised.
        self.lanes = {urgent: Lane() for urgent in (True, False)}
        """By whether somebody waits, as for a query."""

    @property
    def loaded(self) -> bool:
        """Return whether the weights are in memory."""
        return self._model is not None and self._model.loaded

    def batch_tokens(self, asked: int | None) -> int | None:
        """Return the tokens per batch in use, less than asked where memory was short; `None` if not known yet."""
        return asked if self._model is None else self._model.batch_tokens(asked)

    @property
    def model(self) -> LoadedModel:
        """Return the model, whose weights load with its first call."""
        if self._model is None:
            exiting.check()
        with self._lock:
            if self._model is None:
                self._model = self._acquire()
                # Not at exit: it would wait for a call under way, perhaps for an hour.
                weakref.finalize(self, _release, self._model).atexit = False
            return self._model

    @property
    def served(self) -> Served:
        """Return what answers calls: the model, or what stands above it. Handles above one model share its batches."""
        return self.model

    def _acquire(self) -> LoadedModel:
        offer, chosen = self.offer, self._chosen
        spec, backend = self.spec, chosen.runtime
        folder = self.artifact_folder
        if folder is not None and offer.artifact is not None and offer.artifact.is_safetensors:
            SafetensorsFolder(folder).check()
            if self.recorded is not None and self.files is not None:
                verify_files(self.files, spec)
        if isinstance(spec, EmbeddingSpec):
            # Before the weights are read: what is in the folder later is another model's.
            _ = self.weights
        told = "%s runs with %r on %s in %s: %s"
        logger.info(told, spec.id, backend.name, offer.device, offer.dtype, self.backend_reason)
        request = LoadRequest(
            spec,
            folder,
            offer.device,
            offer.dtype,
            self.choice.trust_remote_code,
            chosen.ask.options,
            offer.artifact,
            offer.identity,
        )
        known = self._known if self.local is not None else ()
        return _acquire((backend.name, request, self._stamp), partial(_load, backend, request, self.local, known))


_shared_lock = threading.RLock()
_shared: weakref.WeakValueDictionary[tuple[ModelChoice, Stamp, Stamp], SharedModel[Any]] = weakref.WeakValueDictionary()


def shared_model(choice: ModelChoice) -> SharedModel[Any]:
    """Return the one `SharedModel` of a choice, checked."""
    # A folder that merely has the name of a record is not that model.
    found = choice.declared or plugins().catalog.resolve(choice.model, pinned=choice.revision is not None)
    stamp = local_model(found).stamp() if isinstance(found, Path) else ()
    key = (choice, stamp, choice.backend.stamp() if isinstance(choice.backend, RuntimeOptions) else ())
    with _shared_lock:
        model = _shared.get(key)
        if model is None:
            model = SharedModel(choice, stamp)
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
