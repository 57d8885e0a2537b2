"""A server on this machine that answers as it is told: for tests of whatever speaks to servers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from types import TracebackType


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: Any
    """The JSON, `None` without one."""


@dataclass(frozen=True)
class Reply:
    """One answer."""

    body: Any = None
    """What becomes JSON; bytes stay what they are."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    """Seconds before it begins; ends early when the server stops."""
    breaks: Literal["", "unanswered", "half"] = ""
    """Where the connection is closed instead: before the answer, or in the middle of it."""
    drip: float = 0.0
    """Seconds between two bytes."""


class LoopbackServer:
    """A server on 127.0.0.1, for a `with` block.

    Examples:
        >>> import urllib.request
        >>> from embrief.testing import LoopbackServer, Reply
        >>> with LoopbackServer(lambda asked: Reply({"path": asked.path})) as server:
        ...     urllib.request.urlopen(server.url + "/info").read()
        b'{"path": "/info"}'
    """

    def __init__(self, answer: Callable[[Asked], Reply], *, port: int = 0) -> None:
        """Start nothing yet.

        Args:
            answer: Called with each request, on a thread of its own.
            port: Where to listen; 0 takes a free one.
        """
        self._answer, self.port = answer, port
        self.seen: list[Asked] = []
        """Every request, in order of arrival."""
        self.most = 0
        """Most requests at once."""
        self._inside = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._http: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def inside(self) -> int:
        """Return how many requests are being answered now. One whose caller goes away is left at the next byte."""
        return self._inside

    def __enter__(self) -> Self:
        self._stopped.clear()
        self._http = _http(self)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop, and break off what is under way, as a server does that dies. It may be entered again."""
        self._stopped.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        with self._lock:
            left = list(self._open)
        for connection in left:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # It is closed already.

    def _enter(self, asked: Asked) -> None:
        with self._lock:
            self.seen.append(asked)
            self._inside += 1
            self.most = max(self.most, self._inside)

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1


def _http(server: LoopbackServer) -> ThreadingHTTPServer:
    # Inside the function, here and below: it brings ssl, and the fakes of this package cost nothing.
    from http.server import ThreadingHTTPServer

    class Http(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing: callers that go away are what it is for."""

    return Http(("127.0.0.1", server.port), _handler(server))


def _handler(server: LoopbackServer) -> type[BaseHTTPRequestHandler]:
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are two packets, and a caller's system acknowledges the first after 40 ms.
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            with server._lock:
                server._open.add(self.connection)

        def finish(self) -> None:
            with server._lock:
                server._open.discard(self.connection)
            super().finish()

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, json.loads(data) if data else None)
            server._enter(asked)
            try:
                self._reply(server._answer(asked))
            except OSError:
                self.close_connection = True
            finally:
                server._leave()

        def _reply(self, reply: Reply) -> None:
            server._stopped.wait(reply.after)
            if reply.breaks == "unanswered" or server._stopped.is_set():
                self.close_connection = True
                return
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if reply.breaks == "half":
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
            elif reply.drip:
                for byte in data:
                    if server._stopped.is_set():
                        break
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(reply.drip)
            else:
                self.wfile.write(data)

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
