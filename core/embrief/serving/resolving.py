"""From a model's name to what serves it: record or folder, files, facts, runtime, device and number format."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

from embrief.discovery.plugins import plugins
from embrief.errors import (
    AmbiguousModelError,
    ArgumentError,
    EmbriefError,
    UnknownModelError,
    WeightsUnavailableError,
    WrongKindError,
)
from embrief.facts.specs import EmbeddingSpec, ModelSpec, RerankerSpec
from embrief.files import foreign
from embrief.files.forms import SafetensorsFolder, local_model
from embrief.files.weights import COMMIT, CachedModel, ModelSource, fetch, find_cached
from embrief.runtimes.base import Ask, RuntimeOptions
from embrief.serving.choosing import Answers, Choice, ask_all, choose, choose_named, passed_over
from embrief.serving.jobs import runtime_error
from embrief.system import exiting

if TYPE_CHECKING:
    from embrief.discovery.catalog import Catalog
    from embrief.facts.specs import Artifact
    from embrief.files.folders import Stamp
    from embrief.files.local import LocalModel
    from embrief.files.model_files import ModelFiles
    from embrief.runtimes.base import Offer, Runtime

S = TypeVar("S", EmbeddingSpec, RerankerSpec)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What the caller asked for, as far as it decides which model is loaded."""

    kind: type[EmbeddingSpec] | type[RerankerSpec]
    model: str
    backend: str | RuntimeOptions | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    like: str | None = None
    declared: ModelSpec | None = None
    """The facts, where nothing is recorded and the user's configuration has them. Only servers run such a model."""


@contextmanager
def runtime_errors(what: str) -> Iterator[None]:
    """Turn what a runtime raises by itself into an error of ours, whose cause it is."""
    try:
        yield
    except EmbriefError:
        raise
    except Exception as error:
        raise runtime_error(what, error) from error


class settled(Generic[T]):
    """A property that is computed once per instance, under the instance's lock.

    functools' `cached_property` has one lock for all instances before Python 3.12, so that one model's download would
    hold up another's; and none since, so that two threads would both compute.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: Any, owner: type) -> T | Self:
        if instance is None:
            return self
        # Reached only until the value is in the instance's dictionary, which goes first.
        with instance._lock:
            if self._name not in instance.__dict__:
                instance.__dict__[self._name] = self._compute(instance)
            value: T = instance.__dict__[self._name]
            return value


class ResolvedModel(Generic[S]):
    """One choice of model, resolved step by step, each step once and only when it is needed.

    A name costs nothing until it is used: a recorded name has its facts at once, a folder after reading small files, a
    name on the hub without a record after fetching them.
    """

    def __init__(self, choice: ModelChoice, stamp: Stamp = ()) -> None:
        self.choice = choice
        self._stamp = stamp
        self.reset()

    def reset(self) -> None:
        """Take a new lock: at the start, and in a child process."""
        self._lock = threading.RLock()

    @property
    def _catalog(self) -> Catalog:
        return plugins().catalog

    @settled
    def _resolved(self) -> ModelSpec | Path | None:
        if self.choice.declared is not None:
            return self.choice.declared
        return self._catalog.resolve(self.choice.model, pinned=self.choice.revision is not None)

    @settled
    def local(self) -> LocalModel | None:
        """Return the model's folder or file, if the name is one or its record has one; `None` for one on the hub."""
        found = self._resolved
        path = found if found is None or isinstance(found, Path) else found.folder
        return None if path is None else local_model(path, trusted=self.choice.trust_remote_code)

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
            # What else the record names is of its own revision.
            spec = replace(spec, revision=self.choice.revision, artifacts=())
        return self._as_asked(cast("S", spec))

    def _as_asked(self, spec: S) -> S:
        """Return facts as they are with the options that were given for the runtime."""
        options = self.choice.backend
        return options.described(spec) if isinstance(options, RuntimeOptions) else spec

    def _family(self, architecture: str) -> S | None:
        """Return the record that stands for all models of an architecture, if there is one."""
        catalog: Any = self._catalog
        found: S | None = catalog.family(architecture, self.choice.kind)
        return None if found is None else self._tried(found)

    def _tried(self, spec: S) -> S:
        """Return the facts that stand for a model without a record, as asked if they can be had so.

        What is asked decides what its files are held to. Whether it can be had is for the model's own facts to say,
        by a name that the user knows.
        """
        with suppress(ArgumentError):
            return self._as_asked(spec)
        return spec

    def check(self) -> None:
        """Refuse what can be seen to be wrong without loading or downloading anything."""
        recorded = self.recorded
        trust, revision = self.choice.trust_remote_code, self.choice.revision
        # A record's own revision names what is here: stores keep it, and give it back.
        if self.local is not None and revision is not None and self._resolved != recorded:
            kind = "comes with its package" if self.recorded is not None else "is a folder"
            raise ArgumentError(f"revision={revision!r} is for models on the hub; {self.choice.model!r} {kind}")
        if trust and self.local is None and not (revision and COMMIT.fullmatch(revision)):
            raise ArgumentError(
                f"trust_remote_code=True runs code from {self.choice.model!r}; pin what you have read: revision='<40 "
                "hex digits>'"
            )
        if recorded is not None or self.local is not None:
            try:
                artifact = self.artifact
            except AmbiguousModelError:
                # What files leave open is not the question where they lack weights.
                if self.local is not None:
                    self.local.check()
                raise
            if self.local is not None and isinstance(self._resolved, Path):
                self.local.check()
            if revision is not None and artifact is None and self._resolved != recorded:
                raise ArgumentError(
                    f"revision={revision!r} is for models on the hub; {self.spec.id} has no files there"
                )

    @settled
    def spec(self) -> S:
        """Return the facts about the model. May read small files, or fetch a model without a record."""
        if self.recorded is not None:
            return self.recorded
        _ = self._known
        family: Any = self._family
        like: Any = self._like()
        spec: Any = self._here.embedder if self.choice.kind is EmbeddingSpec else self._here.reranker
        spec = spec(family, None if like is None else self._tried(like))
        if self.local is None:
            spec = replace(spec, id=self.choice.model, revision=self.cached.revision)
        # Also of a model without a family, of which the options may ask for what it has not.
        return self._as_asked(cast("S", spec))

    def _like(self) -> S | None:
        own = self._here.like
        if own is not None and self.choice.like is None:
            recorded = self._catalog.models.get(own)
            if recorded is None:
                raise UnknownModelError(
                    f"{self._here.path} is {own}, of which nothing is recorded here; upgrade embrief, or install the "
                    "plugin that brings its record"
                )
            # Of another kind than is wanted: the files say so better.
            return cast("S", recorded) if isinstance(recorded, self.choice.kind) else None
        if self.choice.like is None:
            return None
        spec = self._catalog.find_model(self.choice.like)
        if spec is None:
            raise self._catalog.unknown(self.choice.like)
        if not isinstance(spec, self.choice.kind):
            raise ArgumentError(f"like={self.choice.like!r} is a model of another kind")
        return cast("S", spec)

    @settled
    def cached(self) -> CachedModel:
        """Return the model's safetensors from the hub, fetching them if they are missing."""
        return fetch(self._source(self.choice.revision))

    @settled
    def artifact_folder(self) -> Path | None:
        """Return where the files are that the runtime needs, fetching what is missing; `None` if it needs none."""
        artifact = self.artifact
        if artifact is None:
            return None
        if self.local is not None or artifact.is_safetensors:
            return self._here.folder
        return fetch(self._source(None, artifact)).folder

    @property
    def told_artifact(self) -> dict[str, str]:
        """Return the repository and the commit of the files, where they are of another one than the record's."""
        artifact = self.artifact
        if artifact is None or artifact.is_safetensors or not artifact.repo:
            return {}
        return {"artifact": f"{artifact.repo}@{self._commit_of(artifact)}"}

    def _commit_of(self, artifact: Artifact) -> str:
        """Return the commit of files at a branch: what was loaded, else what is here; the branch if nothing is."""
        if COMMIT.fullmatch(artifact.revision):
            return artifact.revision
        # Another process may move the branch.
        if (used := self.__dict__.get("artifact_folder")) is not None:
            return str(used.name)
        here = find_cached(self._source(None, artifact))
        return artifact.revision if here is None else here.revision

    def pin(self) -> None:
        """Fetch files that a branch names, so that `made_from` has their commit. What a cache keeps is named by it."""
        artifact = self.artifact
        if artifact is None or artifact.is_safetensors or not artifact.repo or COMMIT.fullmatch(artifact.revision):
            return
        # Without them what was computed elsewhere may still be known.
        with suppress(WeightsUnavailableError):
            _ = self.artifact_folder

    @property
    def made_from(self) -> str:
        """Return the final offer's identity, with the commit of files that are on this machine instead of a branch."""
        identity, artifact = self.offer.identity, self.artifact
        if artifact is None or artifact.is_safetensors or not artifact.repo:
            return identity
        branch = f"{artifact.repo}@{artifact.revision}"
        return identity.replace(branch, f"{artifact.repo}@{self._commit_of(artifact)}") if identity else identity

    def _source(self, revision: str | None, artifact: Artifact | None = None) -> ModelSource:
        choice = self.choice
        return ModelSource.of(
            choice.model,
            self.recorded,
            revision=revision,
            cache_dir=foreign.path_of(choice.cache_dir, "cache_dir") if choice.cache_dir else None,
            local_files_only=choice.local_files_only,
            code=choice.trust_remote_code,
            kind=choice.kind,
            artifact=artifact,
        )

    @settled
    def _here(self) -> LocalModel:
        """Return the model's files on this machine, fetching its safetensors from the hub if they are missing."""
        if self.local is not None:
            return self.local
        return SafetensorsFolder(self.cached.folder, trusted=self.choice.trust_remote_code)

    @settled
    def _known(self) -> Stamp:
        """Return what the files looked like before the first of them was read."""
        return self._stamp or self._here.stamp()

    @settled
    def files(self) -> ModelFiles | None:
        """Return the small files of the model, `None` of one in another form than safetensors."""
        _ = self._known
        return self._here.files

    @property
    def origin(self) -> str:
        """Return what spaces call the model: its id, or that it is a local one."""
        return self.spec.id if self.local is None else self.local.origin

    @property
    def label(self) -> str:
        """Return what spaces of a local model call it for people; empty for others."""
        return "" if self.local is None else self.local.label

    @property
    def prompts_from(self) -> str:
        """Return who says what stands around a text: `"record"`, `"folder"` or `"family"`."""
        return "record" if self.recorded is not None else self._here.prompts_from

    @property
    def unused_prompts(self) -> list[str]:
        """Return the names of a folder's prompts that nothing uses."""
        return [] if self.recorded is not None else self._here.unused_prompts(self.spec)

    @settled
    def weights(self) -> str:
        """Return what names the weights: a commit id, or a digest of a folder. Settled once, at the latest at load."""
        if self.local is not None:
            known = self._known
            digest = self.local.weights(self.artifact)
            # Facts of one model and a digest of another would name a space that nobody has.
            self.local.check_unchanged(known)
            return digest
        revision = self.spec.revision
        # A branch or tag may point elsewhere tomorrow; what was fetched has a commit.
        return revision if self._is_settled(revision) else self.cached.revision

    def _is_settled(self, revision: str) -> bool:
        return COMMIT.fullmatch(revision) is not None or self.artifact is None

    @settled
    def _answers(self) -> Answers:
        choice = self.choice
        # A record says all that a runtime asks; its files may not be here yet.
        files = None if self.recorded is not None else self.files
        return ask_all(self._catalog, self.spec, device=choice.device, dtype=choice.dtype, files=files)

    @settled
    def _offered(self) -> Choice:
        """Return the runtime that serves the model, and its offer while nothing heavy may be asked."""
        choice, spec = self.choice, self.spec
        files = None if self.recorded is not None else self.files
        ask = Ask(device=choice.device, dtype=choice.dtype, files=files)
        if choice.backend is not None:
            return choose_named(self._catalog, spec, choice.backend, ask)
        found = plugins()
        runtime, offer = choose(spec, self._answers, partial(found.preferred_backend, spec))
        return Choice(runtime, replace(ask, options=runtime.Options()), offer)

    @property
    def backend(self) -> Runtime:
        """Return the runtime that serves the model, chosen once."""
        return self._offered.runtime

    @property
    def artifact(self) -> Artifact | None:
        """Return the files that the runtime needs, `None` if it needs none."""
        return self._offered.offer.artifact

    @property
    def renders(self) -> str:
        """Return who puts prompts around texts, `"core"` or `"server"`."""
        return self._offered.offer.renders

    @property
    def identity(self) -> str:
        """Return what else than runtime and format moves a vector, such as a server's address; empty if nothing."""
        return self._offered.offer.identity

    @property
    def asks_a_server(self) -> bool:
        """Return whether texts are handed to a server."""
        return self._offered.offer.leaves_machine

    @property
    def normalizes(self) -> bool:
        """Return whether vectors come with unit length, whatever is asked for."""
        return self._offered.offer.normalizes

    @property
    def takes_images(self) -> bool:
        """Return whether the runtime takes pictures, of a model that does."""
        return self._offered.offer.images

    @property
    def plain_text(self) -> bool:
        """Return whether the runtime can read the names of special tokens in a text as letters."""
        return self._offered.offer.plain_text

    @property
    def native_dims(self) -> bool:
        """Return whether the runtime makes shorter vectors itself."""
        return self._offered.offer.native_dims

    @property
    def leaves_machine(self) -> bool:
        """Return whether texts are sent to another machine."""
        return self._offered.offer.leaves_machine

    @property
    def backend_reason(self) -> str:
        """Say why this runtime runs the model and not another."""
        if self.choice.backend is not None:
            return "asked for"
        best, _ = choose(self.spec, self._answers)
        return passed_over(self.spec, best, self._answers) if self.backend is best else "a plugin chose it"

    @property
    def offer(self) -> Offer:
        """Return device, number format and whatever else the model is loaded with. May import what is heavy."""
        if "_chosen" not in self.__dict__:
            # Before the lock: threads that are refused at exit are held for a while, and should not queue for it.
            exiting.check()
        return self._chosen.offer

    @settled
    def _chosen(self) -> Choice:
        failed = f"the runtime {self.backend.name!r} failed to choose a device for {self.spec.id}"
        with exiting.native(), runtime_errors(failed):
            chosen = self._offered.settled(self.spec)
        dtype = chosen.offer.dtype
        if dtype in self.spec.banned_dtypes:
            raise ArgumentError(f"{self.spec.id} gives wrong results in {dtype}; use dtype='float32' or 'bfloat16'")
        return chosen
