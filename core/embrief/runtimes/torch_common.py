"""What the torch-based runtimes share: device and number format, tokenising, padding."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embrief.errors import ArgumentError, BackendError, ItemFailedError, ModelMismatchError
from embrief.files.modules import transformer_folder
from embrief.files.tokenizer_files import TOKEN_FLAGS, named_tokens
from embrief.runtimes.base import no_room, too_long
from embrief.system import exiting

if TYPE_CHECKING:
    import re

    import torch

    from embrief.engine.tokens import TextTokenizer
    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import EmbeddingSpec, ModelSpec
    from embrief.runtimes.base import RunOptions

IdRow = NDArray[np.int32]
NO_TEXT = "<image_soft_token>"
"""A token that EmbeddingGemma's tokenizer has from its family, and its table of vectors has not."""
_TOKENIZE_BLOCK = 1024
_BATCH_TOKENS = {"cpu": 1024, "mps": 16384, "cuda": 65536}


def resolve(spec: ModelSpec, device: str, dtype: str) -> tuple[str, str]:
    """Turn `"auto"` into the device and number format to use.

    The device is CUDA, else MPS, else CPU; the format bfloat16 where the device computes in it natively, else float32.

    Raises:
        ArgumentError: The device asked for is not there.
        BackendError: It is a GPU, and this process was forked from one that used it.
    """
    import_torch()
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = device.partition(":")
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if int(number or 0) >= there[kind]:
        raise ArgumentError(f"device={device!r} is not there; torch sees {there}; use device='auto' or 'cpu'")
    check_fork(kind)
    if kind == "cuda" and not number:
        device = f"cuda:{torch.cuda.current_device()}"
    if dtype == "auto":
        fast = _bfloat16_is_fast(kind) and "bfloat16" not in spec.banned_dtypes
        dtype = "bfloat16" if fast else "float32"
    return device, dtype


def check_fork(device: str) -> None:
    """Refuse a GPU in a process that was forked from one that used it: CUDA does not live through a fork.

    Raises:
        BackendError: It was.
    """
    import torch

    if device.startswith("cuda") and torch.cuda._is_in_bad_fork():
        raise BackendError(
            f"this process was forked from one that had used the GPU, and CUDA does not work after that (device="
            f"{device!r}); start processes with multiprocessing's 'spawn' or 'forkserver', or use device='cpu'"
        )


def import_torch() -> None:
    """Import torch, which takes about a second, so that other threads get on meanwhile: an event loop above all.

    While a module's library is mapped and linked, its thread keeps the GIL. Mapped before by a foreign call of ctypes,
    it does not. Where the library lies elsewhere, the import does it all, as ever.
    """
    if "torch" in sys.modules:
        return
    _map_library()
    with _no_collections():
        import torch  # noqa: F401


def _map_library() -> None:
    spec = importlib.util.find_spec("torch")
    ending = {"linux": "so", "darwin": "dylib"}.get(sys.platform)
    # On Windows torch does it itself.
    if spec is None or spec.origin is None or ending is None:
        return
    folder = Path(spec.origin).parent / "lib"
    with suppress(OSError, AttributeError):
        # Not `ctypes.CDLL(path)`, which keeps the GIL before Python 3.12.
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
        # In torch's own order: what the first one brings is for all to see. One that is not there gives a null pointer.
        dlopen(os.fsencode(folder / f"libtorch_global_deps.{ending}"), os.RTLD_NOW | os.RTLD_GLOBAL)
        dlopen(os.fsencode(folder / f"libtorch.{ending}"), os.RTLD_NOW | os.RTLD_LOCAL)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Collect no garbage while very many objects are made that stay: each time, all threads would wait for it."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            # There and back: they count as old now, and are not looked at at once. What the application has frozen
            # stays so.
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def _bfloat16_is_fast(kind: str) -> bool:
    import torch

    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        found = torch.cpu.get_capabilities()
        # What oneDNN may use counts too: held back by ONEDNN_MAX_CPU_ISA it computes bfloat16 many times slower.
        onednn = getattr(torch.backends, "mkldnn", None)
        if onednn is not None and onednn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    # Not measured on MPS.
    return False


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers' own progress bar off the terminal of a program that did not ask for it."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Token ids of each text, cut to the limit."""

    ids: list[IdRow]
    counts: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    types: list[IdRow] | None = None
    """Which part of a pair each token belongs to, for models that are told."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Return the tokens of each row, (n,)."""
        return np.fromiter(map(len, self.ids), np.int64, len(self.ids))


def tokenize(
    encode: Callable[[Sequence[str]], list[IdRow]], end: int, texts: Sequence[Rendered], options: RunOptions
) -> Tokenized:
    """Return token ids with special tokens; a text over the limit loses its end, but keeps tail and final specials.

    Args:
        encode: Gives the ids of whole texts.
        end: How many special tokens it puts behind a text.
        texts: Rendered texts.
        options: The limit, and what to do with a longer text.

    Raises:
        InputTooLongError: A text is over the limit and may not be cut, or its prompt alone fills the limit.
    """
    ids = encode([item.head + item.words for item in texts])
    tails = _tails(encode, end, texts)
    if any(map(len, tails)):
        ids = [
            np.concatenate((row[: len(row) - end], tail, row[len(row) - end :]))
            for row, tail in zip(ids, tails, strict=True)
        ]
    counts = np.fromiter(map(len, ids), np.int64, len(ids))
    truncated = counts > options.max_tokens
    long = np.flatnonzero(truncated).tolist()
    if long and options.refuse_long:
        raise too_long(long[0], int(counts[long[0]]), options)
    if long:
        _check_room(encode, texts, tails, long, options)
        for index in long:
            ids[index] = cut(ids[index], options.max_tokens, len(tails[index]) + end)
    return Tokenized(ids, counts, truncated)


def _tails(encode: Callable[[Sequence[str]], list[IdRow]], end: int, texts: Sequence[Rendered]) -> list[IdRow]:
    """Return the ids of what stands behind each text, without special tokens."""
    nothing = np.empty(0, np.int32)
    start = len(encode([""])[0]) - end if any(item.tail for item in texts) else 0
    known = {"": nothing}
    for tail in dict.fromkeys(item.tail for item in texts if item.tail):
        row = encode([tail])[0]
        known[tail] = row[start : len(row) - end]
    return [known[item.tail] for item in texts]


def check_tensor_names(missing: Iterable[str], surplus: Iterable[str], label: str, *, unused: re.Pattern[str]) -> None:
    """Refuse weights that are not those of their configuration.

    Args:
        missing: What the model has and the files lack.
        surplus: What the files have and the model lacks.
        label: The model's name.
        unused: Names of surplus tensors on which no result depends.

    Raises:
        ModelMismatchError: There are others.
    """
    for names, problem, effect in (
        ([*missing], "lack", "they would be random"),
        ([name for name in surplus if not unused.search(name)], "hold", "the model has no place for them"),
    ):
        if names:
            raise ModelMismatchError(
                f"the weights of {label} {problem} {len(names)} tensors, {min(names)!r} for one; {effect}. Fetch the "
                "files again, or check that they belong to this config.json"
            )


@contextmanager
def loading_errors(label: str) -> Iterator[None]:
    """Turn what transformers raises for weights that do not fit into ours."""
    try:
        yield
    except KeyError as error:
        if error.args != ("metadata",):
            raise
        raise ModelMismatchError(
            f"the index of the weights of {label} has no 'metadata', without which transformers does not read it; add "
            '"metadata": {} to model.safetensors.index.json, or save the model again'
        ) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ModelMismatchError(
            f"tensors in the weights of {label} have other shapes than config.json gives them; these are not the "
            "weights of this model"
        ) from error


def beyond(tokenizer: Any, model: Any) -> list[str]:
    """Return the tokens of a tokenizer of transformers that the model's table has no row for."""
    size = model.get_input_embeddings().weight.shape[0]
    found = {token for token, number in tokenizer.get_vocab().items() if number >= size}
    # The post-processor has ids of its own.
    found |= {f"id {number}" for number in tokenizer("")["input_ids"] if number >= size} if not found else set()
    return sorted(found)


def check_vocabulary(tokens: Sequence[str], label: str) -> None:
    """Refuse a tokenizer with tokens that the model has no vector for; on a GPU they would end the process's work.

    Raises:
        ModelMismatchError: There are some, other than the one that is published so.
    """
    if wrong := [token for token in tokens if token != NO_TEXT]:
        raise ModelMismatchError(
            f"the tokenizer of {label} has {len(wrong)} tokens that the model has no vector for, {wrong[0]!r} for one; "
            "fetch or save the tokenizer that belongs to these weights, or give the model more of them with "
            "resize_token_embeddings(len(tokenizer)) and train them"
        )


def check_named_tokens(folder: Path, tokenizer: TextTokenizer | None = None) -> None:
    """Refuse tokens in the files beside tokenizer.json that it has not, or has otherwise: transformers would add them.

    Args:
        folder: The model.
        tokenizer: Its tokenizer.json; `None` reads that file.

    Raises:
        ModelMismatchError: There are some, or tokenizer.json is none.
    """
    base = transformer_folder(folder)
    named, file = named_tokens(base), base / "tokenizer.json"
    if tokenizer is None:
        # Inside the function: not every runtime needs the tokenizers library.
        from embrief.engine.tokens import TextTokenizer

        if not named or not file.is_file():
            return
        tokenizer = TextTokenizer(base)
    remedy = "Save both files again with tokenizer.save_pretrained, or take the token out"
    added = tokenizer.added()
    for token in named:
        if token.content not in added:
            # It stands for a picture, which no text has.
            if token.content == NO_TEXT:
                continue
            raise ModelMismatchError(
                f"{token.file} names {token.content!r}, and {file.name} has no such token among its added_tokens; "
                f"transformers would add it and read texts otherwise. {remedy}"
            )
        number, flags = added[token.content]
        if token.number not in (None, number) or token.flags not in (None, flags):
            raise ModelMismatchError(
                f"{token.file} has {token.content!r} with another id or other flags ({', '.join(TOKEN_FLAGS)}) than "
                f"{file.name}, and runtimes differ in which of the two they follow. {remedy}"
            )


def check_known(rows: Sequence[IdRow], size: int, label: str) -> None:
    """Refuse texts with the one token that is in a published vocabulary and not in the model's table.

    Raises:
        ItemFailedError: A text has it; the error has the index.
    """
    for index, row in enumerate(rows):
        if len(row) and row.max() >= size:
            raise ItemFailedError(
                f"the text at index {index} contains {NO_TEXT!r}, which {label} reads as a picture and has no vector "
                "for; take it out, or put a blank into it",
                index=index,
            )


def final_tokens(tokenizer: Any, *probe: str) -> int:
    """Return how many special tokens the tokenizer puts behind a text, or behind a pair."""
    added = tokenizer(*probe, add_special_tokens=True, return_special_tokens_mask=True)["special_tokens_mask"]
    return next((count for count, special in enumerate(reversed(added)) if not special), len(added))


def cut(row: IdRow, limit: int, end: int) -> IdRow:
    """Return the row without the end of its text, but with its `end` final tokens.

    Not by the tokenizer: its limit is a state of it, and setting that while another thread tokenises fails.
    """
    return np.concatenate((row[: max(limit - end, 0)], row[len(row) - end :]))


def encode(tokenizer: Any, texts: Sequence[str]) -> list[IdRow]:
    """Return the ids of each text with special tokens, by a tokenizer of transformers.

    In blocks and as arrays: as lists of Python integers a large corpus would take gigabytes.
    """
    rows: list[IdRow] = []
    for start in range(0, len(texts), _TOKENIZE_BLOCK):
        exiting.stop_between()
        found = tokenizer(
            list(texts[start : start + _TOKENIZE_BLOCK]),
            add_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        rows += [np.array(row, np.int32) for row in found["input_ids"]]
    return rows


def _check_room(
    encode: Callable[[Sequence[str]], list[IdRow]],
    texts: Sequence[Rendered],
    tails: Sequence[IdRow],
    places: list[int],
    options: RunOptions,
) -> None:
    """Refuse a limit that cuts a text off whole: all such texts would get one vector."""
    heads = {texts[place].head: place for place in reversed(places)}
    # Without a prompt there are special tokens still.
    for (_, place), row in zip(heads.items(), encode(list(heads)), strict=True):
        tokens = len(row) + len(tails[place])
        if tokens >= options.max_tokens:
            raise no_room(place, tokens, options)


def append_final_token(tokenizer: Any, spec: EmbeddingSpec) -> None:
    """Let a tokenizer of transformers append the token that its record says its files leave out.

    By the post-processor and not text by text, so that counts, cuts and checks know the token. Not by `add_eos_token`
    either: what that makes of the other special tokens differs between the classes and releases of transformers.
    """
    if not spec.final_token_left_out or spec.final_token is None:
        return
    number = tokenizer.convert_tokens_to_ids(spec.final_token)
    if number is None or tokenizer("probe")["input_ids"][-1] == number:
        return
    from tokenizers.processors import TemplateProcessing

    # One template with all of them: two in turn would take the first one's result for a pair.
    probe = tokenizer("probe", return_special_tokens_mask=True)
    ids, mask = probe["input_ids"], probe["special_tokens_mask"]
    start, end = mask.index(0), len(mask) - mask[::-1].index(0)
    around = {place: tokenizer.convert_ids_to_tokens(number) for place, number in enumerate(ids) if mask[place]}
    before = [around[place] for place in range(start)]
    behind = [*(around[place] for place in range(end, len(ids))), spec.final_token]
    tokens = dict.fromkeys([*before, *behind])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=" ".join([*before, "$A", *behind]),
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in tokens],
    )


def check_final_token(tokenizer: Any, spec: EmbeddingSpec) -> None:
    """Check that every input ends with the token the model pools or was trained with, also after truncation.

    Raises:
        ModelMismatchError: It does not; vectors would look healthy and rank badly.
    """
    if spec.final_token is None:
        return
    expected = tokenizer.convert_tokens_to_ids(spec.final_token)
    whole = tokenizer("probe", add_special_tokens=True)["input_ids"]
    short = tokenizer("probe " * 64, add_special_tokens=True, truncation=True, max_length=8)["input_ids"]
    if expected is None or whole[-1] != expected or short[-1] != expected or len(short) > 8:
        raise ModelMismatchError(
            f"the tokenizer of {spec.id} ends a text with token {whole[-1]} and a truncated one with {short[-1]}, but "
            f"the model was trained with {spec.final_token!r} ({expected}) at the end; fetch tokenizer.json again, or "
            "save it with the post-processor that appends this token"
        )


def batch_tokens(device: str) -> int:
    """Return the tokens per batch that suit the device, padding included."""
    return _BATCH_TOKENS[device.partition(":")[0]]


def pad(rows: Sequence[IdRow], side: str, fill: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values (token ids, for instance) and attention mask, (n, longest), on the device."""
    import torch

    width = max(map(len, rows))
    ids = np.full((len(rows), width), fill, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, place] = row
        mask[number, place] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def free(device: str) -> None:
    """Give the memory of a model that nobody holds any more back to the system."""
    import torch

    # Loaded models contain reference cycles.
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
