"""Work is dropped when whoever asked for it leaves."""

from __future__ import annotations

import json
import socket
import threading
import time

import httpx
from starlette.responses import PlainTextResponse

from embrief import Embedder
from embrief.server.app import Mounted, create_app
from embrief.server.models import ServedModels
from embrief.server.settings import Limits
from embrief.testing import FakeRuntime


def until(check) -> None:
    for _ in range(2000):
        if check():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that within 20 seconds")


def begin(server, path: str, length: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", server.port))
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {length}"]
    made.sendall("".join(f"{line}\r\n" for line in [*head, ""]).encode())
    return made


def post(server, texts) -> socket.socket:
    body = json.dumps({"input": texts, "model": "fake"}).encode()
    made = begin(server, "/v1/embeddings", len(body))
    made.sendall(body)
    return made


def test_texts_of_a_caller_who_left_never_reach_the_model(on_socket):
    gate, held = threading.Event(), threading.Event()

    def fault(texts):
        if any("first" in text for text in texts):
            held.set()
            gate.wait(60)

    # One text per batch: what waits is not yet in a batch.
    with FakeRuntime(batch_tokens=1, fault=fault) as fake:
        app = create_app(ServedModels({"fake": Embedder(fake.qwen3)}))
        with on_socket(app) as server:
            try:
                first = post(server, ["first"])
                assert held.wait(60)
                leaving = post(server, [f"abandoned {number}" for number in range(20)])
                staying = post(server, ["stays"])
                waiting = "embrief_requests_waiting"
                until(lambda: f"{waiting} 3.0" in httpx.get(f"{server.url}/metrics").text)
                leaving.close()
                until(lambda: f"{waiting} 2.0" in httpx.get(f"{server.url}/metrics").text)
            finally:
                gate.set()
            for connection in (first, staying):
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
                connection.close()
            numbers = httpx.get(f"{server.url}/metrics").text
    assert not [text for text in fake.texts if "abandoned" in text]
    assert any("stays" in text for text in fake.texts)
    assert 'embrief_requests_dropped_total{reason="disconnected"} 1.0' in numbers
    assert 'status="499"' in numbers


def test_a_caller_who_leaves_within_the_body_leaves_nothing_behind(on_socket):
    app = create_app(ServedModels({"hash": Embedder("embrief/hash")}))
    with on_socket(app) as server:
        made = begin(server, "/encode", 100)
        made.sendall(b"{")
        until(lambda: "embrief_requests_waiting 1.0" in httpx.get(f"{server.url}/metrics").text)
        made.close()
        until(lambda: "embrief_requests_waiting 0.0" in httpx.get(f"{server.url}/metrics").text)


def test_a_server_that_ends_answers_what_is_under_way(on_socket):
    gate, held = threading.Event(), threading.Event()

    def fault(texts):
        if any("first" in text for text in texts):
            held.set()
            gate.wait(60)

    with FakeRuntime(fault=fault) as fake:
        closed = []
        app = create_app(ServedModels({"fake": Embedder(fake.qwen3)}), own=lambda: closed.append(gate.is_set()))
        with on_socket(app) as server:
            made = post(server, ["first"])
            assert held.wait(60)
            server.runner.should_exit = True
            until(lambda: refuses(server.port))
            gate.set()
            assert made.recv(100).startswith(b"HTTP/1.1 200")
            made.close()
    assert closed == [True]


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


def test_a_body_that_is_too_large_is_answered_over_the_wire(server):
    got = httpx.post(
        f"{server.url}/encode", content=b" " * (8 * 1024 * 1024 + 1), headers={"content-type": "application/json"}
    )
    assert got.status_code == 413


def test_a_body_that_never_comes_ends_at_the_deadline(on_socket):
    limits = Limits(deadline=1)
    mounted = Mounted("/page", PlainTextResponse("hello"))
    app = create_app(ServedModels({"hash": Embedder("embrief/hash")}), limits=limits, mounted=[mounted])
    with on_socket(app) as server:
        for path in ("/encode", "/page/x"):
            made = begin(server, path, 100)
            made.settimeout(60)
            assert made.recv(100).startswith(b"HTTP/1.1 503")
            made.close()
