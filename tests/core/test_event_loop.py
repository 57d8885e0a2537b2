"""What an event loop has to do for our calls: little, and never much at once."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embrief import BackendError, Embedder, Reranker
from embrief.testing import FakeRuntime

MANY = 1000


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often other threads wake it."""

    woken = 0

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(*args, **options)


def run_in(loop: CountingLoop, main: Callable[[], Any]) -> Any:
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def test_results_of_many_calls_reach_the_loop_in_pieces() -> None:
    """All at once they would stop everything else that the loop serves."""
    release = threading.Event()
    with FakeRuntime(batch_tokens=10**6, fault=lambda texts: release.wait(600)) as fake:
        embedder, loop = Embedder(fake.qwen3).load(), CountingLoop()

        async def main() -> tuple[list[int], int]:
            calls = [asyncio.ensure_future(embedder.aembed_query(f"query {number}")) for number in range(MANY)]
            # Until all of them wait for the model: nothing wakes the loop any more.
            quiet = 0
            while quiet < 20:
                before = loop.woken
                await asyncio.sleep(0.01)
                quiet = 0 if loop.woken != before else quiet + 1
            before = loop.woken
            done = 0
            turns = []
            release.set()
            while done < MANY:
                await asyncio.sleep(0)
                ready = sum(call.done() for call in calls)
                turns.append(ready - done)
                done = ready
            return turns, loop.woken - before

        turns, woken = run_in(loop, main)
    assert sum(turns) == MANY
    assert max(turns) <= 64
    assert woken <= MANY


def test_a_call_crosses_to_the_loop_three_times() -> None:
    """Checked and rendered; tokenised; run. Each time it may find the loop busy."""
    with FakeRuntime(batch_tokens=10**6) as fake:
        embedder, loop = Embedder(fake.qwen3).load(), CountingLoop()
        assert run_in(loop, lambda: embedder.aembed_query("q")).shape == (64,)
    assert loop.woken == 3


async def test_a_result_that_nobody_waits_for_any_more_harms_no_other() -> None:
    reached, release = threading.Event(), threading.Event()

    def fault(texts: list[str]) -> None:
        reached.set()
        release.wait(600)

    with FakeRuntime(batch_tokens=10**6, fault=fault) as fake:
        embedder = Embedder(fake.qwen3).load()
        calls = [asyncio.ensure_future(embedder.aembed_query(f"q {number}")) for number in range(8)]
        await asyncio.to_thread(reached.wait)
        for call in calls[::2]:
            call.cancel()
        release.set()
        found = await asyncio.gather(*calls, return_exceptions=True)
        kinds = Counter(type(item).__name__ for item in found)
        assert kinds == {"CancelledError": 4, "ndarray": 4}
        assert (await embedder.aembed_query("q")).shape == (64,)


def test_a_loop_that_is_gone_does_not_stop_the_lane() -> None:
    reached, release = threading.Event(), threading.Event()

    def fault(texts: list[str]) -> None:
        if "left" in texts[0]:
            reached.set()
            release.wait(600)

    with FakeRuntime(batch_tokens=1, fault=fault) as fake:
        embedder = Embedder(fake.qwen3).load()

        async def leave() -> None:
            await asyncio.wait([asyncio.ensure_future(embedder.aembed_query("left"))], timeout=0.01)
            await asyncio.to_thread(reached.wait)

        asyncio.run(leave())
        release.set()
        assert asyncio.run(embedder.aembed_query("q")).shape == (64,)


async def test_what_an_application_runs_off_the_loop_keeps_its_errors_and_context() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="none")

    def fail(error: BaseException) -> None:
        raise error

    with FakeRuntime() as fake:
        embedder = Embedder(fake.qwen3)
        with pytest.raises(KeyError, match="mine"):
            await embedder.off_loop(lambda: fail(KeyError("mine")))
        # A loop would lose the first, and end with the second.
        for error in (StopIteration("end"), SystemExit(3)):
            with pytest.raises(BackendError, match=type(error).__name__):
                await embedder.off_loop(lambda error=error: fail(error))
        variable.set("mine")
        assert await embedder.off_loop(variable.get) == "mine"
        assert threading.current_thread().name not in (await embedder.off_loop(threading.current_thread)).name


async def test_aload_loads_once_and_off_the_loop() -> None:
    with FakeRuntime(batch_tokens=8) as fake:
        threads: list[threading.Thread] = []
        load = fake._load
        fake._load = lambda model: (threads.append(threading.current_thread()), load(model))[1]  # type: ignore[method-assign]
        embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
        loaded = await asyncio.gather(embedder.aload(), embedder.aload(), reranker.aload())
        assert loaded == [embedder, embedder, reranker]
        assert (fake.loads, embedder.info()["loaded"], reranker.info()["loaded"]) == (2, True, True)
        assert threading.main_thread() not in threads


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


USE = """
import sys, warnings
warnings.simplefilter("ignore")
from embrief import Embedder
print(Embedder("embrief/tiny-embedding", device="cpu").embed_query("q").shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what is mapped")
def test_torchs_library_is_in_memory_before_the_import_that_would_keep_the_gil() -> None:
    pytest.importorskip("torch")
    found = python(f"""
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            with open("/proc/self/maps") as maps: print("libtorch_cpu" in maps.read())
sys.meta_path.insert(0, Finder())
{USE}""")
    # Also asked whether it is there, before anything is loaded.
    assert found.split() == [*["False"] * (found.count("False")), "True", "(256,)"]


def test_a_torch_whose_library_lies_elsewhere_is_imported_as_ever() -> None:
    pytest.importorskip("torch")
    found = python(f"""
import importlib.util
real = importlib.util.find_spec
def find_spec(name, package=None):
    spec = real(name, package)
    if name == "torch" and "torch" not in sys.modules:
        spec.origin = "/nowhere/torch/__init__.py"
    return spec
importlib.util.find_spec = find_spec
{USE}""")
    assert found.split() == ["(256,)"]


@pytest.mark.parametrize(
    ("before", "expected"),
    [("", "True 0"), ("gc.disable()", "False 0"), ("gc.freeze(); frozen = gc.get_freeze_count()", "True kept")],
)
def test_the_garbage_collector_is_left_as_the_application_has_it(before: str, expected: str) -> None:
    pytest.importorskip("torch")
    found = python(f"""
import gc
frozen = 0
{before}
{USE}
count = gc.get_freeze_count()
print(gc.isenabled(), "kept" if 0 < count <= frozen else count)
""")
    assert found.splitlines()[-1] == expected


async def test_async_results_are_those_of_the_plain_calls() -> None:
    with FakeRuntime(batch_tokens=64) as fake:
        embedder = Embedder(fake.qwen3)
        texts = [f"text {number}" for number in range(100)]
        found = await asyncio.gather(*(embedder.aembed_query(text) for text in texts))
        np.testing.assert_array_equal(np.stack(found), embedder.embed_queries(texts))


def test_a_loop_that_is_closed_before_its_result_comes_is_not_kept() -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        release.wait(600)
        ended.set()

    async def given_up(embedder: Embedder) -> None:
        waiting = asyncio.ensure_future(embedder.off_loop(slow))
        # What is given up before it has begun is never run.
        while not begun.is_set():
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with FakeRuntime() as fake:
        embedder = Embedder(fake.qwen3).load()
        loop = CountingLoop()
        kept = weakref.ref(loop)
        run_in(loop, lambda: given_up(embedder))
        del loop
        release.set()
        assert ended.wait(600)
        # The lane has posted the result once it takes the next errand.
        asyncio.run(embedder.off_loop(gc.collect))
        gc.collect()
        assert kept() is None


def test_what_comes_to_a_lane_after_its_exit_is_refused() -> None:
    """At exit lanes and models are refused in any order: what a model's refusal hands to a lane has no thread there."""
    from concurrent.futures import Future

    from embrief import ClosedError
    from embrief.serving.lanes import Lane

    lane, model = Lane(), Future()
    lane._thread = threading.current_thread()  # as if its own had ended

    async def main() -> None:
        waiting = lane.run(lambda: model.result(), after=model)
        lane._waiting.refuse(ClosedError("the interpreter is exiting"))
        model.set_exception(ClosedError("the interpreter is exiting"))
        with pytest.raises(ClosedError):
            await asyncio.wait_for(waiting, 60)

    asyncio.run(main())
