"""llama.cpp through llama-cpp-python, from a GGUF file written for it; token ids go in as they are.

Sequences of 120 tokens were about a tenth faster alone than four in a batch, on two cores; shorter ones share a batch,
so that its matrix products do not become small. Flash attention is left to its own choice.
"""

from __future__ import annotations

import ctypes
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embrief.bench.peers.common import Variant, normalised, threads, told_as, version_of
from embrief.bench.peers.gguf_file import FORMATS, write_gguf
from embrief.system.installed import is_installed

NAME = "llama-cpp-python"
# A batch is full once it holds FULL tokens. The buffers are made for TOKENS, or the longest input: larger ones were no
# faster, and the logits that llama.cpp computes beside the vectors take 0.6 MB per token.
FULL = 96
TOKENS = 512
SEQUENCES = 16
_NOTE = (
    "computes the vocabulary head for every token, which weighs too much with fewer layers than the model has: "
    "compare at all layers; the GGUF file is written by embrief"
)


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
        import llama_cpp

        self._api: Any = llama_cpp
        self._context: Any = None
        self._model: Any = None
        self._scratch = tempfile.TemporaryDirectory(prefix="embrief-gguf-", ignore_cleanup_errors=True)
        try:
            file = Path(self._scratch.name) / f"model-{form}.gguf"
            write_gguf(folder, file, form)
            self._log = _quiet(llama_cpp)
            llama_cpp.llama_backend_init()
            settings = llama_cpp.llama_model_default_params()
            settings.n_gpu_layers = 0
            self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), settings)
            if not self._model:
                raise RuntimeError(f"llama.cpp does not load the {form} file written from {folder.name}")
            self._dim = llama_cpp.llama_model_n_embd(self._model)
            self._longest = int(json.loads((folder / "config.json").read_text("utf-8"))["max_position_embeddings"])
            self._capacity = 0
            self._reserve(TOKENS)
        except BaseException:
            self.close()
            raise

    def _reserve(self, tokens: int) -> None:
        """Make a context whose batches hold `tokens`; a sequence must fit into one batch to be pooled."""
        api = self._api
        if tokens > self._longest:
            raise RuntimeError(f"an input of {tokens} tokens is longer than the model's {self._longest}")
        if self._context:
            api.llama_free(self._context)
            self._context = None
        settings = api.llama_context_default_params()
        # One K/V buffer for all sequences: split per sequence, unequal lengths would run in batches of their own.
        settings.n_ctx = tokens
        settings.n_batch = settings.n_ubatch = tokens
        settings.n_seq_max = SEQUENCES
        settings.kv_unified = True
        settings.n_threads = settings.n_threads_batch = threads()
        settings.embeddings = True
        settings.pooling_type = api.LLAMA_POOLING_TYPE_LAST
        self._context = api.llama_init_from_model(self._model, settings)
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context for batches of {tokens} tokens")
        self._capacity = tokens

    def embed(self, rows: list[list[int]], texts: list[str]) -> np.ndarray:
        with told_as(NAME):
            longest = max(map(len, rows), default=0)
            if longest > self._capacity:
                self._reserve(longest)
            vectors = np.empty((len(rows), self._dim), dtype=np.float32)
            part: list[int] = []
            used = 0
            for index in sorted(range(len(rows)), key=lambda index: len(rows[index])):
                if part and (used >= FULL or used + len(rows[index]) > self._capacity or len(part) == SEQUENCES):
                    vectors[part] = self._run([rows[at] for at in part])
                    part, used = [], 0
                part.append(index)
                used += len(rows[index])
            if part:
                vectors[part] = self._run([rows[at] for at in part])
            return normalised(vectors, len(rows))

    def _run(self, rows: list[list[int]]) -> np.ndarray:
        api = self._api
        total = sum(map(len, rows))
        batch = api.llama_batch_init(total, 0, 1)
        try:
            batch.n_tokens = total
            at = 0
            for sequence, row in enumerate(rows):
                for position, token in enumerate(row):
                    batch.token[at] = token
                    batch.pos[at] = position
                    batch.seq_id[at][0] = sequence
                    batch.n_seq_id[at] = 1
                    batch.logits[at] = True  # it insists on all of them when it embeds
                    at += 1
            api.llama_memory_clear(api.llama_get_memory(self._context), False)
            code = api.llama_decode(self._context, batch)
            if code != 0:
                raise RuntimeError(f"llama_decode returned {code} for {len(rows)} sequences of {total} tokens in all")
        finally:
            api.llama_batch_free(batch)
        found = [api.llama_get_embeddings_seq(self._context, sequence) for sequence in range(len(rows))]
        return np.stack([np.ctypeslib.as_array(pointer, shape=(self._dim,)) for pointer in found])

    def close(self) -> None:
        if self._context:
            self._api.llama_free(self._context)
            self._context = None
        if self._model:
            self._api.llama_model_free(self._model)
            self._model = None
        self._scratch.cleanup()


def _quiet(api: Any) -> Any:
    """Send llama.cpp's log nowhere; the callback must live as long as the library may call it."""
    callback = api.llama_log_callback(_ignore)
    api.llama_log_set(callback, ctypes.c_void_p(0))
    return callback


def _ignore(level: int, text: bytes, data: object) -> None:
    """Drop a line of the log."""
