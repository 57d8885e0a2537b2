"""One worker per model: merging, lanes, fairness, faults, memory, cancelling, closing, fork and exit. No clocks."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from embrief import (
    ArgumentError,
    BackendError,
    ClosedError,
    Embedder,
    InputTooLongError,
    ItemFailedError,
    NonFiniteVectorError,
    OutOfMemoryError,
    Reranker,
)
from embrief.facts.prompts import Rendered
from embrief.facts.specs import Kind
from embrief.facts.values import Dense, Values
from embrief.runtimes.base import RunOptions
from embrief.serving import jobs, scheduler
from embrief.testing import FakeRuntime
from embrief.wrapping import to_lists

WAIT = 30


class Held:
    """Holds up the first run that has a certain text in it, until released."""

    def __init__(self, mark: str = "hold") -> None:
        self.mark = mark
        self.reached, self.release = threading.Event(), threading.Event()

    def __call__(self, texts: Sequence[str]) -> None:
        if not self.reached.is_set() and any(self.mark in text for text in texts):
            self.reached.set()
            assert self.release.wait(WAIT)


class Holding(FakeRuntime):
    """A batched runtime whose worker is held by the text "hold" until `go()`; further calls queue up meanwhile."""

    def start(self, embedder: Embedder, *, queries: bool = False) -> Callable[[], None]:
        held = self.fault = Held()
        method = embedder.embed_queries if queries else embedder.embed_documents
        thread = in_thread(lambda: method(["hold"]))
        assert held.reached.wait(WAIT)

        def go() -> None:
            held.release.set()
            thread.join()

        return go


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def waiting(facade: Embedder | Reranker, jobs: int) -> None:
    """Wait until so many jobs are in the inbox. They arrive by themselves, so this ends."""
    inbox = facade._shared.model._inbox
    end = time.monotonic() + WAIT
    while inbox.qsize() < jobs:
        assert time.monotonic() < end
        time.sleep(0.001)


def tail(texts: Sequence[str]) -> list[str]:
    return [text.rpartition("Query:")[2] for text in texts]


@pytest.fixture
def fake() -> Iterator[Holding]:
    with Holding(batch_tokens=64) as runtime:
        yield runtime


def test_calls_of_threads_share_batches_and_each_gets_its_own(fake: Holding) -> None:
    embedder = Embedder(fake.qwen3)
    go = fake.start(embedder)
    results: dict[int, np.ndarray] = {}
    threads = [
        in_thread(lambda n=n: results.update({n: embedder.embed_documents([f"t{n}", f"u{n}"])})) for n in range(8)
    ]
    waiting(embedder, 8)
    go()
    for thread in threads:
        thread.join()
    assert fake.runs == [1, 16]
    for number, found in results.items():
        np.testing.assert_array_equal(found, embedder.embed_documents([f"t{number}", f"u{number}"]))
    assert fake.threads == {"embrief-model"}


async def test_two_hundred_coroutines_share_batches_while_the_loop_goes_on(fake: Holding) -> None:
    embedder = Embedder(fake.qwen3, instruction="")
    go = fake.start(embedder)
    tasks = [asyncio.create_task(embedder.aembed_query(f"q{number}")) for number in range(200)]
    # The model is held: that all 200 come to wait for it shows that the loop and the tokenising go on.
    while embedder._shared.model._inbox.qsize() < 200:
        await asyncio.sleep(0)
    await asyncio.to_thread(go)
    found = await asyncio.gather(*tasks)
    assert fake.runs == [1, 64, 64, 64, 8]
    np.testing.assert_array_equal(found[137], embedder.embed_query("q137"))
    assert fake.threads == {"embrief-model"}


async def test_reranking_calls_share_batches(fake: Holding) -> None:
    fake.batch_tokens = 100_000
    reranker = Reranker(fake.reranker)
    held = fake.fault = Held()
    first = in_thread(lambda: reranker.score("red", ["hold"]))
    assert await asyncio.to_thread(held.reached.wait, WAIT)
    tasks = [asyncio.create_task(reranker.arerank("red planet", ["x", "red planet"])) for _ in range(20)]
    while reranker._shared.model._inbox.qsize() < 20:
        await asyncio.sleep(0)
    held.release.set()
    ranked = await asyncio.gather(*tasks)
    first.join()
    assert fake.runs == [1, 40]
    assert {item[0].index for item in ranked} == {1}


def test_a_result_does_not_depend_on_who_shares_the_batch(qwen3_folder: Path, texts: list[str]) -> None:
    embedder = Embedder(qwen3_folder, backend="sentence-transformers", dtype="float32", device="cpu", truncate="silent")
    batch = embedder.embed_documents(texts)
    single = np.vstack([embedder.embed_documents([text]) for text in texts])
    np.testing.assert_allclose(batch, single, atol=1e-5)
    np.testing.assert_allclose(embedder.embed_documents(texts[::-1])[::-1], single, atol=1e-5)
    found: dict[int, np.ndarray] = {}
    start = threading.Barrier(len(texts))

    def one(number: int) -> None:
        start.wait()
        found[number] = embedder.embed_documents([texts[number]])[0]

    for thread in [in_thread(lambda n=n: one(n)) for n in range(len(texts))]:
        thread.join()
    np.testing.assert_allclose(np.vstack([found[number] for number in range(len(texts))]), single, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_rows_go_longest_first_in_batches_within_the_budget(padded: bool) -> None:
    with FakeRuntime(batch_tokens=8, padded=padded) as fake:
        documents = [" ".join(["w"] * size + [str(number)]) for number, size in enumerate((1, 4, 3, 1, 9, 1))]
        embedder = Embedder(fake.qwen3)
        together = embedder.embed_documents(documents)
        # Tokens are 2, 5, 4, 2, 10, 2; ten alone are too many for any batch and go alone.
        assert fake.runs == ([1, 1, 2, 2] if padded else [1, 1, 3, 1])
        sizes = [len(text.split()) for text in fake.texts]
        assert sizes == sorted(sizes, reverse=True)
        np.testing.assert_array_equal(together, np.vstack([embedder.embed_documents([text]) for text in documents]))


def test_the_callers_budget_counts_and_the_smallest_of_a_shared_batch(fake: Holding) -> None:
    embedder, careful = Embedder(fake.qwen3), Embedder(fake.qwen3, batch_tokens=4)
    careful.embed_documents(list("abcdefgh"))
    assert fake.runs == [4, 4]
    assert careful.info()["batch_tokens"] == 4
    assert embedder.info()["batch_tokens"] == 64
    go = fake.start(embedder)
    threads = [in_thread(lambda one=one: one.embed_documents(list("abcdefgh"))) for one in (embedder, careful)]
    waiting(embedder, 2)
    fake.runs.clear()
    go()
    for thread in threads:
        thread.join()
    assert fake.runs == [4, 4, 4, 4]


def test_queries_go_before_bulk_work_and_do_not_starve_it(fake: Holding) -> None:
    fake.batch_tokens = 1
    embedder = Embedder(fake.qwen3, instruction="")
    go = fake.start(embedder)
    bulk = in_thread(lambda: embedder.embed_documents([f"bulk{number}" for number in range(3)]))
    waiting(embedder, 1)
    queries = [in_thread(lambda n=n: embedder.embed_query(f"query{n}")) for n in range(20)]
    waiting(embedder, 21)
    go()
    for thread in [bulk, *queries]:
        thread.join()
    kinds = "".join("b" if "bulk" in text else "q" for text in fake.texts[1:])
    turn = "q" * scheduler.QUERY_TURNS + "b"
    assert kinds == turn * 2 + "q" * (20 - 2 * scheduler.QUERY_TURNS) + "b"


def test_many_queries_at_once_are_bulk_work(fake: Holding) -> None:
    embedder = Embedder(fake.qwen3, instruction="")
    go = fake.start(embedder)
    many = in_thread(lambda: embedder.embed_queries([f"many{number}" for number in range(200)]))
    waiting(embedder, 1)
    one = in_thread(lambda: embedder.embed_query("one"))
    waiting(embedder, 2)
    go()
    many.join()
    one.join()
    assert fake.texts[1] == "one"


def test_a_large_call_does_not_hold_up_a_small_one(fake: Holding) -> None:
    fake.batch_tokens = 10
    embedder = Embedder(fake.qwen3)
    go = fake.start(embedder)
    large = in_thread(lambda: embedder.embed_documents([f"large{number}" for number in range(100)]))
    waiting(embedder, 1)
    small = in_thread(lambda: embedder.embed_documents([f"small{number}" for number in range(5)]))
    waiting(embedder, 2)
    go()
    large.join()
    small.join()
    assert {text for text in fake.texts[1:11] if "small" in text} == {f"small{number}" for number in range(5)}
    assert fake.runs[1:] == [10] * 10 + [5]


def test_callers_wait_outside_when_too_much_waits_and_large_ones_get_in_alone(
    fake: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "QUEUE_ROWS", 4)
    embedder = Embedder(fake.qwen3)
    go = fake.start(embedder)
    room = embedder._shared.model._rooms[False]
    done: list[str] = []

    def call(name: str, count: int) -> threading.Thread:
        return in_thread(
            lambda: (embedder.embed_documents([f"{name}{number}" for number in range(count)]), done.append(name))
        )

    threads = [call("a", 3)]
    waiting(embedder, 1)
    threads += [call("b", 9)]
    while len(room._outside) < 1:
        time.sleep(0.001)
    threads += [call("c", 1)]
    while len(room._outside) < 2:
        time.sleep(0.001)
    assert embedder._shared.model._inbox.qsize() == 1, "what waits outside is not tokenised"
    # Queries have room of their own.
    query = in_thread(lambda: embedder.embed_query("q"))
    waiting(embedder, 2)
    go()
    for thread in [*threads, query]:
        thread.join(WAIT)
    assert sorted(done) == ["a", "b", "c"]
    assert room._inside == 0
    assert not room._outside


async def test_a_caller_who_waits_outside_can_be_cancelled(fake: Holding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "QUEUE_ROWS", 1)
    embedder = Embedder(fake.qwen3)
    go = fake.start(embedder)
    room = embedder._shared.model._rooms[False]
    tasks = [asyncio.create_task(embedder.aembed_documents([f"t{number}"])) for number in range(3)]
    while len(room._outside) < 3:
        await asyncio.sleep(0)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    await asyncio.to_thread(go)
    await asyncio.gather(*tasks[1:])
    assert fake.texts == ["hold", "t1", "t2"]
    assert room._inside == 0


async def test_a_storm_of_cancellations_and_timeouts_runs_only_what_is_still_wanted(fake: Holding) -> None:
    embedder = Embedder(fake.qwen3, instruction="")
    go = fake.start(embedder)
    tasks = [asyncio.create_task(embedder.aembed_query(f"q{number}")) for number in range(100)]
    timed = [asyncio.create_task(asyncio.wait_for(embedder.aembed_query(f"t{n}"), 0.05)) for n in range(20)]
    while embedder._shared.model._inbox.qsize() < 100:
        await asyncio.sleep(0)
    for number, task in enumerate(tasks):
        if number % 10:
            task.cancel()
    results = await asyncio.gather(*timed, return_exceptions=True)
    assert {type(result) for result in results} == {TimeoutError}
    await asyncio.to_thread(go)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(item, np.ndarray) for item in found) == 10
    assert sorted(fake.texts[1:]) == sorted(f"q{number}" for number in range(0, 100, 10))
    assert fake.runs == [1, 10], "what is dropped takes no place in a batch"
    room = embedder._shared.model._rooms[True]
    assert room._inside == 0


async def test_the_rest_of_a_call_that_is_cancelled_half_way_does_not_run(fake: Holding) -> None:
    fake.batch_tokens = 2
    embedder = Embedder(fake.qwen3)
    held = fake.fault = Held("t2")
    task = asyncio.create_task(embedder.aembed_documents([f"t{number}" for number in range(10)]))
    assert await asyncio.to_thread(held.reached.wait, WAIT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.release.set()
    await embedder.aembed_documents(["after"])
    assert fake.texts == ["t0", "t1", "t2", "t3", "after"]


def fault_at(mark: str, error: BaseException) -> Callable[[Sequence[str]], None]:
    def fault(texts: Sequence[str]) -> None:
        if any(mark in text for text in texts):
            raise error

    return fault


def test_one_bad_row_fails_alone_with_its_callers_index(fake: Holding) -> None:
    embedder = Embedder(fake.qwen3)
    go = fake.start(embedder)
    hold = fake.fault
    results: dict[int, object] = {}

    def call(number: int) -> None:
        try:
            # A duplicate before it: the index is that in the caller's own list.
            results[number] = embedder.embed_documents(["same", "same", f"t{number}", "BAD" if number == 3 else "ok"])
        except Exception as error:
            results[number] = error

    threads = [in_thread(lambda n=n: call(n)) for n in range(6)]
    waiting(embedder, 6)
    fake.fault = lambda texts: (hold(texts), fault_at("BAD", RuntimeError("cannot compute"))(texts))
    go()
    for thread in threads:
        thread.join()
    error = results.pop(3)
    assert isinstance(error, ItemFailedError)
    assert (error.index, str(error)) == (
        3,
        "the runtime failed on the text at index 3 (1 tokens): RuntimeError: cannot compute",
    )
    assert isinstance(error.__cause__, RuntimeError)
    assert len(results) == 5
    for number, found in results.items():
        np.testing.assert_array_equal(found, embedder.embed_documents(["same", "same", f"t{number}", "ok"]))


def test_an_error_of_the_runtime_that_has_an_index_gets_the_callers(fake: Holding) -> None:
    fake.fault = fault_at("BAD", ArgumentError("what the runtime cannot take at index 0 is this", index=0))
    with pytest.raises(ArgumentError, match="at index 3 is") as caught:
        Embedder(fake.qwen3).embed_documents(["a", "a", "b", "BAD"])
    assert caught.value.index == 3


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(), GeneratorExit()])
async def test_what_must_not_reach_an_event_loop_arrives_as_an_error(fake: Holding, error: BaseException) -> None:
    fake.fault = fault_at("BAD", error)
    embedder = Embedder(fake.qwen3)
    with pytest.raises(BackendError, match=type(error).__name__):
        await embedder.aembed_documents(["BAD"])
    assert (await embedder.aembed_documents(["good"])).shape == (1, 64)


async def test_a_whole_call_that_stops_is_an_error_too() -> None:
    with FakeRuntime(fault=fault_at("BAD", SystemExit(3))) as fake:
        embedder = Embedder(fake.qwen3)
        with pytest.raises(BackendError, match="SystemExit"):
            await embedder.aembed_documents(["BAD"])
        assert (await embedder.aembed_documents(["good"])).shape == (1, 64)


def test_an_input_that_is_too_long_or_cannot_be_tokenised_fails_alone(fake: Holding) -> None:
    strict = Embedder(fake.qwen3, max_tokens=3, truncate="error")
    go = fake.start(strict)
    good = in_thread(lambda: strict.embed_documents(["good"]))
    with pytest.raises(InputTooLongError, match="index 2") as caught:
        strict.embed_documents(["a", "a", "b c d e"])
    assert caught.value.index == 2
    go()
    good.join()
    assert fake.texts == ["hold", "good"], "nothing of the refused call was computed"


def test_a_vector_that_is_not_finite_fails_only_its_call(fake: Holding, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Embedder(fake.qwen3)
    backend = embedder._shared.model.load()
    run_rows = backend.run_rows  # type: ignore[attr-defined]

    def spoilt(rows: Sequence[Rendered], kinds: tuple[Kind, ...]) -> Mapping[Kind, Values]:
        values: Mapping[Kind, Values] = run_rows(rows, kinds)
        values["dense"].array[[row.body == "BAD" for row in rows]] = np.nan  # type: ignore[attr-defined]
        return values

    monkeypatch.setattr(backend, "run_rows", spoilt)
    go = fake.start(embedder)
    errors: list[NonFiniteVectorError] = []
    results: list[np.ndarray] = []

    def bad() -> None:
        try:
            embedder.embed_documents(["x", "BAD"])
        except NonFiniteVectorError as error:
            errors.append(error)

    threads = [in_thread(bad), in_thread(lambda: results.append(embedder.embed_documents(["x", "y"])))]
    waiting(embedder, 2)
    go()
    for thread in threads:
        thread.join()
    assert fake.runs == [1, 4]
    assert [error.index for error in errors] == [1]
    assert np.isfinite(results[0]).all()


def test_a_wrong_number_of_results_is_an_error_and_not_a_wrong_vector(
    fake: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder(fake.qwen3)
    backend = embedder._shared.model.load()
    monkeypatch.setattr(
        backend, "run_rows", lambda rows, kinds: {"dense": Dense(np.ones((len(rows) + 1, 64), np.float32))}
    )
    with pytest.raises(BackendError, match="2 rows of kind 'dense' for 1"):
        embedder.embed_documents(["a", "b"])


class OutOfMemoryErrorOfTorch(RuntimeError):
    """torch.OutOfMemoryError derives from RuntimeError and is told by its name."""


OutOfMemoryErrorOfTorch.__name__ = "OutOfMemoryError"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryErrorOfTorch("CUDA"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["python", "cuda", "linux", "windows", "mps", "cublas"],
)
def test_too_little_memory_halves_the_batches_and_is_remembered(fake: Holding, error: Exception) -> None:
    def fault(texts: Sequence[str]) -> None:
        if len(texts) > 20:
            raise error

    fake.fault = fault
    embedder = Embedder(fake.qwen3)
    texts = [f"t{number}" for number in range(64)]
    found = embedder.embed_documents(texts)
    assert fake.runs == [64, 32, 16, 16, 32, 16, 16]
    assert embedder.info()["batch_tokens"] == 16
    fake.runs.clear()
    np.testing.assert_array_equal(embedder.embed_documents(texts), found)
    assert fake.runs == [16, 16, 16, 16]


def test_a_text_too_large_for_the_memory_even_alone_fails_alone() -> None:
    with Holding(batch_tokens=64, memory=16) as fake:
        embedder = Embedder(fake.qwen3)
        go = fake.start(embedder)
        results: list[np.ndarray] = []
        other = in_thread(lambda: results.append(embedder.embed_documents([f"t{number}" for number in range(9)])))
        waiting(embedder, 1)
        errors: list[OutOfMemoryError] = []

        def large() -> None:
            try:
                embedder.embed_documents(["x", "w " * 20])
            except OutOfMemoryError as error:
                errors.append(error)

        thread = in_thread(large)
        waiting(embedder, 2)
        go()
        thread.join()
        other.join()
        assert [(error.index, error.tokens) for error in errors] == [(1, 20)]
        assert isinstance(errors[0], MemoryError)
        assert "lower max_tokens (for pictures max_pixels)" in str(errors[0])
        assert results[0].shape == (9, 64)


def test_closing_under_load_finishes_what_waits_and_then_frees(fake: Holding, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Embedder(fake.qwen3)
    model = embedder._shared.model
    freed = threading.Event()
    monkeypatch.setattr(model.load(), "close", freed.set, raising=False)
    go = fake.start(embedder)
    results: list[np.ndarray] = []
    threads = [in_thread(lambda n=n: results.append(embedder.embed_documents([f"t{n}"]))) for n in range(4)]
    waiting(embedder, 4)
    embedder.close()
    model.close()
    assert not freed.is_set()
    with pytest.raises(ClosedError):
        model._wait(jobs.Call(len, urgent=True))
    go()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert freed.wait(WAIT)


def test_a_model_is_freed_from_its_own_thread_by_the_garbage_collector(fake: Holding) -> None:
    closed = threading.Event()
    names: list[str] = []
    embedder = Embedder(fake.qwen3)
    backend = embedder.load()._shared.model._backend
    backend.close = lambda: (names.append(threading.current_thread().name), closed.set())  # type: ignore[union-attr]
    del backend
    cycle: list[object] = [embedder]
    cycle.append(cycle)
    other = Embedder(fake.gemma)
    # Collected while another model's worker runs.
    fake.fault = lambda texts: (gc.collect(), None)[1]
    del embedder, cycle
    other.embed_query("q")
    assert closed.wait(WAIT)
    assert names == ["embrief-model"]


def test_a_failed_load_fails_all_who_wait_for_it_and_the_next_call_tries_again(
    fake: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, release = threading.Event(), threading.Event()
    good = fake._load
    attempts: list[int] = []

    def load(model: object) -> object:
        attempts.append(1)
        reached.set()
        assert release.wait(WAIT)
        if len(attempts) == 1:
            raise OSError("disk trouble")
        return good(model)

    monkeypatch.setattr(fake, "_load", load)
    embedder = Embedder(fake.qwen3)
    errors: list[Exception] = []

    def call() -> None:
        try:
            embedder.embed_query("q")
        except OSError as error:
            errors.append(error)

    threads = [in_thread(call)]
    assert reached.wait(WAIT)
    threads += [in_thread(call), in_thread(call)]
    waiting(embedder, 2)
    release.set()
    for thread in threads:
        thread.join()
    assert (len(errors), len(attempts)) == (3, 1)
    assert embedder.embed_query("q").shape == (64,)


def test_a_model_that_was_let_go_is_freed_before_another_takes_its_memory(fake: Holding) -> None:
    order: list[str] = []
    asked = threading.Event()

    class Asked(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            asked.set()
            return super().wait(timeout)

    first = Embedder(fake.qwen3).load()
    model = first._shared.model
    model._freed = Asked()
    model._backend.close = lambda: (asked.wait(WAIT), order.append("freed"))  # type: ignore[union-attr]
    good = fake._load
    fake._load = lambda backend: (order.append("loads"), good(backend))[1]  # type: ignore[method-assign]
    first.close()
    del first
    gc.collect()
    Embedder(fake.gemma).load()
    assert order == ["freed", "loads"]


def test_a_runtime_that_calls_its_own_model_is_told_instead_of_waiting_for_itself(fake: Holding) -> None:
    embedder = Embedder(fake.qwen3)
    fake.fault = lambda texts: embedder.embed_documents(["inner"]) if texts == ["outer"] else None
    with pytest.raises(BackendError, match="its own model"):
        embedder.embed_documents(["outer"])


def test_the_public_encode_and_score_give_what_the_scheduler_gives(fake: Holding) -> None:
    embedder = Embedder(fake.qwen3, normalize=False)
    texts = [f"{'w ' * (number % 7)}{number}" for number in range(50)]
    done: list[int] = []
    direct = embedder._shared.model.load().run(
        [Rendered("", text) for text in texts], RunOptions(max_tokens=99, on_progress=done.append)
    )
    np.testing.assert_array_equal(direct.array("dense"), embedder.embed_documents(texts))
    assert sum(done) == 50
    assert len(done) > 1


def test_lists_of_floats_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Spied(np.ndarray):
        def tolist(self) -> list[list[float]]:
            sizes.append(len(self))
            return super().tolist()

    vectors = np.random.default_rng(0).random((600, 4), np.float32)
    assert to_lists(vectors.view(Spied)) == vectors.tolist()
    assert sizes == [256, 256, 88]
    assert to_lists(vectors[:0]) == []


def run_python(code: str, *, timeout: int = 60) -> subprocess.CompletedProcess[str]:
    head = (
        "import asyncio, os, signal, sys, threading, time, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from embrief import Embedder\nfrom embrief.testing import FakeRuntime\n"
    )
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, timeout=timeout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_process_starts_afresh_while_the_parents_worker_runs() -> None:
    done = run_python("""
held, release = threading.Event(), threading.Event()
def fault(texts):
    if 'hold' in texts:
        held.set(); release.wait()
with FakeRuntime(batch_tokens=8, fault=fault) as fake:
    embedder = Embedder(fake.qwen3)
    busy = [threading.Thread(target=embedder.embed_documents, args=([text],)) for text in ('hold', 'queued')]
    busy[0].start(); held.wait(); busy[1].start()
    child = os.fork()
    if child == 0:
        embedder.embed_documents(['child'])
        asyncio.run(embedder.aembed_query('child'))
        sys.exit(7)  # through the exit functions
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    release.set()
    for thread in busy: thread.join()
    print(embedder.embed_query('parent').shape)
""")
    assert (done.stdout.split("\n"), done.stderr) == (["7", "(64,)", ""], "")


@pytest.mark.parametrize("daemon", [True, False])
def test_the_interpreter_exits_cleanly_under_load(daemon: bool) -> None:
    """Daemon threads are left behind; others end by themselves, and the model serves them until then."""
    done = run_python(f"""
import numpy as np
started = threading.Event()
count = 0
def fault(texts):
    started.set()
    np.ones((200, 200)) @ np.ones((200, 200))
fake = FakeRuntime(batch_tokens=8, fault=fault).__enter__()
embedder = Embedder(fake.qwen3)
def work():
    global count
    for number in range({10**9 if daemon else 200}):
        embedder.embed_documents([f'{{number}} a', f'{{number}} b'])
    count += 1
    print('ended', flush=True)
for _ in range(4): threading.Thread(target=work, daemon={daemon}).start()
started.wait()
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("ended") == (0 if daemon else 4)


def test_the_exit_waits_for_the_batch_under_way_and_drops_the_rest() -> None:
    done = run_python("""
import atexit
reached, release = threading.Event(), threading.Event()
def fault(texts):
    print('run', texts[0], flush=True)
    if texts[0] == 'first':
        reached.set(); release.wait(); print('finished', flush=True)
fake = FakeRuntime(batch_tokens=1, fault=fault).__enter__()
embedder = Embedder(fake.qwen3).load()
threading.Thread(target=embedder.embed_documents, args=(['first', 'second'],), daemon=True).start()
reached.wait()
# Registered last, so it runs first: the batch ends only after the exit has begun.
atexit.register(release.set)
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == ["run first", "finished", ""]


def test_an_exit_function_that_still_embeds_gets_an_error_and_does_not_hang() -> None:
    done = run_python("""
import atexit
def late():
    try: embedder.embed_query('late')
    except Exception as error: print(type(error).__name__)
atexit.register(late)
fake = FakeRuntime(batch_tokens=8).__enter__()
embedder = Embedder(fake.qwen3)
embedder.embed_query('q')
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ClosedError\n", "")


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
def test_ctrl_c_under_load_drops_the_callers_work_and_the_model_stays_usable() -> None:
    # A shell lets what it starts in the background ignore it, and children inherit that.
    done = run_python("""
signal.signal(signal.SIGINT, signal.default_int_handler)
main = threading.main_thread()
texts = []
def fault(found):
    texts.extend(found)
    if found[0] == 't3':
        signal.pthread_kill(main.ident, signal.SIGINT)
        interrupted.wait(30)
interrupted = threading.Event()
with FakeRuntime(batch_tokens=1, fault=fault) as fake:
    embedder = Embedder(fake.qwen3)
    try:
        embedder.embed_documents([f't{number}' for number in range(100)])
    except KeyboardInterrupt:
        interrupted.set()
        print('interrupted')
    embedder.embed_documents(['after'])
    print(' '.join(texts))
""")
    assert (done.stdout, done.stderr) == ("interrupted\nt0 t1 t2 t3 after\n", "")
