"""The identity of a vector space: what must be equal for two document vectors to be comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from embrief.errors import ArgumentError, ArgumentTypeError


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
    document_prompt: str
    """The prefix of an untitled document, byte for byte."""
    dim: int
    normalize: bool
    lexical: bool = False
    """Whether vectors compare spelling only."""
    label: str = field(default="", compare=False)
    """A name for people, such as the folder's. Not part of the identity."""

    @property
    def id(self) -> str:
        """Return a short name of the space: `es1-` and 128 bits of SHA-256 over the identity."""
        identity = {key: value for key, value in asdict(self).items() if key != "label"}
        text = json.dumps(identity, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return "es1-" + hashlib.sha256(text.encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, the id among them."""
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VectorSpace:
        """Rebuild a space from `to_json()`.

        Raises:
            ArgumentTypeError: `data` is not a mapping.
            ArgumentError: A field is missing, unknown or of the wrong type, or the id does not belong to the fields.
        """
        if not isinstance(data, Mapping):
            raise ArgumentTypeError(f"a vector space is a JSON object, not {type(data).__name__}")
        kinds: dict[str, type] = {"dim": int, "normalize": bool, "lexical": bool}
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in data.items() if key != "id"}
        if wrong := sorted(set(values) ^ known):
            raise ArgumentError(f"a vector space has the fields {sorted(known)}; missing or unknown: {wrong}")
        for key, value in values.items():
            if type(value) is not kinds.get(key, str):
                raise ArgumentError(f"field {key!r} of a vector space cannot be {value!r}")
        space = cls(**values)
        if data.get("id", space.id) != space.id:
            raise ArgumentError(f"the id {data['id']!r} does not belong to this vector space, whose id is {space.id!r}")
        return space

    def differences(self, other: VectorSpace) -> list[str]:
        """Name each field in which the two differ, with both values, for an error message."""
        return [
            f"{item.name}: {getattr(self, item.name)!r} is not {getattr(other, item.name)!r}"
            for item in fields(self)
            if item.compare and getattr(self, item.name) != getattr(other, item.name)
        ]
