"""What one running server is made of: every route gets it."""

import asyncio
from typing import Annotated

from fastapi import Depends, Request

from embrief.server.asking import Said
from embrief.server.health import Readiness
from embrief.server.keys import Caller
from embrief.server.metrics import Metrics
from embrief.server.models import ServedModels
from embrief.server.settings import Limits

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
        self.decoding = asyncio.Semaphore(DECODING)
        """Held while the pictures of a request are decoded."""


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
