"""mistral.rs through its wheel; token ids go in as they are.

Loaded by the code of `backend="mistralrs"`, without our tokenizer and scheduler. It batches by itself, so all rows go
in one request, in the order of their lengths.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from embrief.bench.peers.common import Variant, normalised, told_as, version_of

if TYPE_CHECKING:
    from pathlib import Path

NAME = "mistralrs"


def installed_version() -> str:
    """Return the version, or "" where mistralrs is missing."""
    return version_of("mistralrs", "mistralrs")


def variants() -> list[Variant]:
    """Return what it chooses by itself on a CPU, and its 8-bit form."""
    return [
        Variant("F32", partial(_load, "float32"), "its own choice on a CPU"),
        Variant("Q8_0", partial(_load, "q8_0"), "quantised as it loads"),
    ]


def _load(dtype: str, folder: Path) -> _Model:
    with told_as(NAME):
        return _Model(folder, dtype)


class _Model:
    def __init__(self, folder: Path, dtype: str) -> None:
        from embrief.files.model_files import read_files
        from embrief.runtimes.mistralrs import Runner

        self._runner = Runner(read_files(folder), folder.name, pooling="last", dtype=dtype)

    def embed(self, rows: list[list[int]], texts: list[str]) -> np.ndarray:
        with told_as(NAME):
            order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
            if not order:
                return np.empty((0, 0), dtype=np.float32)
            found = normalised(self._runner.embed([np.array(rows[index]) for index in order]), len(rows))
            vectors = np.empty_like(found)
            vectors[order] = found
            return vectors

    def close(self) -> None:
        self._runner.close()
