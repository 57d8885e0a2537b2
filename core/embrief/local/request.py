"""A command of somebody else's, and the streams that lead back to their terminal."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from embrief.local import frames

if TYPE_CHECKING:
    import socket


class FrameStream(io.TextIOBase):
    """A text stream whose every piece is a frame on a connection."""

    def __init__(self, send: Callable[[dict[str, Any]], None], name: str, terminal: bool, encoding: str) -> None:
        super().__init__()
        self._send = send
        self._name = name
        self._terminal = terminal
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # what it is at the other end decides which characters are used
        """The encoding at the other end."""
        return self._encoding

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def isatty(self) -> bool:
        """Return whether the other end is a terminal."""
        return self._terminal

    def write(self, text: str, /) -> int:
        """Send a text, piece by piece.

        Raises:
            BrokenPipeError: Nobody reads any more.
        """
        for start in range(0, len(text), frames.PIECE):
            self._send({self._name: text[start : start + frames.PIECE]})
        return len(text)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What somebody typed, and how it looks where they sit."""

    arguments: tuple[str, ...]
    out: TextIO
    err: TextIO
    width: int
    colour: bool
    folder: str
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when they have gone."""


class Reply:
    """The way back: frames from whatever thread, one at a time, and never more than the other side takes.

    Args:
        connection: Where to. Its time-out is how long a reader may take nothing.
        stop: Set when nobody reads any more.
    """

    def __init__(self, connection: socket.socket, stop: threading.Event) -> None:
        self._connection = connection
        self._stop = stop
        self._lock = threading.Lock()

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame.

        Raises:
            BrokenPipeError: Nobody reads any more.
        """
        if self._stop.is_set():
            raise BrokenPipeError("whoever typed this command has gone")
        with self._lock:
            try:
                self._connection.sendall(frames.pack(frame))
            except OSError as error:
                # Half a frame may have gone: nothing that follows could be understood.
                self._stop.set()
                raise BrokenPipeError("whoever typed this command has gone") from error


def parse(value: dict[str, Any], reply: Reply, stop: threading.Event) -> Request | None:
    """Return the request that a frame asks for, `None` if it asks for none."""
    arguments, folder, width = value.get("arguments"), value.get("folder"), value.get("width")
    if not isinstance(arguments, list) or not all(isinstance(word, str) for word in arguments) or not arguments:
        return None
    if not isinstance(folder, str) or type(width) is not int or not 0 < width < 10_000:
        return None
    streams: list[FrameStream] = []
    for name in ("out", "err"):
        match value.get(name):
            case [bool(terminal), str(encoding)]:
                streams.append(FrameStream(reply.send, name, terminal, encoding[:40]))
            case _:
                return None
    out, err = streams
    return Request(tuple(arguments), out, err, width, value.get("colour") is True, folder, stop)  # type: ignore[arg-type]  # TextIOBase has what TextIO has
