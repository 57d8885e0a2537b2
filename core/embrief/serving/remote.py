"""Calls of models on servers: cut into requests, as many at once as the server's end takes, and put together again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from embrief.errors import (
    BackendError,
    EmbriefError,
    IndexedError,
    ItemFailedError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
)
from embrief.runtimes.base import Output
from embrief.serving.jobs import in_short

if TYPE_CHECKING:
    from embrief.facts.prompts import Rendered
    from embrief.runtimes.base import Remote, RunOptions

_NO_SENSE_IN_HALVES = (UnavailableError, RateLimitedError, UnauthorizedError)
_CONNECTION = {"ConnectionError", "TimeoutError", "TransportError", "TimeoutException", "ClientConnectionError"}

# One per endpoint and loop; only the loop's own thread uses it.
_limits: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]] = WeakKeyDictionary()


async def call(model: Remote, inputs: Sequence[Rendered], options: RunOptions) -> Output:
    """Return what a server's model makes of the inputs of one caller.

    Raises:
        UnavailableError, RateLimitedError, UnauthorizedError: As the server, or the way to it, is.
        ItemFailedError: The server fails on one input; the error has its index.
    """
    size = max(model.batch_rows, 1)
    parts = [range(start, min(start + size, len(inputs))) for start in range(0, len(inputs), size)]
    tasks = [asyncio.ensure_future(_part(model, inputs, part, options)) for part in parts]
    try:
        outputs = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        # They end before the caller hears of it: nobody asks for more after that.
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return _joined(parts, outputs, options, len(inputs))


def _limit(model: Remote) -> asyncio.Semaphore:
    known = _limits.setdefault(asyncio.get_running_loop(), {})
    name = model.endpoint or f"model {id(model)}"
    return known.setdefault(name, asyncio.Semaphore(max(model.in_flight, 1)))


async def _part(model: Remote, inputs: Sequence[Rendered], part: range, options: RunOptions) -> Output:
    try:
        async with _limit(model):
            output = await model.arun(inputs[part.start : part.stop], options)
            _check(output, len(part))
    except Exception as error:
        await _explain(model, inputs, part, options, _wrapped(error, part))
        raise AssertionError("an error was explained") from error
    if options.on_progress:
        options.on_progress(len(part))
    return output


async def _explain(
    model: Remote, inputs: Sequence[Rendered], part: range, options: RunOptions, error: EmbriefError
) -> None:
    """Raise the error, about the one input that it is for if the server tells when it is asked for fewer."""
    if isinstance(error, IndexedError):
        error.place(part)
    if isinstance(error, (*_NO_SENSE_IN_HALVES, IndexedError)) or len(part) == 1:
        if len(part) == 1 and type(error) is BackendError:
            index = part.start
            raise ItemFailedError(f"the server failed on the text at index {index}: {error}", index=index) from error
        raise error
    middle = part.start + (len(part) + 1) // 2
    for half in (range(part.start, middle), range(middle, part.stop)):
        try:
            async with _limit(model):
                _check(await model.arun(inputs[half.start : half.stop], options), len(half))
        except Exception as found:
            await _explain(model, inputs, half, options, _wrapped(found, half))
    # Neither half failed: it is the number of them that the server does not take.
    raise error


def _wrapped(error: Exception, part: range) -> EmbriefError:
    """Return an error of ours; another library's is wrapped, once."""
    if isinstance(error, EmbriefError):
        return error
    names = {kind.__name__ for kind in type(error).__mro__}
    kind = (
        UnavailableError if names & _CONNECTION else UnauthorizedError if "PermissionError" in names else BackendError
    )
    found = kind(f"the server failed on {len(part)} texts: {in_short(error)}")
    found.__cause__ = error
    return found


def _check(output: Any, count: int) -> None:
    if not isinstance(output, Output):
        raise BackendError(f"arun returned a {type(output).__name__}, not an Output")
    for kind, values in output.values.items():
        if len(values) != count:
            raise BackendError(f"the server returned {len(values)} rows of kind {kind!r} for {count} texts")


def _joined(parts: list[range], outputs: list[Output], options: RunOptions, count: int) -> Output:
    gathered = {kind: values.gather(count, options.dim) for kind, values in outputs[0].values.items()}
    for part, output in zip(parts, outputs, strict=True):
        for kind, rows in gathered.items():
            rows.put(part, output.values[kind])
    counts = [output.token_counts for output in outputs if output.token_counts is not None]
    truncated = [output.truncated for output in outputs if output.truncated is not None]
    return Output(
        {kind: rows.whole() for kind, rows in gathered.items()},
        np.concatenate(counts) if len(counts) == len(outputs) else None,
        np.concatenate(truncated) if len(truncated) == len(outputs) else None,
        outputs[0].answered_by,
    )
