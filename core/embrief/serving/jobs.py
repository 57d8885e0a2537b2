"""What waits at a model: calls and rows of calls, the room they wait in, and what their callers are told."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from embrief.errors import (
    BackendError,
    EmbriefError,
    IndexedError,
    ItemFailedError,
    OutOfMemoryError,
    RuntimeFileError,
    RuntimeMemoryError,
)
from embrief.runtimes.base import Output, require_kinds

if TYPE_CHECKING:
    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import Kind
    from embrief.facts.values import Gathered, Values
    from embrief.runtimes.base import Batched, Prepared, Remote, RunOptions

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Request:
    """What one caller wants of a model."""

    inputs: Sequence[Rendered]
    """Texts or pairs, at least one."""
    options: RunOptions
    urgent: bool = False
    """Whether somebody waits for it, as for a query; bulk work comes after."""
    on_rows: Callable[[Sequence[int], Output], None] | None = None
    """Called with the places of inputs and what the model made of these, as soon as they are done: also where the call
    fails later, or its caller has gone. On whatever thread they come in, once per input; it must neither block nor keep
    the arrays, which the caller of the request may change."""


class Job(Generic[R]):
    """Work that waits. Cancelling its future drops what has not run."""

    def __init__(self, urgent: bool) -> None:
        self.urgent = urgent
        self.future: Future[R] = Future()

    @property
    def waits(self) -> bool:
        """Return whether there is something left to start."""
        return not self.future.done()

    def finish(self, result: R) -> None:
        """Hand out the result."""
        try:
            self.future.set_result(result)
        except InvalidStateError:
            pass  # Cancelled while it ran.

    def fail(self, error: BaseException) -> None:
        """Hand out an error."""
        if not isinstance(error, EmbriefError):
            # Whatever its kind: an event loop would stop for a SystemExit and lose a StopIteration.
            cause, error = error, runtime_error("the runtime failed", error)
            error.__cause__ = cause
        try:
            self.future.set_exception(error)
        except InvalidStateError:
            pass  # Cancelled, or another of its rows has failed.


class Call(Job[R]):
    """A call that cannot be cut."""

    def __init__(self, call: Callable[[Any], R], *, urgent: bool) -> None:
        super().__init__(urgent)
        self._call = call
        self._context = contextvars.copy_context()

    def run(self, backend: Any) -> None:
        """Call, in the caller's context."""
        try:
            self.finish(self._context.run(self._call, backend))
        except BaseException as error:
            self.fail(error)


class Away(Job[Output]):
    """A call that is sent to a server."""

    def __init__(self, request: Request, model: Remote) -> None:
        super().__init__(request.urgent)
        self.request, self.model = request, model


class Rows(Job[Output]):
    """The rows of one call."""

    def __init__(self, request: Request, prepared: Prepared, backend: Batched) -> None:
        self.rows = prepared.rows
        self.sizes: list[int] = prepared.sizes.tolist()
        self.budget = request.options.batch_tokens or backend.batch_tokens
        cost = max(self.sizes) * len(self.sizes) if backend.padded else sum(self.sizes)
        super().__init__(request.urgent and cost <= self.budget)
        self._request, self._prepared = request, prepared
        # Longest first: if memory is short, it shows at once and not after an hour.
        self._order: list[int] = np.argsort(-prepared.sizes, kind="stable").tolist()
        self._taken = self._received = 0
        self._gathered: dict[Kind, Gathered] = {}

    @property
    def waits(self) -> bool:
        """Return whether there are rows left to start."""
        return self._taken < len(self._order) and super().waits

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Return what is wanted of the model; only rows that want the same share a batch."""
        return self._request.options.kinds

    @property
    def next_size(self) -> int:
        """Return the tokens of the next row."""
        return self.sizes[self._order[self._taken]]

    def take(self) -> Row:
        """Return the next row, the longest of those left."""
        row = Row(self, self._order[self._taken])
        self._taken += 1
        return row

    def give_back(self) -> None:
        """Take the last row that was taken back."""
        self._taken -= 1

    def receive(self, places: list[int], found: Mapping[Kind, Values]) -> None:
        """Take the results of some rows; with the last the job is finished."""
        try:
            require_kinds(found, self.kinds or tuple(self._gathered))
            for kind, values in found.items():
                if kind not in self._gathered:
                    self._gathered[kind] = values.gather(len(self.rows), self._request.options.dim)
                self._gathered[kind].put(places, values)
            self._received += len(places)
            if self._request.on_rows:
                counts, truncated = self._prepared.token_counts[places], self._prepared.truncated[places]
                self._request.on_rows(places, Output(found, counts, truncated))
            if self._request.options.on_progress:
                self._request.options.on_progress(len(places))
            if self._received == len(self.rows):
                whole: dict[Kind, Values] = {kind: rows.whole() for kind, rows in self._gathered.items()}
                self.finish(Output(whole, self._prepared.token_counts, self._prepared.truncated))
        except BaseException as error:
            self.fail(error)


class Row(NamedTuple):
    """One row, by its job and its place there."""

    job: Rows
    place: int

    @property
    def size(self) -> int:
        """Return its tokens."""
        return self.job.sizes[self.place]

    def error(self, error: BaseException, *, memory: bool) -> BaseException:
        """Return what the caller of this row gets."""
        if isinstance(error, EmbriefError):
            if isinstance(error, IndexedError) and error.index is not None:
                error.index = self.place
            return error
        if not isinstance(error, Exception):
            return error
        what = f"the text at index {self.place} ({self.size} tokens)"
        found: ItemFailedError
        if memory:
            found = OutOfMemoryError(
                f"there is not enough memory for {what} even alone; lower max_tokens (for pictures max_pixels), split "
                "the text, or use a smaller model or a narrower dtype",
                index=self.place,
                tokens=self.size,
            )
        else:
            found = ItemFailedError(f"the runtime failed on {what}: {in_short(error)}", index=self.place)
        found.__cause__ = error
        return found


def runtime_error(what: str, error: BaseException) -> BackendError:
    """Return the error of ours that stands for a runtime's own; what Python programs would catch, it still is."""
    kind = (
        RuntimeMemoryError
        if is_out_of_memory(error)
        else RuntimeFileError
        if isinstance(error, OSError)
        else BackendError
    )
    return kind(f"{what}: {in_short(error)}")


def in_short(error: BaseException) -> str:
    """Return kind and first line of an error that is not ours."""
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


class Room:
    """How much may wait at once: a turnstile, first come, first served. What alone is too much still gets in alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.RLock()
        self._inside = 0
        self._outside: deque[tuple[Future[None], int]] = deque()

    def enter(self, count: int) -> Future[None]:
        """Return a ticket, done once there is room."""
        ticket: Future[None] = Future()
        with self._lock:
            self._outside.append((ticket, count))
            self._admit()
        return ticket

    def leave(self, ticket: Future[None], count: int) -> None:
        """Give back the room of a ticket, or stop waiting for it."""
        was_outside = ticket.cancel()
        with self._lock:
            self._inside -= 0 if was_outside else count
            self._admit()

    def _admit(self) -> None:
        while self._outside:
            ticket, count = self._outside[0]
            if self._inside and self._inside + count > self._limit and not ticket.cancelled():
                return
            self._outside.popleft()
            if ticket.set_running_or_notify_cancel():
                self._inside += count
                ticket.set_result(None)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory was short, in the words of Python, torch's CUDA and MPS, and its CPU allocator."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    # cuBLAS has no words for it but this.
    words = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
