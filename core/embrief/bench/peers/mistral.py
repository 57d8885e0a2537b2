"""mistral.rs through its wheel; token ids go in as they are.

It batches by itself, so all rows go in one request, in the order of their lengths.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embrief.bench.peers.common import Variant, normalised, told_as, version_of

NAME = "mistralrs"
SEQUENCES = 32


def installed_version() -> str:
    """Return the version, or "" where mistralrs is missing."""
    return version_of("mistralrs", "mistralrs")


def variants() -> list[Variant]:
    """Return what it chooses by itself on a CPU, and its 8-bit form."""
    return [
        Variant("F32", partial(_load, None), "its own choice on a CPU"),
        Variant("Q8_0", partial(_load, "Q8_0"), "quantised as it loads"),
    ]


def _load(quantisation: str | None, folder: Path) -> _Model:
    with told_as(NAME):
        return _Model(folder, quantisation)


class _Model:
    def __init__(self, folder: Path, quantisation: str | None) -> None:
        # It reads this once, and otherwise writes its log to stdout, among the bench's own lines.
        os.environ.setdefault("RUST_LOG", "error")
        import mistralrs

        self._request: Any = mistralrs.EmbeddingRequest
        self._scratch = tempfile.TemporaryDirectory(prefix="embrief-mistralrs-", ignore_cleanup_errors=True)
        try:
            place = Path(self._scratch.name) / "model"
            _present(folder, place)
            self._runner: Any = mistralrs.Runner(
                which=mistralrs.Which.Embedding(
                    model_id=str(place), arch=mistralrs.EmbeddingArchitecture.Qwen3Embedding
                ),
                max_seqs=SEQUENCES,
                token_source="none",
                in_situ_quant=quantisation,
            )
        except BaseException:
            self.close()
            raise

    def embed(self, rows: list[list[int]], texts: list[str]) -> np.ndarray:
        with told_as(NAME):
            order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
            if not order:
                return np.empty((0, 0), dtype=np.float32)
            answer = self._runner.send_embedding_request(self._request(input=[rows[index] for index in order]))
            found = normalised(np.array(answer, dtype=np.float32), len(rows))
            vectors = np.empty_like(found)
            vectors[order] = found
            return vectors

    def close(self) -> None:
        self._runner = None
        self._scratch.cleanup()


def _present(folder: Path, place: Path) -> None:
    """Show `folder` as `place`, with the rope base where mistral.rs looks for it.

    transformers 5 writes it inside `rope_parameters`; mistral.rs 0.9 only knows the older top-level `rope_theta`.
    """
    place.mkdir()
    for file in folder.rglob("*"):
        target = place / file.relative_to(folder)
        if file.is_dir():
            target.mkdir(exist_ok=True)
        elif file.name != "config.json" or file.parent != folder:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.symlink_to(file.resolve())
            except OSError:  # Windows without the right to make links
                shutil.copy2(file, target)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config.setdefault("rope_theta", (config.get("rope_parameters") or {}).get("rope_theta"))
    (place / "config.json").write_text(json.dumps(config), "utf-8")
