"""What all peers share: which are installed, how many threads they get, batches, and the check of what they return."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.system.installed import installed_version, is_installed

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.bench.peer import PeerModel


@dataclass(frozen=True)
class Variant:
    """A number format of an engine; the attributes are those of `Peer`."""

    name: str
    load: Callable[[Path], PeerModel]
    note: str = ""


def version_of(distribution: str, *modules: str) -> str:
    """Return the version of `distribution`, or "" unless it and all `modules` are installed; imports nothing."""
    return (installed_version(distribution) or "") if all(map(is_installed, modules)) else ""


def threads() -> int:
    """Return how many CPUs this process may use; every peer gets that many threads."""
    if hasattr(os, "sched_getaffinity"):  # Linux; Python 3.13 has process_cpu_count for every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def batches_by_length(rows: list[list[int]], size: int) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Cut rows, sorted by token count, into batches padded on the right: next to no padding.

    In a causal model a token sees nothing to its right, so padding needs no mask.

    Args:
        rows: token ids.
        size: rows per batch.

    Yields:
        The rows' positions in `rows`, their ids (int64, shape `(batch, longest)`, zeros on the right), and the column
        of each row's last token (int64, shape `(batch,)`).
    """
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        # Two columns at least: exporters take a length of one for a constant.
        ids = np.zeros((len(part), max(2, len(rows[part[-1]]))), dtype=np.int64)
        for line, index in enumerate(part):
            ids[line, : len(rows[index])] = rows[index]
        yield part, ids, np.array([len(rows[index]) - 1 for index in part], dtype=np.int64)


def run_batches(run: Callable[[np.ndarray, np.ndarray], Any], rows: list[list[int]], size: int, dim: int) -> np.ndarray:
    """Embed rows with `run(ids, last)`, batch by batch; returns float32 of shape `(len(rows), dim)`."""
    vectors = np.empty((len(rows), dim), dtype=np.float32)
    for part, ids, last in batches_by_length(rows, size):
        vectors[part] = run(ids, last)
    return vectors


def normalised(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return float32 vectors of length one.

    Raises:
        RuntimeError: there are not `count` of them, or one has no direction.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != count:
        raise RuntimeError(
            f"the peer returned an array of shape {vectors.shape} for {count} inputs; expected one row each"
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
    if wrong.size:
        raise RuntimeError(f"the peer's vector of input {wrong[0]} is zero or not finite ({wrong.size} of {count} are)")
    return np.asarray(vectors / lengths, dtype=np.float32)


@contextmanager
def told_as(name: str) -> Iterator[None]:
    """Turn whatever an engine raises into a RuntimeError that starts with its name.

    Raises:
        RuntimeError: something was raised inside.
    """
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        raise RuntimeError(f"{name} failed with {type(error).__name__}: {lines[0][:300]}") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Keep what converters print, log and warn about out of the bench's own output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
