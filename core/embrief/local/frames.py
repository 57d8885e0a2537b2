"""What goes over the socket: JSON values, each behind its length. Bounded, and checked before anything is kept."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

PROTOCOL = 1
LARGEST = 1 << 20
"""Bytes that a frame may have; arguments that take more run without the process."""
PIECE = 1 << 15
"""Characters of a text that are sent in one frame."""
_LENGTH = struct.Struct("!I")


class BadFrameError(Exception):
    """What came is no frame: another program speaks, or another version."""


def pack(value: dict[str, Any]) -> bytes:
    """Return a frame.

    Raises:
        BadFrameError: It would be too large.
    """
    # Escaped: half of a surrogate pair, which a file's name may hold, passes too.
    body = json.dumps(value, separators=(",", ":")).encode("ascii")
    if len(body) > LARGEST:
        raise BadFrameError(f"{len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Return the next frame, `None` at the end of the connection.

    Raises:
        BadFrameError: What came is none.
        OSError: As of the socket, `TimeoutError` among them.
    """
    head = _exactly(connection, _LENGTH.size)
    if not head:
        return None
    (length,) = _LENGTH.unpack(head)
    if not 0 < length <= LARGEST:
        raise BadFrameError(f"a frame of {length} bytes")
    body = _exactly(connection, length)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadFrameError("no JSON") from None
    if not isinstance(value, dict):
        raise BadFrameError("no object")
    return value


def _exactly(connection: socket.socket, count: int) -> bytes:
    """Return so many bytes, none at the end of the connection.

    Raises:
        BadFrameError: It ends within them.
    """
    found = bytearray()
    while len(found) < count:
        part = connection.recv(min(count - len(found), 1 << 16))
        if not part:
            if found or count != _LENGTH.size:
                raise BadFrameError("cut off")
            break
        found += part
    return bytes(found)
