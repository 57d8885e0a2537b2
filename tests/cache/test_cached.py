"""A cache above a model: what hits, what misses, who computes, and what is kept. By runs of the model; no clocks."""

from __future__ import annotations

import asyncio
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embrief import (
    ArgumentError,
    BackendError,
    Embedder,
    InputTooLongError,
    ItemFailedError,
    MemoryCache,
    NonFiniteVectorError,
    Offer,
    Output,
    RunOptions,
    Runtime,
    SqliteCache,
    TruncationWarning,
    UnavailableError,
)
from embrief.cache import store
from embrief.cache.flights import Flights
from embrief.cache.opening import store_of
from embrief.discovery.plugins import catalog
from embrief.facts.prompts import Rendered
from embrief.runtimes.base import Ask, LoadRequest, Model, Remote
from embrief.testing import FakeRuntime

WAIT = 30
TEXTS = ["red planet", "blue planet", "", "日本語 🙂", " edge ", "red planet"]


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


@pytest.fixture(params=["memory", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryCache | SqliteCache:
    # Models have names of their own in each test, so that one cache in memory serves all tests.
    return MemoryCache() if request.param == "memory" else SqliteCache(path=str(tmp_path / "folder" / "cache.sqlite3"))


class Held:
    """Holds up the first run that has a certain text in it, until released."""

    def __init__(self, mark: str = "hold") -> None:
        self.mark = mark
        self.reached, self.release = threading.Event(), threading.Event()

    def __call__(self, texts: Sequence[str]) -> None:
        if not self.reached.is_set() and any(self.mark in text for text in texts):
            self.reached.set()
            assert self.release.wait(WAIT)


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Run on a thread; the function returned waits for its result."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append((call(), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join(WAIT)
        assert found, "it hangs"
        value, error = found[0]
        if error is not None:
            raise error
        return value

    return result


async def on_thread(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, WAIT)


def test_it_is_counted_what_was_found(fake: FakeRuntime) -> None:
    embedder = Embedder(fake.qwen3, cache="memory")
    assert embedder.cache_counts == (0, 0)
    embedder.embed_documents(["a", "b", "a"])
    assert embedder.cache_counts == (0, 2)
    embedder.with_dim(8).embed_documents(["a", "c"])
    assert embedder.cache_counts == (1, 3)
    assert Embedder(fake.qwen3).cache_counts is None


def test_without_cache_the_model_is_asked(fake: FakeRuntime) -> None:
    embedder = Embedder(fake.qwen3, cache="memory")
    embedder.embed_documents(["a"])
    plain = embedder.without_cache()
    assert plain.info()["cache"] is None
    assert plain.settings.cache is None
    plain.embed_documents(["a"])
    embedder.embed_documents(["a"])
    assert fake.runs == [1, 1]


def test_off_unless_asked(fake: FakeRuntime) -> None:
    embedder = Embedder(fake.qwen3)
    assert embedder.settings.cache is None
    assert embedder.info()["cache"] is None
    embedder.embed_documents(["a"])
    embedder.embed_documents(["a"])
    assert fake.runs == [1, 1]


def test_a_hit_is_what_the_model_gives_bit_for_bit(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    for options in ({}, {"dim": 16}, {"normalize": False}, {"dim": 8, "normalize": False}):
        for role in ("query", "document"):
            expected = Embedder(fake.qwen3, **options).encode(TEXTS, role=role)
            for _ in range(2):
                found = Embedder(fake.qwen3, cache=cache, **options).encode(TEXTS, role=role)
                assert found.vectors.tobytes() == expected.vectors.tobytes()
                assert found.vectors.dtype == np.float32
                assert (found.token_counts == expected.token_counts).all()
                assert (found.truncated == expected.truncated).all()
                assert found.space == expected.space
    found.vectors[:] = 0
    again = Embedder(fake.qwen3, cache=cache, **options).encode(TEXTS, role=role)
    assert again.vectors.tobytes() == expected.vectors.tobytes(), "the caller's array is the caller's"


def test_half_known(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    embedder = Embedder(fake.qwen3, cache=cache)
    embedder.embed_documents(["b", "d"])
    found = embedder.encode(["a", "b", "c", "d", "b", "a"], role="document")
    expected = Embedder(fake.qwen3).encode(["a", "b", "c", "d", "b", "a"], role="document")
    assert found.vectors.tobytes() == expected.vectors.tobytes()
    assert (found.token_counts == expected.token_counts).all()
    assert fake.runs[:2] == [2, 2]


def test_widths_and_lengths_of_vectors_share_entries(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    embedder = Embedder(fake.qwen3, cache=cache)
    embedder.embed_documents(["a", "b"])
    embedder.with_dim(16).embed_documents(["a", "b"])
    Embedder(fake.qwen3, cache=cache, normalize=False, dim=8).embed_documents(["b"])
    found = embedder.encode_dims(["a", "b"], [8, 32], role="document")
    assert fake.runs == [2]
    expected = Embedder(fake.qwen3, dim=32).embed_documents(["a", "b"])
    assert found[32].vectors.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({"instruction": "Find moons"}, {}),
        ({}, {"instruction": "Find moons"}),
        ({}, {"task": "code_retrieval"}),
        ({"max_tokens": 100}, {}),
        ({"truncate": "error"}, {}),
    ],
    ids=str,
)
def test_what_moves_a_vector_misses(
    fake: FakeRuntime, cache: MemoryCache | SqliteCache, options: dict[str, Any], call: dict[str, Any]
) -> None:
    Embedder(fake.qwen3, cache=cache).embed_query("red planet")
    changed = Embedder(fake.qwen3, cache=cache, **options)
    for _ in range(2):
        changed.embed_query("red planet", **call)
    assert fake.runs == [1, 1]


def test_what_moves_no_vector_hits(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    Embedder(fake.qwen3, cache=cache).embed_documents(["a"])
    for options in ({"truncate": "silent"}, {"batch_tokens": 7}, {"instruction": "Find moons"}, {"device": "cpu"}):
        Embedder(fake.qwen3, cache=cache, **options).embed_documents(["a"])
    assert fake.runs == [1]


def test_roles_count_by_what_reaches_the_model(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    embedder = Embedder(fake.qwen3, cache=cache)
    embedder.embed_query("a", instruction="")
    embedder.embed_documents(["a"])
    assert fake.runs == [1], "a query without a prompt is the document"
    embedder.embed_query("a")
    assert fake.runs == [1, 1]


def test_models_and_titles_do_not_mix(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    gemma = Embedder(fake.gemma, cache=cache)
    plain = gemma.embed_documents(["a"])
    titled = gemma.embed_documents(["a"], titles=["t"])
    assert not np.array_equal(plain, titled)
    Embedder(fake.qwen3, cache=cache).embed_documents(["title: none | text: a"])
    assert fake.runs == [1, 1, 1]


def test_two_models_of_one_declared_version_do_not_mix(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    twin = replace(catalog().models[fake.qwen3], id=f"{fake.qwen3}-twin")
    catalog().add_model(twin)
    try:
        for model in (fake.qwen3, twin.id):
            Embedder(model, cache=cache).embed_documents(["a"])
        assert fake.runs == [1, 1]
    finally:
        catalog().models.pop(twin.id)


def test_number_formats_and_runtimes_do_not_mix(cache: MemoryCache | SqliteCache) -> None:
    with Told() as told:
        for options in ({"dtype": "float32"}, {"dtype": "bfloat16"}, {"dtype": "auto"}):
            Embedder(told.model, cache=cache, **options).embed_documents(["a"])
        assert told.runs == [1, 1], "auto is float32 here"
        told.identity = "server 2"
        Embedder(told.model, cache=cache, backend=told.name, dtype="float32").embed_documents(["a"])
        assert told.runs == [1, 1, 1]


def test_equal_texts_are_computed_once(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    # Titles keep the core from merging what is equal.
    gemma = Embedder(fake.gemma, cache=cache)
    vectors = gemma.embed_documents(["a", "b", "a", "a"], titles=["t", "t", "t", None])
    assert fake.runs == [3]
    assert np.array_equal(vectors[0], vectors[2])


def test_a_hit_loads_no_model(cache: MemoryCache | SqliteCache) -> None:
    with FakeRuntime() as fake:
        first = Embedder(fake.qwen3, cache=cache)
        first.embed_documents(["a"])
        first.close()
        del first
        second = Embedder(fake.qwen3, cache=cache)
        second.embed_documents(["a"])
        assert fake.loads == 1
        second.embed_documents(["b"])
        assert fake.loads == 2


def test_a_hit_warns_of_truncation_like_a_run(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    embedder = Embedder(fake.qwen3, cache=cache, max_tokens=3)
    said = []
    for _ in range(2):
        with pytest.warns(TruncationWarning) as caught:
            result = embedder.encode(["short", "one two three four five"], role="document")
        said.append(str(caught[0].message))
        assert result.truncated is not None
        assert result.truncated.tolist() == [False, True]
        assert result.token_counts is not None
        assert result.token_counts.tolist()[1] == 5
    assert said[0] == said[1]
    assert "first at index 1, 5 tokens" in said[0]
    assert fake.runs == [2]


def test_a_vector_that_was_cut_is_no_answer_where_cutting_is_refused(
    fake: FakeRuntime, cache: MemoryCache | SqliteCache
) -> None:
    long = "one two three four five"
    Embedder(fake.qwen3, cache=cache, max_tokens=3, truncate="silent").embed_documents([long])
    strict = Embedder(fake.qwen3, cache=cache, max_tokens=3, truncate="error")
    strict.embed_documents(["short"])
    with pytest.raises(InputTooLongError) as caught:
        strict.embed_documents(["short", "also", "short", long])
    assert caught.value.index == 3


@pytest.mark.parametrize("batch_tokens", [None, 8])
def test_an_error_is_not_kept_and_has_the_callers_index(
    batch_tokens: int | None, cache: MemoryCache | SqliteCache
) -> None:
    def fault(texts: Sequence[str]) -> None:
        if broken and any("bad" in text for text in texts):
            raise RuntimeError("no")

    broken = True
    with FakeRuntime(fault=fault, batch_tokens=batch_tokens) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        embedder.embed_documents(["a", "b"])
        with pytest.raises(BackendError) as caught:
            embedder.embed_documents(["b", "a", "b", "bad", "c"])
        if batch_tokens is not None:
            assert isinstance(caught.value, ItemFailedError)
            assert caught.value.index == 3
            assert "index 3" in str(caught.value)
        broken = False
        expected = Embedder(fake.qwen3).embed_documents(["bad"])
        assert np.array_equal(embedder.embed_documents(["bad"]), expected)


def test_what_was_finished_before_a_failure_is_kept(cache: MemoryCache | SqliteCache) -> None:
    def fault(texts: Sequence[str]) -> None:
        if any("bad" in text for text in texts):
            raise RuntimeError("no")

    with FakeRuntime(fault=fault, batch_tokens=1) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        # Batches of one row; the longest runs first, "bad" last.
        texts = [f"text {number} of several words" for number in range(5)]
        with pytest.raises(ItemFailedError):
            embedder.embed_documents(["bad", *texts])
        before = len(fake.runs)
        embedder.embed_documents(texts)
        assert len(fake.runs) == before


def test_vectors_that_are_not_finite_are_not_kept(cache: MemoryCache | SqliteCache) -> None:
    with Told() as told:
        told.bad = True
        embedder = Embedder(told.model, cache=cache)
        with pytest.raises(NonFiniteVectorError) as caught:
            embedder.embed_documents(["a", "nan"])
        assert caught.value.index == 1
        told.bad = False
        embedder.embed_documents(["a", "nan"])
        assert told.runs == [2, 1], "the other row of the failed call is kept"


def test_what_a_runtime_does_not_tell_stays_unknown(cache: MemoryCache | SqliteCache) -> None:
    with Told() as told:
        embedder = Embedder(told.model, cache=cache)
        for _ in range(2):
            result = embedder.encode(["a", "b"], role="document")
            assert result.token_counts is None
            assert result.truncated is None


def test_a_width_of_the_runtimes_own_is_another_answer(cache: MemoryCache | SqliteCache) -> None:
    with Told() as told:
        told.native = True
        embedder = Embedder(told.model, cache=cache)
        wide, narrow = embedder.embed_documents(["a"]), embedder.with_dim(8).embed_documents(["a"])
        assert np.array_equal(embedder.with_dim(8).embed_documents(["a"]), narrow)
        assert np.array_equal(embedder.embed_documents(["a"]), wide)
        assert told.dims == [16, 8]
    with Told() as told:
        embedder = Embedder(told.model, cache=cache, dim=8)
        embedder.embed_documents(["a"])
        assert told.dims == [None], "others are asked for the whole vector"


def test_a_server_that_renders_is_told_apart_by_what_it_reads(cache: MemoryCache | SqliteCache) -> None:
    with Told() as told:
        told.renders = "server"
        embedder = Embedder(told.model, cache=cache)
        # The same bytes for a core that renders; another title for a server that does it itself.
        embedder.embed_documents(["a"])
        embedder.embed_documents(["a"], titles=["none"])
        assert told.runs == [1, 1]
    with Told() as told:
        embedder = Embedder(told.model, cache=cache)
        embedder.embed_documents(["a"])
        embedder.embed_documents(["a"], titles=["none"])
        assert told.runs == [1]


# Several callers at once.


def test_threads_that_want_the_same_compute_it_once(cache: MemoryCache | SqliteCache) -> None:
    held = Held()
    with FakeRuntime(fault=held) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        first = in_thread(lambda: embedder.embed_documents(["hold", "a"]))
        assert held.reached.wait(WAIT)
        others = [
            in_thread(lambda texts=texts: Embedder(fake.qwen3, cache=cache, dim=16).embed_documents(texts))
            for texts in (["a"], ["hold"], ["a", "hold"], ["a", "own"])
        ]
        waits_for(embedder, 4)
        held.release.set()
        first()
        found = [other() for other in others]
        assert sorted(fake.runs) == [1, 2]
        expected = Embedder(fake.qwen3, dim=16).embed_documents(["a", "hold", "own"])
        for vectors, places in zip(found, ([0], [1], [0, 1], [0, 2]), strict=True):
            assert np.array_equal(vectors, expected[places])


def until(reached: Callable[[], object]) -> None:
    """Wait for something that other threads do."""
    for _ in range(WAIT * 100):
        if reached():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it does not come to that")


def waits_for(embedder: Embedder, count: int) -> None:
    """Wait until so many callers have joined what another one computes."""

    def joined() -> bool:
        with embedder._store.flights._lock:
            flights = {flight for table in embedder._store.flights._tables.values() for flight in table.values()}
            return sum(item.count for flight in flights for item in flight.wanted.values()) >= count

    until(joined)


async def test_coroutines_that_want_the_same_compute_it_once(cache: MemoryCache | SqliteCache) -> None:
    with FakeRuntime() as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        found = await asyncio.gather(
            *(embedder.aembed_query(f"query {number % 3}") for number in range(60)),
            *(embedder.with_dim(16).aembed_query(f"query {number % 3}") for number in range(60)),
        )
        assert sum(fake.runs) == 3
        expected = Embedder(fake.qwen3).embed_queries([f"query {number}" for number in range(3)])
        for number, vector in enumerate(found[:60]):
            assert np.array_equal(vector, expected[number % 3])


async def test_both_facades_at_once(cache: MemoryCache | SqliteCache) -> None:
    """A thread and a coroutine, on two facades with one cache."""
    held = Held()
    with FakeRuntime(fault=held) as fake:
        one, other = Embedder(fake.qwen3, cache=cache), Embedder(fake.qwen3, cache=cache, dim=8)
        thread = in_thread(lambda: one.embed_documents(["hold", "a"]))
        await on_thread(held.reached)
        task = asyncio.ensure_future(other.aembed_documents(["a"]))
        await asyncio.to_thread(waits_for, one, 1)
        held.release.set()
        await task
        thread()
        assert fake.runs == [2]


async def test_a_cancelled_caller_does_not_cancel_what_others_wait_for(cache: MemoryCache | SqliteCache) -> None:
    held = Held()
    with FakeRuntime(fault=held) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        first = asyncio.ensure_future(embedder.aembed_documents(["hold", "a"]))
        await on_thread(held.reached)
        second = asyncio.ensure_future(embedder.aembed_documents(["a"]))
        thread = in_thread(lambda: embedder.embed_documents(["hold"]))
        await asyncio.to_thread(waits_for, embedder, 2)
        flight = next(iter(embedder._store.flights._tables[False].values()))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        for _ in range(50):
            await asyncio.sleep(0)
        assert not flight.done.done(), "what others wait for goes on"
        held.release.set()
        expected = Embedder(fake.qwen3).embed_documents(["a"])
        assert np.array_equal(await second, expected)
        await asyncio.to_thread(thread)
        assert fake.runs[0] == 2
        assert len(fake.runs) == 2, "the one of the cancelled caller, and that of the comparison"


@pytest.mark.parametrize(("batch_tokens", "size"), [(1, 1), (None, 4)], ids=["rows", "whole"])
async def test_rows_that_nobody_waits_for_any_more_are_not_computed(
    batch_tokens: int | None, size: int, cache: MemoryCache | SqliteCache
) -> None:
    held = Held()
    with FakeRuntime(fault=held, batch_tokens=batch_tokens) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        first = asyncio.ensure_future(embedder.aembed_documents(["hold this first text", "a", "b", "c"]))
        await on_thread(held.reached)
        second = asyncio.ensure_future(embedder.aembed_documents(["b"]))
        await asyncio.to_thread(waits_for, embedder, 1)
        for task in (second, first):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # The computation hears of it on the loop.
        await asyncio.to_thread(until, lambda: not embedder._store.flights._tables[False])
        held.release.set()
        await embedder.aembed_documents(["d"])
        assert fake.runs == [size, 1]
        assert await embedder.aembed_documents(["hold this first text"]) is not None
        assert fake.runs == [size, 1], "what was under way is kept all the same"


def test_the_end_of_a_loop_leaves_the_work_to_those_who_wait(cache: MemoryCache | SqliteCache) -> None:
    held = Held()
    with FakeRuntime(fault=held) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        others: list[Callable[[], Any]] = []

        async def leave() -> None:
            task = asyncio.ensure_future(embedder.aembed_documents(["hold"]))
            await on_thread(held.reached)
            others.append(in_thread(lambda: embedder.embed_documents(["hold"])))
            await asyncio.to_thread(waits_for, embedder, 1)
            task.cancel()

        asyncio.run(leave())
        held.release.set()
        assert others[0]().shape == (1, 64)


@pytest.mark.parametrize("when", ["while it computes", "while it looks"])
@pytest.mark.parametrize("before", [True, False], ids=["waits before", "comes after"])
def test_a_loop_that_is_closed_under_a_call_strands_nobody(
    when: str, before: bool, cache: MemoryCache | SqliteCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, release = threading.Event(), threading.Event()

    def fails_once(texts: Sequence[str]) -> None:
        if not reached.is_set():
            reached.set()
            assert release.wait(WAIT)
            raise RuntimeError("its own")

    real = Flights.claim

    def claim(self: Flights, keys: Any, *, urgent: bool) -> Any:
        found = real(self, keys, urgent=urgent)
        if not reached.is_set():
            reached.set()
            assert release.wait(WAIT)
        return found

    if when == "while it looks":
        monkeypatch.setattr(Flights, "claim", claim)
    with FakeRuntime(fault=fails_once if when == "while it computes" else None) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)

        async def leave() -> None:
            tasks.append(asyncio.ensure_future(embedder.aembed_documents(["slow"])))
            await on_thread(reached)

        def others() -> list[Callable[[], Any]]:
            return [
                in_thread(lambda: embedder.embed_documents(["slow"])),
                in_thread(lambda: asyncio.run(embedder.aembed_documents(["slow"]))),
            ]

        # Held: a task that nobody holds is ended by the garbage collector.
        tasks: list[Any] = []
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        found = others() if before else []
        if before and when == "while it computes":
            waits_for(embedder, 2)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        release.set()
        for other in found or others():
            assert other().shape == (1, 64)
        tasks[0]._log_destroy_pending = False


async def test_a_caller_who_is_cancelled_while_a_lane_looks_strands_nobody(
    fake: FakeRuntime, cache: MemoryCache | SqliteCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, release = threading.Event(), threading.Event()
    real = Flights.claim

    def claim(self: Flights, keys: Any, *, urgent: bool) -> Any:
        reached.set()
        assert release.wait(WAIT)
        return real(self, keys, urgent=urgent)

    monkeypatch.setattr(Flights, "claim", claim)
    embedder = Embedder(fake.qwen3, cache=cache)
    task = asyncio.ensure_future(embedder.aembed_documents(["a"]))
    await on_thread(reached)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    assert (await asyncio.wait_for(embedder.aembed_documents(["a"]), WAIT)).shape == (1, 64)


def test_what_comes_between_looking_and_claiming_is_not_computed_again(
    fake: FakeRuntime, cache: MemoryCache | SqliteCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, first = Flights.claim, [True]

    def claim(self: Flights, keys: Any, *, urgent: bool) -> Any:
        if first.pop() if first else False:
            in_thread(lambda: embedder.embed_documents(["a", "b"]))()
        return real(self, keys, urgent=urgent)

    monkeypatch.setattr(Flights, "claim", claim)
    embedder = Embedder(fake.qwen3, cache=cache)
    found = embedder.embed_documents(["a", "c", "b"])
    assert fake.runs == [2, 1]
    assert found.tobytes() == Embedder(fake.qwen3).embed_documents(["a", "c", "b"]).tobytes()


async def test_cancelling_at_any_step_strands_nobody(cache: MemoryCache | SqliteCache) -> None:
    with FakeRuntime() as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        for steps in range(12):
            task = asyncio.ensure_future(embedder.aembed_documents([f"text {steps}"]))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            found = await asyncio.wait_for(embedder.aembed_documents([f"text {steps}"]), WAIT)
            assert found.shape == (1, 64)


def test_the_failure_of_one_caller_is_not_that_of_another(cache: MemoryCache | SqliteCache) -> None:
    held = Held()

    def fault(texts: Sequence[str]) -> None:
        held(texts)
        if any("bad" in text for text in texts):
            raise RuntimeError("no")

    with FakeRuntime(fault=fault) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        first = in_thread(lambda: embedder.embed_documents(["hold", "bad", "fine"]))
        assert held.reached.wait(WAIT)
        second = in_thread(lambda: embedder.embed_documents(["fine"]))
        waits_for(embedder, 1)
        held.release.set()
        with pytest.raises(BackendError):
            first()
        assert second().shape == (1, 64)


def test_a_server_that_is_away_is_told_to_all_who_wait(cache: MemoryCache | SqliteCache) -> None:
    held = Held()

    def fault(texts: Sequence[str]) -> None:
        held(texts)
        raise UnavailableError("nobody is there")

    with FakeRuntime(fault=fault) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        first = in_thread(lambda: embedder.embed_documents(["hold"]))
        assert held.reached.wait(WAIT)
        others = [in_thread(lambda: embedder.embed_documents(["hold"])) for _ in range(5)]
        waits_for(embedder, 5)
        held.release.set()
        for caller in (first, *others):
            with pytest.raises(UnavailableError):
                caller()
        assert fake.runs == [1]


def test_a_query_does_not_wait_for_bulk_work(cache: MemoryCache | SqliteCache) -> None:
    held = Held("hold")
    with FakeRuntime(fault=held, batch_tokens=8) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        bulk = in_thread(lambda: embedder.embed_documents(["hold " * 8, *(f"text {number}" for number in range(50))]))
        assert held.reached.wait(WAIT)
        query = in_thread(lambda: embedder.embed_query("text 49", instruction=""))
        until(lambda: embedder._store.flights._tables[True])
        held.release.set()
        query()
        bulk()
        assert fake.texts.index("text 49") < 40


def test_misses_of_several_callers_share_a_batch(cache: MemoryCache | SqliteCache) -> None:
    held = Held()
    with FakeRuntime(fault=held, batch_tokens=100) as fake:
        embedder = Embedder(fake.qwen3, cache=cache)
        first = in_thread(lambda: embedder.embed_documents(["hold"]))
        assert held.reached.wait(WAIT)
        others = [in_thread(lambda n=n: embedder.embed_documents([f"a{n}", f"b{n}"])) for n in range(3)]
        worker = embedder._shared.model
        until(lambda: worker._inbox.qsize() >= 3)
        held.release.set()
        for caller in (first, *others):
            caller()
        assert fake.runs == [1, 6]


# The event loop.


async def test_the_loop_only_passes_things_on(
    fake: FakeRuntime, cache: MemoryCache | SqliteCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking up, keys and writing are done elsewhere: by the thread that is in there."""
    loop, inside = threading.get_ident(), set()
    place = type(store_of(cache))

    def watch(name: str) -> None:
        real = getattr(place, name)

        def watched(self: Any, *args: Any) -> Any:
            inside.add((name, threading.get_ident() == loop))
            return real(self, *args)

        monkeypatch.setattr(place, name, watched)

    for name in ("get", "put", "settle"):
        watch(name)
    real_key = Rendered.key.fget

    def key(self: Rendered) -> bytes:
        inside.add(("key", threading.get_ident() == loop))
        return real_key(self)

    monkeypatch.setattr(Rendered, "key", property(key))
    embedder = Embedder(fake.qwen3, cache=cache)
    for _ in range(2):
        await embedder.aembed_documents([f"text {number}" for number in range(50)])
        await asyncio.gather(*(embedder.aembed_query(f"query {number}") for number in range(5)))
    assert inside == {(name, False) for name in ("get", "put", "settle", "key")}


# Servers.


class Answering(Remote):
    """A model on a server, of one row per request."""

    batch_rows = 1
    in_flight = 1

    def __init__(self, told: Told) -> None:
        self._told = told

    async def arun(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        self._told.runs.append(len(inputs))
        if any("bad" in item.words for item in inputs):
            raise UnavailableError("it went away")
        return Output.dense(vectors_of(inputs, 16), np.array([3] * len(inputs)))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_finished_requests_of_a_call_that_failed_are_kept(
    asynchronous: bool, cache: MemoryCache | SqliteCache
) -> None:
    with Told() as told:
        told.remote = True
        embedder = Embedder(told.model, cache=cache)

        def embed(texts: list[str]) -> Any:
            return asyncio.run(embedder.aembed_documents(texts)) if asynchronous else embedder.embed_documents(texts)

        with pytest.raises(UnavailableError):
            embed(["a", "b", "c", "bad", "d"])
        assert told.runs == [1, 1, 1, 1]
        embed(["c", "a", "b"])
        assert told.runs == [1, 1, 1, 1]
        assert embedder.encode(["a", "d"], role="document").token_counts.tolist() == [3, 3]
        assert told.runs == [1] * 5


class Told(Runtime):
    """A runtime that can be told what to say of itself; its model has gemma's prompts and 16 values."""

    dtypes = ("float32", "bfloat16")
    devices = ("cpu",)

    def __init__(self) -> None:
        self._fake = FakeRuntime(width=16)
        self.runs: list[int] = []
        self.dims: list[int | None] = []
        self.identity, self.renders, self.native, self.bad, self.remote = "", "core", False, False, False

    @property
    def model(self) -> str:
        return self._fake.gemma

    def __enter__(self) -> Told:
        self._fake.__enter__()
        self.name = self._fake._name + "-told"
        self.preference = 10
        catalog().add_backend(self)
        return self

    def __exit__(self, *_: object) -> None:
        catalog().backends.pop(self.name)
        self._fake.__exit__(None, None, None)

    def offer(self, spec: Any, ask: Ask) -> Any:
        from embrief import Refusal

        if spec.architecture != self._fake._name:
            return Refusal("runs its own models only")
        dtype = ask.dtype if ask.dtype != "auto" else "float32"
        return Offer(
            device="cpu", dtype=dtype, identity=self.identity, renders=self.renders, native_dims=self.native,
            tells_truncation=False,
        )  # fmt: skip

    def load(self, request: LoadRequest) -> Model:
        return Answering(self) if self.remote else Silent(self)


class Silent:
    """A model that tells neither counts nor truncation."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def run(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        self._told.runs.append(len(inputs))
        self._told.dims.append(options.dim)
        vectors = vectors_of(inputs, options.dim or 16)
        if self._told.bad:
            vectors[[item.words == "nan" for item in inputs], -1] = np.nan
        return Output.dense(vectors)

    def close(self) -> None:
        """Nothing is held."""


def vectors_of(inputs: Sequence[Rendered], width: int) -> np.ndarray:
    return np.array([np.frombuffer(item.key, np.uint8)[:width] for item in inputs], np.float64)


# What is shown and carried.


def test_the_setting_travels(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    embedder = Embedder(fake.qwen3, cache=cache, dim=16)
    embedder.embed_documents(["a"])
    for other in (pickle.loads(pickle.dumps(embedder)), embedder.with_task(None), embedder.with_dim(8)):
        assert other.settings.cache == cache
        other.embed_documents(["a"])
    assert fake.runs == [1]
    assert type(cache).__name__ in repr(embedder)
    assert "cache" not in repr(Embedder(fake.qwen3))


def test_info_says_which_cache(fake: FakeRuntime, tmp_path: Path) -> None:
    assert Embedder(fake.qwen3, cache="memory").info()["cache"] == {
        "kind": "memory", "max_bytes": 256 * 1024 * 1024, "ttl": 24 * 60 * 60,
    }  # fmt: skip
    file = tmp_path.resolve() / "cache.sqlite3"
    options = SqliteCache(path=file, max_bytes=10**6, ttl=5)
    assert Embedder(fake.qwen3, cache=options).info()["cache"] == {
        "kind": "sqlite", "path": str(file), "max_bytes": 10**6, "ttl": 5.0,
    }  # fmt: skip
    assert not file.exists()


def test_pinned_weights_are_kept_for_ever(minilm_folder: Path) -> None:
    commit = "a" * 40
    embedder = Embedder("Qwen/Qwen3-Embedding-0.6B", revision=commit, cache="memory")
    assert embedder._ttl(embedder._shared) is None
    pytest.importorskip("httpx")
    served = Embedder("Qwen/Qwen3-Embedding-0.6B", backend="ollama", cache="memory")
    assert served._ttl(served._shared) == 24 * 60 * 60, "somebody may start another model there"
    pytest.importorskip("sentence_transformers", reason="a folder needs the runtime that serves it")
    assert Embedder(minilm_folder, cache="memory").info()["cache"]["ttl"] is None


def test_an_entry_counts_for_its_time(
    fake: FakeRuntime, cache: MemoryCache | SqliteCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr(store, "now", lambda: clock[0])
    embedder = Embedder(fake.qwen3, cache=cache)
    embedder.embed_documents(["a"])
    clock[0] += 24 * 60 * 60 - 1
    embedder.embed_documents(["a"])
    assert fake.runs == [1]
    clock[0] += 1
    embedder.embed_documents(["a"])
    assert fake.runs == [1, 1]


def test_the_users_time_wins(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr(store, "now", lambda: clock[0])
    for cache in (MemoryCache(ttl=10), SqliteCache(path=tmp_path / "cache", ttl=10)):
        fake.runs.clear()
        embedder = Embedder(fake.qwen3, cache=cache)
        embedder.embed_documents([str(cache)])
        clock[0] += 10
        embedder.embed_documents([str(cache)])
        assert fake.runs == [1, 1]


def test_a_readers_own_time_counts_whoever_put_the_entry(
    fake: FakeRuntime, cache: MemoryCache | SqliteCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr(store, "now", lambda: clock[0])
    patient, hasty = (Embedder(fake.qwen3, cache=replace(cache, ttl=ttl)) for ttl in (1000, 10))
    hasty._store = patient._store
    patient.embed_documents(["of a patient one"])
    clock[0] += 9
    hasty.embed_documents(["of a patient one"])
    assert fake.runs == [1]
    clock[0] += 1
    hasty.embed_documents(["of a patient one"])
    assert fake.runs == [1, 1]
    clock[0] += 100
    patient.embed_documents(["of a patient one"])
    assert fake.runs == [1, 1, 1], "the last one put it for ten seconds"


def test_no_warning_where_all_is_well(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            Embedder(fake.qwen3, cache=cache).embed_documents(["a", "b"])


def test_progress_counts_hits_too(
    fake: FakeRuntime, cache: MemoryCache | SqliteCache, capsys: pytest.CaptureFixture[str]
) -> None:
    embedder = Embedder(fake.gemma, cache=cache)
    embedder.embed_documents(["a", "b"])
    embedder.embed_documents(["a", "b", "c", "c"], titles=[None, None, "t", "t"], progress=True)
    assert "3/3" in capsys.readouterr().err


def test_no_texts_and_no_cache_meet(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    assert Embedder(fake.qwen3, cache=cache).embed_documents([]).shape == (0, 64)
    assert fake.loads == 0


def test_checks_of_documents_still_ask_the_model(cache: MemoryCache | SqliteCache) -> None:
    with FakeRuntime(batch_tokens=10) as fake:
        embedder = Embedder(fake.qwen3, cache=cache, max_tokens=2, truncate="error")
        with pytest.raises(ArgumentError):
            embedder.check_documents(["a", "one two three"])


def test_streams_use_it(fake: FakeRuntime, cache: MemoryCache | SqliteCache) -> None:
    embedder = Embedder(fake.qwen3, cache=cache)
    for _ in range(2):
        assert len(list(embedder.iter_documents(f"text {number}" for number in range(10)))) == 10
    assert sum(fake.runs) == 10
