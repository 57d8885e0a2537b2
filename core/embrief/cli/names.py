"""From what a user types to a record, a folder, or an id on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError
from embrief.weights import ModelSource

if TYPE_CHECKING:
    from embrief.registry import Registry
    from embrief.specs import ModelSpec


def find(name: str, known: Registry) -> ModelSpec | Path | None:
    """Return the record or the folder of this name, `None` for an id on the hub without a record.

    Raises:
        UnknownModelError: It is a known mistake, looks like a misspelt record, or cannot be an id on the hub.
    """
    if not name.strip():
        raise ArgumentError("the model name is empty; `embrief models` lists names")
    if (spec := known.find_model(name)) is not None:
        return spec
    if (folder := Path(name).expanduser()).is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or known.near_names(name, cutoff=0.93):
        raise known.unknown(name)
    return None


def source(name: str, spec: ModelSpec | None, revision: str | None, cache_dir: Path | None) -> ModelSource:
    """Return where the files of a model on the hub come from."""
    if spec is None:
        return ModelSource(name, revision, cache_dir=cache_dir)
    return ModelSource(spec.id, revision or spec.revision, spec.gated, cache_dir)
