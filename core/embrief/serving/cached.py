"""A cache above a model: looks up what was computed before, submits the rest, and puts both together.

It stands above the scheduler, so that misses of all callers share batches. What two callers want at the same time is
computed once, and goes on if one of them is cancelled. Rows are kept as they come: what was finished before a call
failed is there for the next one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from embrief.cache.entries import Entry
from embrief.cache.flights import Flight, Joined, all_done
from embrief.errors import BackendError, placed
from embrief.facts.prompts import RenderedTexts
from embrief.facts.values import Dense
from embrief.facts.vectors import keep, row_blocks
from embrief.runtimes.base import Output
from embrief.serving.jobs import Request
from embrief.system import exiting

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Handle
    from concurrent.futures import Future
    from types import TracebackType

    from numpy.typing import NDArray

    from embrief.cache.keys import Keys
    from embrief.cache.store import Store, Tally
    from embrief.facts.prompts import Rendered
    from embrief.runtimes.base import Model, RunOptions, Token
    from embrief.serving.lanes import Lane
    from embrief.serving.scheduler import Served

T = TypeVar("T")
_KINDS = ("dense",)
_LOOK_SECONDS = 0.5
"""How often those who wait for another's computation look whether its event loop was closed under it."""


class Cached:
    """A `Served` handle over another one. A call whose texts are all known needs no model, and loads none."""

    def __init__(
        self, inner: Callable[[], Served], store: Store, keys: Keys, ttl: float | None, tally: Tally | None = None
    ) -> None:
        """Load nothing.

        Args:
            inner: Returns what computes; asked for when something is missing.
            store: Where answers are kept.
            keys: How they are found again.
            ttl: Seconds for which an answer counts; `None`: for ever.
            tally: Where it is counted what was found.
        """
        self.inner, self.store, self.keys, self.ttl, self.tally = inner, store, keys, ttl, tally

    def load(self) -> Model:
        """Return the model."""
        return self.inner().load()

    def check(self, inputs: Sequence[Rendered], options: RunOptions) -> None:
        """Refuse inputs that may not be cut, as the model does."""
        self.inner().check(inputs, options)

    def count(self, inputs: Sequence[Rendered], options: RunOptions) -> NDArray[np.int64] | None:
        """Return the lengths of inputs, as the model does."""
        return self.inner().count(inputs, options)

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]] | None:
        """Return the tokens of inputs, as the model does."""
        return self.inner().tokenize(inputs, options)

    def run(self, request: Request) -> Output:
        """Return what the model makes, or made, of a request.

        Raises:
            EmbriefError: What the model raises for those that are not known.
        """
        if request.options.kinds != _KINDS:
            return self.inner().run(request)
        with _Call(self, request) as call:
            while not call.look():
                if call.computes:
                    call.compute()
                    call.collect()
                _wait(call)
                call.collect_joined()
            return call.output()

    async def arun(self, request: Request, finish: Callable[[Output], T], lane: Lane) -> T:
        """`run` for event loops: everything that may take time is done on the lane."""
        if request.options.kinds != _KINDS:
            inner = await lane.run(self.inner)
            return await inner.arun(request, finish, lane)
        # Inside the function: programs without an event loop need not load it.
        import asyncio

        loop = asyncio.get_running_loop()
        with _Call(self, request, loop.is_closed) as call:
            while True:
                # What is needed next and what comes of it in one errand, since each costs a loop two wakings.
                step = await lane.run(partial(_looked, call, finish))
                if step.complete:
                    found: T = step.result
                    return found
                if step.inner is not None:
                    await lane.run(call.collect, after=call.start(step.inner, lane))
                if others := call.joined():
                    with _watched(call, loop):
                        await lane.run(call.collect_joined, after=all_done(others))


class _Step:
    """What a look has given: the result of the whole call, or who computes what is missing."""

    complete = False
    result: Any = None
    inner: Served | None = None


def _looked(call: _Call, finish: Callable[[Output], Any]) -> _Step:
    step = _Step()
    if call.look():
        step.complete, step.result = True, finish(call.output())
    else:
        step.inner = call.inner() if call.computes else None
    return step


def _wait(call: _Call) -> None:
    """Wait for what other callers compute, on a thread that may wait."""
    if futures := call.joined():
        from embrief.system.event_loop import must_not_wait

        must_not_wait()
        done = all_done(futures)
        while not done.done():
            call.rescue()
            with contextlib.suppress(TimeoutError):
                done.result(_LOOK_SECONDS)


@contextlib.contextmanager
def _watched(call: _Call, loop: AbstractEventLoop) -> Iterator[None]:
    """Look after what other callers compute, while a coroutine waits for it."""
    timer: Handle

    def look() -> None:
        nonlocal timer
        call.rescue()
        timer = loop.call_later(_LOOK_SECONDS, look)

    timer = loop.call_soon(look)
    try:
        yield
    finally:
        timer.cancel()


class _Call:
    """One caller's request: which of its inputs are known, which it computes, and which others compute."""

    def __init__(self, cached: Cached, request: Request, stranded: Callable[[], bool] = bool) -> None:
        """Look nothing up yet.

        Args:
            cached: The cache.
            request: What is wanted.
            stranded: Returns whether the call cannot go on, since its event loop is closed.
        """
        self._cached, self._request, self._stranded = cached, request, stranded
        self._rows = _Rows(len(request.inputs), request.options.dim)
        self._left: dict[bytes, list[int]] | None = None
        """The places of each input that is not there yet, by its key."""
        self._flight: Flight | None = None
        self._joined: list[Joined] = []
        self._gone = False
        # A caller may be cancelled while a lane looks for it.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._gone = True
            self._leave()

    def _leave(self) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            if flight.stop is None:
                # Nobody computes: not yet, or not any more.
                flight.fail(_Left())
            flight.leave(None)
        for joined in self._joined:
            joined.leave()
        self._joined = []

    @property
    def computes(self) -> bool:
        """Return whether something is missing that nobody else computes."""
        return self._flight is not None and bool(self._flight.keys)

    def look(self) -> bool:
        """Look up what is left, and claim what nobody computes; return whether nothing is left.

        Raises:
            ClosedError: The interpreter is exiting.
        """
        exiting.check()
        store, request = self._cached.store, self._request
        first = self._left is None
        if self._left is None:
            self._left = {}
            for place, key in enumerate(self._cached.keys.of(request.inputs, request.options)):
                self._left.setdefault(key, []).append(place)
        flights = store.flights
        seen = flights.delivered
        keys = list(self._left)
        for block in row_blocks(len(keys)):
            self._take(store.get(keys[block], self._cached.ttl))
        if first and self._cached.tally is not None:
            self._cached.tally.note(len(keys) - len(self._left), len(self._left))
        if not self._left:
            return True
        flight, joined = flights.claim(self._left, urgent=request.urgent)
        flight.stranded = self._stranded
        with self._lock:
            self._flight, self._joined = flight, joined
            if self._gone:
                self._leave()
                return False
        try:
            if flights.delivered != seen:
                # Somebody delivered between the look and the claim.
                self._again(flight)
        except BaseException:
            flight.fail(_Left())
            raise
        if not flight.keys:
            flight.finish(None)
        return not self._left

    def _again(self, flight: Flight) -> None:
        for block in row_blocks(len(flight.keys)):
            found = self._take(self._cached.store.get(flight.keys[block], self._cached.ttl))
            flight.deliver(found)
        flight.keys = [key for key in flight.keys if key in flight.left]

    def _take(self, found: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Take entries; return those that are of use."""
        assert self._left is not None
        taken: dict[bytes, bytes] = {}
        for key, data in found.items():
            places = self._left.get(key)
            if places is None:
                continue
            try:
                entry = Entry.from_bytes(data)
            except ValueError:
                continue
            if not self._rows.takes(len(entry.vector)):
                continue
            self._rows.put_entry(places, entry)
            del self._left[key]
            taken[key] = data
            self._progress(len(places))
        return taken

    def _progress(self, count: int) -> None:
        if self._request.options.on_progress and count:
            self._request.options.on_progress(count)

    def inner(self) -> Served:
        """Return what computes this call's misses."""
        flight = self._flight
        try:
            return self._cached.inner()
        except BaseException as error:
            if flight is not None:
                flight.fail(error)
            raise

    def compute(self) -> None:
        """Compute this call's misses, on its own thread. An error ends the flight, and comes out of `collect`."""
        flight = self._flight
        assert flight is not None
        try:
            output = self._cached.inner().run(self._asked(flight))
            self._deliver(flight, output)
        except Exception as error:
            flight.fail(error)
        except BaseException as error:
            flight.fail(error)
            raise

    def start(self, inner: Served, lane: Lane) -> Future[Any]:
        """Let this call's misses be computed by a task of their own, that outlives the call if others wait.

        Returns:
            What is done with them.
        """
        import asyncio

        flight = self._flight
        assert flight is not None
        loop = asyncio.get_running_loop()
        task = loop.create_task(_computed(inner, self._asked(flight), flight, partial(self._deliver, flight), lane))

        def stop() -> None:
            # Where the loop is closed, nothing runs any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)

        flight.stop = stop
        return flight.done

    def _asked(self, flight: Flight) -> Request:
        """Return what is asked of the model: whole vectors of what this call computes."""
        assert self._left is not None
        request = self._request
        options = request.options
        places = [self._left[key][0] for key in flight.keys]
        inputs = request.inputs if len(places) == len(request.inputs) else _chosen(request.inputs, places)
        dim = options.dim if self._cached.keys.native_dims else None
        keep = partial(_keep, self._cached, flight)
        return Request(inputs, replace(options, dim=dim), request.urgent, keep)

    def _deliver(self, flight: Flight, output: Output) -> None:
        """End a flight with the model's answer; what the model did not tell row by row is kept now."""
        if flight.left:
            places = [place for place, key in enumerate(flight.keys) if key in flight.left]
            _keep(self._cached, flight, places, _part(output, places))
        flight.finish(output)

    def joined(self) -> list[Future[Any]]:
        """Return what others compute for this call."""
        return [joined.future for joined in self._joined]

    def rescue(self) -> None:
        """End what nobody computes any more of what this call waits for."""
        for joined in self._joined:
            joined.flight.rescue()

    def collect(self) -> None:
        """Take what this call has computed, once that is done.

        Raises:
            EmbriefError: It could not be computed.
        """
        with self._lock:
            flight, self._flight = self._flight, None
        if flight is None or self._left is None:
            return
        own = [self._left[key] for key in flight.keys]
        with placed([places[0] for places in own]):
            output: Output | None = flight.done.result()
        if output is not None:
            self._rows.put_output(own, output)
            for key in flight.keys:
                # The model has told of one each.
                self._progress(len(self._left.pop(key)) - 1)
            self._cached.store.settle()

    def collect_joined(self) -> None:
        """Take what others have computed, once that is done. What they have not is still left.

        Raises:
            EmbriefError: Nobody could compute it at the moment.
        """
        with self._lock:
            joined, self._joined = self._joined, []
        for item in joined:
            data = item.future.result()
            if data is not None:
                self._take({item.key: data})

    def output(self) -> Output:
        """Return the answer, in input order."""
        return self._rows.output()


class _Left(BaseException):
    """Whoever computed something has gone."""


async def _computed(
    inner: Served, request: Request, flight: Flight, deliver: Callable[[Output], None], lane: Lane
) -> None:
    try:
        await inner.arun(request, deliver, lane)
    except Exception as error:
        flight.fail(error)
    except BaseException as error:
        flight.fail(error)
        raise


def _chosen(inputs: Sequence[Rendered], places: Sequence[int]) -> Sequence[Rendered]:
    if isinstance(inputs, RenderedTexts):
        return inputs.of([inputs.bodies[place] for place in places])
    return [inputs[place] for place in places]


def _part(output: Output, places: Sequence[int]) -> Output:
    counts, truncated = output.token_counts, output.truncated
    return Output(
        {kind: values.take(places) for kind, values in output.values.items()},
        None if counts is None else counts[places],
        None if truncated is None else truncated[places],
        output.answered_by,
    )


def _keep(cached: Cached, flight: Flight, places: Sequence[int], output: Output) -> None:
    """Keep rows of a flight as they come. Whatever is not finite is no answer, and its caller will hear of it."""
    vectors = output.array("dense")
    if vectors.ndim != 2:
        return
    fine = np.isfinite(vectors).all(axis=1)
    found: dict[bytes, bytes] = {}
    for row, place in enumerate(places):
        if fine[row]:
            entry = Entry(
                vectors[row].astype(np.float32),
                None if output.token_counts is None else int(output.token_counts[row]),
                None if output.truncated is None else bool(output.truncated[row]),
                output.answered_by,
            )
            found[flight.keys[place]] = entry.to_bytes()
    # First the store: whoever does not find a key in flight any more finds it there.
    cached.store.put(found, cached.ttl)
    flight.deliver(found)


class _Rows:
    """The rows of one call, from the cache and from the model, in input order."""

    def __init__(self, count: int, dim: int | None) -> None:
        self._count, self._dim = count, dim
        self._vectors: NDArray[np.float32] | None = None
        self._counts = np.full(count, -1, np.int64)
        self._truncated = np.full(count, -1, np.int8)
        self._by: dict[str, None] = {}
        self._whole: Output | None = None
        """The answer of the model where it is that of the call: not copied."""

    def takes(self, width: int) -> bool:
        """Return whether an entry of this width can be of this call."""
        if self._vectors is not None:
            return width >= int(self._vectors.shape[1])
        return width > 0 and (self._dim is None or width >= self._dim)

    def put_entry(self, places: Sequence[int], entry: Entry) -> None:
        """Take an answer from the cache."""
        vectors = self._room(len(entry.vector))
        vectors[places] = entry.vector[: vectors.shape[1]]
        if entry.tokens is not None:
            self._counts[places] = entry.tokens
        if entry.truncated is not None:
            self._truncated[places] = entry.truncated
        self._by[entry.answered_by] = None

    def put_output(self, places: Sequence[Sequence[int]], output: Output) -> None:
        """Take answers of the model, each for the places of one key."""
        if self._vectors is None and [list(item) for item in places] == [[place] for place in range(self._count)]:
            self._whole = output
            return
        rows = output.array("dense")
        if rows.ndim != 2 or (self._dim is not None and rows.shape[1] < self._dim):
            raise BackendError(
                f"the runtime returned an array of shape {rows.shape}; expected rows of {self._dim} values or more"
            )
        vectors = self._room(rows.shape[1])
        sizes = [len(item) for item in places]
        order, into = np.repeat(np.arange(len(places)), sizes), np.concatenate([np.asarray(item) for item in places])
        for block in row_blocks(len(into)):
            # What is cut off is looked at too: NaN there is an error of the row.
            vectors[into[block]] = keep(rows[order[block]], vectors.shape[1])
        if output.token_counts is not None:
            self._counts[into] = output.token_counts[order]
        if output.truncated is not None:
            self._truncated[into] = output.truncated[order]
        self._by[output.answered_by] = None

    def _room(self, width: int) -> NDArray[np.float32]:
        if self._vectors is None:
            self._vectors = np.empty((self._count, width if self._dim is None else self._dim), np.float32)
        return self._vectors

    def output(self) -> Output:
        """Return all of them. What is not known of one is not told of any."""
        if self._whole is not None:
            return self._whole
        assert self._vectors is not None
        return Output(
            {"dense": Dense(self._vectors)},
            None if (self._counts < 0).any() else self._counts,
            None if (self._truncated < 0).any() else self._truncated.astype(np.bool_),
            ", ".join(filter(None, self._by)),
        )
