"""What one running server is made of: every route gets it."""

import asyncio
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from embrief.server.asking import Said
from embrief.server.health import Readiness
from embrief.server.keys import Caller
from embrief.server.metrics import Metrics
from embrief.server.models import ServedModels
from embrief.server.settings import Limits

T = TypeVar("T")

DECODING = 2
"""Requests whose pictures are decoded at a time: each may take some hundred megabytes for a moment."""


class Service:
    """Models, limits and numbers of one server."""

    def __init__(self, models: ServedModels, limits: Limits, default_role: Said, *, lazy: bool = False) -> None:
        """Load nothing."""
        self.models, self.limits, self.default_role = models, limits, default_role
        self.lazy = lazy
        """Whether models load with the first request instead of at the start."""
        self.metrics = Metrics(models)
        self.readiness = Readiness(models)
        self._decoding = asyncio.Semaphore(DECODING)

    async def decode(self, work: Callable[[], T]) -> T:
        """Run what decodes the pictures of a request on a thread, `DECODING` of them at a time.

        A request that ends early keeps its place until its thread is done, which nobody can stop: else requests that
        run into their deadline one after the other would all decode at once.
        """
        await self._decoding.acquire()
        future = asyncio.get_running_loop().run_in_executor(None, work)
        future.add_done_callback(self._decoded)
        # Waiting for it cancels it not, where awaiting it would.
        await asyncio.wait([future])
        return future.result()

    def _decoded(self, future: "asyncio.Future[T]") -> None:
        self._decoding.release()
        if not future.cancelled():
            # Looked at, so that nothing is logged of a request that has ended.
            future.exception()


# Asynchronous, since the framework takes a thread for others.
async def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


async def _caller(request: Request) -> Caller:
    found: Caller = request.state.caller
    return found


ServiceOf = Annotated[Service, Depends(_service)]
"""Parameter of a route: the server that it is of."""
CallerOf = Annotated[Caller, Depends(_caller)]
"""Parameter of a route: who asks, by the name of the key."""
