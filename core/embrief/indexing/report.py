"""What an update says of itself: how far it is, and what it did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be indexed."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an update is."""

    files: int
    """Looked at."""
    of: int
    passages: int
    """Embedded and stored."""


@dataclass(slots=True)
class Update:
    """What an update did."""

    collection: str = ""
    files: int = 0
    """That were found."""
    unchanged: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    """Files that are gone, or are no longer to be in it."""
    embedded: int = 0
    """Passages that were embedded and stored."""
    passages: int = 0
    """That the collection holds now."""
    failed: list[Failure] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Why files were not taken, and how many."""
    estimated: bool = False
    """Whether the model's tokens could not be counted, and passages were measured by their bytes."""
    stopped: bool = False
    """Whether it was asked to end early; the next one goes on from there."""
    seconds: float = 0.0

    @property
    def did_something(self) -> bool:
        """Whether the collection changed."""
        return bool(self.added or self.changed or self.removed)
