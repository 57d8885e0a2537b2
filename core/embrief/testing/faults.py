"""What can go wrong with a server, and what must come of it: the part of `check_runtime` for runtimes that ask one."""

from __future__ import annotations

import hashlib
import json
import math
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.errors import (
    BackendError,
    EmbriefError,
    IndexedError,
    NonFiniteVectorError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
)
from embrief.facades.embedder import Embedder
from embrief.facades.reranker import Reranker
from embrief.facts.specs import EmbeddingSpec
from embrief.testing.loopback import Asked, LoopbackServer, Reply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.facts.specs import ModelSpec
    from embrief.runtimes.base import RuntimeOptions

_COUNT = 90
_CALLERS = 1000
QUERY = "which of these is asked for?"


class Wire(ABC):
    """How a kind of server speaks, told to the checks: what it is asked, and how it answers.

    For a reranker the rows are numbers, scores in the server's own scale, and the texts are documents.
    """

    indexed: bool = False
    """Whether each row of an answer says which text it is for, so that rows may come in any order."""
    one_by_one: bool = False
    """Whether the server takes one text per request, and cannot answer with too few rows."""
    too_long: Reply | None = None
    """What it answers to a text that is too long; `None`: it says nothing of its own."""

    @abstractmethod
    def options(self, base_url: str, *, timeout: float, in_flight: int) -> RuntimeOptions:
        """Return the options of the runtime for a server at an address."""

    @abstractmethod
    def texts(self, asked: Asked) -> list[str] | None:
        """Return the texts that a request is about; `None` for one that asks something else."""

    @abstractmethod
    def answer(self, asked: Asked, rows: Sequence[Any], indexes: Sequence[int]) -> Any:
        """Return the answer to a request for texts.

        Args:
            asked: The request.
            rows: A vector or a score each; `None` for one that the server failed to make.
            indexes: Which text each row is for.
        """

    def about(self, asked: Asked) -> Reply:
        """Return the answer to any other request."""
        return Reply({"error": "not found"}, 404)

    def score(self, value: float) -> float:
        """Return log-odds in the server's own scale."""
        return value


@dataclass
class _Server:
    """A server whose answers can be spoiled."""

    wire: Wire
    spec: ModelSpec
    spoil: Callable[[Asked, list[str], int], Reply | tuple[list[Any], list[int]] | None] = lambda *_: None
    """Called with a request for texts, the texts, and how many such requests came before."""
    served: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, asked: Asked) -> Reply:
        texts = self.wire.texts(asked)
        if texts is None:
            return self.wire.about(asked)
        with self.lock:
            number = self.served
            self.served += 1
        spoiled = self.spoil(asked, texts, number)
        if isinstance(spoiled, Reply):
            return spoiled
        rows, indexes = spoiled or (self.rows(texts), list(range(len(texts))))
        return Reply(self.wire.answer(asked, rows, indexes))

    def rows(self, texts: Sequence[str]) -> list[Any]:
        if isinstance(self.spec, EmbeddingSpec):
            return [vector_of(text, self.spec.dim).tolist() for text in texts]
        return [self.wire.score(score_of(text)) for text in texts]


def vector_of(text: str, width: int) -> NDArray[np.float32]:
    """Return the unit vector that a text has on a healthy server of the checks."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(width)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def score_of(document: str) -> float:
    """Return the log-odds that a document has there; of the probe about Beijing, plainly relevant."""
    if "Beijing" in document:
        return 6.0
    if "Gravity" in document:
        return -6.0
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()[0] / 64 - 2.0


class Faults:
    """All checks of one kind of server."""

    def __init__(self, wire: Wire, spec: ModelSpec) -> None:
        """Take what is checked.

        Args:
            wire: How the servers speak.
            spec: A model that they have.
        """
        self.wire, self.spec = wire, spec

    def checks(self) -> Iterator[Callable[[], None]]:
        """Yield every check, by its name."""
        yield self.healthy
        yield self.one_item_fails
        yield self.not_finite
        if not self.wire.one_by_one:
            yield self.short_list
        if self.wire.indexed:
            yield self.any_order
            yield self.one_twice
        yield self.no_answer_at_all
        if isinstance(self.spec, EmbeddingSpec):
            yield self.other_width
        yield self.too_slow
        yield self.dripping
        yield self.refused_connection
        yield self.broken_connection
        yield self.busy
        yield self.still_loading
        yield self.wrong_key
        yield self.not_repeated
        yield self.redirected
        yield self.restarted
        yield self.cancelled
        yield self.many_callers

    @contextmanager
    def _running(self, spoil: Any = None, *, timeout: float = 60.0) -> Iterator[tuple[Any, LoopbackServer]]:
        server = _Server(self.wire, self.spec, *([spoil] if spoil else []))
        with LoopbackServer(server) as running, self._facade(running.url, timeout=timeout) as facade:
            yield facade, running

    def _facade(self, url: str, *, timeout: float = 60.0) -> Any:
        options = self.wire.options(url, timeout=timeout, in_flight=4)
        kind: Any = Embedder if isinstance(self.spec, EmbeddingSpec) else Reranker
        return kind(self.spec.id, backend=options)

    def _ask(self, facade: Any, texts: Sequence[str]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = (
            facade.embed_documents(texts) if isinstance(facade, Embedder) else facade.score(QUERY, texts)
        )
        return found

    def _require(self, facade: Any, texts: Sequence[str], found: NDArray[np.float32], what: str) -> None:
        if isinstance(self.spec, EmbeddingSpec):
            rendered = [facade.render(text, role="document") for text in texts]
            expected = np.array([vector_of(text, self.spec.dim) for text in rendered])
        else:
            logits = np.array([score_of(text) for text in texts])
            expected = 1 / (1 + np.exp(-logits))
        if found.shape != expected.shape or not np.allclose(found, expected, atol=1e-3):
            raise AssertionError(f"{what}: a text has not its own answer")

    def _fails(self, what: str, kind: type[BaseException], call: Callable[[], object]) -> Any:
        try:
            call()
        except kind as error:
            if not isinstance(error, EmbriefError):
                raise AssertionError(f"{what}: {error!r} is no error of embrief") from error
            return error
        except BaseException as error:
            raise AssertionError(f"{what}: {error!r} in the place of {kind.__name__}") from error
        raise AssertionError(f"{what}: no error")

    def healthy(self) -> None:
        """Answers come in the order of the texts; limits are kept; equal texts are one."""
        with self._running() as (facade, server):
            self._require(facade, _TEXTS, self._ask(facade, _TEXTS), "a healthy server")
            if server.most > 4:
                raise AssertionError(f"a healthy server: {server.most} requests at once, of 4 that are allowed")
            again = [*_TEXTS[::-1], *_TEXTS[:7]]
            self._require(facade, again, self._ask(facade, again), "texts in another order")
            alone = np.concatenate([self._ask(facade, [text]) for text in _TEXTS[:3]])
            self._require(facade, _TEXTS[:3], alone, "single texts")

    def one_item_fails(self) -> None:
        """The text at fault is named, whatever else was in its request."""

        def spoil(_: Asked, texts: list[str], __: int) -> Reply | None:
            return Reply({"error": "cannot do this one"}, 422) if _BAD in "".join(texts) else None

        with self._running(spoil) as (facade, _):
            error = self._fails("a text that fails", IndexedError, partial(self._ask, facade, _WITH_BAD))
            self._named(error, "a text that fails")

    def _named(self, error: Any, what: str) -> None:
        if error.index != _WITH_BAD.index(_BAD):
            raise AssertionError(f"{what}: its index is {error.index}, not {_WITH_BAD.index(_BAD)}")
        if _BAD in str(error):
            raise AssertionError(f"{what}: the message repeats the text")

    def not_finite(self) -> None:
        """NaN, infinity and null in one answer are refused by index, and harm no other text."""
        bad: Any
        width = self.spec.dim if isinstance(self.spec, EmbeddingSpec) else 0
        values = [[math.nan] * width, [None] * width, None, [math.inf, *[0.0] * (width - 1)]]
        for bad in values if width else [math.nan, None]:

            def spoil(_: Asked, texts: list[str], __: int, bad: Any = bad) -> tuple[list[Any], list[int]]:
                rows = _Server(self.wire, self.spec).rows(texts)
                spoiled = [bad if _BAD in text else row for text, row in zip(texts, rows, strict=True)]
                return spoiled, list(range(len(texts)))

            what = f"an answer of {'null' if bad is None or bad == [None] * width else 'NaN'}"
            with self._running(spoil) as (facade, _):
                error = self._fails(what, NonFiniteVectorError, partial(self._ask, facade, _WITH_BAD))
                self._named(error, what)

    def short_list(self) -> None:
        """An answer with too few rows is none, also if it only happens to requests of several texts."""

        def spoil(_: Asked, texts: list[str], __: int) -> tuple[list[Any], list[int]]:
            keep = max(len(texts) - 1, 1)
            return _Server(self.wire, self.spec).rows(texts)[:keep], list(range(keep))

        with self._running(spoil) as (facade, _):
            self._fails("an answer with a row too few", BackendError, partial(self._ask, facade, _TEXTS))

    def any_order(self) -> None:
        """Rows belong to the text that their index names."""

        def spoil(_: Asked, texts: list[str], __: int) -> tuple[list[Any], list[int]]:
            rows = _Server(self.wire, self.spec).rows(texts)
            return rows[::-1], list(range(len(texts)))[::-1]

        with self._running(spoil) as (facade, _):
            self._require(facade, _TEXTS, self._ask(facade, _TEXTS), "rows in another order")

    def one_twice(self) -> None:
        """An index that is there twice makes an answer useless."""

        def spoil(_: Asked, texts: list[str], __: int) -> tuple[list[Any], list[int]]:
            return _Server(self.wire, self.spec).rows(texts), [0, *range(len(texts) - 1)]

        with self._running(spoil) as (facade, _):
            self._fails("an index that is there twice", BackendError, partial(self._ask, facade, _TEXTS))

    def no_answer_at_all(self) -> None:
        """What is no answer is an error of embrief."""
        for body in (b"<html>", b"", b"null", b'"text"', b"[[]]", b'{"data": 7}', b"[" * 100_000, b"7" * 5000):
            with self._running(lambda *_, body=body: Reply(body)) as (facade, _):
                what = f"an answer that is {body[:20]!r}"
                self._fails(what, BackendError, partial(self._ask, facade, _TEXTS))

    def other_width(self) -> None:
        """Vectors of another width are another model's, also if only one of them is."""
        assert isinstance(self.spec, EmbeddingSpec)
        width = self.spec.dim
        for short in (width - 1, width + 1, width // 2, 0):

            def spoil(_: Asked, texts: list[str], __: int, short: int = short) -> tuple[list[Any], list[int]]:
                rows = _Server(self.wire, self.spec).rows(texts)
                return [*rows[:-1], vector_of("x", short).tolist() if short else []], list(range(len(texts)))

            with self._running(spoil) as (facade, _):
                what = f"a vector of {short} values instead of {width}"
                self._fails(what, EmbriefError, partial(self._ask, facade, _TEXTS))

    def too_slow(self) -> None:
        """A server that does not answer is given up."""
        with self._running(lambda *_: Reply([], after=600), timeout=0.2) as (facade, _):
            self._fails("no answer in time", UnavailableError, partial(self._ask, facade, _TEXTS[:1]))

    def dripping(self) -> None:
        """A server that sends a byte now and then is given up, too."""
        with self._running(lambda *_: Reply(b"[" + b" " * 100_000, drip=0.05), timeout=0.4) as (facade, _):
            self._fails("an answer byte by byte", UnavailableError, partial(self._ask, facade, _TEXTS[:1]))

    def refused_connection(self) -> None:
        """A server that is not there is said to be."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with self._facade(url) as facade:
                self._fails("a refused connection", UnavailableError, partial(self._ask, facade, _TEXTS))

    def broken_connection(self) -> None:
        """A connection that breaks off is made anew; if it always does, that is an error."""
        for breaks in ("unanswered", "half"):

            def once(asked: Asked, texts: list[str], number: int, breaks: Any = breaks) -> Reply | None:
                rows = _Server(self.wire, self.spec).rows(texts)
                whole = self.wire.answer(asked, rows, range(len(texts)))
                return Reply(whole, breaks=breaks) if number == 0 else None

            with self._running(once) as (facade, _):
                self._require(facade, _TEXTS, self._ask(facade, _TEXTS), f"a connection that broke once ({breaks})")
            always: Any = lambda *_, breaks=breaks: Reply([[1.0]] * 50, breaks=breaks)  # noqa: E731
            with self._running(always) as (facade, _):
                what = f"connections that break ({breaks})"
                self._fails(what, UnavailableError, partial(self._ask, facade, _TEXTS[:1]))

    def busy(self) -> None:
        """A server that takes no more for now is asked again when it says; for ever, it is an error that says so."""

        def soon(_: Asked, __: list[str], number: int) -> Reply | None:
            return Reply({"error": "busy"}, 429, {"Retry-After": "0"}) if number < 3 else None

        with self._running(soon) as (facade, _):
            self._require(facade, _TEXTS, self._ask(facade, _TEXTS), "a server that was busy")
        late = Reply({"error": "busy"}, 429, {"Retry-After": "1000"})
        with self._running(lambda *_: late) as (facade, _):
            error = self._fails("a busy server", RateLimitedError, partial(self._ask, facade, _TEXTS))
            if error.retry_after != 1000:
                raise AssertionError(f"a busy server: retry_after is {error.retry_after}, not 1000")

    def still_loading(self) -> None:
        """A server that loads its model is waited for."""

        def loading(_: Asked, __: list[str], number: int) -> Reply | None:
            return Reply({"error": {"message": "Loading model"}}, 503, {"Retry-After": "0"}) if number < 3 else None

        with self._running(loading) as (facade, _):
            self._require(facade, _TEXTS, self._ask(facade, _TEXTS), "a server that was loading")

    def wrong_key(self) -> None:
        """A key that is refused is not tried again, nor with fewer texts."""
        for status in (401, 403):
            with self._running(lambda *_, status=status: Reply({"error": "no"}, status)) as (facade, server):
                self._fails("a wrong key", UnauthorizedError, partial(self._ask, facade, _TEXTS[:2]))
                self._once(server, "a wrong key")

    def not_repeated(self) -> None:
        """What would fail again is not repeated."""
        with self._running(lambda *_: Reply({"error": "bad"}, 400)) as (facade, server):
            self._fails("a bad request", BackendError, partial(self._ask, facade, _TEXTS[:1]))
            self._once(server, "a bad request")

    def _once(self, server: LoopbackServer, what: str) -> None:
        sent = [json.dumps(asked.body) for asked in server.seen if self.wire.texts(asked) is not None]
        if not sent or len(sent) != len(set(sent)):
            raise AssertionError(f"{what}: {len(sent)} requests, {len(set(sent))} different ones; one was repeated")

    def redirected(self) -> None:
        """Nothing goes to a place that a server names: neither texts nor keys."""
        with LoopbackServer(lambda _: Reply([])) as other:
            elsewhere = Reply({}, 307, {"Location": f"{other.url}/"})
            with self._running(lambda *_: elsewhere) as (facade, _):
                self._fails("a redirection", BackendError, partial(self._ask, facade, _TEXTS[:1]))
            if other.seen:
                raise AssertionError("a redirection: texts went to another server")

    def restarted(self) -> None:
        """A server that goes away and comes back in the middle of a call loses nothing."""
        state = _Server(self.wire, self.spec)
        server = LoopbackServer(state)
        again = threading.Event()

        def spoil(_: Asked, __: list[str], number: int) -> None:
            if number == 2:
                again.set()

        def restart() -> None:
            again.wait(60)
            server.stop()
            server.__enter__()

        thread = threading.Thread(target=restart, daemon=True)
        with server, self._facade(server.url) as facade:
            self._ask(facade, _TEXTS[:1])
            state.served, state.spoil = 0, spoil
            thread.start()
            self._require(facade, _TEXTS, self._ask(facade, _TEXTS), "a server that was started again")
            again.set()
            thread.join(60)

    def cancelled(self) -> None:
        """A caller that is cancelled takes nothing from others."""
        # Here and below inside: the fakes of this package cost nothing, and event loops do.
        import asyncio

        inside, release = threading.Event(), threading.Event()

        def hold(_: Asked, texts: list[str], __: int) -> None:
            if _BAD in "".join(texts):
                inside.set()
                release.wait(60)

        async def both(facade: Any) -> tuple[Any, NDArray[np.float32]]:
            ask = facade.aembed_documents if isinstance(facade, Embedder) else lambda texts: facade.ascore(QUERY, texts)
            first = asyncio.ensure_future(ask([_BAD]))
            while not inside.is_set():
                await asyncio.sleep(0.01)
            other = asyncio.ensure_future(ask(_TEXTS))
            await asyncio.sleep(0)
            first.cancel()
            found = await asyncio.wait_for(other, 60)
            return (await asyncio.gather(first, return_exceptions=True))[0], found

        with self._running(hold) as (facade, _):
            try:
                error, found = asyncio.run(both(facade))
            finally:
                release.set()
            if not isinstance(error, asyncio.CancelledError):
                raise AssertionError(f"a cancelled caller: it got {error!r}")
            self._require(facade, _TEXTS, found, "a caller beside a cancelled one")

    def many_callers(self) -> None:
        """A thousand callers of a model that is not loaded load it once, and each has its own answer."""
        import asyncio

        texts = [f"text of caller {number}" for number in range(_CALLERS)]

        async def all_of(facade: Any) -> NDArray[np.float32]:
            ask = facade.aembed_documents if isinstance(facade, Embedder) else lambda texts: facade.ascore(QUERY, texts)
            return np.concatenate(await asyncio.gather(*(ask([text]) for text in texts)))

        with self._running() as (facade, server):
            self._require(facade, texts, asyncio.run(all_of(facade)), "a thousand callers")
            asked = [asked.path for asked in server.seen if self.wire.texts(asked) is None]
            if len(asked) != len(set(asked)):
                raise AssertionError(f"a thousand callers: the model was loaded more than once ({asked[:6]})")


_TEXTS = [f"text number {number}" for number in range(_COUNT)]
_BAD = "the text at fault in this check"
_WITH_BAD = [*_TEXTS[:57], _BAD, *_TEXTS[57:]]


def check_server(wire: Wire, spec: ModelSpec) -> None:
    """Check what must come of all that can go wrong with a server; for `check_runtime`.

    Raises:
        AssertionError: Something else came of it; the message says what went wrong.
    """
    for check in Faults(wire, spec).checks():
        check()
