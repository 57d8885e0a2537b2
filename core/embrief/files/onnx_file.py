"""Which other files an ONNX file names: read from its bytes before a library opens it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from embrief.errors import ModelMismatchError

if TYPE_CHECKING:
    from pathlib import Path

# Where tensors may be: fields of the messages in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto),
# by the message that they lead to.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_KEY, _VALUE = 1, 2


def external_files(data: bytes, file: Path) -> set[str]:
    """Return the names of the files in which an ONNX file keeps tensors, as they stand there.

    Args:
        data: Its content.
        file: Its name, for the message.

    Raises:
        ModelMismatchError: It is no ONNX file.
    """
    view = memoryview(data)
    found: set[str] = set()
    waiting = [("model", view)]
    try:
        while waiting:
            kind, message = waiting.pop()
            if kind == "entry":
                values = {number: bytes(part) for number, part in _parts(message)}
                if values.get(_KEY) == b"location":
                    found.add(values.get(_VALUE, b"").decode())
                continue
            known = _FIELDS[kind]
            waiting += [(known[number], part) for number, part in _parts(message) if number in known]
    except (ValueError, IndexError) as error:
        raise ModelMismatchError(f"{file} is not an ONNX file ({error}); export the model again") from error
    return found


def _parts(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the fields of a message that hold bytes, with their numbers."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == _VARINT:
            _, place = _varint(message, place)
        elif kind == _BYTES:
            size, place = _varint(message, place)
            if size > len(message) - place:
                raise ValueError("a field is longer than what is there")
            yield tag >> 3, message[place : place + size]
            place += size
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number has too many bytes")
