"""The guard that every store integration calls: stamp a store with a space, compare, refuse, explain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from embrief.errors import EmbriefError, NewerFormatError, SpaceMismatchError
from embrief.space import VectorSpace

KEY = "embrief_space"
"""The metadata key under which a store keeps its space."""


def stamp(space: VectorSpace) -> dict[str, str]:
    """Return store metadata that names the space. The value is a JSON string: some stores take only scalars."""
    return {KEY: json.dumps(space.to_json(), sort_keys=True)}


def read_stamp(metadata: Mapping[str, Any] | None, *, where: str) -> VectorSpace | None:
    """Return the space a store is stamped with, `None` for a store without a stamp.

    Args:
        metadata: The store's metadata.
        where: Name of the store, for messages.

    Raises:
        SpaceMismatchError: There is a stamp and it cannot be read.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise unreadable(where, f"it is in metadata of type {type(metadata).__name__}")
    if KEY not in metadata:
        return None
    value = metadata[KEY]
    if not isinstance(value, str):
        raise unreadable(where, f"it is a JSON string, not {type(value).__name__}")
    try:
        return VectorSpace.from_json(json.loads(value))
    except NewerFormatError as error:
        raise SpaceMismatchError(f"{where} has a vector space stamp that this release cannot read: {error}") from error
    except RecursionError as error:
        raise unreadable(where, "it is nested too deeply") from error
    # A number of too many digits is a ValueError, as all that is not JSON.
    except (ValueError, EmbriefError) as error:
        raise unreadable(where, str(error)) from error


def unreadable(where: str, why: str) -> SpaceMismatchError:
    """Return the error for a stamp that is there and cannot be read: it never counts as absent.

    Args:
        where: Name of the store.
        why: What is wrong with it.
    """
    return SpaceMismatchError(
        f"{where} has a vector space stamp that cannot be read: {why}. Nothing is known about its vectors: put the "
        "stamp back from a copy or, if you are sure which embedder made them, write that embedder's stamp over it; "
        "otherwise embed the documents again into a new collection"
    )


def require_same(stored: VectorSpace | None, space: VectorSpace, *, where: str) -> None:
    """Refuse to mix vectors of two spaces. A store without a stamp is let through: nothing is known about it.

    Raises:
        SpaceMismatchError: The spaces differ; the message lists how, and what to do.
    """
    if stored is None or stored == space:
        return
    raise SpaceMismatchError(
        f"{where} holds vectors of the space {stored.id}, but this embedder makes vectors of {space.id}: "
        f"{'; '.join(stored.differences(space))}. Use an embedder for the stored space, or embed the documents again "
        "into a new collection"
    )
