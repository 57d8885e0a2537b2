"""llama.cpp through llama-cpp-python, from a GGUF file written for it; token ids go in as they are.

The library's calls are those of the runtime `gguf`, in this process.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from functools import partial
from pathlib import Path

import numpy as np

from embrief.bench.peers.common import Variant, normalised, threads, told_as, version_of
from embrief.bench.peers.gguf_file import FORMATS, write_gguf
from embrief.llama.library import Llama, Wanted
from embrief.system.installed import is_installed

NAME = "llama-cpp-python"
_NOTE = "the GGUF file is written by embrief"


def installed_version() -> str:
    """Return the version, or "" where llama-cpp-python or gguf is missing."""
    return version_of("llama-cpp-python", "llama_cpp") if is_installed("gguf") else ""


def variants() -> list[Variant]:
    """Return one variant per GGUF format."""
    return [Variant(form, partial(_load, form), _NOTE) for form in FORMATS]


def _load(form: str, folder: Path) -> _Model:
    with told_as(NAME):
        return _Model(folder, form)


class _Model:
    def __init__(self, folder: Path, form: str) -> None:
        self._llama: Llama | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="embrief-gguf-", ignore_cleanup_errors=True)
        try:
            file = Path(self._scratch.name) / f"model-{form}.gguf"
            write_gguf(folder, file, form)
            config = json.loads((folder / "config.json").read_text("utf-8"))
            self._dim: int = config["hidden_size"]
            self._llama = Llama(
                Wanted(
                    file=str(file),
                    pooling="last",
                    width=self._dim,
                    causal=True,
                    context=config["max_position_embeddings"],
                    threads=threads(),
                    gpu_layers=0,
                )
            )
        except BaseException:
            self.close()
            raise

    def embed(self, rows: list[list[int]], texts: list[str]) -> np.ndarray:
        assert self._llama is not None
        with told_as(NAME):
            found = self._llama.run([array("i", row) for row in rows])
            return normalised(np.frombuffer(found, np.float32).reshape(len(rows), self._dim), len(rows))

    def close(self) -> None:
        if self._llama is not None:
            self._llama.close()
            self._llama = None
        self._scratch.cleanup()
