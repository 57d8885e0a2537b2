"""`Registry`: the user's table of configured models, each made when it is first asked for."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from embrief.config.meaning import KindOf, Meant, kind_of, meaning_of, record_of
from embrief.config.names import default_name, meaning
from embrief.config.process import find_config, load_config
from embrief.config.schema import Config, ModelEntry, ModelKind, entry_of
from embrief.errors import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    DuplicateNameError,
    EmbriefError,
    UnknownModelError,
)
from embrief.facades.embedder import Embedder
from embrief.facades.reranker import Reranker
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.fallback.embedder import FallbackEmbedder
from embrief.fallback.reranker import FallbackReranker
from embrief.files import foreign
from embrief.serving.lanes import Lane

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from embrief.fallback.chain import Unprobed
    from embrief.fallback.events import OnEvent
    from embrief.fallback.reranker import LastResort

T = TypeVar("T")
Facades = Embedder | Reranker
# By another name: `Registry` has a method `list`.
_Names = list[str]

_QUERY, _DOCUMENT = "Is anybody there?", "Somebody is there."
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model of a registry, as far as it is known without loading or asking anything."""

    name: str
    kind: ModelKind
    provider: str
    """Where it runs: a provider's name, or `"program"` for a facade that the program registered."""
    model: str
    """The recorded id, or what the configuration says."""
    dim: int | None
    """Values per vector; `None` for a reranker, and where it is not known."""
    max_tokens: int | None
    """Tokens per text; `None` where it is not known."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a model answers."""

    ok: bool
    seconds: float | None
    """What one short query took, loading included; `None` if it failed."""
    reason: str = ""
    """Why it failed."""


@dataclass(slots=True)
class _Slot:
    """One name: how its facade is made, and the facade once it was."""

    make: Callable[[], Facades]
    entry: ModelEntry | None = None
    made: Facades | None = None
    flight: Future[Facades] | None = None
    """Of whoever makes it; the others wait for that."""
    lane: Lane = field(default_factory=Lane)


class Registry:
    """The models of a configuration by name, and those that a program registers.

    A model is made when it is first asked for, by one caller, while the others who want the same one wait; whoever
    wants another never does. Its weights load with the first text, or with `preload`. All methods may be called from
    any thread.

    Examples:
        >>> from embrief import Registry
        >>> with Registry() as registry:
        ...     registry.register("small", provider="hash", dim=64)
        ...     registry.get("small").embed_query("red planet").shape
        (64,)
    """

    def __init__(self, config: Config | None = None) -> None:
        """Take the models of a configuration. Makes none of them.

        Args:
            config: What `load_config` returned; `None`: no model yet.
        """
        if config is not None and not isinstance(config, Config):
            raise ArgumentTypeError(
                f"config is what load_config() returns, not {type(config).__name__}; for a file: "
                "Registry.from_config(PATH)"
            )
        self._config = config if config is not None else Config()
        self._lock = threading.RLock()
        self._closed = False
        self._lane = Lane()
        self._slots: dict[str, _Slot] = {}
        self._defaults: dict[KindOf, tuple[str, _Slot]] = {}
        for entry in self._config.models.values():
            self._slots[entry.name] = _Slot(partial(_facade, entry), entry)
        _registries.add(self)

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Self:
        """Return the registry of a configuration file.

        Args:
            path: The file; `None`: the one that `EMBRIEF_CONFIG` names, or the user's own. Without either it is empty.

        Raises:
            ConfigError: The file cannot be read, or holds what cannot be.
            MissingDependencyError: PyYAML is not installed.
        """
        return cls(find_config() if path is None else load_config(path))

    @property
    def config(self) -> Config:
        """The configuration, with what was registered since."""
        with self._lock:
            entries = {name: slot.entry for name, slot in self._slots.items() if slot.entry is not None}
        return replace(self._config, models=entries)

    def register(self, name: str, facade: Facades | None = None, /, **settings: object) -> None:
        """Add a model.

        Args:
            name: Its name.
            facade: An `Embedder` or `Reranker` that exists; the registry closes it when it lets go of it.
            **settings: Without a facade: what a configuration file says of a model, such as `provider="tei"`,
                `base_url="http://127.0.0.1:8080"`, `model_id="BAAI/bge-m3"`.

        Raises:
            DuplicateNameError: The name is taken.
            ConfigError: A setting is not known or cannot have this value, or no model can be called that.
            ArgumentError: A facade and settings were both given, or neither.
        """
        if not isinstance(name, str):
            raise ArgumentTypeError(f"the name of a model is a string, not {type(name).__name__}")
        if facade is not None and settings:
            raise ArgumentError(f"the facade has its own settings; leave out {', '.join(settings)}")
        if facade is not None and not isinstance(facade, Facades):
            raise ArgumentTypeError(f"a registered facade is an Embedder or a Reranker, not {type(facade).__name__}")
        if facade is None and not settings:
            raise ArgumentError(f"nothing says what {name!r} is; give settings such as model_id=, or a facade")
        entry = entry_of(name, settings if facade is None else {"provider": "native"})
        slot = _Slot(partial(_facade, entry), entry) if facade is None else _Slot(partial(_gone, name), None, facade)
        with self._lock:
            self._check_open()
            if name in self._slots:
                raise DuplicateNameError(f"the registry has a model {name!r} already")
            self._slots[name] = slot

    def get(self, name: str) -> Embedder:
        """Return a model. The first call makes it, which loads no weights; later ones return the same.

        Raises:
            UnknownModelError: No model of the registry has this name.
            ConfigError: It cannot be used as it is configured.
            WrongKindError: It is a reranker.
            EmbriefError: As of `Embedder`.
        """
        return self._embedder(self._slot(name), name)

    def reranker(self, name: str | None = None) -> Reranker:
        """Return a reranker.

        Args:
            name: Its name; `None`: that of the environment or the configuration, or Qwen3's smallest.

        Raises:
            UnknownModelError: No model of the registry has this name.
            WrongKindError: It is an embedding model.
            EmbriefError: As of `Reranker`.
        """
        name, slot = self._default(RerankerSpec) if name is None else (name, self._slot(name))
        found = self._facade(slot)
        if not isinstance(found, Reranker):
            raise ArgumentError(f"{name!r} is an embedding model; use get({name!r})")
        return found

    def default(self) -> Embedder:
        """Return the embedding model of the environment or the configuration, or Qwen3's smallest.

        Raises:
            EmbriefError: As of `Embedder`.
        """
        name, slot = self._default(EmbeddingSpec)
        return self._embedder(slot, name)

    def chain(self, *, unprobed: Unprobed = "refuse", on_event: OnEvent | None = None) -> FallbackEmbedder:
        """Return the configured `fallback_chain`: its models, asked in turn.

        Args:
            unprobed: As of `FallbackEmbedder`.
            on_event: As of `FallbackEmbedder`.

        Raises:
            ArgumentError: No chain is configured; or its models are of different vector spaces, and `allow_degraded` is
                not set.
            EmbriefError: A model cannot be used as it is configured.
        """
        names = self._config.fallback_chain
        if not names:
            raise ArgumentError("no fallback_chain is configured: it is a list of names of models")
        members = [self.get(name) for name in names]
        return FallbackEmbedder(
            members, unprobed=unprobed, allow_degraded=self._config.allow_degraded, on_event=on_event
        )

    def reranker_chain(self, *, last_resort: LastResort = "raise", on_event: OnEvent | None = None) -> FallbackReranker:
        """Return the configured `reranker_chain`: its rerankers, asked in turn. They may be different models.

        Args:
            last_resort: As of `FallbackReranker`.
            on_event: As of `FallbackReranker`.

        Raises:
            ArgumentError: No chain is configured, or a model of it embeds.
            EmbriefError: A model cannot be used as it is configured.
        """
        names = self._config.reranker_chain
        if not names:
            raise ArgumentError("no reranker_chain is configured: it is a list of names of rerankers")
        return FallbackReranker([self.reranker(name) for name in names], last_resort=last_resort, on_event=on_event)

    def list(self) -> list[ModelRow]:
        """Return what is known of each model without loading, fetching or asking anything."""
        with self._lock:
            slots = dict(self._slots)
        return [_row(name, slot) for name, slot in slots.items()]

    def health(self, name: str | None = None) -> dict[str, Health]:
        """Ask models for the vector of one short query, or the score of one short pair, which loads them.

        Args:
            name: One model; `None`: all of them, some at the same time.

        Returns:
            Name to `Health`, in the registry's order.

        Raises:
            UnknownModelError: No model of the registry has this name.
        """
        names = self._names(name)
        if len(names) == 1:
            return {names[0]: self._health(names[0])}
        with ThreadPoolExecutor(min(len(names), _AT_ONCE) or 1, "embrief-health") as pool:
            return dict(zip(names, pool.map(self._health, names), strict=True))

    def preload(self, *names: str) -> None:
        """Load the weights of models now; without names, of all.

        Raises:
            UnknownModelError: No model of the registry has one of the names. Nothing is loaded then.
            EmbriefError: As of `load`.
        """
        for slot in [self._slot(name) for name in names or self._names(None)]:
            self._facade(slot).load()

    def unload(self, *names: str) -> None:
        """Let go of models; without names, of all. Whoever holds one of them finds it closed; `get` makes a new one.

        Raises:
            UnknownModelError: No model of the registry has one of the names.
        """
        slots = [self._slot(name) for name in names or self._names(None)]
        if not names:
            with self._lock:
                slots += [slot for _, slot in self._defaults.values()]
        for slot in slots:
            self._drop(slot)

    def close(self) -> None:
        """Let go of all models. A closed registry cannot be used again."""
        with self._lock:
            self._closed = True
            slots = [*self._slots.values(), *(slot for _, slot in self._defaults.values())]
        for slot in slots:
            self._drop(slot)

    async def aget(self, name: str) -> Embedder:
        """`get` without blocking the event loop."""
        slot = self._slot(name)
        return await slot.lane.run(partial(self._embedder, slot, name))

    async def areranker(self, name: str | None = None) -> Reranker:
        """`reranker` without blocking the event loop."""
        slot = self._default(RerankerSpec)[1] if name is None else self._slot(name)
        return await slot.lane.run(partial(self.reranker, name))

    async def adefault(self) -> Embedder:
        """`default` without blocking the event loop."""
        return await self._lane.run(self.default)

    async def achain(self, *, unprobed: Unprobed = "refuse", on_event: OnEvent | None = None) -> FallbackEmbedder:
        """`chain` without blocking the event loop."""
        return await self._lane.run(partial(self.chain, unprobed=unprobed, on_event=on_event))

    async def areranker_chain(
        self, *, last_resort: LastResort = "raise", on_event: OnEvent | None = None
    ) -> FallbackReranker:
        """`reranker_chain` without blocking the event loop."""
        return await self._lane.run(partial(self.reranker_chain, last_resort=last_resort, on_event=on_event))

    async def ahealth(self, name: str | None = None) -> dict[str, Health]:
        """`health` without blocking the event loop; all models are asked at the same time."""
        import asyncio

        names = self._names(name)
        asked = [self._slot(each).lane.run(partial(self._health, each)) for each in names]
        return dict(zip(names, await asyncio.gather(*asked), strict=True))

    async def apreload(self, *names: str) -> None:
        """`preload` without blocking the event loop; the models are loaded at the same time."""
        import asyncio

        slots = [self._slot(name) for name in names or self._names(None)]
        await asyncio.gather(*(slot.lane.run(partial(self._load, slot)) for slot in slots))

    async def aunload(self, *names: str) -> None:
        """`unload` without blocking the event loop."""
        await self._lane.run(partial(self.unload, *names))

    async def aclose(self) -> None:
        """`close` without blocking the event loop."""
        await self._lane.run(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, name: object) -> bool:
        return name in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the configuration: who takes it makes the models again.

        Raises:
            ArgumentTypeError: The program registered a facade, which no configuration describes.
        """
        with self._lock:
            self._check_open()
            own = [name for name, slot in self._slots.items() if slot.entry is None]
        if own:
            raise ArgumentTypeError(
                f"a Registry is pickled or copied as its configuration, which has no place for the facade {own[0]!r}; "
                "register it with settings, or again in each process"
            )
        return type(self), (self.config,)

    def __repr__(self) -> str:
        source = f", from {self._config.file}" if self._config.file else ""
        return f"<Registry of {len(self._slots)} models{source}>"

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this Registry is closed; make a new one")

    def _names(self, name: str | None) -> _Names:
        if name is not None:
            self._slot(name)
            return [name]
        with self._lock:
            self._check_open()
            return list(self._slots)

    def _slot(self, name: object) -> _Slot:
        with self._lock:
            self._check_open()
            slot = self._slots.get(name) if isinstance(name, str) else None
            if slot is None:
                known = ", ".join(tuple(self._slots)[:20]) or "none"
                raise UnknownModelError(f"the registry has no model {foreign.shown(str(name))}; it has {known}")
            return slot

    def _default(self, kind: KindOf) -> tuple[str, _Slot]:
        """Return the model where none is named; one that is not in the table is made of what its name means."""
        name = default_name(kind, self._config)
        with self._lock:
            self._check_open()
            if name in self._slots:
                return name, self._slots[name]
            known = self._defaults.get(kind)
            if known is None or known[0] != name:
                known = self._defaults[kind] = name, _Slot(partial(_named, name, kind, self._config))
            return known

    def _facade(self, slot: _Slot) -> Facades:
        """Return a slot's facade, made by the first who asks."""
        while True:
            with self._lock:
                self._check_open()
                if slot.made is not None:
                    return slot.made
                flight = slot.flight
                if flight is None:
                    mine = slot.flight = Future()
                    break
            if flight.exception() is None or isinstance(flight.exception(), Exception):
                return flight.result()
            # Whoever made it was interrupted, which is no business of ours: try again.
        try:
            made = slot.make()
        except BaseException as error:
            with self._lock:
                slot.flight = None
            mine.set_exception(error)
            raise
        with self._lock:
            # Dropped meanwhile: those who wait get it, and nobody after them.
            if slot.flight is mine and not self._closed:
                slot.made, slot.flight = made, None
        mine.set_result(made)
        return made

    def _embedder(self, slot: _Slot, name: str) -> Embedder:
        found = self._facade(slot)
        if not isinstance(found, Embedder):
            raise ArgumentError(f"{name!r} is a reranker; use reranker({name!r})")
        return found

    def _load(self, slot: _Slot) -> None:
        self._facade(slot).load()

    def _drop(self, slot: _Slot) -> None:
        with self._lock:
            made, slot.made, slot.flight = slot.made, None, None
        if made is not None:
            made.close()

    def _health(self, name: str) -> Health:
        start = time.perf_counter()
        try:
            found = self._facade(self._slot(name))
            if isinstance(found, Embedder):
                found.embed_query(_QUERY)
            else:
                found.score(_QUERY, [_DOCUMENT])
        except Exception as error:
            return Health(False, None, f"{type(error).__name__}: {error}")
        return Health(True, time.perf_counter() - start)

    def _after_fork(self) -> None:
        """Give a child process a lock of its own, and drop what a thread of the parent was making."""
        self._lock, self._lane = threading.RLock(), Lane()
        for slot in [*self._slots.values(), *(slot for _, slot in self._defaults.values())]:
            slot.flight, slot.lane = None, Lane()


def _facade(entry: ModelEntry) -> Facades:
    kind = kind_of(entry)
    return _made(meaning_of(entry, kind), kind)


def _named(name: str, kind: KindOf, config: Config) -> Facades:
    return _made(meaning(name, kind, config), kind)


def _made(meant: Meant, kind: KindOf) -> Facades:
    facade: Any = Reranker if kind is RerankerSpec else Embedder
    try:
        return cast("Facades", facade._of(meant))
    except EmbriefError as error:
        if meant.said_by:
            error.add_note(f"({meant.said_by})")
        raise


def _gone(name: str) -> Facades:
    raise ClosedError(f"the facade that was registered as {name!r} was unloaded; register a new one")


def _row(name: str, slot: _Slot) -> ModelRow:
    made, entry = slot.made, slot.entry
    if entry is None:
        if made is None:
            return ModelRow(name, "embedding", "program", "", None, None)
        embeds = isinstance(made, Embedder)
        return ModelRow(
            name,
            "embedding" if embeds else "reranker",
            "program",
            made.settings.model,
            made.dim if isinstance(made, Embedder) else None,
            made.max_tokens,
        )
    spec = record_of(entry)
    embeds = kind_of(entry) is EmbeddingSpec
    recorded = (spec.default_dim or spec.dim) if isinstance(spec, EmbeddingSpec) else None
    return ModelRow(
        name,
        "embedding" if embeds else "reranker",
        entry.provider,
        spec.id if spec is not None else entry.settings.get("model_id", name),
        entry.settings.get("dim", recorded) if embeds else None,
        entry.settings.get("max_tokens", spec.max_tokens if spec is not None else None),
    )


_registries: weakref.WeakSet[Registry] = weakref.WeakSet()


def _after_fork() -> None:
    for registry in list(_registries):
        registry._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
