"""Who may come in, with how much, for how long; and work that nobody waits for any more is dropped."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from embrief.server.failures import RETRY_AFTER, Problem, Refused, refused
from embrief.server.keys import ANYBODY, STRANGER, Caller
from embrief.server.shapes import headers_of, respond

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from embrief.server.keys import Keys
    from embrief.server.metrics import Metrics
    from embrief.server.settings import Limits
    from embrief.server.shapes import Shapes

OPEN = frozenset({"/", "/livez", "/readyz", "/health", "/ping"})
"""GET routes that need no key: whatever keeps a server running asks them."""


class Buckets:
    """A token bucket per key: a minute's requests at once, then as they come back."""

    def __init__(self, per_minute: int) -> None:
        """Let each key have so many requests per minute; 0: any number."""
        self._most = per_minute
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, key: str, now: float) -> float:
        """Take one request of a key, and return 0; or how many seconds it has to wait for the next one."""
        if not self._most:
            return 0.0
        left, since = self._left.get(key, (float(self._most), now))
        left = min(left + (now - since) * self._most / 60, float(self._most))
        if left < 1:
            self._left[key] = left, now
            return (1 - left) * 60 / self._most
        self._left[key] = left - 1, now
        return 0.0


class Admission:
    """Keys and limits, around everything that is mounted."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys | None,
        limits: Limits,
        shapes: Shapes,
        metrics: Metrics,
        open_paths: frozenset[str] = OPEN,
    ) -> None:
        """Stand around an application. `open_paths`: what may be read without a key."""
        self._open = open_paths
        self._app, self._keys, self._limits, self._shapes, self._metrics = app, keys, limits, shapes, metrics
        self._buckets = Buckets(limits.requests_per_minute)
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            caller = self._caller(scope)
            scope.setdefault("state", {})["caller"] = caller
            if scope["type"] == "websocket" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
                await self._app(scope, receive, send)
            else:
                await self._work(caller, scope, receive, send)
        except Refused as error:
            await respond(self._shapes, error.problem, scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        if self._keys is None:
            return ANYBODY
        headers = headers_of(scope)
        said = headers.get("authorization", "").strip()
        scheme, blank, rest = said.partition(" ")
        # Some clients send the key alone.
        given = (rest.strip() if blank and scheme.lower() == "bearer" else said) or headers.get("x-api-key", "").strip()
        caller = self._keys.caller(given) if given else None
        if caller is None and scope.get("method") in ("GET", "HEAD") and scope["path"] in self._open:
            return STRANGER
        if caller is None:
            told = "the key is not known" if given else "a key is needed; send `Authorization: Bearer KEY`"
            raise Refused(Problem(401, "unauthorized", told, headers={"www-authenticate": "Bearer"}))
        return caller

    async def _work(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self._limits
        if wait := self._buckets.wait(caller.key, time.monotonic()):
            told = f"more than {limits.requests_per_minute} requests per minute; try again in {wait:.0f} seconds"
            raise refused(429, "rate_limited", told, retry=wait)
        if self._inside >= limits.max_waiting:
            told = f"{self._inside} requests are waiting already (max_waiting is {limits.max_waiting}); try again later"
            raise refused(429, "overloaded", told, retry=1)
        self._inside += 1
        self._metrics.waiting(self._inside)
        try:
            await self._in_time(scope, receive, send)
        finally:
            self._inside -= 1
            self._metrics.waiting(self._inside)

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        end = asyncio.get_running_loop().time() + self._limits.deadline
        try:
            async with asyncio.timeout_at(end):
                body = await self._body(scope, receive)
            if body is None:
                self._metrics.dropped("disconnected")
                return
            # What is mounted may answer for as long as its caller listens; a dialect's request ends.
            async with asyncio.timeout_at(end if self._shapes.has(scope["path"]) else None):
                await self._until_gone(scope, _replay(body), receive, sent)
        except TimeoutError:
            self._metrics.dropped("deadline")
            if not started:
                told = f"the request took longer than {self._limits.deadline} seconds; try again, or send fewer texts"
                raise refused(503, "deadline_exceeded", told, retry=RETRY_AFTER) from None

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the whole body; `None` if the caller leaves before it has come."""
        limit = self._limits.max_body_bytes
        said = headers_of(scope).get("content-length", "")
        if said.isdecimal() and int(said[:20]) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _until_gone(self, scope: Scope, replay: Receive, receive: Receive, send: Send) -> None:
        """Run the application until it has answered or its caller is gone."""
        task = asyncio.ensure_future(self._app(scope, replay, send))
        gone = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._metrics.dropped("disconnected")
        finally:
            gone.cancel()
            if not task.done():
                task.cancel()
            await asyncio.wait({task, gone})
        if not task.cancelled():
            task.result()


def _replay(body: bytes) -> Receive:
    """Return a `receive` for what has been read already."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            # Whoever is asked again waits until the caller is gone, and is cancelled then.
            await asyncio.Event().wait()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _too_large(limit: int) -> Refused:
    return refused(413, "body_too_large", f"the body is larger than {limit} bytes (max_body_bytes); send fewer texts")
