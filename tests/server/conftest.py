"""A server in this process, and one behind a real socket."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpx
import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")

from embrief import Embedder, Reranker
from embrief.server.app import create_app
from embrief.server.models import ServedModels

TINY, RANK, HASH = "embrief/tiny-embedding", "embrief/tiny-reranker", "embrief/hash"


def tiny_models() -> ServedModels:
    """What most tests serve: an embedding model with prompts, a light one without, and a reranker."""
    return ServedModels({"tiny": Embedder(TINY), "hash": Embedder(HASH, dim=64)}, {"rank": Reranker(RANK)})


@asynccontextmanager
async def running(app, **options: object) -> AsyncIterator[httpx.AsyncClient]:
    """Enter an application's lifespan, and yield a client of it."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    asking = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8642", **options)
    async with app.router.lifespan_context(app), asking as client:
        yield client


@pytest.fixture
def serving() -> Callable[..., object]:
    """Make a client of an application with other models or settings: `async with serving(models, limits=...)`."""

    def make(models: ServedModels | None = None, **settings: object):
        return running(create_app(models or tiny_models(), **settings))

    return make


@pytest.fixture
async def client(serving) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the usual models, without a socket between."""
    async with serving(lazy=True) as found:
        yield found


@dataclass(frozen=True)
class RealServer:
    """A server behind a socket of 127.0.0.1."""

    url: str
    """Without a slash at the end."""
    port: int
    app: object
    runner: object

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"


@contextmanager
def listening(app, *, ready: bool = True) -> Iterator[RealServer]:
    """Run an application behind a free port of 127.0.0.1, in a thread, until the block is left."""
    import uvicorn

    from embrief.server.run import listen

    made = listen("127.0.0.1", 0)
    port = made.getsockname()[1]
    runner = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none"))
    thread = threading.Thread(target=runner.run, args=([made],), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            if httpx.get(f"{url}/{'readyz' if ready else 'livez'}", timeout=60).status_code == 200:
                break
            threading.Event().wait(0.1)
        else:
            raise AssertionError("the server was not ready within a minute")
        yield RealServer(url, port, app, runner)
    finally:
        runner.should_exit = True
        thread.join(30)
        made.close()


@pytest.fixture(scope="session")
def server() -> Iterator[RealServer]:
    """One server with the usual models (`tiny`, `hash`, `rank`) for clients that want a real socket."""
    with listening(create_app(tiny_models())) as found:
        yield found


@pytest.fixture(scope="module")
def module_socket() -> Callable[..., AbstractContextManager[RealServer]]:
    """`on_socket`, for servers of a whole module."""
    return listening


@pytest.fixture
def on_socket() -> Callable[..., AbstractContextManager[RealServer]]:
    """Run another application behind a socket: `with on_socket(app)`."""
    return listening


@pytest.fixture(scope="session")
def broken() -> Iterator[RealServer]:
    """A server whose models (`gone`, `ranked`) are on another one, which is not there: it answers 503."""
    from embrief.servers.options import OpenAI, RerankHttp

    away = "http://127.0.0.1:9/v1"
    models = ServedModels(
        {"gone": Embedder(TINY, backend=OpenAI(base_url=away, tries=1))},
        {"ranked": Reranker(RANK, backend=RerankHttp(base_url=away, tries=1))},
    )
    with listening(create_app(models, lazy=True), ready=False) as found:
        yield found
