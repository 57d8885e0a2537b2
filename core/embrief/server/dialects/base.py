"""What a dialect is: routes, the models of their requests, and the form of their errors. One file each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from embrief.server import body
from embrief.server.failures import problem_of
from embrief.server.shapes import Shape, response_of


@dataclass(frozen=True)
class Dialect:
    """The words of one service."""

    name: str
    shape: Shape
    """The form of its errors."""

    @cached_property
    def router(self) -> APIRouter:
        """Where its routes are added: bodies are read strictly, and every error comes out in the dialect's form."""
        return APIRouter(route_class=_route_class(self.shape), tags=[self.name])

    @property
    def paths(self) -> list[str]:
        """Return the paths of its routes."""
        return [route.path for route in self.router.routes if isinstance(route, APIRoute)]


class _StrictRequest(Request):
    async def json(self) -> Any:
        return body.read(await self.body())


def _route_class(shape: Shape) -> type[APIRoute]:
    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answered(request: Request) -> Response:
                try:
                    return await handle(_StrictRequest(request.scope, request.receive))
                except Exception as error:
                    problem = problem_of(_cause(error), self.path)
                    request.scope["state"]["failure"] = problem.code
                    return response_of(shape, problem)

            return answered

    return Route


def _cause(error: Exception) -> Exception:
    """Return what was raised while a body was read: the framework puts an error of its own around it."""
    from embrief.server.failures import Refused

    return error.__cause__ if isinstance(error.__cause__, Refused) else error
