"""Damaged GGUF files: each is an error of ours, each time, and this process lives."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder
from embrief.errors import ArgumentError, EmbriefError, ModelMismatchError, UnknownModelError
from embrief.files import gguf_header
from embrief.files.gguf_header import read_header

from ...gguf_writer import Facts, Tensors, write_embedder

Bytes = Callable[[bytes], bytes]
Change = Callable[[Facts, Tensors], None]


def at(place: int, form: str, value: object) -> Bytes:
    """Overwrite a number."""
    packed = struct.pack(form, value)
    return lambda data: data[:place] + packed + data[place + len(packed) :]


def behind(name: str, form: str, value: object, skip: int = 0) -> Bytes:
    """Overwrite a number that stands behind a name."""
    packed = struct.pack(form, value)

    def change(data: bytes) -> bytes:
        place = data.index(name.encode()) + len(name) + skip
        return data[:place] + packed + data[place + len(packed) :]

    return change


def renamed(old: str, new: str) -> Bytes:
    assert len(old) == len(new)
    return lambda data: data.replace(old.encode(), new.encode(), 1)


def cut(share: float) -> Bytes:
    return lambda data: data[: int(len(data) * share)]


def fact(name: str, value: object) -> Change:
    def change(facts: Facts, tensors: Tensors) -> None:
        facts[name] = value  # type: ignore[assignment]

    return change


def tensor(name: str, values: Callable[[np.ndarray], np.ndarray] | None) -> Change:
    def change(facts: Facts, tensors: Tensors) -> None:
        if values is None:
            del tensors[name]
        else:
            tensors[name] = values(tensors[name])

    return change


def without(name: str) -> Change:
    return lambda facts, tensors: facts.pop(name)  # type: ignore[return-value]


def with_tokens(tokens: Callable[[list[str]], list[str]]) -> Change:
    def change(facts: Facts, tensors: Tensors) -> None:
        facts["tokenizer.ggml.tokens"] = tokens(facts["tokenizer.ggml.tokens"])  # type: ignore[arg-type]

    return change


FIRST_KEY = "general.architecture"
BYTES: dict[str, Bytes] = {
    "empty": lambda data: b"",
    "3 bytes": lambda data: data[:3],
    "the first word": lambda data: data[:4],
    "16 bytes": lambda data: data[:16],
    "24 bytes": lambda data: data[:24],
    "cut in a key": lambda data: data[:40],
    "cut in the facts": lambda data: data[:1000],
    "cut in the tokens": cut(0.05),
    "cut at a third": cut(0.33),
    "cut at two thirds": cut(0.66),
    "one byte missing": lambda data: data[:-33],
    "a zip": lambda data: b"PK\3\4" + data[4:],
    "a web page": lambda data: b"<!doctype html>" + b" " * 4000,
    "zeros": lambda data: bytes(len(data)),
    "version 0": at(4, "<I", 0),
    "version 1": at(4, "<I", 1),
    "version 4": at(4, "<I", 4),
    "highest byte first": at(4, ">I", 3),
    "too many tensors": at(8, "<Q", 2**40),
    "minus one tensors": at(8, "<Q", 2**64 - 1),
    "one tensor more": at(8, "<Q", 36),
    "too many facts": at(16, "<Q", 2**50),
    "one fact more": lambda data: at(16, "<Q", struct.unpack_from("<Q", data, 16)[0] + 1)(data),
    "one fact less": lambda data: at(16, "<Q", struct.unpack_from("<Q", data, 16)[0] - 1)(data),
    "no facts": at(16, "<Q", 0),
    "a huge name": at(24, "<Q", 2**62),
    "a name of 20 MB": at(24, "<Q", 20 * 2**20),
    "a name without letters": at(24, "<Q", 0),
    "a value of no type": behind(FIRST_KEY, "<I", 99),
    "a list of lists": behind("tokenizer.ggml.tokens", "<I", 9, skip=4),
    "a list of no type": behind("tokenizer.ggml.tokens", "<I", 77, skip=4),
    "a huge list of strings": behind("tokenizer.ggml.tokens", "<Q", 2**60, skip=8),
    "a long list of strings": behind("tokenizer.ggml.tokens", "<Q", 10**6, skip=8),
    "a huge list of numbers": behind("tokenizer.ggml.token_type", "<Q", 2**61, skip=8),
    "one key twice": renamed("general.type", "general.name"),
    "one tensor twice": renamed("blk.1.attn_q.weight", "blk.1.attn_k.weight"),
    "9 dimensions": behind("blk.1.attn_q.weight", "<I", 9),
    "a dimension of 0": behind("blk.1.attn_q.weight", "<Q", 0, skip=4),
    "a huge dimension": behind("blk.1.attn_q.weight", "<Q", 2**60, skip=4),
    "numbers of no type": behind("blk.1.attn_q.weight", "<I", 250, skip=20),
    "numbers of a removed type": behind("blk.1.attn_q.weight", "<I", 4, skip=20),
    "a tensor elsewhere": behind("blk.1.attn_q.weight", "<Q", 64, skip=24),
    "a tensor beyond the end": behind("blk.1.attn_q.weight", "<Q", 2**50, skip=24),
}
CONTENTS: dict[str, Change] = {
    "alignment 0": fact("general.alignment", 0),
    "alignment 3": fact("general.alignment", 3),
    "alignment 2 GB": fact("general.alignment", 2**31),
    "alignment in words": fact("general.alignment", "32"),
    "no architecture": without("general.architecture"),
    "the architecture is a number": fact("general.architecture", 3),
    "an unknown pooling": fact("qwen3.pooling_type", 77),
    "no width": without("qwen3.embedding_length"),
    "the width in words": fact("qwen3.embedding_length", "48"),
    "no length": fact("qwen3.context_length", 0),
    "a billion layers": fact("qwen3.block_count", 2**30),
    "no layers": fact("qwen3.block_count", 0),
    "no heads": fact("qwen3.attention.head_count", 0),
    "heads that do not divide": fact("qwen3.attention.head_count", 7),
    "more heads of keys": fact("qwen3.attention.head_count_kv", 5),
    "heads of another width": fact("qwen3.attention.key_length", 24),
    "an odd rotation": fact("qwen3.rope.dimension_count", 7),
    "no epsilon": without("qwen3.attention.layer_norm_rms_epsilon"),
    "a layer lacks a tensor": tensor("blk.1.attn_q.weight", None),
    "no table of tokens": tensor("token_embd.weight", None),
    "a tensor of another shape": tensor("blk.2.ffn_up.weight", lambda values: values[:-1]),
    "a norm of another shape": tensor("output_norm.weight", lambda values: values[:-1]),
    "NaN in the weights": tensor("blk.0.ffn_up.weight", lambda values: values * np.nan),
    "infinity in the weights": tensor("blk.0.attn_v.weight", lambda values: values * np.inf),
    "less tokens than vectors": with_tokens(lambda tokens: tokens[:-10]),
    "more tokens than vectors": with_tokens(lambda tokens: [*tokens, "more"]),
    "no tokens": without("tokenizer.ggml.tokens"),
    "one token twice": with_tokens(lambda tokens: [*tokens[:-1], tokens[-2]]),
    "tokens are numbers": fact("tokenizer.ggml.tokens", [1, 2, 3]),
    "kinds of fewer tokens": fact("tokenizer.ggml.token_type", [1, 1]),
    "no merges": without("tokenizer.ggml.merges"),
    "merges of no tokens": fact("tokenizer.ggml.merges", ["nothing such", "neither that"]),
    "merges without blanks": fact("tokenizer.ggml.merges", ["nothing", "x"]),
    "no way to read texts": without("tokenizer.ggml.pre"),
}


@pytest.fixture(scope="module")
def whole(files: dict[str, Path]) -> bytes:
    return files["qwen3"].read_bytes()


def refused_each_time(file: Path) -> None:
    for _ in range(2):
        with pytest.raises(EmbriefError) as caught:
            Embedder(file).encode(["x"], role="query")
        assert isinstance(caught.value, (ModelMismatchError, UnknownModelError, ArgumentError))
        # It says which file, or what the model is called.
        assert "broken" in str(caught.value)


def test_there_are_more_than_forty():
    assert len(BYTES) + len(CONTENTS) > 40


@pytest.mark.parametrize("what", BYTES)
@pytest.mark.usefixtures("llama")
def test_bytes_that_are_wrong_are_refused_before_llama_cpp_sees_them(what, whole, tmp_path, monkeypatch):
    file = tmp_path / "broken.gguf"
    file.write_bytes(BYTES[what](whole))
    monkeypatch.setattr("embrief.llama.process.Child", None)
    refused_each_time(file)


@pytest.mark.parametrize("what", CONTENTS)
@pytest.mark.usefixtures("llama")
def test_contents_that_are_wrong_are_refused(what, qwen3_folder, tmp_path):
    refused_each_time(write_embedder(qwen3_folder, tmp_path / "broken.gguf", change=CONTENTS[what]))


def test_nothing_is_allocated_that_a_file_merely_claims(whole, tmp_path):
    """A header that claims gigabytes is refused while the process has room for a few megabytes more."""
    import tracemalloc

    for what in (
        "a huge list of strings",
        "a huge list of numbers",
        "a huge name",
        "too many tensors",
        "too many facts",
    ):
        file = tmp_path / "broken.gguf"
        file.write_bytes(BYTES[what](whole))
        tracemalloc.start()
        with pytest.raises(ModelMismatchError):
            read_header(file)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20, what
        tracemalloc.stop()


def test_every_flipped_byte_of_the_header_is_read_or_refused(whole, tmp_path):
    """No byte makes the reader fail in another way than with an error of ours."""
    header = whole.index(b"token_embd.weight")
    generator = np.random.default_rng(1)
    for place in generator.integers(0, header + 2000, 300).tolist():
        file = tmp_path / "flipped.gguf"
        data = bytearray(whole)
        data[place] ^= 1 << int(generator.integers(8))
        file.write_bytes(data)
        gguf_header._read.cache_clear()
        with suppress(ModelMismatchError):
            read_header(file)
