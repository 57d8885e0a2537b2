"""The identity of a vector space: what must be equal for two document vectors to be comparable."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, get_type_hints

from embrief.errors import ArgumentError, ArgumentTypeError, NewerFormatError

_ALWAYS: Final = frozenset({"model", "weights", "pooling", "document_prompt", "dim", "normalize", "lexical", "label"})
"""The fields of the first release: in every id (but the label) and every JSON, also where they equal their default.

A field that is added later has a default, and is left out where it equals it: the ids and stamps that exist stay.
"""
_MAX_DIM: Final = 65536
_SHOWN: Final = 5


LOCAL = "local"
UNKNOWN_POOLING = "unknown"
"""The pooling of a space whose model nobody but its provider knows."""


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """Everything that makes document vectors comparable, and nothing else.

    Two spaces are equal exactly if their ids are. The runtime, number format and device are not part of it: they move a
    vector by rounding only, and belong to the finer `fingerprint` of an embedder. Query prompts and instructions are
    not part of it either: a query may be asked in many ways against the same documents.
    """

    model: str
    """Id on the hub; `"local"` for a folder, which is known by its weights."""
    weights: str
    """Commit id on the hub, or `sha256:...` over the files of a folder."""
    pooling: str
    """`"unknown"` where a provider does not say."""
    document_prompt: str
    """The prefix of an untitled document, byte for byte."""
    dim: int
    normalize: bool
    lexical: bool = False
    """Whether vectors compare spelling only."""
    label: str = field(default="", compare=False)
    """A name for people, such as the folder's. Not part of the identity."""
    document_tail: str = ""
    """What stands behind a document, byte for byte."""
    kind: str = "dense"
    """What there is for each document: one dense vector, a sparse one, several."""
    min_pixels: int = 0
    """Least area in which the model sees a picture; 0 for one that takes none."""
    max_pixels: int = 0
    """Largest area in which it does."""
    picture_prompt: str = ""
    """Where the prompt stands beside pictures, as of `ImageSpec.prompt`; empty where it stands around all of it."""
    special_tokens: str = ""
    """`"text"` where the names of special tokens in a text are letters though the model's own way is another."""

    @property
    def id(self) -> str:
        """Return a short name of the space: `es1-` and 128 bits of SHA-256 over the identity."""
        identity = {name: value for name, value in self._written().items() if name != "label"}
        text = json.dumps(identity, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return "es1-" + hashlib.sha256(text.encode()).hexdigest()[:32]

    def _written(self) -> dict[str, Any]:
        values = {item.name: (getattr(self, item.name), item.default) for item in fields(self)}
        return {name: value for name, (value, default) in values.items() if name in _ALWAYS or value != default}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, the id among them."""
        return {"id": self.id, **self._written()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VectorSpace:
        """Rebuild a space from `to_json()`. A field that is not there has its default.

        Raises:
            ArgumentTypeError: `data` is not a mapping.
            NewerFormatError: A field is unknown.
            ArgumentError: A field without a default is missing, a value cannot be, or the id does not belong to the
                fields.
        """
        if not isinstance(data, Mapping):
            raise ArgumentTypeError(f"a vector space is a JSON object, not {type(data).__name__}")
        values = {key: value for key, value in data.items() if key != "id"}
        known = {item.name: item.default for item in fields(cls)}
        if unknown := [key for key in values if key not in known]:
            names = ", ".join(map(_short, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
            raise NewerFormatError(
                f"a vector space with {names} was written by a newer release of embrief, which may tell spaces apart "
                "that this one cannot; upgrade embrief"
            )
        if missing := [name for name, default in known.items() if default is MISSING and name not in values]:
            raise ArgumentError(f"a vector space needs {', '.join(map(repr, missing))}, which is missing")
        kinds = get_type_hints(cls)
        for name, value in values.items():
            if not _fits(name, value, kinds[name]):
                raise ArgumentError(f"field {name!r} of a vector space cannot be {_short(value)}")
        space = cls(**values)
        if data.get("id", space.id) != space.id:
            raise ArgumentError(
                f"the id {_short(data['id'])} does not belong to this vector space, whose id is {space.id!r}"
            )
        return space

    def differences(self, other: VectorSpace, *, names: tuple[str, str] = ("stored", "this embedder")) -> list[str]:
        """Say for each field in which the two differ what either has, for an error message.

        Args:
            other: The other space.
            names: What this space and the other one are called.
        """
        return [
            f"{names[0]}: {self._shown(item.name)}, {names[1]}: {other._shown(item.name)}"
            for item in fields(self)
            if item.compare and getattr(self, item.name) != getattr(other, item.name)
        ]

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        if self.model == LOCAL and name in ("model", "weights"):
            # All folders have one name in a space's identity; people know them by theirs.
            folder = f"the folder {self.label!r}" if self.label else "a folder"
            return f"model={folder}" if name == "model" else f"weights={value!r} of {folder}"
        return f"{name}={value!r}"


def _fits(name: str, value: object, kind: type) -> bool:
    # Exactly the type: a bool is no width, though Python calls it an int.
    return type(value) is kind and (not isinstance(value, int) or name != "dim" or 1 <= value <= _MAX_DIM)


def _short(value: object) -> str:
    # From outside: a number may have too many digits to print, a list too many levels.
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    plain = value is None or isinstance(value, (str, int, float))
    return reprlib.repr(value) if plain else f"a {type(value).__name__}"
