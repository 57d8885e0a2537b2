"""Calls of models on servers: cut into requests, as many at once as the server's end takes, and put together again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from embrief.errors import (
    BackendError,
    BadAnswerError,
    EmbriefError,
    IndexedError,
    ItemFailedError,
    ModelMismatchError,
    ServerError,
    UnauthorizedError,
    UnavailableError,
)
from embrief.runtimes.base import Output
from embrief.serving.jobs import in_short

if TYPE_CHECKING:
    from embrief.facts.prompts import Rendered
    from embrief.runtimes.base import Remote, RunOptions

_NO_SENSE_IN_HALVES = (ServerError, ModelMismatchError, BadAnswerError)
_CONNECTION = {"OSError", "Timeout", "TransportError", "TimeoutException", "ClientConnectionError"}
"""What HTTP clients raise where there is no answer, by the names of their classes and bases."""
# A library that calls sys.exit() must not end the loop for everybody.
_FAULTS = (Exception, SystemExit, KeyboardInterrupt)

# One per endpoint and loop; only the loop's own thread uses it.
_gates: WeakKeyDictionary[
    asyncio.AbstractEventLoop, tuple[WeakValueDictionary[str, _Gate], WeakKeyDictionary[Remote, _Gate]]
] = WeakKeyDictionary()


async def call(
    model: Remote,
    inputs: Sequence[Rendered],
    options: RunOptions,
    on_rows: Callable[[Sequence[int], Output], None] | None = None,
) -> Output:
    """Return what a server's model makes of the inputs of one caller.

    Args:
        model: The model.
        inputs: Rendered texts or pairs.
        options: What is asked of them.
        on_rows: Called with the places and the output of each request that is done, as in `Request`.

    Raises:
        UnavailableError, RateLimitedError, UnauthorizedError: As the server, or the way to it, is. They say how much
            had been answered.
        ItemFailedError: The server fails on one input; the error has its index.
    """
    parts = model.parts(inputs, options)
    outputs: list[Output | None] = [None] * len(parts)
    left = iter(range(len(parts)))

    async def take() -> None:
        for number in left:
            found = outputs[number] = await _part(model, inputs, parts[number], options)
            if on_rows:
                on_rows(parts[number], found)

    # No more tasks than can be on their way: else whoever comes after a corpus would wait for all of it.
    tasks = [asyncio.ensure_future(take()) for _ in range(min(len(parts), max(model.in_flight, 1)))]
    try:
        async with asyncio.timeout(model.deadline) as deadline:
            await asyncio.gather(*tasks)
    except BaseException as error:
        for task in tasks:
            task.cancel()
        # They end before the caller hears of it: nobody asks for more after that.
        await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(error, TimeoutError) and deadline.expired():
            where = model.endpoint or "the server"
            late = UnavailableError(
                f"{where} did not answer the whole call within its deadline of {model.deadline:g} s"
            )
            late.tell(_answered(parts, outputs), len(inputs))
            raise late from None
        if isinstance(error, BackendError) and len(parts) > 1:
            error.tell(_answered(parts, outputs), len(inputs))
        raise
    return Output.joined(parts, [output for output in outputs if output is not None], options.dim)


def _answered(parts: Sequence[range], outputs: Sequence[Output | None]) -> int:
    """Return how many inputs had their answer before the first that had none."""
    return next((part.start for part, output in zip(parts, outputs, strict=True) if output is None), parts[-1].stop)


class _Gate:
    """How many requests are on their way to one endpoint; each model says for itself how many may be. First come first.

    For one event loop's thread.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def passed(self, most: int) -> AsyncIterator[None]:
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((most, ticket))
        self._admit()
        try:
            await ticket
            yield
        finally:
            if ticket.done() and not ticket.cancelled():
                self._inside -= 1
            self._admit()

    def _admit(self) -> None:
        for entry in list(self._waiting):
            most, ticket = entry
            if ticket.done() or self._inside < most:
                self._waiting.remove(entry)
                if not ticket.done():
                    self._inside += 1
                    ticket.set_result(None)


def _limit(model: Remote) -> AbstractAsyncContextManager[None]:
    known = _gates.setdefault(asyncio.get_running_loop(), (WeakValueDictionary(), WeakKeyDictionary()))
    gates: MutableMapping[Any, _Gate] = known[0] if model.endpoint else known[1]
    key: Any = model.endpoint or model
    gate = gates.get(key)
    if gate is None:
        gate = gates[key] = _Gate()
    return gate.passed(max(model.in_flight, 1))


async def _part(model: Remote, inputs: Sequence[Rendered], part: range, options: RunOptions) -> Output:
    output = await _asked(model, inputs, part, options)
    if options.on_progress:
        options.on_progress(len(part))
    return output


async def _asked(model: Remote, inputs: Sequence[Rendered], part: range, options: RunOptions) -> Output:
    """Return a server's answer to a part of a call; of halves where it does not take the whole of it."""
    try:
        async with _limit(model):
            output = await model.arun(inputs[part.start : part.stop], options)
            _check(output, len(part), options)
        return output
    except _FAULTS as error:
        failed = _wrapped(error, part)
    if isinstance(failed, IndexedError):
        failed.place(part)
    if isinstance(failed, (*_NO_SENSE_IN_HALVES, IndexedError)) or len(part) == 1:
        if len(part) == 1 and type(failed) is BackendError:
            index = part.start
            raise ItemFailedError(f"the server failed on the text at index {index}: {failed}", index=index) from failed
        raise failed
    middle = part.start + (len(part) + 1) // 2
    halves = [range(part.start, middle), range(middle, part.stop)]
    # If neither half fails, it was too much for one request, or it has passed; the answers are what was asked for.
    outputs = [await _asked(model, inputs, half, options) for half in halves]
    places = [range(half.start - part.start, half.stop - part.start) for half in halves]
    return Output.joined(places, outputs, options.dim)


def _wrapped(error: BaseException, part: range) -> EmbriefError:
    """Return an error of ours; another library's is wrapped, once."""
    if isinstance(error, EmbriefError):
        return error
    names = {kind.__name__ for kind in type(error).__mro__}
    kind = (
        UnauthorizedError if "PermissionError" in names else UnavailableError if names & _CONNECTION else BackendError
    )
    found = kind(f"the server failed on {len(part)} texts: {in_short(error)}")
    found.__cause__ = error
    return found


def _check(output: Any, count: int, options: RunOptions) -> None:
    if not isinstance(output, Output):
        raise BadAnswerError(f"arun returned a {type(output).__name__}, not an Output")
    try:
        output.check(count, options.kinds)
    except BackendError as error:
        raise BadAnswerError(str(error)) from error
