"""One worker per loaded model: calls from threads and event loops become batches, one at a time.

A call is tokenised where it comes from and then waits as a job. The worker's thread takes rows of all waiting jobs in
turn, longest first within each, until a batch is full. A lone caller waits for nothing but the model.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from embrief.errors import BackendError, ClosedError, EmbriefError
from embrief.runtimes.base import Batched, Checking, Counting, Model, Output, Remote, Tokenizing
from embrief.serving.jobs import Away, Call, Job, Request, Room, Row, Rows, is_out_of_memory, runtime_error
from embrief.system import exiting
from embrief.system.log import logger

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.runtimes.base import Prepared, RunOptions, Token
    from embrief.serving.lanes import Lane

R = TypeVar("R")
T = TypeVar("T")

QUEUE_ROWS = 16384
"""Texts or pairs that may wait at one model, queries and bulk each; callers beyond that wait before they tokenise."""
QUERY_TURNS = 8
"""Batches of queries in a row while bulk work waits."""

# Those to be freed. A plain set: a finaliser may add to it while another thread reads, which copies at one go.
_closing: set[Worker] = set()


class Served(Protocol):
    """What answers a facade's calls: a model's own worker, or what stands above it (a cache, a fallback)."""

    def load(self) -> Model:
        """Return the model, which loads with the first call."""

    def run(self, request: Request) -> Output:
        """Return what the model makes of a request."""

    async def arun(self, request: Request, finish: Callable[[Output], T], lane: Lane) -> T:
        """`run` for event loops: `finish` makes the result, on the lane."""

    def check(self, inputs: Sequence[Rendered], options: RunOptions) -> None:
        """Refuse inputs that may not be cut, as far as that can be told without running them."""

    def count(self, inputs: Sequence[Rendered], options: RunOptions) -> NDArray[np.int64] | None:
        """Return (n,) tokens of each input before any cut, without running them; `None`: the runtime cannot tell."""

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]] | None:
        """Return the tokens of each input before any cut; `None`: the runtime does not tell them."""


class Worker:
    """One model in memory and the thread that runs it. Only that thread loads, enters and frees the model."""

    def __init__(self, load: Callable[[], Model]) -> None:
        self._load = load
        self._backend: Model | None = None
        self._limit: float = math.inf
        """Tokens per batch that the memory has held out so far."""
        self.reset()

    def reset(self) -> None:
        """Start afresh, in a child process too: a thread of the parent is gone there, and its locks may be held."""
        self._lock = threading.Lock()
        self._inbox: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._rooms = {True: Room(QUEUE_ROWS), False: Room(QUEUE_ROWS)}
        self._thread: threading.Thread | None = None
        self._lanes: dict[bool, deque[Job[Any]]] = {True: deque(), False: deque()}
        self._query_turns = 0
        self._away: set[Future[Output]] = set()
        if isinstance(self._backend, Remote):
            # Its connections belong to a loop that a child process does not have.
            self._backend = None
        self._in_call = self._closed = self._ended = False
        self._freed, self._left = threading.Event(), threading.Event()

    @property
    def loaded(self) -> bool:
        """Return whether the weights are in memory."""
        return self._backend is not None

    def batch_tokens(self, asked: int | None) -> int | None:
        """Return the tokens per batch in use; `None` before loading, and for a runtime that decides it itself."""
        backend = self._backend
        if not isinstance(backend, Batched):
            return asked
        return int(min(asked or backend.batch_tokens, self._limit))

    # For callers, on any thread.

    def load(self) -> Model:
        """Return the model, which loads with the first call."""
        backend = self._backend
        return backend if backend is not None else self._wait(Call(lambda loaded: loaded, urgent=True))

    def run(self, request: Request) -> Output:
        """Return what the model makes of a request. An interrupted caller's work is dropped.

        Raises:
            InputTooLongError: An input is too long and may not be cut. Nothing was computed.
            ItemFailedError: The runtime failed on one input; the error has its index.
            ClosedError: The model was closed before.
        """
        with self._entering(request) as ticket:
            ticket.result()
            return self._wait(self._job(request))

    async def arun(self, request: Request, finish: Callable[[Output], T], lane: Lane) -> T:
        """`run` for event loops: tokenises on a lane, and waits without holding a thread.

        Args:
            request: What to run.
            finish: Makes the result, on the lane.
            lane: Where this caller's work is done.
        """
        with self._entering(request) as ticket:
            job = await lane.run(partial(self._job, request), after=ticket)
            with self._submitted(job) as future:
                return await lane.run(lambda: finish(future.result()), after=future)

    def close(self) -> None:
        """Let the worker free the model after the jobs that wait. Never blocks, so that a finaliser may call it."""
        self._closed = True
        if self._thread is not None:
            if not isinstance(self._backend, Remote):
                _closing.add(self)
            self._inbox.put(None)

    @contextmanager
    def _entering(self, request: Request) -> Iterator[Future[None]]:
        room, count = self._rooms[request.urgent], len(request.inputs)
        ticket = room.enter(count)
        try:
            yield ticket
        finally:
            room.leave(ticket, count)

    def _job(self, request: Request) -> Job[Output]:
        backend = self.load()
        if isinstance(backend, Remote):
            return Away(request, backend)
        if not isinstance(backend, Batched):
            return Call(partial(_whole, request), urgent=request.urgent)
        return Rows(request, self._prepared(backend, request.inputs, request.options), backend)

    def check(self, inputs: Sequence[Any], options: RunOptions) -> None:
        """Refuse inputs that may not be cut, as far as the runtime can tell without running them. Loads the model.

        Raises:
            InputTooLongError: An input is too long, or nothing of it would be left.
        """
        backend = self.load()
        if isinstance(backend, Batched):
            self._prepared(backend, inputs, options)
        elif isinstance(backend, Checking):
            backend.check(inputs, options)

    def count(self, inputs: Sequence[Any], options: RunOptions) -> NDArray[np.int64] | None:
        """Return the lengths of inputs, as far as the runtime can tell without running them. Loads the model."""
        backend = self.load()
        if isinstance(backend, Batched):
            return self._prepared(backend, inputs, replace(options, refuse_long=False)).token_counts
        return backend.count(inputs, options) if isinstance(backend, Counting) else None

    def tokenize(self, inputs: Sequence[Any], options: RunOptions) -> list[list[Token]] | None:
        """Return the tokens of inputs; `None`: the runtime does not tell them. Loads the model."""
        backend = self.load()
        if not isinstance(backend, Tokenizing):
            return None
        with exiting.native():
            return backend.tokenize(inputs, options)

    @staticmethod
    def _prepared(backend: Batched, inputs: Sequence[Any], options: RunOptions) -> Prepared:
        try:
            with exiting.native():
                return backend.prepare(inputs, options)
        except EmbriefError:
            raise
        except Exception as error:
            raise runtime_error("the runtime failed to tokenise the texts", error) from error

    def _wait(self, job: Job[R]) -> R:
        if isinstance(job, Away):
            from embrief.system.event_loop import must_not_wait

            must_not_wait()
        with self._submitted(job) as future:
            return future.result()

    @contextmanager
    def _submitted(self, job: Job[R]) -> Iterator[Future[R]]:
        exiting.check()
        if isinstance(job, Away):
            yield from self._sent(job)  # type: ignore[misc] # an `Away` is a job whose result is an Output
            return
        with self._lock:
            if self._closed:
                raise _closed()
            if self._thread is threading.current_thread():
                raise BackendError("a runtime called its own model while it ran; that would wait for itself")
            if self._thread is None:
                self._thread = exiting.start(self, self._serve, "embrief-model")
                exiting.stop_first()
        self._inbox.put(job)
        if self._ended:
            self._drop()
        try:
            yield job.future
        finally:
            job.future.cancel()

    def _sent(self, job: Away) -> Iterator[Future[Output]]:
        """Send a call to its server."""
        from embrief.serving import remote
        from embrief.system.event_loop import submit

        with self._lock:
            if self._closed:
                raise _closed()
            future = submit(remote.call(job.model, job.request.inputs, job.request.options, job.request.on_rows))
            self._away.add(future)
        future.add_done_callback(self._away.discard)
        try:
            yield future
        finally:
            future.cancel()

    # For the worker's thread.

    def _serve(self) -> None:
        try:
            while self._receive() and not exiting.begun():
                self._turn()
        finally:
            try:
                if not exiting.begun():
                    self._end()
            finally:
                self._left.set()

    def _receive(self) -> bool:
        """Sort what has come into the lanes, waiting if there is nothing to do; return whether to go on."""
        waiting = any(self._lanes.values())
        try:
            while True:
                job = self._inbox.get(block=not waiting and not self._closed)
                waiting = True
                if job is not None:
                    self._lanes[job.urgent].append(job)
        except Empty:
            return any(self._lanes.values()) or not self._closed

    def _turn(self) -> None:
        queries, bulk = self._lanes[True], self._lanes[False]
        urgent = bool(queries) and not (bulk and self._query_turns >= QUERY_TURNS)
        self._query_turns = self._query_turns + 1 if urgent and bulk else 0
        jobs = [job for job in self._lanes[urgent] if job.waits]
        # The first goes to the back, so that each job is first in its turn.
        self._lanes[urgent] = deque([*jobs[1:], *jobs[:1]])
        if not jobs or not self._loads():
            return
        first = jobs[0]
        if isinstance(first, Call):
            # Nobody waits at exit for a call that may take an hour.
            self._in_call = True
            if not exiting.begun():
                first.run(self._backend)
            self._in_call = False
        else:
            self._run(self._batch([job for job in jobs if isinstance(job, Rows)]))

    def _loads(self) -> bool:
        if self._backend is not None:
            return True
        try:
            if not self._closed:
                # A model that was let go is freed before another takes its memory.
                for other in list(_closing):
                    other._freed.wait()
            self._backend = self._load()
        except BaseException as error:
            if exiting.begun():
                return False
            # For all who wait by now: each would wait as long again for the same error.
            self._receive()
            for job in [*self._lanes[True], *self._lanes[False]]:
                job.fail(error)
            return False
        exiting.stop_first()
        return True

    def _batch(self, jobs: list[Rows]) -> list[Row]:
        """Take one row of each job in turn until nothing more fits. A row too large for any batch goes alone."""
        padded = self._backend.padded if isinstance(self._backend, Batched) else False
        rows: list[Row] = []
        total = widest = 0
        budget = self._limit
        in_turn = deque(jobs)
        while in_turn:
            job = in_turn.popleft()
            if job.kinds != jobs[0].kinds:
                continue
            size = job.next_size
            cost = (len(rows) + 1) * max(widest, size) if padded else total + size
            if rows and cost > min(budget, job.budget):
                continue
            rows.append(job.take())
            total, widest, budget = total + size, max(widest, size), min(budget, job.budget)
            if job.waits:
                in_turn.append(job)
        together = self._backend.side_by_side if isinstance(self._backend, Batched) else 1
        if len(rows) > together and any(job.waits for job in jobs):
            # The odd ones would run alone now; in the next batch they have company.
            for _ in range(len(rows) % together):
                rows.pop().job.give_back()
        return rows

    def _run(self, batch: list[Row]) -> None:
        """Run a batch; where that fails, its halves, so that only rows that fail alone fail."""
        parts = [batch]
        while parts and not exiting.begun():
            part = [row for row in parts.pop() if not row.job.future.done()]
            if not part:
                continue
            error = self._attempt(part)
            if error is None:
                continue
            memory = is_out_of_memory(error)
            if len(part) == 1:
                part[0].job.fail(part[0].error(error, memory=memory))
            elif isinstance(error, Exception):
                if memory:
                    self._lower_limit(part)
                else:
                    # Not its message, which may hold a text.
                    kind = type(error).__name__
                    logger.debug("a batch of %d rows failed (%s); running its halves", len(part), kind)
                middle = (len(part) + 1) // 2
                parts += [part[middle:], part[:middle]]
            else:
                for row in part:
                    row.job.fail(error)
            # It holds the frames, and with them the memory, of the run that failed.
            del error

    def _lower_limit(self, rows: list[Row]) -> None:
        cost = self._cost(rows)
        if (limit := max(cost // 2, 1)) < self._limit:
            self._limit = limit
            told = "memory ran out with %d rows (%d tokens) in a batch; batches hold at most %d tokens from now on"
            logger.warning(told, len(rows), cost, limit)

    def _cost(self, rows: list[Row]) -> int:
        sizes = [row.size for row in rows]
        padded = isinstance(self._backend, Batched) and self._backend.padded
        return max(sizes) * len(sizes) if padded else sum(sizes)

    def _attempt(self, rows: list[Row]) -> BaseException | None:
        """Run rows and hand out their results, or return what went wrong."""
        backend = self._backend
        assert isinstance(backend, Batched)
        try:
            found = backend.run_rows([row.job.rows[row.place] for row in rows], rows[0].job.kinds)
            for kind, values in found.items():
                if len(values) != len(rows):
                    raise BackendError(f"the runtime returned {len(values)} rows of kind {kind!r} for {len(rows)}")
        except BaseException as error:
            return error
        numbers: dict[Rows, list[int]] = {}
        for number, row in enumerate(rows):
            numbers.setdefault(row.job, []).append(number)
        for job, own in numbers.items():
            job.receive(
                [rows[number].place for number in own], {kind: values.take(own) for kind, values in found.items()}
            )
        return None

    def _end(self) -> None:
        """Free the model, and refuse what came too late."""
        self._closed = self._ended = True
        self._drop()
        backend: Any = self._backend
        self._backend = None
        try:
            if self._away:
                from embrief.system.event_loop import wait_for

                # What is on its way is not cut off.
                wait_for(self._away)
            if backend is not None:
                backend.close()
        finally:
            # Before anybody may go on, exit among them: memory that is freed during exit can crash the interpreter.
            del backend
            self._freed.set()
            _closing.discard(self)
            exiting.ended(self)

    def _drop(self) -> None:
        self.refuse(_closed())

    def refuse(self, error: ClosedError) -> None:
        """Fail what waits."""
        left = [job for lane in self._lanes.values() for job in lane]
        while not self._inbox.empty():
            if (job := self._inbox.get()) is not None:
                left.append(job)
        for job in left:
            job.fail(error)

    def stop(self) -> None:
        """Start nothing more, at exit."""
        self._freed.set()
        self._inbox.put(None)

    def join(self) -> None:
        """Wait for the batch under way, and not for long for a call that may take an hour."""
        # Not by the thread's own `join` alone: interrupted once, it does not wait any more (before Python 3.13).
        if self._thread is not None and self._left.wait(exiting.PATIENCE if self._in_call else None):
            self._thread.join()


def _whole(request: Request, model: Model) -> Output:
    output = model.run(request.inputs, request.options)
    if not isinstance(output, Output):
        raise BackendError(f"the runtime's run returned a {type(output).__name__}, not an embrief.Output")
    output.check(len(request.inputs), request.options.kinds)
    if request.on_rows:
        request.on_rows(range(len(request.inputs)), output)
    return output


def _closed() -> ClosedError:
    return ClosedError("this model is closed; make a new Embedder or Reranker")


def forget_other_workers() -> None:
    """Forget those of the parent, in a child process."""
    _closing.clear()
