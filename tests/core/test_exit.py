"""The end of the process: no abort, no hang, and a typed error for whoever still asks.

`EMBRIEF_EXITS=25` runs each of the eight shapes 25 times instead of twice.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

EXITS = int(os.environ.get("EMBRIEF_EXITS", "2"))
HANG = 600
HEAD = """
import asyncio, atexit, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
"""
FAKE = """
from embrief import ClosedError, Embedder
from embrief.system import exiting
from embrief.testing import FakeRuntime
"""
ENGINE = """
from embrief import ClosedError, Embedder
delay = float(sys.argv[1])
embedder = Embedder("embrief/tiny-embedding", device="cpu")
texts = ["some words that make a text: " * 8 + str(number) for number in range(24)]
running = threading.Event()
def forever():
    number = 0
    while True:
        # No two calls are the same, so nothing is answered from memory.
        embedder.embed_documents([f"{number} {text}" for text in texts])
        running.set()
        number += 1
def busy(count=3):
    for _ in range(count):
        threading.Thread(target=forever, daemon=True).start()
    running.wait()
    time.sleep(delay)
"""
SHAPES = {
    "plain": ("embedder.embed_documents(texts)\nasyncio.run(embedder.aembed_query('q'))", 0),
    "exception": ("busy(1)\nraise ValueError('on purpose')", 1),
    "daemon": ("busy()", 0),
    "asyncio": (
        """
async def main():
    given = [[f"{number} {text}" for text in texts] for number in range(40)]
    calls = [asyncio.create_task(embedder.aembed_documents(some)) for some in given]
    await calls[0]
    await asyncio.sleep(delay)
    for call in calls: call.cancel()
asyncio.run(main())
""",
        0,
    ),
    "sigint": (
        # A shell starts background jobs with this signal ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "embedder.load(); threading.Timer(delay, signal.raise_signal, [signal.SIGINT]).start()\nforever()",
        -2,
    ),
    "sigterm": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "busy(2); threading.Timer(delay, os.kill, [os.getpid(), signal.SIGTERM]).start()\nforever()",
        3,
    ),
    "fork": (
        "embedder.embed_documents(texts); busy(1)\nchild = os.fork()\n"
        "if child == 0:\n    busy(2); sys.exit(5)\n"
        "if (code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) != 5: sys.exit(code)",
        0,
    ),
    "pool": (
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(4)\n"
        "for number in range(12): pool.submit(embedder.embed_documents, [f'{number} {text}' for text in texts])\n"
        "busy(1)",
        0,
    ),
}


def errors_in(told: str) -> set[str]:
    """Return the kinds of errors that were told of, but for what daemon threads get that live to see it.

    By their names: words of several threads, and of a forked child, may stand in the middle of each other's.
    """
    return set(re.findall(r"^([\w.]+(?:Error|Exception|Interrupt))\b", told, re.MULTILINE)) - {
        "embrief.errors.ClosedError"
    }


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HEAD + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG)


@pytest.mark.skipif(os.name != "posix", reason="sends signals and forks")
@pytest.mark.parametrize("shape", SHAPES)
def test_no_exit_aborts_or_hangs(shape: str) -> None:
    pytest.importorskip("torch")
    code, expected = SHAPES[shape]
    # Two at a time: exits race with the machine's other work.
    for start in range(0, EXITS, 2):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", HEAD + ENGINE + code, str((0.013 * number) % 0.4)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(start, min(start + 2, EXITS))
        ]
        for process in started:
            _, errors = process.communicate(timeout=HANG)
            own = {"exception": {"ValueError"}, "sigint": {"KeyboardInterrupt"}}.get(shape, set())
            assert (process.returncode, errors_in(errors)) == (expected, own), (
                shape,
                errors[-2000:],
            )


def test_a_first_call_during_the_exit_gets_an_error_and_loads_nothing() -> None:
    """The exit function was registered before embrief came, so that it runs after embrief's own."""
    pytest.importorskip("torch")
    done = run("""
go, over, errors = threading.Event(), threading.Event(), []
@atexit.register
def last():
    go.set()
    print(over.wait(300), "torch" in sys.modules, len(errors), *set(errors), flush=True)
from embrief import ClosedError, Embedder, Reranker
from embrief.system import exiting
# Instead of a while, all are held until all are: seven calls and who refuses what waits. None may queue behind another.
held = threading.Barrier(8)
class Clock: sleep = staticmethod(lambda seconds: held.wait(300))
exiting.time = Clock
def work():
    go.wait()
    embedder = Embedder("embrief/tiny-embedding")
    calls = (
        embedder.load, lambda: embedder.embed_query("q"), lambda: embedder.embed_documents(["d"]), embedder.info,
        lambda: asyncio.run(embedder.aembed_query("q")), lambda: asyncio.run(embedder.off_loop(dict)),
        lambda: Reranker("embrief/tiny-reranker").score("q", ["d"]),
    )
    def refused(call):
        try: call()
        except ClosedError as error: errors.append(str(error))
    threads = [threading.Thread(target=refused, args=(call,), daemon=True) for call in calls]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    over.set()
threading.Thread(target=work, daemon=True).start()
""")
    assert (done.returncode, errors_in(done.stderr)) == (0, set())
    assert done.stdout.startswith("True False 7 the interpreter is exiting, so no model runs any more; ")
    assert done.stdout.count("exiting") == 1


def test_a_model_that_is_loaded_by_an_exit_function_stops_too() -> None:
    """What is registered while exit functions run does not run: embrief's own is there since its import."""
    pytest.importorskip("torch")
    done = run(
        ENGINE.replace("float(sys.argv[1])", "0")
        + """
atexit.register(busy)
@atexit.register
def first():
    print(threading.active_count(), flush=True)
"""
    )
    assert (done.returncode, done.stdout, errors_in(done.stderr)) == (0, "1\n", set())


def test_a_call_that_waits_when_the_exit_begins_gets_an_error() -> None:
    """Otherwise an exit function that waits for its thread would wait for ever."""
    done = run(
        """
told = []
atexit.register(lambda: (queued.join(), loop.join(), print(*told, "joined", flush=True)))
"""
        + FAKE
        + """
reached, release, waits = threading.Event(), threading.Event(), threading.Semaphore(0)
def fault(texts):
    print(*texts, flush=True)
    if texts == ["first"]:
        reached.set(); release.wait()
fake = FakeRuntime(batch_tokens=1, fault=fault).__enter__()
embedder = Embedder(fake.qwen3).load()
threading.Thread(target=embedder.embed_documents, args=(["first"],), daemon=True).start()
reached.wait()
def refused(call):
    waits.release()
    try: call()
    except ClosedError: told.append("refused")
queued = threading.Thread(target=refused, args=(lambda: embedder.embed_documents(["second"]),), daemon=True)
loop = threading.Thread(target=refused, args=(lambda: asyncio.run(embedder.aembed_query("third")),), daemon=True)
queued.start(); loop.start(); waits.acquire(); waits.acquire()
def released():
    # Not by an exit function: between that and the exit's own, the worker would still take the next batch.
    while not exiting.begun(): time.sleep(0.001)
    release.set()
threading.Thread(target=released, daemon=True).start()
"""
    )
    assert (done.returncode, errors_in(done.stderr)) == (0, set())
    assert done.stdout.splitlines() == ["first", "refused refused joined"]


def test_the_exit_waits_for_a_thread_that_tokenises() -> None:
    """Tokenizers are native code, and run on the caller's thread."""
    done = run(
        FAKE
        + """
import embrief.testing.fakes
import embrief.testing as testing
reached, release = threading.Event(), threading.Event()
original = testing.fakes._BatchedFake.prepare
def prepare(self, inputs, options):
    reached.set(); release.wait(); print("tokenised", flush=True)
    return original(self, inputs, options)
testing.fakes._BatchedFake.prepare = prepare
fake = FakeRuntime(batch_tokens=1, fault=lambda texts: print("ran", flush=True)).__enter__()
embedder = Embedder(fake.qwen3).load()
threading.Thread(target=embedder.embed_documents, args=(["text"],), daemon=True).start()
reached.wait()
atexit.register(threading.Timer(0.3, release.set).start)
"""
    )
    assert (done.returncode, done.stdout, errors_in(done.stderr)) == (0, "tokenised\n", set())


def test_async_calls_are_served_until_the_last_thread_of_the_program_ends() -> None:
    """The standard library's executors take nothing more once the main thread has ended."""
    done = run(
        FAKE
        + """
fake = FakeRuntime(batch_tokens=8).__enter__()
embedder = Embedder(fake.qwen3)
def work():
    threading.main_thread().join()
    print(asyncio.run(embedder.aembed_query("q")).shape, flush=True)
threading.Thread(target=work).start()
"""
    )
    assert (done.returncode, done.stdout, errors_in(done.stderr)) == (0, "(64,)\n", set())


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
def test_ctrl_c_during_the_exit_does_not_leave_the_batch_under_way() -> None:
    done = run(
        FAKE
        + """
reached, release = threading.Event(), threading.Event()
def fault(texts):
    reached.set()
    for _ in range(2):
        release.wait(); time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(0.2)
    print("finished", flush=True)
fake = FakeRuntime(batch_tokens=1, fault=fault).__enter__()
embedder = Embedder(fake.qwen3).load()
threading.Thread(target=embedder.embed_documents, args=(["text"],), daemon=True).start()
reached.wait()
atexit.register(release.set)
"""
    )
    assert (done.returncode, done.stdout, errors_in(done.stderr)) == (0, "finished\n", set())
