"""The ASGI application: dialects, health, and what stands around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route

import embrief
from embrief.server.admission import OPEN, Admission
from embrief.server.dialects import DIALECTS
from embrief.server.failures import Problem, problem_of
from embrief.server.guard import Guard, Hosts
from embrief.server.metrics import CONTENT_TYPE, Measured
from embrief.server.service import CallerOf, Service
from embrief.server.settings import Limits
from embrief.server.shapes import Shapes, plain, respond, response_of
from embrief.server.work import encoded

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from embrief.server.asking import Said
    from embrief.server.keys import Caller, Keys
    from embrief.server.models import ServedModels

HEALTH = ("/livez", "/readyz", "/metrics", "/openapi.json")


@dataclass(frozen=True)
class Mounted:
    """Another application under a path of this one, such as a page or MCP. The guards stand around it too."""

    path: str
    app: ASGIApp
    lifespan: Callable[[], AbstractAsyncContextManager[object]] | None = None
    """What to be in while the server runs."""
    exact: bool = False
    """Whether it answers at this path alone, which it sees as it is, and at none below."""
    timed: Sequence[str] = ()
    """Its paths whose requests end with the deadline, and have numbers of their own."""
    keeps_to_keys: bool = False
    """Whether it shows nobody what their key may not read. Another one is closed to keys that may read some alone."""
    open_to_all: Sequence[str] = ()
    """Its paths that anybody may GET without a key."""
    says: Callable[[str], str] | None = None
    """Returns a line for people once the server listens, given its address."""


def create_app(
    models: ServedModels,
    *,
    limits: Limits | None = None,
    keys: Keys | None = None,
    hosts: Hosts | None = None,
    default_role: Said = "document",
    lazy: bool = False,
    mounted: Sequence[Mounted] = (),
    own: Callable[[], object] | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        models: What is served.
        limits: How much may be asked for.
        keys: Who may ask; `None`: everybody who reaches it.
        hosts: What it may be called; `None`: this machine's own names.
        default_role: Of texts whose request says none.
        lazy: Whether models load with the first request instead of at the start.
        mounted: Further applications.
        own: Called when the server ends, such as a registry's `close`.
    """
    limits = limits or Limits()
    service = Service(models, limits, default_role, lazy=lazy)
    shapes = _shapes(mounted)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if own is not None:
                stack.callback(own)
            for item in mounted:
                if item.lifespan is not None:
                    await stack.enter_async_context(item.lifespan())
            loading = None if lazy else asyncio.create_task(service.readiness.load_all())
            try:
                yield
            finally:
                if loading is not None:
                    loading.cancel()
                    with suppress(asyncio.CancelledError):
                        await loading

    app = FastAPI(
        title="embrief",
        version=embrief.__version__,
        summary="Embedding models and rerankers, with the prompts they were trained with.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    _add_health(app, service, lazy)
    for dialect in DIALECTS:
        app.include_router(dialect.router)
    for item in mounted:
        inner = item.app if item.keeps_to_keys else _ForWholeKeys(item.app, shapes)
        route = Route(item.path, inner, include_in_schema=False) if item.exact else Mount(item.path, inner)
        app.router.routes.append(route)

    async def not_served(request: Request, error: Exception) -> Response:
        path = request.scope["path"]
        problem = problem_of(error, shapes.label(path))
        request.scope["state"]["failure"] = problem.code
        return response_of(shapes.shape(path), problem)

    app.add_exception_handler(HTTPException, not_served)
    # The last one added is the outermost.
    open_paths = OPEN.union(*(item.open_to_all for item in mounted))
    app.add_middleware(
        Admission, keys=keys, limits=limits, shapes=shapes, metrics=service.metrics, open_paths=open_paths
    )
    app.add_middleware(Guard, hosts=hosts or Hosts(), shapes=shapes)
    app.add_middleware(Measured, metrics=service.metrics, shapes=shapes)
    return app


class _ForWholeKeys:
    """Refuses callers who may read some collections only, before an application that knows nothing of that."""

    def __init__(self, app: ASGIApp, shapes: Shapes) -> None:
        self._app, self._shapes = app, shapes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope["state"]["caller"]
        if caller.collections is None:
            await self._app(scope, receive, send)
            return
        told = "this key may read some collections only, which cannot be kept to here; use one without such a limit"
        await respond(self._shapes, Problem(403, "forbidden", told), scope, receive, send)


def _shapes(mounted: Sequence[Mounted]) -> Shapes:
    shapes = Shapes()
    shapes.add(HEALTH, plain)
    for dialect in reversed(DIALECTS):
        shapes.add(dialect.paths, dialect.shape)
    for item in mounted:
        shapes.mount(item.path)
        shapes.add(item.timed, plain)
    return shapes


def _add_health(app: FastAPI, service: Service, lazy: bool) -> None:
    # HEAD too, which some tools ask that watch over processes.
    @app.head("/livez", include_in_schema=False)
    @app.get("/livez", tags=["health"])
    async def livez() -> Response:
        """Say that the process answers."""
        return _json({"status": "alive"})

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", tags=["health"])
    async def readyz(caller: CallerOf) -> Response:
        """Say whether all models are loaded, and answer a probe as they did when they were loaded."""
        ready = await service.readiness.check(load=not lazy)
        states = service.readiness.states.items()
        told = {name: item.told() for name, item in states}
        content: dict[str, object] = {"status": "ready" if ready else "not ready"}
        if caller.known:
            content["models"] = told
        found = _json(content, 200 if ready else 503)
        if not ready:
            found.headers["retry-after"] = "1"
        return found

    @app.get("/metrics", tags=["health"])
    async def metrics() -> Response:
        """Return the numbers for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _json(content: object, status: int = 200) -> Response:
    return Response(encoded(content), status, media_type="application/json")
