"""Connections whose address is looked up once, and that end at a time of day."""

from __future__ import annotations

import queue
import socket
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


_LATER = 0.05
"""Seconds after a deadline until a connection is cut, so that whoever meets the cut sees that the time is over."""


class Deadline:
    """A moment at which everything has to be over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: There are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Cutting:
    """Cuts a connection at a deadline: a server that sends a byte now and then would never meet a socket's time-out."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._connection = connection
        self._timer = threading.Timer(deadline.left() + _LATER, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def _cut(self) -> None:
        try:
            # The plain socket's, below TLS, which would wait for the other side.
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
        except OSError:
            pass

    def stop(self) -> None:
        """Leave the connection to itself."""
        self._timer.cancel()


def resolve(name: str, port: int) -> list[str]:
    """Return all addresses of a name.

    Raises:
        OSError: It has none, or nobody can be asked.
    """
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def in_time(ask: Callable[[str, int], list[str]], name: str, port: int, deadline: Deadline) -> list[str]:
    """Return what a resolver answers, which has no time-out of its own.

    Raises:
        TimeoutError: It takes too long; it goes on in a thread that is not waited for.
        OSError: As of `resolve`.
    """
    answers: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(ask(name, port))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=run, name="embrief-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, UnicodeError):
        raise OSError("the name is none") from answer
    if isinstance(answer, OSError):
        raise answer
    return answer


def open_socket(address: str, port: int, seconds: float) -> socket.socket:
    """Connect to an address.

    Raises:
        OSError: There is no way there in that time.
    """
    return socket.create_connection((address, port), timeout=seconds)


def secured(plain: socket.socket, name: str, deadline: Deadline, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a connection over TLS, whose other side has proved that it is `name`. Closes the plain one if it has not.

    Raises:
        OSError: It has not, or the time is over.
    """
    try:
        plain.settimeout(deadline.left())
        # The handshake comes later, since this takes the plain connection away from whoever would cut it.
        made = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise
    cutting = Cutting(made, deadline)
    try:
        made.do_handshake()
    except BaseException:
        made.close()
        raise
    finally:
        cutting.stop()
    return made
