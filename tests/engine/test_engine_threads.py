"""Texts of one batch side by side on several threads: same results, no thread of the caller's changed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, ItemFailedError, Reranker
from embrief.testing import FakeRuntime

torch = pytest.importorskip("torch")


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many threads torch uses."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many shares each batch had besides the one for all threads."""
    from embrief.engine.threads import Threads

    found: list[int] = []
    share = Threads.share

    def noted(self, sizes):
        shares = share(self, sizes)
        found.append(len(shares) - 1)
        return shares

    monkeypatch.setattr(Threads, "share", noted)
    return found


def text(words: int, number: int = 0) -> str:
    return " ".join(f"word{(number * 31 + place) % 97}" for place in range(words))


def texts(seed: int = 0, count: int = 23) -> list[str]:
    chance = random.Random(seed)
    return [text(chance.randint(20, 90), number) for number in range(count)]


def alone(facade: Embedder | Reranker) -> None:
    """Let everything run on all threads together."""
    facade.load()
    facade._shared.model._backend._threads.share = lambda sizes: [list(range(len(sizes)))]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 16])
def test_every_text_is_in_one_share_and_the_shares_are_even(count: int) -> None:
    from embrief.engine.threads import Threads

    chance = random.Random(count)
    divided = 0
    for _ in range(400):
        sizes = [chance.randint(1, chance.choice((4, 80, 900))) for _ in range(chance.randint(0, 40))]
        *parts, rest = Threads(count).share(sizes)
        assert sorted([place for part in (*parts, rest) for place in part]) == list(range(len(sizes)))
        assert len(parts) in {0, *(count >> halved for halved in range(5) if count >> halved > 1)}
        if parts:
            divided += 1
            loads = [sum(sizes[place] for place in part) for part in parts]
            assert min(loads) >= 64
            assert min(loads) >= 0.85 * max(loads)
            assert len(rest) < len(parts)
    assert bool(divided) == (count > 1)


def test_odd_texts_of_equal_length_leave_one_for_all_threads() -> None:
    from embrief.engine.threads import Threads

    *parts, rest = Threads(2).share([200] * 5)
    assert ([len(part) for part in parts], len(rest)) == ([2, 2], 1)
    # Four threads cannot have even shares of two texts, but two pairs of threads can.
    assert [len(part) for part in Threads(4).share([300, 300])] == [1, 1, 0]
    # Too little for two.
    assert Threads(2).share([20, 20]) == [[0, 1]]
    assert Threads(2).share([500]) == [[0]]


def test_vectors_do_not_depend_on_the_threads(threads: int, shared: list[int], qwen3_folder: Path) -> None:
    documents = texts()
    side_by_side = Embedder(qwen3_folder, dtype="float32", device="cpu")
    found = side_by_side.embed_documents(documents)
    queries = side_by_side.embed_queries(documents)
    assert (max(shared) > 1) == (threads > 1)
    side_by_side.close()
    one = Embedder(qwen3_folder, dtype="float32", device="cpu")
    alone(one)
    np.testing.assert_allclose(found, one.embed_documents(documents), atol=1e-5)
    np.testing.assert_allclose(queries, one.embed_queries(documents), atol=1e-5)


def test_means_do_not_depend_on_the_threads(two_threads: None, shared: list[int], gemma_folder: Path) -> None:
    documents = texts(1)
    side_by_side = Embedder(gemma_folder, dtype="float32", device="cpu", truncate="silent")
    found = side_by_side.embed_documents(documents)
    assert max(shared) == 2
    side_by_side.close()
    one = Embedder(gemma_folder, dtype="float32", device="cpu", truncate="silent")
    alone(one)
    np.testing.assert_allclose(found, one.embed_documents(documents), atol=1e-5)


def test_scores_do_not_depend_on_the_threads(two_threads: None, shared: list[int], reranker_folder: Path) -> None:
    pairs = [(query, document) for query in ("which word", "another one") for document in texts(2, 9)]
    side_by_side = Reranker(reranker_folder, dtype="float32", device="cpu")
    found = side_by_side.score_pairs(pairs)
    assert max(shared) == 2
    side_by_side.close()
    one = Reranker(reranker_folder, dtype="float32", device="cpu")
    alone(one)
    np.testing.assert_allclose(found, one.score_pairs(pairs), atol=1e-5)


def test_the_callers_threads_keep_their_number(threads: int, shared: list[int], qwen3_folder: Path) -> None:
    with Embedder(qwen3_folder, dtype="float32", device="cpu") as embedder:
        embedder.embed_documents(texts())
        assert (max(shared) > 1) == (threads > 1)
        assert torch.get_num_threads() == threads
        seen: list[int] = []
        new = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        new.start()
        new.join()
        assert seen == [threads]


def test_each_share_has_its_part_of_the_threads(shared: list[int], qwen3_folder: Path, monkeypatch) -> None:
    from embrief.engine.stack import Stack

    before, seen = torch.get_num_threads(), []
    run = Stack.run

    def noted(stack, batch, features=None):
        torch.ones(200_000).add_(1)  # what torch does on a thread for the first time, it has done by now
        seen.append(torch.get_num_threads())
        return run(stack, batch, features)

    monkeypatch.setattr(Stack, "run", noted)
    torch.set_num_threads(4)
    try:
        with Embedder(qwen3_folder, dtype="float32", device="cpu") as embedder:
            embedder.embed_documents([text(80, number) for number in range(4)])
            embedder.embed_documents([text(80, number) for number in range(2)])
            # Set by the caller after the model was loaded: new threads of the caller's still take it.
            torch.set_num_threads(3)
            embedder.embed_documents([text(80, number) for number in range(4)])
            new = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            new.start()
            new.join()
    finally:
        torch.set_num_threads(before)
    assert shared[-3:] == [4, 2, 4]
    assert seen == [1] * 4 + [2] * 2 + [1] * 4 + [3]


def test_the_threads_end_with_the_model(two_threads: None, shared: list[int], qwen3_folder: Path) -> None:
    embedder = Embedder(qwen3_folder, dtype="float32", device="cpu")
    before = set(threading.enumerate())
    embedder.embed_documents(texts())
    own = [thread for thread in set(threading.enumerate()) - before if thread.name == "embrief-texts"]
    assert len(own) == max(shared) == 2
    embedder.close()
    for thread in own:
        thread.join(30)
        assert not thread.is_alive()


def test_a_text_that_fails_in_a_thread_fails_alone(
    two_threads: None, shared: list[int], qwen3_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embrief.engine.stack import Stack

    embedder = Embedder(qwen3_folder, dtype="float32", device="cpu")
    mark = embedder.load()._shared.model._backend._tokenizer.single("<think>", "the model")
    run, under_way, met = Stack.run, [], []

    def guarded(stack, batch, features=None):
        under_way.append(threading.get_ident())
        try:
            if mark in batch.ids.tolist():
                raise RuntimeError("a kernel failed")
            return run(stack, batch, features)
        finally:
            under_way.remove(threading.get_ident())

    def attempt(self, call, shares):
        try:
            return original(self, call, shares)
        finally:
            # The other thread is not left behind with weights that may be freed now.
            met.append(list(under_way))

    from embrief.engine.threads import Threads

    original = Threads.run
    monkeypatch.setattr(Stack, "run", guarded)
    monkeypatch.setattr(Threads, "run", attempt)
    documents = [text(60, number) for number in range(8)]
    documents[5] = "<think> " * 90
    with pytest.raises(ItemFailedError) as caught:
        embedder.embed_documents(documents)
    assert caught.value.index == 5
    assert max(shared) == 2
    assert met
    assert not any(met)


def test_full_batches_have_a_multiple_of_what_runs_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seven texts of 10 tokens, three fit: two run, and the third comes with the next."""
    with FakeRuntime(batch_tokens=35) as fake:
        embedder = Embedder(fake.qwen3).load()
        backend = embedder._shared.model._backend
        documents = [" ".join([f"t{number}"] * 10) for number in range(7)]
        expected = embedder.embed_documents(documents)
        assert fake.runs == [3, 3, 1]
        fake.runs.clear()
        backend.side_by_side = 2
        np.testing.assert_array_equal(embedder.embed_documents(documents), expected)
        assert fake.runs == [2, 2, 3]
        fake.runs.clear()
        # What fits as a whole stays together; fewer than run side by side go as they are.
        embedder.embed_documents(documents[:3])
        backend.side_by_side = 4
        np.testing.assert_array_equal(embedder.embed_documents(documents), expected)
        assert fake.runs == [3, 3, 3, 1]


def test_texts_run_until_the_last_thread_of_the_program_ends(qwen3_folder: Path) -> None:
    """At exit an executor of the standard library takes no more work, while other threads may still be busy."""
    code = f"""
import threading, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(2)
from embrief import Embedder
embedder = Embedder({str(qwen3_folder)!r}, dtype="float32", device="cpu").load()
def work():
    threading.main_thread().join()
    time.sleep(0.2)
    found = embedder.embed_documents(["word " * 60 + str(number) for number in range(6)])
    names = [thread.name for thread in threading.enumerate()]
    print(found.shape[0], names.count("embrief-texts"), flush=True)
threading.Thread(target=work).start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["6", "2"], "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_process_has_threads_of_its_own(qwen3_folder: Path) -> None:
    """gunicorn --preload: the model is in the child's memory, the threads are not."""
    code = f"""
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import torch
torch.set_num_threads(2)
from embrief import Embedder
embedder = Embedder({str(qwen3_folder)!r}, dtype="float32", device="cpu")
texts = ["word " * 60 + str(number) for number in range(6)]
expected = embedder.embed_documents(texts)
child = os.fork()
if child == 0:
    found = embedder.embed_documents(texts)
    embedder.close()
    os._exit(7 if np.allclose(found, expected, atol=1e-5) else 8)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), embedder.embed_documents(texts).shape[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["7", "6"], "")
