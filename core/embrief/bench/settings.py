"""What a run is asked to measure, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

DTYPES = ("bfloat16", "int8", "float32")
SHORT_LAYERS = 7
"""Layers of the two long rows unless the caller says otherwise: a quarter of the model has the same ratios."""
RUNTIME_LAYERS = 4
"""Layers of the rows with all runtimes, which hold a dozen models in memory at once."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Texts per workload."""

    chunks: int = 256
    long: int = 16
    equal: int = 64
    queries: int = 64
    singles: int = 8
    """Calls with one query each."""
    candidates: int = 50
    gemma: int = 32
    photos: int = 8
    pages: int = 2
    mixed: int = 12
    ranked: int = 10
    """Pages of one query."""
    photo: tuple[int, int] = (480, 640)
    """Height and width in pixels."""
    page: tuple[int, int] = (1754, 1240)
    """A4 in 150 dots per inch."""
    runtime: int = 12
    """Texts or pairs for each runtime of this machine: there are many, and some are slow."""
    wrapper: int = 64
    batch: int = 32
    """Texts of the batch during which memory is watched."""
    requests: int = 20
    """To a server, before another library has its turn."""


TINY = Sizes(
    chunks=12, long=3, equal=4, queries=4, singles=2, candidates=5, gemma=4, runtime=4, wrapper=4, batch=2, requests=2,
    photos=2, pages=1, mixed=3, ranked=2, photo=(96, 128), page=(224, 160),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The part of a call that decides what the numbers mean. Equal settings may share a results file."""

    models: tuple[str, ...] = ()
    """Folders or ids of real models; empty for random weights."""
    layers: int | None = None
    """Layers of every model; `None`: all, but `SHORT_LAYERS` of the rows that would take very long."""
    shape: Literal["real", "tiny"] = "real"
    sizes: Sizes = Sizes()
    repeats: int = 3
    """Rounds; each runs every library once."""
    dtypes: tuple[str, ...] = DTYPES
    """Number formats of embrief to run."""
    threads: int | None = None
    """CPU threads; `None` leaves torch's choice."""
    device: str = "auto"
    limit: float = 600.0
    """Seconds: a library that would take longer for the texts of a row is left out of it."""


def sizes_of(shape: str, chunks: int | None = None) -> Sizes:
    """Return how many texts the workloads have.

    Args:
        shape: `real` or `tiny`.
        chunks: Chunks of documents, if not the usual number.
    """
    sizes = TINY if shape == "tiny" else Sizes()
    return sizes if chunks is None else replace(sizes, chunks=chunks)
