"""The header of a GGUF file, checked against the file before anything else opens it.

The format is version 3 of docs/gguf.md in ggml's repository; version 2 has the same layout. No count or length in the
file is believed: nothing is allocated that the bytes of the file do not bear out.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from embrief.errors import ModelMismatchError, WeightsUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY, _BOOL = 8, 9, 7
# By the number that the format gives each: how struct and array read it.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}
_BLOCK = 4 * 2**20
_LONGEST_HEADER = 256 * 2**20
"""Bytes: a vocabulary of 262,144 tokens with its merges takes 13 million."""
_LONGEST_TEXT = 16 * 2**20
_LONGEST_NAME = 63
_MOST_DIMENSIONS = 4
_MOST_VALUES = 2**48
_LARGEST_ALIGNMENT = 2**20
_REMEDY = "fetch or convert the file again"

# Values of a block and its bytes, by ggml's number for the type.
_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("float32", 1, 4), 1: ("float16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 9: ("q8_1", 32, 36), 10: ("q2_k", 256, 84), 11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210), 15: ("q8_k", 256, 292),
    16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18), 21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 23: ("iq4_xs", 256, 136),
    29: ("iq1_m", 256, 56), 30: ("bfloat16", 1, 2), 34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66),
    39: ("mxfp4", 32, 17),
}  # fmt: skip
# What `general.file_type` means, by llama.h. A table of tokens is often kept finer than the layers, and in a small
# model it is the largest part.
_FILE_TYPES = {
    0: "float32", 1: "float16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s",
    12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k", 19: "iq2_xxs",
    20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl", 26: "iq3_s", 27: "iq3_m",
    28: "iq2_s", 29: "iq2_m", 30: "iq4_xs", 31: "iq1_m", 32: "bfloat16", 36: "tq1_0", 37: "tq2_0", 38: "mxfp4",
}  # fmt: skip
DTYPES = tuple(dict.fromkeys((*_FILE_TYPES.values(), *(name for name, *_ in _TYPES.values()))))
"""Number formats of GGUF files by the names that they have here."""
_WRITTEN = {"f32": "float32", "fp32": "float32", "f16": "float16", "fp16": "float16", "bf16": "bfloat16"}
_IN_NAME = re.compile(
    r"(?:^|[-_.])(bf16|fp?16|fp?32|i?q\d_[a-z0-9]+(?:_[a-z]+)?|tq\d_\d|mxfp4)(?=[-.]|$)", re.IGNORECASE
)
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor of a file."""

    shape: tuple[int, ...]
    """The outermost dimension first, as numpy has it; the file has it the other way round."""
    dtype: str


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a file says of itself. All of it is checked against the size of the file, and nothing against a model."""

    file: Path
    facts: dict[str, Any]
    """Numbers, strings, flags, lists of strings, arrays of numbers."""
    tensors: dict[str, GgufTensor]

    def text(self, key: str) -> str | None:
        """Return a string, `None` if there is none.

        Raises:
            ModelMismatchError: There is something else, here and below.
        """
        value = self.facts.get(key)
        return value if value is None or isinstance(value, str) else self._refuse(key, "a string")

    def count(self, key: str) -> int | None:
        """Return a whole number of at least 0, `None` if there is none."""
        value = self.facts.get(key)
        fits = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
        return value if fits else self._refuse(key, "a whole number of at least 0")

    def flag(self, key: str) -> bool | None:
        """Return true or false, `None` if it is not said."""
        value = self.facts.get(key)
        return value if value is None or isinstance(value, bool) else self._refuse(key, "true or false")

    def texts(self, key: str) -> list[str] | None:
        """Return strings, `None` if there are none."""
        value = self.facts.get(key)
        return value if value is None or isinstance(value, list) else self._refuse(key, "a list of strings")

    def numbers(self, key: str) -> array[Any] | None:
        """Return numbers, `None` if there are none."""
        value = self.facts.get(key)
        return value if value is None or isinstance(value, array) else self._refuse(key, "a list of numbers")

    def _refuse(self, key: str, what: str) -> NoReturn:
        raise ModelMismatchError(f"{key!r} in {self.file} is not {what}; {_REMEDY}")

    @property
    def dtype(self) -> str:
        """Return the number format of the weights: what the file says, if layers are in it, else the most frequent."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            if len(tensor.shape) > 1:
                sizes[tensor.dtype] += math.prod(tensor.shape)
        said = _FILE_TYPES.get(-1 if (kind := self.count("general.file_type")) is None else kind, "")
        # A mixture has tensors of its own kind: q4_k_m of q4_k, iq3_m of iq3_s.
        if "float" not in said and any(said and name.startswith(said[:4]) for name in sizes):
            return said
        return sizes.most_common(1)[0][0] if sizes else "float32"


class _Damaged(Exception):
    """What is wrong with a file, as the rest of a sentence about it."""


class _Reader:
    """The bytes of a header, as far as they were needed."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self.size = size
        self._data = bytearray()
        self.at = 0

    def take(self, count: int) -> int:
        """Return where the next `count` bytes are in `data`, and go behind them."""
        start, end = self.at, self.at + count
        if end > self.size:
            raise _Damaged(f"ends within its header: {count} bytes should follow byte {start}, of {self.size}")
        if end > _LONGEST_HEADER:
            raise _Damaged(f"has a header of more than {_LONGEST_HEADER // 2**20} MiB")
        while len(self._data) < end:
            found = self._stream.read(max(end - len(self._data), _BLOCK))
            if not found:
                raise _Damaged("ends within its header")
            self._data += found
        self.at = end
        return start

    def number(self, kind: str) -> Any:
        return struct.unpack_from(f"<{kind}", self._data, self.take(struct.calcsize(f"<{kind}")))[0]

    def text(self) -> str:
        length = self.number("Q")
        if length > _LONGEST_TEXT:
            raise _Damaged(f"has a string of {length} bytes at byte {self.at}")
        start = self.take(length)
        # A token may be a part of a character. Two such tokens must not become the same text.
        return self._data[start : start + length].decode("utf-8", "surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == _BOOL:
            return self.number("B") != 0
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise _Damaged(f"has a value of the unknown type {kind} at byte {self.at}")
        inner, count = self.number("I"), self.number("Q")
        if inner == _STRING:
            # Each has its length in front: a count that the file cannot hold ends at its end.
            if count * 8 > self.size - self.at:
                raise _Damaged(f"claims {count} strings at byte {self.at}, more than it has room for")
            return [self.text() for _ in range(count)]
        if inner not in _NUMBERS:
            raise _Damaged(f"has a list of the type {inner} at byte {self.at}, which is unknown or a list of lists")
        width = struct.calcsize(f"<{_NUMBERS[inner]}")
        start = self.take(count * width)
        found = array("B" if inner == _BOOL else _NUMBERS[inner])
        found.frombytes(self._data[start : start + count * width])
        return found


def is_gguf_file(path: Path) -> bool:
    """Return whether a path is a file that is called GGUF, or begins as one."""
    try:
        if not path.is_file():
            return False
        if path.suffix.lower() == ".gguf":
            return True
        with path.open("rb") as stream:
            return stream.read(4) == MAGIC
    except OSError:
        return False


def read_header(file: Path) -> GgufHeader:
    """Return what a GGUF file says of itself.

    Takes some tenths of a second for a large vocabulary, once per process as long as the file stays the same.

    Raises:
        WeightsUnavailableError: The file is not there, or cannot be read.
        ModelMismatchError: It is damaged, cut short, or of another format.
    """
    try:
        stat = file.stat()
        return _read(file, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError as error:
        raise WeightsUnavailableError(f"{file} is not there, or cannot be read: {error}") from error


@lru_cache(maxsize=8)
def _read(file: Path, size: int, *changed: int) -> GgufHeader:
    with file.open("rb") as stream:
        reader = _Reader(stream, size)
        try:
            return _header(file, reader)
        except _Damaged as error:
            raise ModelMismatchError(f"{file} {error}; {_REMEDY}") from None


def _header(file: Path, reader: _Reader) -> GgufHeader:
    if not reader.size:
        raise _Damaged("is empty")
    if reader.size < 24 or struct.pack("<I", reader.number("I")) != MAGIC:
        raise _Damaged("is no GGUF file")
    version = reader.number("I")
    if version not in _VERSIONS:
        if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
            raise _Damaged("was written for processors with the highest byte first")
        raise _Damaged(f"is of version {version} of the format, and only {' and '.join(map(str, _VERSIONS))} are read")
    tensors, facts = reader.number("Q"), reader.number("Q")
    # A tensor takes 24 bytes at least, a fact 12.
    if tensors * 24 + facts * 12 > reader.size:
        raise _Damaged(f"claims {tensors} tensors and {facts} facts, more than it has room for")
    found: dict[str, Any] = {}
    for _ in range(facts):
        key = reader.text()
        if not key or key in found:
            raise _Damaged(f"has the key {key[:80]!r} twice" if key else "has a key without a name")
        found[key] = reader.value(reader.number("I"))
    return GgufHeader(file, found, _tensors(reader, tensors, _alignment(found)))


def _alignment(facts: dict[str, Any]) -> int:
    alignment = facts.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise _Damaged(f"has the alignment {str(alignment)[:40]!r}, which is no power of two")
    return alignment


def _tensors(reader: _Reader, count: int, alignment: int) -> dict[str, GgufTensor]:
    found: dict[str, GgufTensor] = {}
    # llama.cpp takes them in the order of the table, without gaps.
    end = 0
    for _ in range(count):
        name = reader.text()
        if not name or name in found or len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
            raise _Damaged(f"has the tensor {name[:80]!r} twice, or that can be no name")
        dimensions = reader.number("I")
        if not 0 < dimensions <= _MOST_DIMENSIONS:
            raise _Damaged(f"has the tensor {name!r} with {dimensions} dimensions")
        shape = [reader.number("Q") for _ in range(dimensions)]
        if not all(shape) or math.prod(shape) > _MOST_VALUES:
            raise _Damaged(f"has the tensor {name!r} of shape {shape[::-1]}")
        kind, offset = reader.number("I"), reader.number("Q")
        if kind not in _TYPES:
            raise _Damaged(f"has the tensor {name!r} in the number format {kind}, which is not known here")
        dtype, block, width = _TYPES[kind]
        if shape[0] % block:
            raise _Damaged(f"has the tensor {name!r} of {shape[0]} columns in {dtype}, which is in blocks of {block}")
        if offset != end:
            raise _Damaged(f"has the tensor {name!r} at byte {offset} of its data, where {end} is due")
        last = offset + math.prod(shape) // block * width
        end = last + -last % alignment
        found[name] = GgufTensor(tuple(shape[::-1]), dtype)
    if count:
        start = reader.at + -reader.at % alignment
        if start + last > reader.size:
            raise _Damaged(f"has {reader.size} bytes, and its tensors end at {start + last}: it was cut short")
    return found


def dtype_in_name(name: str) -> str | None:
    """Return the number format that a file's name says, `None` if it says none."""
    found = _IN_NAME.findall(_PART.sub(".gguf", name))
    return dtype_called(found[-1]) if found else None


def dtype_called(name: str) -> str:
    """Return a number format by the name that it has here, whatever it is called."""
    return _WRITTEN.get(name.lower(), name.lower())


def parts_of(name: str) -> tuple[int, int]:
    """Return which part of how many a file is by its name; `(1, 1)` for a whole one."""
    found = _PART.search(name)
    return (int(found[1]), int(found[2])) if found else (1, 1)
