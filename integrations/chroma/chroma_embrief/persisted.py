"""The life of an embedding function in a collection: described, stored, rebuilt, compared."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from chroma_embrief import config as stored
from embrief.stores import require_same

if TYPE_CHECKING:
    from chromadb.api.types import Space

    from embrief import Embedder, VectorSpace


class PersistedFunction:
    """An embedding function that a collection keeps: made with an embedder, or rebuilt without one."""

    _embedder: Embedder | None
    _config: dict[str, Any]

    def _start(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._config = stored.to_config(embedder)
        stored.validate(self._config, self._name())

    @classmethod
    def _name(cls) -> str:
        return str(cls.name())  # type: ignore[attr-defined]  # the framework's classes add it

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        stored.validate(config, cls._name())
        function = cls.__new__(cls)
        function._embedder = None
        function._config = copy.deepcopy(config)
        return function

    @property
    def embedder(self) -> Embedder:
        """The facade that embeds. A function that Chroma rebuilt finds it at its first text.

        Raises:
            WeightsUnavailableError: The model was in a folder; pass the function when getting the collection.
            EmbriefError: The persisted model cannot be used here.
        """
        return self._embedder if self._embedder is not None else stored.attach(self._config, type(self).__name__)

    @property
    def space(self) -> VectorSpace:
        """The space of the documents' vectors. A model without a record is fetched for that."""
        space = stored.stored_space(self._config)
        return space if space is not None else self.embedder.space

    def require_kept(self, kept: object, *, where: str) -> None:
        """Refuse a collection whose kept function has this one's name and makes vectors of another space.

        Args:
            kept: What the collection's configuration says about its function, if anything.
            where: Name of the collection, for messages.

        Raises:
            SpaceMismatchError: The spaces differ.
            ArgumentError: The configuration is not of our format.
        """
        if not isinstance(kept, Mapping) or kept.get("name") != self._name():
            return
        function = self._from_config(kept.get("config") or {})
        if stored.identity(function._config) != stored.identity(self._config):
            require_same(function.space, self.space, where=where)

    def get_config(self) -> dict[str, Any]:
        """Return what the collection keeps, as plain JSON values."""
        return copy.deepcopy(self._config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse to move a collection to another space; another instruction is fine.

        Chroma stores the new configuration before it asks. `open_collection` notices that later.

        Raises:
            SpaceMismatchError: The spaces differ.
        """
        old, new = self._from_config(old_config), self._from_config(new_config)
        if stored.identity(old_config) != stored.identity(new_config):
            require_same(old.space, new.space, where="the collection")

    def is_legacy(self) -> bool:
        """Return `False`: this function can always be rebuilt."""
        return False

    def default_space(self) -> Space:
        """Return the distance of new collections; Chroma's own default is squared L2."""
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        """Return the distances that rank these vectors."""
        return ["cosine", "ip", "l2"]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._config == other._config

    def __hash__(self) -> int:
        return hash((type(self), json.dumps(self._config, sort_keys=True)))

    def __repr__(self) -> str:
        keys = ("dim", "task", "instruction", "max_pixels", "special_tokens")
        shown = {key: value for key in keys if (value := self._config.get(key)) is not None}
        # A collection never says where a folder is; the function that was given one knows.
        model = self._config["model"]
        if model == stored.LOCAL and self._embedder is not None:
            model = self._embedder.settings.model
        parts = [repr(model), *(f"{key}={value!r}" for key, value in shown.items())]
        return f"{type(self).__name__}({', '.join(parts)})"
