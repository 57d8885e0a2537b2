"""What another library must offer to be measured beside embrief."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


class PeerModel(Protocol):
    """A model that a peer has loaded; not for use from two threads at once."""

    def embed(self, rows: list[list[int]], texts: list[str]) -> np.ndarray:
        """Embed inputs in the peer's best order and batches.

        Args:
            rows: token ids exactly as the model must run them, special tokens included; no row is empty.
            texts: the string that each row came from, for peers that only take text.

        Returns:
            L2-normalised float32 vectors, shape `(len(rows), dim)`, in the order of `rows`.

        Raises:
            RuntimeError: the peer failed, or gave something that is not one finite vector per row.
        """
        ...

    def close(self) -> None:
        """Free the model and delete what was written for it; calling it again does nothing."""
        ...


@dataclass(frozen=True)
class Peer:
    """One variant of an engine that is installed here.

    Attributes:
        name: the engine, as its package is called.
        variant: number format and how it came about, such as "Q8_0" or "int8 static".
        version: of the installed package.
        load: takes a checkpoint folder and returns a loaded model. It raises RuntimeError, in the engine's own words,
            where the engine refuses the checkpoint.
        note: what a reader must know to judge the figure; may be empty.
    """

    name: str
    variant: str
    version: str
    load: Callable[[Path], PeerModel]
    note: str = ""
