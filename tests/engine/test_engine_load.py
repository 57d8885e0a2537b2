"""The engine under load: many callers, faults, cancelling, long texts in bounded memory, copies and closing."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import random
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embrief import BackendError, Embedder, ItemFailedError, Reranker

pytest.importorskip("torch")

WAIT = 30
INSTRUCTIONS = [None, "", "Find code", "Find passages that answer the question in full", "9" * 300]


def words(number: int) -> str:
    return f"text {number} " + "and so on " * (number % 13)


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


class Faults:
    """Stands in front of the layers: may hold the first run, and fail for batches that contain a token."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from embrief.engine.stack import Stack
        from embrief.engine.threads import Threads

        # Whole batches are counted, however many threads this machine has.
        monkeypatch.setattr(Threads, "share", lambda threads, sizes: [list(range(len(sizes)))])

        self.held, self.release = threading.Event(), threading.Event()
        self.release.set()
        self.check: Callable[[list[int], int], None] = lambda ids, rows: None
        self.runs: list[int] = []
        run = Stack.run

        def guarded(stack, batch, features=None):
            self.held.set()
            assert self.release.wait(WAIT)
            self.runs.append(len(batch.order))
            self.check(batch.ids.tolist(), len(batch.order))
            return run(stack, batch, features)

        monkeypatch.setattr(Stack, "run", guarded)

    def merged(self, facade: Embedder | Reranker, calls: list[Callable[[], object]]) -> list[object]:
        """Run calls in threads of their own such that they share batches; return results or errors."""
        self.held.clear()
        self.release.clear()
        first = in_thread(lambda: facade.embed_documents(["held"]))
        assert self.held.wait(WAIT)
        results: list[object] = [None] * len(calls)

        def note(place: int) -> None:
            try:
                results[place] = calls[place]()
            except Exception as error:
                results[place] = error

        threads = [in_thread(lambda place=place: note(place)) for place in range(len(calls))]
        inbox, end = facade._shared.model._inbox, time.monotonic() + WAIT
        while inbox.qsize() < len(calls):
            assert time.monotonic() < end
            time.sleep(0.001)
        self.release.set()
        for thread in [first, *threads]:
            thread.join(WAIT)
        return results


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


@pytest.fixture
def folder(qwen3_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen3_folder, tmp_path / "model"))


@pytest.fixture
def embedder(folder: Path) -> Embedder:
    return Embedder(folder, dtype="float32", device="cpu")


async def test_threads_and_coroutines_with_mixed_work_get_what_single_calls_get(
    embedder: Embedder, reranker_folder: Path
) -> None:
    reranker = Reranker(reranker_folder, dtype="float32", device="cpu")
    queries = {
        (number, instruction): embedder.embed_query(words(number), instruction=instruction)
        for number in range(20)
        for instruction in INSTRUCTIONS
    }
    documents = [embedder.embed_documents([words(number)])[0] for number in range(40)]
    scores = [reranker.score(words(number % 3), [words(number)])[0] for number in range(40)]

    def in_a_thread(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(6):
            asked = [chance.randrange(20) for _ in range(chance.randrange(1, 12))]
            instruction = chance.choice(INSTRUCTIONS)
            found = embedder.embed_queries([words(number) for number in asked], instruction=instruction)
            np.testing.assert_allclose(found, [queries[number, instruction] for number in asked], atol=1e-5)
            places = [chance.randrange(40) for _ in range(8)]
            found = embedder.embed_documents([words(number) for number in places])
            np.testing.assert_allclose(found, [documents[number] for number in places], atol=1e-5)
            found = reranker.score_pairs([(words(number % 3), words(number)) for number in places])
            np.testing.assert_allclose(found, [scores[number] for number in places], atol=1e-5)

    async def on_the_loop(number: int) -> None:
        instruction = INSTRUCTIONS[number % len(INSTRUCTIONS)]
        if number % 3 == 0:
            found = await embedder.aembed_query(words(number % 20), instruction=instruction)
            np.testing.assert_allclose(found, queries[number % 20, instruction], atol=1e-5)
        elif number % 3 == 1:
            found = await embedder.aembed_documents([words(number % 40), words(0)])
            np.testing.assert_allclose(found, [documents[number % 40], documents[0]], atol=1e-5)
        else:
            place = number % 40
            found = await reranker.ascore(words(place % 3), [words(place), words(place)])
            np.testing.assert_allclose(found, [scores[place]] * 2, atol=1e-5)

    threads = [asyncio.to_thread(in_a_thread, seed) for seed in range(8)]
    await asyncio.gather(*threads, *(on_the_loop(number) for number in range(200)))


async def test_a_storm_of_cancellations_leaves_the_others_right(embedder: Embedder) -> None:
    expected = embedder.embed_documents([words(number) for number in range(60)])
    chance = random.Random(0)
    for _ in range(3):
        tasks = [asyncio.create_task(embedder.aembed_documents([words(number)])) for number in range(60)]
        for task in chance.sample(tasks, 30):
            await asyncio.sleep(0)
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [(place, item) for place, item in enumerate(found) if not isinstance(item, BaseException)]
        assert len(kept) >= 30
        for place, item in kept:
            np.testing.assert_allclose(item[0], expected[place], atol=1e-5)
        assert all(isinstance(item, asyncio.CancelledError) for item in found if isinstance(item, BaseException))
    np.testing.assert_allclose(embedder.embed_documents([words(7)])[0], expected[7], atol=1e-5)


def test_a_fault_of_one_text_fails_its_call_alone(folder: Path, embedder: Embedder, faults: Faults) -> None:
    from tokenizers import Tokenizer

    mark = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<think>")
    good = [embedder.embed_documents([words(number)])[0] for number in range(6)]
    faults.runs.clear()

    def check(ids: list[int], rows: int) -> None:
        if mark in ids:
            raise RuntimeError("a kernel failed")

    faults.check = check
    calls: list[Callable[[], object]] = [
        lambda: embedder.embed_documents([words(0), words(1)]),
        lambda: embedder.embed_documents([words(2), words(3), "<think>", words(4)]),
        lambda: embedder.embed_documents([words(5)]),
    ]
    first, failed, last = faults.merged(embedder, calls)
    assert max(faults.runs) == 7, "the calls did not share a batch, so this proves nothing"
    np.testing.assert_allclose(first, good[:2], atol=1e-5)
    np.testing.assert_allclose(last, good[5:], atol=1e-5)
    assert isinstance(failed, ItemFailedError)
    assert failed.index == 2
    np.testing.assert_allclose(embedder.embed_documents([words(3)]), [good[3]], atol=1e-5)


def test_memory_that_is_short_once_halves_the_batches(embedder: Embedder, faults: Faults) -> None:
    texts = [words(number) for number in range(16)]
    expected = embedder.embed_queries(texts)
    before = embedder.info()["batch_tokens"]
    faults.runs.clear()

    def check(ids: list[int], rows: int) -> None:
        if rows > 8:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    faults.check = check
    np.testing.assert_allclose(embedder.embed_queries(texts), expected, atol=1e-5)
    assert faults.runs == [16, 8, 8]
    assert embedder.info()["batch_tokens"] < before


def test_a_fault_while_a_prompt_is_computed_leaves_nothing_behind(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embrief.engine.stack import Stack

    def fails(stack, ids):
        raise RuntimeError("a kernel failed")

    embed = Stack._embed
    monkeypatch.setattr(Stack, "_embed", fails)
    with pytest.raises(BackendError):
        embedder.embed_queries(["a", "b"])
    monkeypatch.setattr(Stack, "_embed", embed)
    found = embedder.embed_queries(["a", "b"])
    fresh = Embedder(embedder.settings.model, dtype="float32", device="cpu", batch_tokens=1)
    np.testing.assert_allclose(fresh.embed_queries(["b", "a"])[::-1], found, atol=1e-5)


def test_copies_and_pickles_share_the_model_and_its_vectors(embedder: Embedder, reranker_folder: Path) -> None:
    reranker = Reranker(reranker_folder, dtype="float32", device="cpu")
    vector, scores = embedder.embed_query("a"), reranker.score("a", ["b", "c"])
    for duplicate in (copy.copy, copy.deepcopy, lambda facade: pickle.loads(pickle.dumps(facade))):
        again = duplicate(embedder)
        assert again.info()["loaded"]
        np.testing.assert_array_equal(again.embed_query("a"), vector)
        assert again.fingerprint == embedder.fingerprint
        np.testing.assert_array_equal(duplicate(reranker).score("a", ["b", "c"]), scores)


def test_closing_frees_the_weights_and_the_prefixes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embrief.engine.prefix import PrefixCache
    from embrief.engine.stack import Stack

    made: list[weakref.ref[object]] = []
    for kind in (Stack, PrefixCache):

        def noted(made_now, *arguments, start=kind.__init__, **options):
            made.append(weakref.ref(made_now))
            start(made_now, *arguments, **options)

        monkeypatch.setattr(kind, "__init__", noted)
    embedder = Embedder(folder, dtype="float32", device="cpu")
    vector = embedder.embed_query("a")
    twin = embedder.with_dim(40)
    embedder.close()
    assert twin.embed_query("a").shape == (40,)
    thread = twin._shared.model._thread
    twin.close()
    del embedder, twin
    gc.collect()
    thread.join(WAIT)
    gc.collect()
    assert [item() for item in made] == [None, None]
    again = Embedder(folder, dtype="float32", device="cpu")
    np.testing.assert_array_equal(again.embed_query("a"), vector)
    assert len(made) == 4


LONG = """
import resource, sys, time
import numpy as np
from embrief import Embedder
embedder = Embedder(sys.argv[1], dtype="float32", device="cpu", max_tokens=40000)
short = ["short", "also short " * 20]
alone = embedder.embed_documents(short)
digits = "".join(map(str, np.random.default_rng(0).integers(0, 10, 12000)))
unit = 1024 if sys.platform == "linux" else 1
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = embedder.encode([short[0], digits, short[1]], role="document")
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 2**20
np.testing.assert_allclose(result.vectors[[0, 2]], alone, atol=1e-5)
print(result.token_counts[1], grown)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read with the resource module")
@pytest.mark.parametrize("kind", ["qwen3", "gemma"])
def test_a_very_long_text_beside_short_ones_in_bounded_memory(
    request: pytest.FixtureRequest, other_folder: Path, kind: str
) -> None:
    """All attention scores of one layer at once would be 1.7 to 2.3 GB."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(request.getfixturevalue(f"{kind}_folder"), other_folder)
    for file, changes in (
        ("config.json", {"max_position_embeddings": 40960, "num_hidden_layers": 2}),
        ("tokenizer_config.json", {"model_max_length": 40960}),
        ("sentence_bert_config.json", {"max_seq_length": 40960}),
    ):
        if (other_folder / file).is_file():
            data = json.loads((other_folder / file).read_text("utf-8"))
            if "layer_types" in data:
                data["layer_types"] = data["layer_types"][-2:]
            (other_folder / file).write_text(json.dumps({**data, **changes}), "utf-8")
    weights = other_folder / "model.safetensors"
    tensors = load_file(weights)
    few = {name: tensors[name] for name in tensors if not name.startswith("layers.") or name[7] in "01"}
    save_file(few, weights, {"format": "pt"})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LONG, str(other_folder)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    tokens, grown = done.stdout.split()
    assert int(tokens) > 12000
    assert float(grown) < 500


PREFIXED = """
import resource, sys
from embrief import Embedder
embedder = Embedder(sys.argv[1], dtype="float32", device="cpu", instruction="7" * 1900, batch_tokens=4096)
embedder.embed_queries(["0", "1"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
embedder.embed_queries([str(number) for number in range(512)])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux reports it")
def test_a_long_prefix_before_many_short_queries_in_bounded_memory(qwen3_folder: Path, other_folder: Path) -> None:
    """Its keys and values repeated for each query of the batch at once would be half a gigabyte even here."""
    shutil.copytree(qwen3_folder, other_folder)
    config = json.loads((other_folder / "config.json").read_text("utf-8"))
    (other_folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREFIXED, str(other_folder)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 200
