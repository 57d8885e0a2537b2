"""The form in which each dialect says what went wrong, found by the path of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from embrief.server.work import encoded

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from embrief.server.failures import Problem

Shape = Callable[["Problem"], tuple[int, Any]]
"""Returns the status and the JSON of an error; `None` in the place of the JSON is an empty body."""


def plain(problem: Problem) -> tuple[int, Any]:
    """Return the form of routes that are nobody's dialect, and of paths that are not there."""
    return problem.status, {"error": {"message": problem.message, **problem.told()}}


class Shapes:
    """Paths, and whose they are."""

    def __init__(self) -> None:
        """Know none."""
        self._known: dict[str, Shape] = {}
        self._prefixes: dict[str, str] = {}
        """Paths with something in braces, by what stands before it."""
        self._mounted: list[str] = []

    def add(self, paths: Iterable[str], shape: Shape) -> None:
        """Note whose some paths are."""
        for path in paths:
            self._known[path] = shape
            if "{" in path:
                self._prefixes[path.partition("{")[0]] = path

    def mount(self, path: str) -> None:
        """Note where another application is mounted."""
        self._mounted.append(path.rstrip("/"))

    def shape(self, path: str) -> Shape:
        """Return the form of a path's errors."""
        return self._known.get(self._route(path), plain)

    def has(self, path: str) -> bool:
        """Return whether a path is a dialect's own."""
        return self._route(path) in self._known

    def label(self, path: str) -> str:
        """Return a path as metrics have it: one of a fixed number, whatever callers ask for."""
        route = self._route(path)
        if route in self._known:
            return route
        return next((root for root in self._mounted if path == root or path.startswith(root + "/")), "other")

    def _route(self, path: str) -> str:
        if path in self._known:
            return path
        return next((route for prefix, route in self._prefixes.items() if path.startswith(prefix)), path)


def response_of(shape: Shape, problem: Problem) -> Response:
    """Return the answer for a problem."""
    status, content = shape(problem)
    headers = dict(problem.headers or {})
    if content is None:
        return Response(status_code=status, headers=headers)
    return Response(encoded(content), status, headers, "application/json")


async def respond(shapes: Shapes, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with a problem, in the form of its path's dialect."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
        return
    scope.setdefault("state", {})["failure"] = problem.code
    await response_of(shapes.shape(scope["path"]), problem)(scope, receive, send)


def headers_of(scope: Scope) -> dict[str, str]:
    """Return a request's headers; of several of one name the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
