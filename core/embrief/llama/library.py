"""llama.cpp's own functions, through the ctypes bindings of llama-cpp-python: token ids in, vectors or scores out.

Imports neither numpy nor what `import llama_cpp` brings: that imports diskcache, which reads pickles.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import os
import sys
import types
from array import array
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

FULL = 96
"""Tokens from which on a batch takes no further sequence. Sequences of 120 tokens were about a tenth faster alone than
four in a batch, on two cores; shorter ones share a batch, so that its matrix products do not become small."""
SEQUENCES = 16
"""Sequences of one batch."""
_PIECE = 512
"""Tokens that a causal model computes at once."""
_CAPACITY = 512
"""Tokens that a context holds at first; longer texts get a larger one."""
_ALL_LAYERS = 10_000
_LOG_LINES = 30
_WARNING = 3
_POOLINGS = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}


class LlamaError(Exception):
    """llama.cpp refused something; the message ends with what it logged."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be loaded, and how it runs. Plain values: they go to another process."""

    file: str
    pooling: str
    """`"last"`, `"mean"`, `"rank"`, or `"none"` for the logits of two tokens."""
    width: int
    """Values of a vector; of a score, 2."""
    causal: bool
    context: int
    """Tokens of the longest text."""
    threads: int
    gpu_layers: int | None = None
    """Layers that the GPU computes; `None`: all."""
    answers: tuple[int, ...] = ()
    """Two token ids whose logits at the last position are wanted."""


def bindings() -> Any:
    """Return the module `llama_cpp.llama_cpp`, without running the package around it.

    Raises:
        ImportError: It is not installed, or finds no library.
    """
    name = "llama_cpp"
    if f"{name}.{name}" not in sys.modules and name not in sys.modules:
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("the package llama_cpp is not installed")
        package = types.ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = package
        try:
            return importlib.import_module(f"{name}.{name}")
        finally:
            # Whoever imports the package in this process gets the whole one.
            del sys.modules[name]
    return importlib.import_module(f"{name}.{name}")


def can_offload() -> bool:
    """Return whether the library was built for a GPU.

    Raises:
        ImportError, OSError, RuntimeError: It is not there, or cannot be loaded.
    """
    return bool(bindings().llama_supports_gpu_offload())


_log: deque[str] = deque(maxlen=_LOG_LINES)
_listeners: list[Any] = []


def _listen(api: Any) -> None:
    """Keep the end of what llama.cpp logs. One listener for the whole process: the library may call it at any time."""
    if not _listeners:
        _listeners.append(api.llama_log_callback(_tell))
        api.llama_log_set(_listeners[0], ctypes.c_void_p(0))
        api.llama_backend_init()
    _log.clear()


def _tell(level: int, text: bytes, data: object) -> None:
    if level >= _WARNING:
        _log.append(text.decode("utf-8", "replace").rstrip())


def _logged() -> str:
    """Return what llama.cpp logged last, as the end of a message."""
    found = "\n".join(line for line in _log if line)
    return f":\n{found}" if found else ""


class Llama:
    """One model in memory."""

    def __init__(self, wanted: Wanted) -> None:
        """Load a file.

        Raises:
            LlamaError: llama.cpp does not load it.
            ImportError: llama.cpp is not there.
        """
        self._wanted = wanted
        self._model: Any = None
        self._context: Any = None
        self._capacity = 0
        try:
            self._api = api = bindings()
        except (OSError, RuntimeError) as error:
            raise ImportError(f"llama.cpp's library cannot be loaded: {error}") from error
        _listen(api)
        settings = api.llama_model_default_params()
        settings.n_gpu_layers = _ALL_LAYERS if wanted.gpu_layers is None else wanted.gpu_layers
        # Read, not mapped: a file that is written again must not change a model in use.
        settings.use_mmap = False
        settings.check_tensors = True
        self._model = api.llama_model_load_from_file(os.fsencode(wanted.file), settings)
        if not self._model:
            raise LlamaError(f"llama.cpp does not load {Path(wanted.file).name}{_logged()}")
        self._vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))
        self._reserve(min(_CAPACITY, wanted.context))

    def _reserve(self, tokens: int) -> None:
        """Make a context for batches of so many tokens."""
        api, wanted = self._api, self._wanted
        self._free_context()
        settings = api.llama_context_default_params()
        # One buffer of keys and values for all: split per sequence, unequal lengths would run in batches of their own.
        settings.kv_unified = True
        settings.n_seq_max = SEQUENCES
        settings.n_ctx = tokens
        # One piece: a bidirectional model whose text does not fit into n_ubatch ends the process.
        settings.n_batch = settings.n_ubatch = tokens
        settings.n_threads = settings.n_threads_batch = wanted.threads
        settings.embeddings = wanted.pooling != "none"
        settings.pooling_type = _POOLINGS[wanted.pooling]
        if wanted.gpu_layers == 0:
            # Its fused attention rounds to float16 on CPUs: it moved a text of 1,024 tokens by 4e-4 in cosine, and
            # scores by 0.02 in log-odds. Without it, and with keys and values in float32, both are exact to 1e-6.
            settings.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
            settings.type_k = settings.type_v = api.GGML_TYPE_F32
        if wanted.causal:
            # Only the last token of each sequence gives something. The logits of all would take gigabytes.
            settings.n_outputs_max = SEQUENCES
            # Its attention's intermediate results are these times all that came before.
            settings.n_ubatch = min(tokens, _PIECE)
        self._context = api.llama_init_from_model(self._model, settings)
        if not self._context:
            raise MemoryError(f"llama.cpp makes no room for {tokens} tokens{_logged()}")
        self._capacity = tokens

    def run(self, rows: Sequence[array[int]]) -> bytes:
        """Return float32 values, `width` per sequence and in order.

        Args:
            rows: Token ids, each at least one and at most `context`.

        Raises:
            LlamaError: It fails, or an id is none of the model's.
            MemoryError: There is not enough.
        """
        wanted, found = self._wanted, [b""] * len(rows)
        for row in rows:
            if not row or len(row) > wanted.context or min(row) < 0 or max(row) >= self._vocabulary:
                raise LlamaError("a text has no token, too many, or one that the model has no vector for")
        longest = max(map(len, rows), default=0)
        if longest > self._capacity:
            self._reserve(min(max(1 << (longest - 1).bit_length(), _CAPACITY), wanted.context))
        part: list[int] = []
        used = 0
        for place in sorted(range(len(rows)), key=lambda place: len(rows[place])):
            size = len(rows[place])
            if part and (used >= FULL or used + size > self._capacity or len(part) == SEQUENCES):
                self._part(rows, part, found)
                part, used = [], 0
            part.append(place)
            used += size
        if part:
            self._part(rows, part, found)
        return b"".join(found)

    def _part(self, rows: Sequence[array[int]], places: list[int], found: list[bytes]) -> None:
        api, wanted = self._api, self._wanted
        chosen = [rows[place] for place in places]
        if wanted.causal:
            api.llama_memory_clear(api.llama_get_memory(self._context), False)
        if wanted.pooling == "none":
            self._decode([(0, row) for row in chosen], outputs="last")
            at = 0
            for place, row in zip(places, chosen, strict=True):
                at += len(row)
                logits = api.llama_get_logits_ith(self._context, at - 1)
                if not logits:
                    raise LlamaError(f"llama.cpp gave no logits{_logged()}")
                found[place] = array("f", [logits[answer] for answer in wanted.answers]).tobytes()
            return
        if wanted.causal:
            # What stands before the last token only fills keys and values: with vectors switched on, llama.cpp would
            # compute the output layer for every token.
            api.llama_set_embeddings(self._context, False)
            if any(len(row) > 1 for row in chosen):
                self._decode([(0, row[:-1]) for row in chosen], outputs="none")
            api.llama_set_embeddings(self._context, True)
            self._decode([(len(row) - 1, row[-1:]) for row in chosen], outputs="all")
        else:
            self._decode([(0, row) for row in chosen], outputs="all")
        for sequence, place in enumerate(places):
            values = api.llama_get_embeddings_seq(self._context, sequence)
            if not values:
                raise LlamaError(f"llama.cpp gave no vector{_logged()}")
            found[place] = ctypes.string_at(values, 4 * wanted.width)

    def _decode(self, sequences: Sequence[tuple[int, array[int]]], *, outputs: str) -> None:
        """Run sequences side by side, each from its own position on."""
        api = self._api
        total = sum(len(row) for _, row in sequences)
        assert total <= self._capacity  # beyond that, the library ends the process
        numbers = (ctypes.c_int32 * len(sequences))(*range(len(sequences)))
        pointer = ctypes.POINTER(ctypes.c_int32)
        cells = [ctypes.cast(ctypes.byref(numbers, 4 * place), pointer) for place in range(len(sequences))]
        token, position, flags = array("i"), array("i"), bytearray()
        owners: list[Any] = []
        for cell, (first, row) in zip(cells, sequences, strict=True):
            token += row
            position.extend(range(first, first + len(row)))
            owners += [cell] * len(row)
            flags += (b"\1" if outputs == "all" else b"\0") * len(row)
            if outputs == "last":
                flags[-1] = 1
        batch = api.llama_batch()
        keep: list[Any] = [
            (ctypes.c_int32 * total).from_buffer(token),
            (ctypes.c_int32 * total).from_buffer(position),
            (ctypes.c_int32 * total)(*[1] * total),
            (pointer * total)(*owners),
            (ctypes.c_int8 * total).from_buffer(flags),
        ]
        batch.n_tokens = total
        batch.token = ctypes.cast(keep[0], type(batch.token))
        batch.pos = ctypes.cast(keep[1], type(batch.pos))
        batch.n_seq_id = ctypes.cast(keep[2], type(batch.n_seq_id))
        batch.seq_id = ctypes.cast(keep[3], type(batch.seq_id))
        batch.logits = ctypes.cast(keep[4], type(batch.logits))
        code = api.llama_decode(self._context, batch)
        if code == -2:
            raise MemoryError(f"llama.cpp had no memory for {total} tokens{_logged()}")
        if code:
            raise LlamaError(f"llama_decode returned {code} for {total} tokens{_logged()}")

    def _free_context(self) -> None:
        if self._context:
            self._api.llama_free(self._context)
        # Without a context there is room for nothing: where the next one fails, the call after it makes another.
        self._context, self._capacity = None, 0

    def close(self) -> None:
        """Free the model."""
        self._free_context()
        if self._model:
            self._api.llama_model_free(self._model)
            self._model = None
