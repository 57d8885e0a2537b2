"""Questions to a server before it is used: they end in time, and every failure is one of ours."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from embrief import Embedder, UnavailableError
from embrief.servers import asking

Serve = Callable[[Callable[[socket.socket], None]], str]
BODY = b'{"model_id": "BAAI/bge-m3"}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer each connection with what a function sends; return the address."""
    listeners: list[socket.socket] = []

    def start(send: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        send(connection)
                except OSError:
                    if listener.fileno() < 0:
                        return

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _drip(before: bytes, stop: threading.Event) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(before)
        while not stop.wait(0.02):
            connection.sendall(b" ")

    return send


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nX-Long:", HEAD.replace(b"27", b"9999")])
def test_an_answer_that_drips_without_end(serve: Serve, monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    monkeypatch.setattr(asking, "_SECONDS", 0.3)
    stop, failed = threading.Event(), []

    def ask() -> None:
        try:
            Embedder(f"tei:{url}")
        except UnavailableError as error:
            failed.append(str(error))

    url = serve(_drip(before, stop))
    caller = threading.Thread(target=ask, daemon=True)
    caller.start()
    caller.join(20)
    ended = not caller.is_alive()
    stop.set()
    assert ended
    assert len(failed) == 1
    assert failed[0].startswith(f"{url}/info does not answer (timed out)")


@pytest.mark.parametrize(
    "answer",
    [b"+PONG\r\n", b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
)
def test_what_is_no_http_is_an_error_of_ours(serve: Serve, answer: bytes) -> None:
    url = serve(lambda connection: connection.sendall(answer))
    with pytest.raises(UnavailableError, match=f"^{url}/info does not answer") as caught:
        Embedder(f"tei:{url}")
    assert "PONG" not in str(caught.value)


def test_proxies_are_for_other_machines(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    here = serve(lambda connection: connection.sendall(HEAD + BODY))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", here)
    # Nobody has such a name, so only the proxy can answer.
    assert Embedder("tei:http://gpu.invalid:8080").settings.model == "BAAI/bge-m3"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert Embedder(f"tei:{here}").settings.model == "BAAI/bge-m3"
