"""What passes between this process and the one that runs llama.cpp: frames of JSON and numbers, over two pipes.

A frame is two lengths (32 and 64 bits, lowest byte first), a JSON object, and bytes. Nothing of it is run or unpickled.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import BinaryIO

_LENGTHS = struct.Struct("<IQ")
_MOST_WORDS = 2**24
_MOST_BYTES = 2**32


class EndedError(Exception):
    """The other side has ended, or what it said is no frame."""


def send(stream: BinaryIO, words: dict[str, Any], payload: bytes = b"") -> None:
    """Write one frame.

    Raises:
        OSError: The other side has ended.
    """
    told = json.dumps(words).encode()
    stream.write(_LENGTHS.pack(len(told), len(payload)) + told + payload)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Read one frame.

    Raises:
        EndedError: There is none, or it breaks off.
    """
    words, count = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    if words > _MOST_WORDS or count > _MOST_BYTES:
        raise EndedError(f"a frame of {words} and {count} bytes")
    try:
        told = json.loads(_exactly(stream, words))
    except ValueError as error:
        raise EndedError("a frame without JSON") from error
    if not isinstance(told, dict):
        raise EndedError("a frame without an object")
    return told, _exactly(stream, count)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    parts = []
    while count:
        found = stream.read(count)
        if not found:
            raise EndedError("the pipe was closed")
        parts.append(found)
        count -= len(found)
    return b"".join(parts)
