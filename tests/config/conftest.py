"""Configurations in files of their own, and runtimes and records that stand in where the real ones are not there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from embrief import Config, EmbeddingSpec, Offer, Output, Runtime, load_config, plugins, use_config
from embrief.servers import HfInference, HttpSimple, Ollama, OpenAI, RerankHttp, Tei

SERVERS = {
    "openai": OpenAI, "tei": Tei, "ollama": Ollama, "rerank-http": RerankHttp, "http-simple": HttpSimple,
    "hf-inference": HfInference,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No configuration from before, and none afterwards."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-home"))
    monkeypatch.setenv("HOME", str(tmp_path / "no-home"))
    use_config(None)
    yield
    use_config(None)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "embrief.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.fixture
def read(write: Callable[..., Path]) -> Callable[[str], Config]:
    return lambda text: load_config(write(text))


@pytest.fixture
def use(read: Callable[[str], Config]) -> Callable[[str], Config]:
    """Make a text the configuration of this process."""

    def use(text: str) -> Config:
        config = read(text)
        use_config(config)
        return config

    return use


class Answering:
    """A model on a server that is not there: every vector says how wide it is."""

    def __init__(self, width: int) -> None:
        self._width = width

    def run(self, inputs, options):  # type: ignore[no-untyped-def]
        return Output.dense(np.ones((len(inputs), self._width), np.float32))

    def close(self) -> None:
        """Nothing is held."""


class StandIn(Runtime):
    """In the place of a runtime that speaks to servers."""

    def __init__(self, name: str, options: type) -> None:
        self.name, self.Options = name, options

    def offer(self, spec, ask):  # type: ignore[no-untyped-def]
        return Offer(device="server", dtype="auto", leaves_machine=True, tells_truncation=False)

    def load(self, request):  # type: ignore[no-untyped-def]
        return Answering(request.spec.dim)


@pytest.fixture
def servers() -> Iterator[None]:
    """All runtimes that speak to servers."""
    catalog = plugins().catalog
    added = [name for name in SERVERS if name not in catalog.backends]
    for name in added:
        catalog.add_backend(StandIn(name, SERVERS[name]))
    yield
    for name in added:
        catalog.remove(name, [])


@pytest.fixture
def records(servers: None) -> Iterator[None]:
    """The records that the example files name."""
    catalog = plugins().catalog
    bge = catalog.models["BAAI/bge-m3"]
    assert isinstance(bge, EmbeddingSpec)
    changed: list[str] = []
    if catalog.served("ollama", "bge-m3") is None:
        catalog.models[bge.id] = replace(bge, served_names=(("ollama", "bge-m3"),))
    if catalog.find_model("all-mpnet-base-v2") is None:
        mpnet = replace(
            bge, id="sentence-transformers/all-mpnet-base-v2", dim=768, aliases=("all-mpnet-base-v2",), served_names=()
        )
        catalog.add_model(mpnet)
        changed.append(mpnet.id)
    yield
    catalog.models[bge.id] = bge
    catalog.remove("", changed)


@pytest.fixture
def loopback() -> Iterator[Callable[[dict[str, object]], str]]:
    """Start a server that answers each path with a value as JSON, or with a status; return its address.

    A path whose value is a number makes vectors of that width of the texts that are posted there.
    """
    running: list[ThreadingHTTPServer] = []

    def start(answers: dict[str, object]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.path, self.headers.get("Authorization")))
                answer = answers.get(self.path, 404)
                if isinstance(answer, tuple):
                    self.send_response(answer[0])
                    self.send_header("Location", answer[1])
                    self.end_headers()
                    return
                self.send_response(answer if isinstance(answer, int) else 200)
                self.end_headers()
                if not isinstance(answer, int):
                    self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

            def do_POST(self) -> None:
                """Give each text a vector as wide as the value of this path."""
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                [texts] = [value for value in body.values() if isinstance(value, list)]
                data = json.dumps({"embeddings": [[1.0] * answers[self.path] for _ in texts]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        asked: list[tuple[str, str | None]] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.asked = asked  # type: ignore[attr-defined] # for the test
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start.asked = asked  # type: ignore[attr-defined] # for the test
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()
