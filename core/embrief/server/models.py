"""The names that a server answers to. A request's `model` is looked up here, and is never anything else."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from embrief.errors import ArgumentError, DuplicateNameError, WrongKindError
from embrief.facades.embedder import Embedder
from embrief.facades.reranker import Reranker
from embrief.fallback.embedder import FallbackEmbedder
from embrief.registry import Registry
from embrief.server.failures import refused

if TYPE_CHECKING:
    from embrief.server.asking import Said

F = TypeVar("F", Embedder, Reranker)

ROLES: tuple[Said, ...] = ("query", "document", "plain")
"""What may stand behind a name, after a colon, for clients that can say nothing else: `NAME:query`."""
_VIEWS = 64
_ASSIGNED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)


@dataclass(eq=False)
class Served(Generic[F]):
    """One name and the facade behind it."""

    name: str
    facade: F
    any_space: Embedder | None = None
    """Also asked where the caller takes vectors of another space: the chain with its last members."""
    batch_tokens: int | None = None
    """Tokens that a batch may have; `None` before it is loaded, and where the runtime does not tell."""
    _views: OrderedDict[tuple[tuple[str, Any], ...], F] = field(default_factory=OrderedDict)

    def view(self, **settings: Any) -> F:
        """Return the facade with other settings on the same loaded model; `None` leaves one as it is.

        Raises:
            ArgumentError: A value cannot work with this model.
        """
        given = tuple(sorted((key, value) for key, value in settings.items() if value is not None))
        if not given:
            return self.facade
        found = self._views.get(given)
        if found is None:
            found = self._views[given] = self.facade.with_settings(**dict(given))
            if len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        return found


class ServedModels:
    """The table of names, in the order in which they were given."""

    def __init__(
        self, embedders: Mapping[str, Embedder] | None = None, rerankers: Mapping[str, Reranker] | None = None
    ) -> None:
        """Load nothing.

        Args:
            embedders: Embedding models by the names that requests call them.
            rerankers: Rerankers, the same.

        Raises:
            ArgumentError: There is no model at all.
            DuplicateNameError: An embedding model and a reranker have one name.
        """
        self.embedders = {name: Served(name, facade) for name, facade in (embedders or {}).items()}
        self.rerankers = {name: Served(name, facade) for name, facade in (rerankers or {}).items()}
        if not self.embedders and not self.rerankers:
            raise ArgumentError("there is no model to serve; name one, such as `embrief serve embrief/hash`")
        if both := self.embedders.keys() & self.rerankers.keys():
            raise DuplicateNameError(f"{min(both)!r} is an embedding model and a reranker; give one another name")
        for served in self.embedders.values():
            if isinstance(served.facade, FallbackEmbedder):
                served.any_space, served.facade = served.facade, served.facade.of_one_space()

    @property
    def names(self) -> list[str]:
        """Return all names."""
        return [*self.embedders, *self.rerankers]

    def all(self) -> list[Served[Any]]:
        """Return all models."""
        return [*self.embedders.values(), *self.rerankers.values()]

    def embedder(self, name: str | None) -> tuple[Served[Embedder], Said | None]:
        """Return the embedding model of a name, and the role that the name says.

        Args:
            name: What the request has as `model`; `None`: the first.

        Raises:
            Refused: No model has this name.
        """
        if name is None:
            return _first(self.embedders, "embedding model"), None
        if name in self.embedders:
            return self.embedders[name], None
        plain, colon, role = name.rpartition(":")
        for said in ROLES:
            if colon and role == said and plain in self.embedders:
                return self.embedders[plain], said
        raise self._unknown(name, self.embedders, self.rerankers, "a reranker, which embeds nothing")

    def reranker(self, name: str | None) -> Served[Reranker]:
        """Return the reranker of a name; `None`: the first.

        Raises:
            Refused: No reranker has this name.
        """
        if name is None:
            return _first(self.rerankers, "reranker")
        if name in self.rerankers:
            return self.rerankers[name]
        raise self._unknown(name, self.rerankers, self.embedders, "an embedding model, which reranks nothing")

    def _unknown(self, name: str, table: Mapping[str, Any], others: Mapping[str, Any], kind: str) -> Exception:
        has = ", ".join(table) or "none"
        if name in others:
            return refused(400, "wrong_kind_of_model", f"{name!r} is {kind}; for this there is: {has}", param="model")
        shown = name if len(name) <= 100 else f"{name[:100]}..."
        return refused(404, "model_not_found", f"no model {shown!a} is served here; there is: {has}", param="model")


def _first(table: Mapping[str, Served[F]], what: str) -> Served[F]:
    for served in table.values():
        return served
    raise refused(404, "model_not_found", f"no {what} is served here", param="model")


def served_models(
    models: Sequence[str] = (),
    rerankers: Sequence[str] = (),
    registry: Registry | None = None,
) -> ServedModels:
    """Return what a command line and a configuration say is to be served.

    Args:
        models: Names, folders or references of models, each perhaps as `NAME=MODEL`.
        rerankers: The same, of rerankers.
        registry: Of the configuration. Without any `models` and `rerankers` all its models are served. The name of a
            chain's first member is answered by the chain.

    Raises:
        ArgumentError: There is none, or a name stands twice.
        EmbriefError: As of `Embedder` and `Reranker`.
    """
    table = registry if registry is not None else Registry()
    found: dict[str, Embedder] = {}
    ranked: dict[str, Reranker] = {}
    if not models and not rerankers:
        models = [row.name for row in table.list()]
    for given in models:
        name, model = _named(given)
        made = _of_either_kind(table, model)
        if isinstance(made, Reranker):
            _add(ranked, name, made)
        else:
            _add(found, name, made)
    for given in rerankers:
        name, model = _named(given)
        _add(ranked, name, _configured_reranker(table, model) if model in table else Reranker(model))
    return ServedModels(found, ranked)


def _named(given: str) -> tuple[str, str]:
    match = _ASSIGNED.fullmatch(given)
    return (match[1], match[2]) if match else (given, given)


def _add(table: dict[str, F], name: str, facade: F) -> None:
    if name in table:
        raise DuplicateNameError(f"two models are to be served as {name!r}; name one of them, as in other={name}")
    table[name] = facade


def _of_either_kind(registry: Registry, model: str) -> Embedder | Reranker:
    if model in registry:
        rows = {row.name: row.kind for row in registry.list()}
        return _configured(registry, model) if rows[model] == "embedding" else _configured_reranker(registry, model)
    try:
        return Embedder(model)
    except WrongKindError:
        return Reranker(model)


def _configured(registry: Registry, name: str) -> Embedder:
    return registry.chain() if registry.config.fallback_chain[:1] == (name,) else registry.get(name)


def _configured_reranker(registry: Registry, name: str) -> Reranker:
    return registry.reranker_chain() if registry.config.reranker_chain[:1] == (name,) else registry.reranker(name)
