"""A runtime on a server, as a third party's wheel: what the server sees, and what callers are told."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("httpx")
SOURCE = Path(__file__).parent / "remote" / "acme_server.py"
USE = """
import faulthandler; faulthandler.dump_traceback_later(300, exit=True)
import asyncio, json, sys, threading, time, warnings
import numpy as np
import embrief
from embrief import Embedder
from acme_server import AcmeServer
one, two = (AcmeServer(base_url=f"http://127.0.0.1:{port}", key_env="ACME_KEY") for port in sys.argv[1:3])
QWEN = "Qwen/Qwen3-Embedding-0.6B"
def seen():
    import urllib.request
    return int(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/").read())
"""


@dataclass
class Server:
    """Speaks TEI's /embed: a text's vector is its length, in a direction of the server's own."""

    direction: int
    hold: int = 0
    """How many requests wait until so many are there."""
    status: int = 200
    seen: list[list[str]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    most: int = 0
    _inside: int = 0

    def __post_init__(self) -> None:
        self._all = threading.Condition()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.enter(body["inputs"], self.headers.get("Authorization"))
                vectors = [[0.0] * 1024 for _ in body["inputs"]]
                for vector, text in zip(vectors, body["inputs"], strict=True):
                    vector[server.direction], vector[-1] = 1.0, len(text) / 100
                answer = json.dumps(vectors).encode()
                try:
                    self.send_response(server.status)
                    if server.status == 429:
                        self.send_header("Retry-After", "7")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    pass  # a caller that went away

            def do_GET(self) -> None:
                answer = str(len(server.seen)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Http(ThreadingHTTPServer):
            request_queue_size = 128

        self._http = Http(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def enter(self, texts: list[str], key: str | None) -> None:
        with self._all:
            self.seen.append(texts)
            self.keys.add(key)
            self._inside += 1
            self.most = max(self.most, self._inside)
            self._all.notify_all()
            self._all.wait_for(lambda: self.most >= self.hold, timeout=60)
            self._inside -= 1

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    both = Server(0), Server(1)
    yield both
    for server in both:
        server.stop()


@pytest.fixture(scope="module")
def site(wheel_writer, installer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    source = SOURCE.read_text("utf-8")
    # Imports, classes and the hook: what a third party has to write.
    assert len([line for line in source.splitlines() if line.strip()]) <= 60
    wheel = wheel_writer(folder, "acme-server", {"acme_server": source}, {"acme_server": "acme_server"})
    return installer([wheel], folder / "site")


def use(process, site: Path, servers: tuple[Server, Server], code: str, **env: str) -> str:
    ports = tuple(str(server.port) for server in servers)
    return process.run(USE + code, site, plugins="acme_server", arguments=ports, timeout=600).strip()


def test_two_servers_side_by_side_are_two_models(process, site, servers) -> None:
    code = """
embedders = [Embedder(QWEN, backend=options) for options in (one, two)]
print([int(e.embed_query("text").argmax()) for e in embedders], embedders[0].space == embedders[1].space)
result = embedders[0].encode(["a", "b"], role="document")
print(result.truncated, result.token_counts, "unknown" in repr(result), embedders[0].info()["tells_truncation"])
"""
    assert use(process, site, servers, code).splitlines() == ["[0, 1] True", "None None True False"]
    assert servers[0].seen[0] == [
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:text"
    ]


def test_twenty_queries_are_on_their_way_at_once(process, site, servers) -> None:
    servers[0].hold = 20
    code = """
embedder = Embedder(QWEN, backend=one)
threads = [threading.Thread(target=embedder.embed_query, args=(str(number),)) for number in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
async def main():
    return await asyncio.gather(*(embedder.aembed_query(str(number)) for number in range(20)))
print(len(asyncio.run(main())))
"""
    assert use(process, site, servers, code) == "20"
    assert servers[0].most == 20
    assert len(servers[0].seen) == 40


def test_a_corpus_comes_back_in_order(process, site, servers) -> None:
    code = """
texts = ["x" * (number % 90) for number in range(300)]
found = Embedder(QWEN, backend=one, normalize=False).embed_documents(texts)
print(np.array_equal(np.round(found[:, -1] * 100).astype(int), [len(text) for text in texts]))
"""
    assert use(process, site, servers, code) == "True"
    assert max(map(len, servers[0].seen)) == 32


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [(429, "RateLimitedError", "7.0"), (401, "UnauthorizedError", "None"), (503, "ItemFailedError", "None")],
)
def test_what_the_server_says_is_an_error_of_its_own(process, site, servers, status, error, told) -> None:
    servers[0].status = status
    code = """
try:
    Embedder(QWEN, backend=one).embed_documents(["a", "b", "c", "d"])
except embrief.BackendError as error:
    print(type(error).__name__, getattr(error, "retry_after", None))
"""
    assert use(process, site, servers, code) == f"{error} {told}"
    # An error about nothing in particular is looked for in halves; the others are met once.
    assert len(servers[0].seen) == (1 if status != 503 else 3)


def test_a_server_that_is_gone_is_asked_once(process, site, servers) -> None:
    servers[0].stop()
    code = """
import acme_server
asked, post = [], acme_server.httpx.AsyncClient.post
def noted(self, *given, **options):
    asked.append(given)
    return post(self, *given, **options)
acme_server.httpx.AsyncClient.post = noted
try:
    Embedder(QWEN, backend=one).embed_documents([str(n) for n in range(20)])
except ConnectionError as error:
    print(type(error).__name__, len(asked), type(error.__cause__).__name__)
"""
    assert use(process, site, servers, code) == "UnavailableError 1 ConnectError"


def test_published_models_stay_what_they_are(process, site, servers) -> None:
    code = """
from embrief.serving.choosing import to_fetch
spec = embrief.Embedder(QWEN, backend="acme-server").spec
print(to_fetch(embrief.plugins().catalog, spec) == spec.safetensors, [r.status for r in embrief.plugins().reports][-1])
"""
    assert use(process, site, servers, code) == "True ok"


def test_a_secret_is_named_and_never_shown(process, site, servers, monkeypatch) -> None:
    monkeypatch.setenv("ACME_KEY", "s3cret")
    code = """
import pickle
embedder = Embedder(QWEN, backend=one)
embedder.embed_query("q")
print("s3cret" in repr(embedder), b"s3cret" in pickle.dumps(embedder), "s3cret" in str(embedder.info()))
"""
    assert use(process, site, servers, code) == "False False False"
    assert servers[0].keys == {"Bearer s3cret"}


def test_cancelled_callers_cancel_their_requests_and_nobody_elses(process, site, servers) -> None:
    servers[0].hold = 3
    code = """
import acme_server
cancelled, arun = [], acme_server.Served.arun
async def noted(self, inputs, options):
    try:
        return await arun(self, inputs, options)
    except asyncio.CancelledError:
        cancelled.append(inputs[0].body)
        raise
acme_server.Served.arun = noted
async def main():
    embedder = Embedder(QWEN, backend=one)
    first = [asyncio.create_task(embedder.aembed_query(str(n))) for n in range(2)]
    while await asyncio.to_thread(seen) < 2: await asyncio.sleep(0.01)
    first[0].cancel()
    results = await asyncio.gather(first[0], return_exceptions=True)
    while not cancelled: await asyncio.sleep(0.01)
    third = await embedder.aembed_query("third")
    return type(results[0]).__name__, (await first[1]).shape, third.shape, cancelled
print(asyncio.run(main()))
"""
    assert use(process, site, servers, code) == "('CancelledError', (1024,), (1024,), ['0'])"


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interrupted_caller_cancels_its_request(process, site, servers) -> None:
    servers[0].hold = 2
    code = """
import os, signal, acme_server
signal.signal(signal.SIGINT, signal.default_int_handler)
cancelled, arun = threading.Event(), acme_server.Served.arun
async def noted(self, inputs, options):
    try:
        return await arun(self, inputs, options)
    except asyncio.CancelledError:
        cancelled.set()
        raise
acme_server.Served.arun = noted
embedder = Embedder(QWEN, backend=one).load()
def interrupt():
    while seen() < 1: time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    embedder.embed_query("q")
except KeyboardInterrupt:
    print(cancelled.wait(60))
"""
    assert use(process, site, servers, code) == "True"


def test_loops_in_turn_a_running_loop_and_a_fork(process, site, servers) -> None:
    code = """
import os
embedder = Embedder(QWEN, backend=one)
shapes = [asyncio.run(embedder.aembed_query(text)).shape for text in "ab"]
async def notebook():
    return embedder.embed_query("sync, inside of a running loop").shape
shapes.append(asyncio.run(notebook()))
if hasattr(os, "fork"):
    child = os.fork()
    if not child:
        os._exit(0 if embedder.embed_query("child").shape == (1024,) else 1)
    shapes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(shapes, embedder.embed_query("c").shape)
"""
    assert use(process, site, servers, code) == "[(1024,), (1024,), (1024,), 0] (1024,)"


def test_the_exit_waits_for_no_server(process, site, servers) -> None:
    servers[0].hold = 9
    code = """
embedder = Embedder(QWEN, backend=one).load()
threading.Thread(target=embedder.embed_query, args=("never answered",), daemon=True).start()
while seen() < 1: time.sleep(0.01)
print("over")
"""
    assert use(process, site, servers, code) == "over"
    servers[0].most = 9
    with servers[0]._all:
        servers[0]._all.notify_all()


def test_a_model_that_is_let_go_at_the_exit_holds_it_up_by_nothing(process, site, servers) -> None:
    servers[0].hold = 9
    code = """
import atexit, gc, acme_server
async def never(self):
    closing.set()
    await asyncio.sleep(600)
acme_server.Served.aclose = never
closing = threading.Event()
Embedder(QWEN, backend=two).load()
gc.collect()
closing.wait(60)
embedder = Embedder(QWEN, backend=one).load()
shared = embedder._shared
threading.Thread(target=embedder.embed_query, args=("never answered",), daemon=True).start()
while seen() < 1: time.sleep(0.01)
shared.model.close()
print("over")
"""
    assert use(process, site, servers, code) == "over"
    with servers[0]._all:
        servers[0].most = 9
        servers[0]._all.notify_all()
