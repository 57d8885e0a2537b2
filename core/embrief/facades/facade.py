"""What embedder and reranker have in common: one shared model, cheap views, pickling, closing, how calls run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from embrief.config.names import check_allowed, meaning
from embrief.discovery.plugins import plugins
from embrief.errors import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    EmbriefError,
    LicenseWarning,
    UnknownModelError,
    warn,
)
from embrief.facades import arguments
from embrief.facades.configured import applied
from embrief.facts.specs import EmbeddingSpec, Kind, RerankerSpec, SpecialTokens, Truncate
from embrief.files import foreign
from embrief.runtimes.base import Output, RunOptions, RuntimeOptions
from embrief.serving.loading import SharedModel, shared_model
from embrief.serving.resolving import ModelChoice

if TYPE_CHECKING:
    from types import TracebackType

    from embrief.config.meaning import Meant
    from embrief.facts.prompts import Content
    from embrief.facts.specs import Modality, ModelSpec
    from embrief.serving.jobs import Request
    from embrief.serving.scheduler import Served

VIEWED = frozenset({
    "instruction", "task", "dim", "normalize", "max_tokens", "truncate", "batch_tokens", "max_pixels", "special_tokens",
})  # fmt: skip
"""Settings that may differ between facades on one loaded model."""

S = TypeVar("S", EmbeddingSpec, RerankerSpec)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The constructor's arguments that both facades take: plain values that travel in pickles and configurations."""

    model: str
    backend: str | RuntimeOptions | None = None
    revision: str | None = None
    instruction: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    max_tokens: int | None = None
    truncate: Truncate = "warn"
    batch_tokens: int | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    like: str | None = None
    max_pixels: int | None = None
    special_tokens: SpecialTokens | None = None

    def values(self) -> dict[str, Any]:
        """Return the arguments by their names. A runtime's options are one value."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def choice(self, kind: type[EmbeddingSpec] | type[RerankerSpec], declared: ModelSpec | None = None) -> ModelChoice:
        """Return the part that decides which model is loaded."""
        return ModelChoice(
            kind=kind,
            model=self.model,
            backend=self.backend,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            cache_dir=self.cache_dir,
            local_files_only=self.local_files_only,
            trust_remote_code=self.trust_remote_code,
            like=self.like,
            declared=declared,
        )


def model_text(value: str | Path) -> str:
    """Return a model's name as a string. A `Path` is always a folder, never a name.

    Raises:
        UnknownModelError: There is no such folder.
    """
    if isinstance(value, Path):
        folder = foreign.folder_of(os.fspath(value))
        if folder is None:
            name = os.fspath(value)
            raise UnknownModelError(foreign.file_problem(name) or f"there is no model folder {foreign.shown(name)}")
        return os.fspath(folder.absolute())
    if not isinstance(value, str):
        raise ArgumentTypeError(f"model is a name, or the path of a folder, not {type(value).__name__}")
    return value


def path_text(value: str | Path | None, what: str) -> str | None:
    """Return a path as a string.

    Raises:
        ArgumentTypeError: It is something else.
        ArgumentError: No path can be called that.
    """
    if value is None:
        return None
    if not isinstance(value, (str, Path)):
        raise ArgumentTypeError(f"{what} is a string or a path, not {type(value).__name__}")
    foreign.path_of(value, what)
    return os.fspath(value)


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """A call whose arguments have been checked: what the model shall do, and what becomes of its answer."""

    request: Request
    finish: Callable[[Output | None], T]
    """Makes the result, on any thread; of `None` where there is nothing to compute."""
    around: AbstractContextManager[object] = field(default_factory=nullcontext)
    """What to be in while the model runs and the result is made."""


class Facade(Generic[S]):
    """Base of `Embedder` and `Reranker`."""

    _kind: ClassVar[Any]
    _kinds: ClassVar[tuple[Kind, ...]]
    """What its calls want of a model."""
    _Settings: ClassVar[type[Settings]] = Settings
    _settings: Settings
    _given: frozenset[str] = frozenset()
    """The keywords that the call has, which win over those of the configuration."""

    def __new__(cls, *_: object, **given: object) -> Self:
        """Note which keywords are given: a default that somebody writes out is meant, and `None` is nothing."""
        self = super().__new__(cls)
        self._given = frozenset(name for name, value in given.items() if value is not None)
        return self

    @classmethod
    def _of(cls, meant: Meant) -> Self:
        """Return the facade that a configuration means, without looking its names up again."""
        self = object.__new__(cls)
        self._begin(applied(cls._Settings(model=meant.model), meant, self._given, cls._kind), meant.declared)
        return self

    def _start(self, settings: Settings) -> None:
        """Find out what the name means, check the arguments and find the shared model. Loads nothing."""
        arguments.backend(settings.backend)
        arguments.optional_text(settings.revision, "revision")
        meant = meaning(settings.model, self._kind)
        try:
            self._begin(applied(settings, meant, self._given, self._kind), meant.declared)
        except EmbriefError as error:
            if meant.said_by:
                error.add_note(f"({meant.said_by})")
            raise

    def _begin(self, settings: Settings, declared: ModelSpec | None) -> None:
        for what in ("revision", "instruction", "like"):
            arguments.optional_text(getattr(settings, what), what)
        arguments.backend(settings.backend)
        arguments.runtime(settings.device, settings.dtype, settings.truncate, plugins().catalog.backends.values())
        arguments.special_tokens(settings.special_tokens)
        arguments.revision(settings.revision)
        arguments.flag(settings.local_files_only, "local_files_only")
        arguments.flag(settings.trust_remote_code, "trust_remote_code")
        self._settings = settings
        self._model: SharedModel[S] | None = shared_model(settings.choice(self._kind, declared))
        self._checked = False
        if self._model.recorded is not None or self._model.local is not None:
            self._check_spec()

    def _check_spec(self) -> None:
        """Check the arguments against the model's facts, once these are known."""
        if self._checked:
            return
        spec, settings = self._shared.spec, self._settings
        check_allowed(spec.id, settings.backend, leaves_machine=self._shared.leaves_machine)
        if settings.max_tokens is not None and settings.max_tokens > spec.context:
            raise ArgumentError(f"max_tokens={settings.max_tokens} is more than {spec.id} can hold ({spec.context})")
        if settings.dtype in spec.banned_dtypes:
            raise ArgumentError(
                f"{spec.id} gives wrong results in {settings.dtype}; use dtype='float32', 'bfloat16' or 'auto'"
            )
        arguments.image_options(settings.max_pixels, settings.special_tokens, spec)
        if settings.special_tokens not in (None, spec.special_tokens) and not self._shared.plain_text:
            raise ArgumentError(
                f"special_tokens={settings.special_tokens!r} cannot be had from {self._shared.backend.name!r}, which "
                "reads the names of special tokens as those tokens; leave it out, or use the engine"
            )
        self._check_kind(spec)
        self._checked = True
        _tell_licence(spec)

    def _check_kind(self, spec: S) -> None:
        raise NotImplementedError

    @property
    def _shared(self) -> SharedModel[S]:
        if self._model is None:
            raise ClosedError(f"this {type(self).__name__} on {self._settings.model!r} is closed; make a new one")
        return self._model

    @property
    def spec(self) -> S:
        """The facts about the model. For a hub id without a record, the first use fetches them."""
        self._check_spec()
        return self._shared.spec

    @property
    def settings(self) -> Settings:
        """The constructor's arguments, as a frozen record of plain values."""
        return self._settings

    @property
    def max_tokens(self) -> int:
        """Tokens per text that reach the model, special tokens and prompts included."""
        return int(self._settings.max_tokens or self.spec.max_tokens)

    def load(self) -> Self:
        """Load the weights now instead of at the first text, and return the facade.

        Raises:
            WeightsUnavailableError: The weights are not here and cannot be fetched.
            GatedModelError: The licence is not accepted or the token is missing.
            MissingDependencyError: The runtime is not installed.
            ModelMismatchError: The files are not those of the model.
        """
        self._check_spec()
        self._served(self._shared).load()
        return self

    async def aload(self) -> Self:
        """`load` without blocking the event loop, as far as that can be had: see "Async" in the docs."""
        return await self.off_loop(self.load)

    def close(self) -> None:
        """Let go of the model; the last facade on it frees the memory. A closed facade cannot be used again."""
        self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def off_loop(self, call: Callable[[], T]) -> T:
        """Run `call` on a thread of the model's and wait for it without blocking the event loop.

        For code that wraps this facade: what it does to texts and results, such as converting vectors, belongs there.
        Use the facade's own async methods for the model: calls through them share batches, and these take turns.
        """
        return await self._shared.lanes[False].run(call)

    def _run(self, plan: Callable[[], Plan[T]]) -> T:
        """Carry out a plan on the calling thread; only the model itself runs on its worker."""
        # Bound first: another thread may close this facade while the model runs.
        shared = self._shared
        made = plan()
        if not made.request.inputs:
            return made.finish(None)
        with made.around:
            return made.finish(self._served(shared).run(made.request))

    async def _arun(self, plan: Callable[[], Plan[T]], *, urgent: bool = False) -> T:
        """`_run` without blocking the event loop."""
        shared = self._shared
        lane = shared.lanes[urgent]

        def prepare() -> tuple[Plan[T], Served | None]:
            made = plan()
            return made, self._served(shared) if made.request.inputs else None

        made, model = await lane.run(prepare)
        if model is None:
            return made.finish(None)
        with made.around:
            return await model.arun(made.request, made.finish, lane)

    def _served(self, shared: SharedModel[S]) -> Served:
        """Return what answers this facade's calls."""
        return shared.served

    def _view(self, **changes: Any) -> Self:
        """Return a facade with other settings on the same loaded model."""
        twin = object.__new__(type(self))
        twin._model = self._shared
        twin._settings = replace(self._settings, **changes)
        twin._checked = False
        if self._checked:
            twin._check_spec()
        return twin

    def with_settings(self, **changes: Any) -> Self:
        """Return a facade with other settings of those that leave the loaded model as it is.

        Args:
            **changes: Of `VIEWED`, those that this facade has.

        Raises:
            ArgumentTypeError: A value has the wrong type, or there is no such setting.
            ArgumentError: A value cannot work with this model.
        """
        settings = self._settings
        if unknown := sorted(changes.keys() - (VIEWED & settings.values().keys())):
            raise ArgumentTypeError(
                f"{', '.join(unknown)} cannot be changed on a loaded model; make another {type(self).__name__}"
            )
        for what in ("instruction", "task"):
            arguments.optional_text(changes.get(what), what)
        arguments.special_tokens(changes.get("special_tokens"))
        for what in ("dim", "max_tokens", "batch_tokens", "max_pixels"):
            if what in changes:
                changes[what] = arguments.positive(changes[what], what)
        truncate = changes.get("truncate", settings.truncate)
        arguments.runtime(settings.device, settings.dtype, truncate, plugins().catalog.backends.values())
        return self._view(**changes)

    def _check_instruction_is_read(self, instruction: str | None, own: str | None) -> None:
        """Refuse an instruction that a server which renders by itself would never see."""
        if instruction not in (None, own) and self._shared.renders == "server":
            raise ArgumentError(
                f"{self._shared.backend.name!r} puts its own prompt around texts, so instruction={instruction!r} does "
                "nothing; leave it out, or use a runtime that takes prompts"
            )

    @staticmethod
    def _identity(shared: SharedModel[Any]) -> list[str]:
        """Return what a model's offer adds to fingerprints; nothing for the runtimes that there were first."""
        parts = [shared.made_from, "" if shared.offer.renders == "core" else shared.offer.renders]
        return parts if any(parts) else []

    def _options(self, spec: S, dim: int | None = None) -> RunOptions:
        return RunOptions(
            max_tokens=self._settings.max_tokens or spec.max_tokens,
            refuse_long=self._settings.truncate == "error",
            batch_tokens=self._settings.batch_tokens,
            dim=dim,
            kinds=self._kinds,
            max_pixels=self.max_pixels,
            special_tokens=self._settings.special_tokens or spec.special_tokens,
        )

    @property
    def max_pixels(self) -> int | None:
        """Largest area, height times width, in which the model sees a picture; `None`: it takes none."""
        images = self.spec.images
        return None if images is None else int(self._settings.max_pixels or images.max_pixels)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What an input may hold, by the model and the runtime that serves it."""
        return self.spec.modalities if self._shared.takes_images else ("text",)

    def _check_images(self, found: Sequence[Content], what: str, start: int = 0) -> None:
        """Refuse images where the runtime takes none.

        Raises:
            ArgumentTypeError: There is one; the error has the index.
        """
        if self.spec.images is None or self._shared.takes_images:
            return
        for index, item in enumerate(found, start):
            if not isinstance(item, str):
                raise ArgumentTypeError(
                    f"{what}[{index}] holds an image, and {self._shared.backend.name!r} gives {self.spec.id} texts "
                    "only; use the engine",
                    index=index,
                )

    def info(self) -> dict[str, Any]:
        """Return what is used and why, as plain values. Chooses a device, but loads no weights."""
        shared, spec = self._shared, self.spec
        offer = shared.offer
        return {
            "model": spec.id,
            "revision": spec.revision or None,
            "folder": str(shared.local.path) if shared.local is not None else None,
            **shared.told_artifact,
            "recorded": shared.recorded is not None,
            "verified": spec.verified,
            "license": spec.license,
            "unused_prompts": shared.unused_prompts,
            "backend": shared.backend.name,
            "backend_reason": shared.backend_reason,
            "device": offer.device,
            "dtype": offer.dtype,
            "max_tokens": self.max_tokens,
            "modalities": list(self.modalities),
            "max_pixels": self.max_pixels,
            "special_tokens": self._settings.special_tokens or spec.special_tokens,
            "truncate": self._settings.truncate,
            "tells_truncation": offer.tells_truncation,
            "loaded": shared.loaded,
            "batch_tokens": shared.batch_tokens(self._settings.batch_tokens),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        declared = None if self._model is None else self._model.choice.declared
        return _rebuild, (type(self), self._settings.values(), declared)

    def __copy__(self) -> Self:
        return self._view()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A copy of the weights would double the memory and gain nothing: they never change.
        return self._view()

    def __repr__(self) -> str:
        default: dict[str, Any] = type(self._settings)(model="").values()
        settings: dict[str, Any] = self._settings.values()
        given: list[str] = [
            f"{key}={value!r}" for key, value in settings.items() if value != default[key] and key != "model"
        ]
        return f"{type(self).__name__}({', '.join([repr(settings['model']), *given])})"


_told: set[str] = set()
"""Models whose licence was spoken of in this process."""


def _tell_licence(spec: ModelSpec) -> None:
    """Warn of a licence that forbids commercial use, once per model: whoever chose the model may not know it."""
    if not spec.non_commercial or spec.id in _told:
        return
    _told.add(spec.id)
    warn(
        f"the licence of {spec.id}, {spec.license}, forbids commercial use; where that matters, ask its authors for "
        "another licence or use another model (`embrief models` lists the licences)",
        LicenseWarning,
    )


def _rebuild(kind: type[Any], settings: dict[str, Any], declared: ModelSpec | None) -> Any:
    # Names are not looked up again: what they meant where the facade was made is in the settings.
    made = object.__new__(kind)
    made._begin(kind._Settings(**settings), declared)
    return made
