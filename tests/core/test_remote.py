"""Models on servers inside one process: requests, limits, errors and who answers, without a network."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from embrief import (
    ArgumentError,
    BackendError,
    ClosedError,
    Embedder,
    Offer,
    Output,
    RateLimitedError,
    Refusal,
    Remote,
    Rendered,
    Reranker,
    RerankerSpec,
    Runtime,
    UnauthorizedError,
    UnavailableError,
    group_by_query,
    plugins,
)
from embrief.errors import EmbriefError, ItemFailedError
from embrief.facts.values import Dense, Multi, Scores, Sparse
from embrief.serving.loading import SharedModel
from embrief.testing import FakeRuntime, check_runtime


class Timeout(Exception):
    """As the base of requests' time-outs is called."""


NUMBERS = itertools.count()
QWEN, JUDGE = "Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Reranker-0.6B"


class Served(Remote):
    batch_rows = 4
    in_flight = 3

    def __init__(self, runtime: Far, spec) -> None:  # type: ignore[no-untyped-def]
        self._runtime, self._spec = runtime, spec
        self.endpoint = runtime.endpoint

    async def arun(self, inputs, options):  # type: ignore[no-untyped-def]
        return await self._runtime.answer(self._spec, inputs, options)

    async def aclose(self) -> None:
        self._runtime.closed.set()


class Far(Runtime):
    def __init__(self) -> None:
        # Models are shared by names: one of its own keeps one test's out of the next.
        self.name = f"far-{next(NUMBERS)}"
        self.requests: list[list[Rendered]] = []
        self.fault: Callable[[Sequence[Rendered]], None] = lambda inputs: None
        self.offered = Offer(device="server", dtype="auto", leaves_machine=True)
        self.counts = True
        self.inside = self.most = 0
        self.gate: threading.Event | None = None
        self.closed = threading.Event()
        self.endpoint = "here"

    def offer(self, spec, ask):  # type: ignore[no-untyped-def]
        return self.offered if spec.id in (QWEN, JUDGE) else Refusal("serves two models")

    def load(self, request):  # type: ignore[no-untyped-def]
        return Served(self, request.spec)

    async def answer(self, spec, inputs, options):  # type: ignore[no-untyped-def]
        self.requests.append(list(inputs))
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            while self.gate is not None and not self.gate.is_set():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            self.fault(inputs)
        finally:
            self.inside -= 1
        counts = np.array([len(item.text) for item in inputs]) if self.counts else None
        if isinstance(spec, RerankerSpec):
            for source, places in group_by_query(inputs):
                assert source.query is not None
                assert places
            return Output.scores(np.array([float(len(item.body)) for item in inputs]), counts)
        vectors = np.zeros((len(inputs), spec.dim))
        for vector, item in zip(vectors, inputs, strict=True):
            vector[: len(item.text) % 50 + 1] = [1, *range(len(item.text) % 50)]
        return Output.dense(vectors, counts, None if counts is None else counts > 10**6)


@pytest.fixture
def far() -> Iterator[Far]:
    runtime = Far()
    plugins().catalog.add_backend(runtime)
    yield runtime
    plugins().catalog.remove(runtime.name, [])


def test_the_contract_checks_take_it(far: Far) -> None:
    for name, kind in ((QWEN, Embedder), (JUDGE, Reranker)):
        spec = kind(name, backend=far.name).spec
        check_runtime(Served(far, spec), replace(spec, dim=spec.dim) if kind is Embedder else spec)


def test_a_call_is_cut_into_requests_and_put_together_in_order(far: Far) -> None:
    embedder = Embedder(QWEN, backend=far.name)
    texts = ["x" * number for number in range(19)]
    result = embedder.encode(texts, role="document")
    assert result.token_counts.tolist() == list(range(19))  # type: ignore[union-attr] # this one tells
    assert sorted(map(len, far.requests)) == [3, 4, 4, 4, 4]
    alone = np.stack([embedder.embed_documents([text])[0] for text in texts])
    np.testing.assert_allclose(result.vectors, alone, atol=1e-6)
    assert far.most <= Served.in_flight
    assert embedder.embed_documents([]).shape == (0, 1024)


def test_one_endpoint_has_one_limit(far: Far) -> None:
    far.gate = threading.Event()
    embedder, judge = Embedder(QWEN, backend=far.name), Reranker(JUDGE, backend=far.name)
    threads = [
        threading.Thread(target=embedder.embed_documents, args=([f"{n} {i}" for i in range(8)],)) for n in range(3)
    ]
    threads += [threading.Thread(target=judge.score, args=("q", [str(n) for n in range(8)]))]
    for thread in threads:
        thread.start()
    while far.inside < Served.in_flight:
        pass
    far.gate.set()
    for thread in threads:
        thread.join()
    assert far.most == Served.in_flight
    assert len(far.requests) == 8


def test_unknown_counts_stay_unknown(far: Far) -> None:
    far.counts = False
    far.offered = replace(far.offered, tells_truncation=False)
    embedder = Embedder(QWEN, backend=far.name)
    result = embedder.encode(["a", "a", "b"], role="document")
    assert (result.token_counts, result.truncated) == (None, None)
    assert "unknown tokens, unknown truncated" in repr(result)
    assert embedder.info()["tells_truncation"] is False
    assert Embedder("embrief/hash").info()["tells_truncation"] is True
    assert embedder.encode_dims(["a"], [32], role="query")[32].truncated is None
    assert Reranker(JUDGE, backend=far.name).score("q", ["aa", "b"]).argmax() == 0


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (UnavailableError("gone"), UnavailableError), (RateLimitedError("busy", retry_after=7), RateLimitedError),
        (UnauthorizedError("no"), UnauthorizedError), (ConnectionResetError("reset"), UnavailableError),
        (TimeoutError(), UnavailableError), (PermissionError("no"), UnauthorizedError),
        (socket.gaierror(-2, "no such host"), UnavailableError),
        (type("ReadTimeout", (Timeout,), {})(), UnavailableError),
    ],
)  # fmt: skip
def test_what_says_nothing_about_a_text_is_met_once(far: Far, raised: Exception, kind: type[EmbriefError]) -> None:
    def fail(inputs: Sequence[Rendered]) -> None:
        raise raised

    far.fault = fail
    with pytest.raises(kind) as caught:
        Embedder(QWEN, backend=far.name).embed_documents(["a", "b", "c", "d"])
    assert len(far.requests) == 1
    assert caught.value is raised or caught.value.__cause__ is raised
    assert issubclass(kind, BackendError)


def test_the_one_text_at_fault_is_found(far: Far) -> None:
    class Odd(Exception):
        pass

    def fail(inputs: Sequence[Rendered]) -> None:
        if any(item.body == "BAD" for item in inputs):
            raise Odd("HTTP 400")

    far.fault = fail
    embedder = Embedder(QWEN, backend=far.name)
    with pytest.raises(ItemFailedError, match=r"the text at index 5: .*HTTP 400") as caught:
        embedder.embed_documents(["0", "1", "2", "3", "4", "BAD", "6", "7"])
    assert caught.value.index == 5
    chain, cause = [], caught.value.__cause__
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__
    assert sum(isinstance(item, Odd) for item in chain) == 1
    assert embedder.embed_documents(["fine"]).shape == (1, 1024)


def test_too_few_rows_and_no_output_are_errors(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fewer(*_: object) -> object:
        return Output.dense(np.ones((1, 1024)))

    async def nothing(*_: object) -> object:
        return [[1.0]]

    embedder = Embedder(QWEN, backend=far.name)
    monkeypatch.setattr(far, "answer", fewer)
    with pytest.raises(BackendError, match=r"1 rows of kind 'dense' for [23] inputs"):
        embedder.embed_documents(["a", "b", "c"])
    monkeypatch.setattr(far, "answer", nothing)
    with pytest.raises(BackendError, match="arun returned a list, not an Output"):
        embedder.embed_documents(["a"])


def test_closing_lets_what_is_on_its_way_arrive(far: Far) -> None:
    far.gate = threading.Event()
    embedder = Embedder(QWEN, backend=far.name).load()
    found: list[tuple[int, ...]] = []
    thread = threading.Thread(target=lambda: found.append(embedder.embed_query("q").shape))
    thread.start()
    while not far.inside:
        pass
    embedder.close()
    with pytest.raises(ClosedError):
        embedder.embed_query("r")
    gc.collect()
    assert not far.closed.is_set()
    far.gate.set()
    thread.join()
    assert found == [(1024,)]
    assert far.closed.wait(60)


async def test_a_loop_gets_on_meanwhile(far: Far) -> None:
    far.gate = threading.Event()
    embedder = Embedder(QWEN, backend=far.name)
    calls = [asyncio.create_task(embedder.aembed_query(str(number))) for number in range(3)]
    while far.inside < 3:
        await asyncio.sleep(0.001)
    calls[0].cancel()
    far.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [result.shape for result in results[1:]] == [(1024,), (1024,)]  # type: ignore[union-attr] # vectors


def test_a_server_that_renders_by_itself_takes_no_other_instruction(far: Far) -> None:
    plain = Embedder(QWEN, backend=far.name).fingerprint
    far.offered = replace(far.offered, renders="server")
    embedder, judge = Embedder(QWEN, backend=far.name, device="cpu"), Reranker(JUDGE, backend=far.name, device="cpu")
    embedder.embed_query("q")
    assert far.requests[-1][0].source.instruction == embedder.spec.prompts.default_instruction
    assert judge.score("which?", ["this"]).shape == (1,)
    assert far.requests[-1][0].source.query == "which?"
    before = len(far.requests)
    for call in (
        lambda: embedder.embed_query("q", instruction="Find comets"),
        lambda: embedder.with_instruction("Find comets").embed_query("q"),
        lambda: judge.score("q", ["d"], instruction="Find comets"),
        lambda: judge.with_instruction("Find comets").score_pairs([("q", "d")]),
    ):
        with pytest.raises(
            ArgumentError, match=r"'far-\d+' puts its own prompt around texts, so instruction='Find comets'"
        ):
            call()
    assert len(far.requests) == before
    assert embedder.fingerprint != plain


def test_two_handles_above_one_model_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted:
        """What a cache or a fallback is: above the scheduler, never in the model's place."""

        def __init__(self, inner) -> None:  # type: ignore[no-untyped-def]
            self._inner, self.calls = inner, 0

        def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
            return getattr(self._inner, name)

        def run(self, request):  # type: ignore[no-untyped-def]
            self.calls += 1
            return self._inner.run(request)

    held, release = threading.Event(), threading.Event()

    def hold(texts: Sequence[str]) -> None:
        if "hold" in texts:
            held.set()
            release.wait()

    handles: list[Counted] = []
    served = SharedModel.served.fget  # type: ignore[attr-defined] # a property

    def wrapped(shared: SharedModel) -> Counted:  # type: ignore[type-arg]
        handles.append(Counted(served(shared)))
        return handles[-1]

    with FakeRuntime(batch_tokens=64, fault=hold) as fake:
        monkeypatch.setattr(SharedModel, "served", property(wrapped))
        one, two = Embedder(fake.gemma), Embedder(fake.gemma, dim=16)
        threads = [threading.Thread(target=one.embed_documents, args=(["hold"],))]
        threads[0].start()
        # The prompt stands before the text.
        fake.fault = lambda texts: hold([text.rpartition(" ")[2] for text in texts])
        threads += [threading.Thread(target=item.embed_documents, args=([f"{item.dim}"],)) for item in (one, two)]
        release.set()
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(fake.runs) == 3
    assert len(handles) == 3
    assert all(handle.calls == 1 for handle in handles)


def test_rows_of_every_kind_come_apart_and_together() -> None:
    dense = Dense(np.arange(12.0).reshape(4, 3))
    scores = Scores(np.arange(4.0))
    offsets = np.array([0, 2, 2, 5, 6])
    sparse = Sparse(offsets, np.arange(6, dtype=np.int32), np.arange(6, dtype=np.float32))
    multi = Multi(offsets, np.arange(12.0).reshape(6, 2))
    order = [2, 0, 3, 1]
    for values in (dense, scores, sparse, multi):
        assert len(values) == 4
        room = values.gather(4, None)
        for places in ([3], [0, 2], [1]):
            room.put(places, values.take(places))
        whole, taken = room.whole(), values.take(order)
        for name in ("array", "offsets", "indices", "weights"):
            if hasattr(values, name):
                np.testing.assert_array_equal(getattr(whole, name), getattr(values, name))
        assert type(taken) is type(values)
        assert len(taken) == 4
    assert sparse.take([2]).indices.tolist() == [2, 3, 4]
    assert multi.take([3, 1]).array.tolist() == [[10.0, 11.0]]
    assert dense.gather(4, 2).__class__ is scores.gather(4, None).__class__
    spoilt = Multi(offsets, multi.array.copy())
    spoilt.array[4, 1] = np.inf
    for values in (
        spoilt,
        Sparse(offsets, sparse.indices, np.where(sparse.indices == 3, np.nan, 1).astype(np.float32)),
    ):
        with pytest.raises(BackendError, match="index 2"):
            values.check("acme/model")
    sparse.check("acme/model")


def test_what_ends_a_task_ends_nobody_elses(far: Far) -> None:
    def leave(inputs: Sequence[Rendered]) -> None:
        if inputs[0].body == "leave":
            raise SystemExit("a library's own idea")

    far.fault = leave
    embedder = Embedder(QWEN, backend=far.name)
    with pytest.raises(ItemFailedError, match="a library's own idea"):
        embedder.embed_documents(["leave"])
    assert embedder.embed_documents(["stay"]).shape == (1, 1024)


def test_a_query_does_not_wait_for_a_corpus(far: Far) -> None:
    far.gate = threading.Event()
    embedder = Embedder(QWEN, backend=far.name)
    order: list[str] = []
    corpus = threading.Thread(
        target=lambda: (embedder.embed_documents([str(n) for n in range(200)]), order.append("corpus"))
    )
    corpus.start()
    while far.inside < Served.in_flight:
        pass
    query = threading.Thread(target=lambda: (embedder.embed_query("q"), order.append("query")))
    query.start()
    while len(embedder._shared.model._away) < 2:  # type: ignore[attr-defined] # a worker
        pass
    far.gate.set()
    for thread in (corpus, query):
        thread.join()
    assert order == ["query", "corpus"]


def test_what_is_left_out_of_an_answer_is_an_error_and_never_memory(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "lists are arrays": (Output.dense([[1.0] + [0.0] * 1023]), None),  # type: ignore[arg-type] # as JSON gives them
        "no dense": (Output({}), "gave nothing, and 'dense' was asked for"),
        "counts": (Output.dense(np.ones((1, 1024)), np.ones(2, np.int64)), "2 token counts for 1 inputs"),
        "flags": (Output.dense(np.ones((1, 1024)), None, np.ones(3, np.bool_)), "3 flags of truncation for 1 inputs"),
    }
    embedder = Embedder(QWEN, backend=far.name)
    for output, told in answers.values():

        async def answer(*_: object, output: Output = output) -> Output:
            return output

        monkeypatch.setattr(far, "answer", answer)
        if told is None:
            assert embedder.embed_documents(["a"]).shape == (1, 1024)
        else:
            with pytest.raises(BackendError, match=told):
                embedder.embed_documents(["a"])


def test_waiting_for_another_model_inside_of_arun_is_refused(far: Far) -> None:
    embedder = Embedder(QWEN, backend=far.name).load()
    far.fault = lambda inputs: embedder.embed_query("inner") if inputs[0].body == "outer" else None  # type: ignore[assignment, return-value]
    with pytest.raises(BackendError, match="await its asynchronous method"):
        embedder.embed_query("outer")
    assert embedder.embed_query("fine").shape == (1024,)


def test_the_plain_run_of_a_remote_model_keeps_to_its_requests(far: Far) -> None:
    model = Served(far, Embedder(QWEN, backend=far.name).spec)
    from embrief.runtimes.base import RunOptions

    found = model.run([Rendered("", str(number)) for number in range(10)], RunOptions(max_tokens=9, kinds=("dense",)))
    assert len(found.array("dense")) == 10
    assert max(map(len, far.requests)) == Served.batch_rows


@pytest.mark.parametrize("role", ["query", "document"])
def test_a_server_that_renders_by_itself_takes_no_other_task(far: Far, role: str) -> None:
    far.offered = replace(far.offered, renders="server")
    embedder = Embedder(QWEN, backend=far.name, task="sentence_similarity")
    with pytest.raises(ArgumentError, match="so task='sentence_similarity' does nothing"):
        embedder.encode(["a"], role=role)  # type: ignore[arg-type] # both are roles
    assert embedder.with_task(None).encode(["a"], role=role).vectors.shape == (1, 1024)  # type: ignore[arg-type]
