"""What users hold: arguments, views, sharing, threads, event loops, pickles, reports."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from embrief import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    ClosedError,
    Embedder,
    InputTooLongError,
    NonFiniteVectorError,
    Output,
    Reranker,
    TruncationWarning,
    UnknownModelError,
)
from embrief.testing import FakeRuntime

HANGS = 600
"""Seconds after which something counts as hanging; a busy machine may take minutes."""


@pytest.fixture
def fake():
    with FakeRuntime() as runtime:
        yield runtime


def test_the_signatures_are_the_published_ones() -> None:
    keywords = list(inspect.signature(Embedder).parameters)
    assert keywords[:14] == [
        "model", "backend", "revision", "dim", "instruction", "task", "normalize", "device", "dtype", "max_tokens",
        "truncate", "batch_tokens", "cache_dir", "local_files_only",
    ]  # fmt: skip
    kinds = {item.kind for name, item in inspect.signature(Embedder).parameters.items() if name != "model"}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    assert Embedder().spec.id == "Qwen/Qwen3-Embedding-0.6B"
    assert Reranker().spec.id == "Qwen/Qwen3-Reranker-0.6B"


def test_constructing_loads_nothing(fake: FakeRuntime) -> None:
    embedder = Embedder(fake.qwen3)
    assert embedder.dim == 64
    assert embedder.space
    assert not embedder.info()["loaded"]
    assert fake.loads == 0
    embedder.load()
    assert fake.loads == 1
    assert embedder.info()["loaded"]


def test_eight_threads_load_once_and_never_enter_the_model_together() -> None:
    with FakeRuntime(delay=0.02) as fake:
        start = threading.Barrier(8)
        results: list[np.ndarray] = []

        def work() -> None:
            start.wait()
            results.append(Embedder(fake.qwen3).embed_query("same"))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 8
        assert fake.loads == 1
        assert not fake.overlapped
        for vector in results:
            np.testing.assert_array_equal(vector, results[0])


def test_facades_of_one_model_share_it(fake: FakeRuntime) -> None:
    one, other = Embedder(fake.qwen3), Embedder(fake.qwen3, dim=16, truncate="silent", device="cpu")
    views = [
        one.with_instruction("x"),
        one.with_dim(8),
        one.with_task("sentence_similarity"),
        copy.deepcopy(one),
    ]
    for embedder in (one, other, *views):
        embedder.embed_query("q")
    assert fake.loads == 1


def test_views_change_one_thing(fake: FakeRuntime) -> None:
    base = Embedder(fake.qwen3, instruction="first")
    base.with_instruction("second").embed_query("q")
    base.embed_query("q")
    base.with_instruction("").embed_query("q")
    base.with_instruction(None).embed_query("q")
    base.with_task("sentence_similarity").embed_query("q")
    assert fake.texts[:3] == ["Instruct: second\nQuery:q", "Instruct: first\nQuery:q", "q"]
    assert fake.texts[3].startswith("Instruct: Given a web search")
    assert fake.texts[4].startswith("Instruct: Retrieve semantically")
    short = base.with_dim(16)
    assert short.dim == 16
    assert short.embed_query("q").shape == (16,)
    assert base.dim == 64
    assert short.with_dim(None).dim == 64
    with pytest.raises(ArgumentError, match=r"dim=7 does not fit .* any of 8\.\.64"):
        base.with_dim(7)
    with pytest.raises(ArgumentError, match="has no task"):
        base.with_task("nothing")


def test_dims(fake: FakeRuntime) -> None:
    full = Embedder(fake.qwen3, normalize=False).embed_documents(["some words", "other words"])
    cut = Embedder(fake.qwen3, dim=16).embed_documents(["some words", "other words"])
    np.testing.assert_allclose(cut, full[:, :16] / np.linalg.norm(full[:, :16], axis=1, keepdims=True), atol=1e-6)
    for dim, match in ((0, "at least 1"), (-3, "at least 1"), (65, "does not fit"), (1024, "does not fit")):
        with pytest.raises(ArgumentError, match=match):
            Embedder(fake.qwen3, dim=dim)
    for dim in (True, 16.0, "16"):
        with pytest.raises(ArgumentTypeError, match="whole number"):
            Embedder(fake.qwen3, dim=dim)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="one of 128, 256, 512, 768"):
        Embedder("google/embeddinggemma-300m", dim=300)
    with pytest.raises(ArgumentError, match="cannot be shortened"):
        Embedder("BAAI/bge-m3", dim=512)


def test_empty_lists_have_the_right_shape(fake: FakeRuntime) -> None:
    embedder, reranker = Embedder(fake.qwen3, dim=32), Reranker(fake.reranker)
    for vectors in (embedder.embed_documents([]), embedder.embed_queries(iter([]))):
        assert vectors.shape == (0, 32)
        assert vectors.dtype == np.float32
    result = embedder.encode([], role="query")
    assert result.token_counts.shape == result.truncated.shape == (0,)
    assert reranker.score("q", []).shape == (0,)
    assert reranker.rerank("q", []) == []
    assert fake.loads == 0


def test_wrong_types_are_named_with_their_index(fake: FakeRuntime) -> None:
    embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
    with pytest.raises(ArgumentTypeError, match="not one str"):
        embedder.embed_documents("one text")
    with pytest.raises(ArgumentTypeError, match="not NoneType"):
        embedder.embed_documents(None)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match=r"texts\[1\] is NoneType") as caught:
        embedder.embed_documents(["a", None])  # type: ignore[list-item]
    assert caught.value.index == 1
    with pytest.raises(ArgumentTypeError, match="one string, not list"):
        embedder.embed_query(["a"])  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="not one str"):
        reranker.rerank("q", "one text")
    with pytest.raises(ArgumentTypeError, match=r"documents\[0\] is int"):
        reranker.rerank("q", [1])  # type: ignore[list-item]
    with pytest.raises(ArgumentTypeError, match="one string, not NoneType"):
        reranker.rerank(None, ["d"])  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="not one string"):
        Embedder(fake.gemma).embed_documents(["a"], titles="T")
    with pytest.raises(ArgumentError, match="1 titles for 2 documents"):
        Embedder(fake.gemma).embed_documents(["a", "b"], titles=["T"])
    with pytest.raises(ArgumentTypeError, match=r"titles\[1\]"):
        Embedder(fake.gemma).embed_documents(["a", "b"], titles=["T", 3])  # type: ignore[list-item]
    with pytest.raises(ArgumentTypeError, match="no keyword 'instructions'; did you mean instruction"):
        Embedder(fake.qwen3, instructions="typo")  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="no keyword 'colour'; it has backend, revision"):
        Reranker(fake.reranker, colour=3)  # type: ignore[arg-type]
    assert fake.loads == 0, "bad input is refused before work starts"


@pytest.mark.parametrize(
    ("keyword", "value", "error"),
    [
        ("device", "gpu", ArgumentError),
        ("dtype", "bf16", ArgumentError),
        ("truncate", "yes", ArgumentError),
        ("max_tokens", 0, ArgumentError),
        ("max_tokens", 10**6, ArgumentError),
        ("batch_tokens", "many", ArgumentTypeError),
        ("backend", "vllm", ArgumentError),
        ("backend", "hash", ArgumentError),
        ("instruction", 3, ArgumentTypeError),
        ("task", "none such", ArgumentError),
        ("like", "Qwen/Qwen3-Embedding-4B", ArgumentError),
        ("trust_remote_code", True, ArgumentError),
    ],
)
def test_bad_constructor_arguments_are_refused_at_once(keyword: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        Embedder("Qwen/Qwen3-Embedding-0.6B", **{keyword: value})  # type: ignore[arg-type]
    message = str(caught.value)
    assert keyword in message or "backend" in message or "hold" in message
    assert str(value) in message or type(value).__name__ in message


def test_banned_formats_are_refused() -> None:
    for model in ("google/embeddinggemma-300m", "Qwen/Qwen3-Embedding-8B"):
        with pytest.raises(ArgumentError, match="wrong results in float16"):
            Embedder(model, dtype="float16")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("google/embedding-gemma-300m", "google/embeddinggemma-300m"),
        ("google/gemma-embedding-base", "google/embeddinggemma-300m"),
        ("Qwen/Qwen3-Embedding", "needs a size"),
        ("qwen3-next", "text generator"),
        ("qwen2.5-embed", "no Qwen2.5 embedding"),
        ("nomic-ai/nomic-embed-text-v2", "ends in '-moe'"),
        ("microsoft/codebert-base", "never trained for similarity"),
        ("Qwen/Qwen3-Embeding-0.6B", "did you mean 'Qwen/Qwen3-Embedding-0.6B'"),
        ("Qwen3-Embeding-0.6B", "did you mean 'Qwen/Qwen3-Embedding-0.6B'"),
        ("embeddinggemma", "did you mean 'google/embeddinggemma-2' or 'google/embeddinggemma-300m'"),
        ("./no/such/folder", "no model folder"),
        ("a/b/c", "no model has the name"),
        ("", "name is empty"),
    ],
)
def test_wrong_names_say_why_and_name_the_right_one(name: str, match: str) -> None:
    with pytest.raises((UnknownModelError, ArgumentError), match=match):
        Embedder(name)


def test_the_other_kind_of_model_is_refused() -> None:
    with pytest.raises(ArgumentError, match="use Reranker"):
        Embedder("Qwen/Qwen3-Reranker-0.6B")
    with pytest.raises(ArgumentError, match="use Embedder"):
        Reranker("Qwen/Qwen3-Embedding-0.6B")


def test_names_do_not_depend_on_case() -> None:
    assert Embedder("qwen/qwen3-embedding-0.6b").spec.id == "Qwen/Qwen3-Embedding-0.6B"


def test_equal_texts_are_computed_once_and_come_back_in_order(fake: FakeRuntime) -> None:
    texts = ["a", "b", "a", "c", "b"]
    vectors = Embedder(fake.qwen3).embed_documents(texts)
    assert fake.texts == ["a", "b", "c"]
    np.testing.assert_array_equal(vectors[0], vectors[2])
    np.testing.assert_array_equal(vectors[1], vectors[4])
    assert not np.allclose(vectors[0], vectors[1])


def test_the_same_text_as_query_and_as_document_differs(fake: FakeRuntime) -> None:
    embedder = Embedder(fake.qwen3)
    query, document = embedder.embed_query("Paris"), embedder.embed_documents(["Paris"])[0]
    assert float(query @ document) < 0.99


class Nan:
    """A model whose third text is not finite."""

    def run(self, texts, options):
        vectors = np.ones((len(texts), 64), np.float32)
        vectors[[index for index, item in enumerate(texts) if "bad" in item.body], 5] = np.nan
        return Output.dense(vectors, np.ones(len(texts), np.int64), np.zeros(len(texts), bool))

    def close(self) -> None: ...


def test_nan_is_an_error_with_the_callers_index(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "_load", lambda model: Nan())
    embedder = Embedder(fake.qwen3)
    with pytest.raises(NonFiniteVectorError, match="index 3") as caught:
        embedder.embed_documents(["a", "a", "b", "bad text"])
    assert caught.value.index == 3
    assert "bad text" not in str(caught.value), "texts stay out of messages"
    assert embedder.embed_documents(["a"]).shape == (1, 64)


class Short:
    def run(self, texts, options):
        return Output.dense(
            np.ones((len(texts), 8), np.float32), np.ones(len(texts), np.int64), np.zeros(len(texts), bool)
        )

    def close(self) -> None: ...


def test_a_runtime_that_returns_too_little_is_an_error(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "_load", lambda model: Short())
    with pytest.raises(BackendError, match=r"shape \(1, 8\)"):
        Embedder(fake.qwen3).embed_documents(["a"])


def test_a_failed_load_can_be_tried_again(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    good = fake._load

    def fail(model):
        raise OSError("disk trouble")

    embedder = Embedder(fake.qwen3)
    monkeypatch.setattr(fake, "_load", fail)
    with pytest.raises(OSError, match="disk trouble"):
        embedder.embed_query("q")
    monkeypatch.setattr(fake, "_load", good)
    assert embedder.embed_query("q").shape == (64,)


async def test_async_twins_give_the_same_and_leave_the_loop_alone() -> None:
    loop = asyncio.get_running_loop()
    turned: list[bool] = []

    def until_the_loop_turns(texts: object) -> None:
        event = threading.Event()
        loop.call_soon_threadsafe(event.set)
        turned.append(event.wait(HANGS))

    with FakeRuntime(fault=until_the_loop_turns) as fake:
        embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
        query, queries, documents, result, scores, ranked, items = await asyncio.gather(
            embedder.aembed_query("red planet"),
            embedder.aembed_queries(["red planet"]),
            embedder.aembed_documents(["red planet"]),
            embedder.aencode(["red planet"], role="query", instruction="x"),
            reranker.ascore("red planet", ["red planet", "x"]),
            reranker.arerank("red planet", ["x", "red planet"], top_n=1),
            reranker.arerank_items("red planet", [{"t": "x"}, {"t": "red planet"}], text=lambda item: item["t"]),
        )
        fake.fault = None  # the calls from here on hold the loop up
        assert turned
        assert all(turned), "a call held the event loop up while the model ran"
        assert threading.main_thread().name not in fake.threads
        np.testing.assert_array_equal(query, embedder.embed_query("red planet"))
        np.testing.assert_array_equal(queries[0], query)
        np.testing.assert_array_equal(documents, embedder.embed_documents(["red planet"]))
        np.testing.assert_array_equal(result.vectors[0], embedder.embed_query("red planet", instruction="x"))
        assert scores[0] > scores[1]
        assert ranked[0].index == 1
        assert items[0].item == {"t": "red planet"}
        assert not fake.overlapped


async def test_cancelled_work_that_has_not_started_is_dropped() -> None:
    with FakeRuntime(delay=0.2) as fake:
        embedder = Embedder(fake.qwen3)
        first = asyncio.create_task(embedder.aembed_query("first"))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(embedder.aembed_query("second"))
        await asyncio.sleep(0.02)
        second.cancel()
        await first
        await asyncio.sleep(0.3)
        assert [text.rpartition(":")[2] for text in fake.texts] == ["first"]


def test_pickle_and_copies_carry_configuration_only(fake: FakeRuntime) -> None:
    embedder = Embedder(fake.qwen3, dim=16, instruction="x", truncate="silent").load()
    reranker = Reranker(fake.reranker, instruction="y").load()
    for facade in (embedder, reranker):
        data = pickle.dumps(facade)
        assert len(data) < 1000
        for twin in (pickle.loads(data), copy.copy(facade), copy.deepcopy(facade)):
            assert twin.settings == facade.settings
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(embedder)).embed_query("q"), embedder.embed_query("q"))
    assert fake.loads == 2


def test_a_pickle_works_in_a_new_process() -> None:
    data = pickle.dumps(Embedder("embrief/hash", dim=32).load())
    code = "import pickle,sys; print(pickle.loads(sys.stdin.buffer.read()).embed_query('red').tolist()[:4])"
    out = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True).stdout
    assert out.decode().strip() == str(Embedder("embrief/hash", dim=32).embed_query("red").tolist()[:4])


def test_closing(fake: FakeRuntime) -> None:
    closed: list[int] = []
    freed = threading.Event()
    load = fake._load

    def watch(model):
        model.close = lambda: (closed.append(1), freed.set())
        return load(model)

    fake._load = watch  # type: ignore[method-assign]
    first, second = Embedder(fake.qwen3), Embedder(fake.qwen3, dim=16)
    first.embed_query("q")
    second.embed_query("q")
    with first:
        pass
    gc.collect()
    assert not closed, "another facade still holds the model"
    assert second.embed_query("q").shape == (16,)
    with pytest.raises(ClosedError, match="is closed"):
        first.embed_query("q")
    second.close()
    gc.collect()
    # The worker frees it: whoever lets go of a model does not wait for that.
    assert freed.wait(30)
    freed.clear()
    third = Embedder(fake.qwen3)
    third.embed_query("q")
    assert closed == [1], "the new model is not freed"
    assert fake.loads == 2
    del third
    gc.collect()
    assert freed.wait(30)
    assert closed == [1, 1], "a facade that is simply dropped frees the model too"


def test_repr_shows_what_was_given() -> None:
    assert repr(Embedder("embrief/hash", dim=32)) == "Embedder('embrief/hash', dim=32)"


def test_rerank_order_ties_and_top_n(fake: FakeRuntime) -> None:
    reranker = Reranker(fake.reranker)
    ranked = reranker.rerank("red planet", ["x", "red", "y", "red planet", "z"])
    assert [item.index for item in ranked] == [3, 1, 0, 2, 4], "ties keep input order"
    assert all(0 <= item.score <= 1 and type(item.score) is float for item in ranked)
    # Unstable sorts keep the order of a few equal items by chance.
    many = reranker.rerank("red planet", ["red thing" if number % 3 else "blue thing" for number in range(300)])
    assert [item.index for item in many] == sorted(range(300), key=lambda number: number % 3 == 0)
    assert [item.index for item in reranker.rerank("red planet", ["x", "red", "red planet"], top_n=2)] == [
        2,
        1,
    ]
    assert len(reranker.rerank("q", ["a"], top_n=10)) == 1
    for top_n in (0, -1):
        with pytest.raises(ArgumentError, match="top_n"):
            reranker.rerank("q", ["a"], top_n=top_n)


def test_pairs_may_have_different_queries(fake: FakeRuntime) -> None:
    reranker = Reranker(fake.reranker)
    pairs = [("red planet", "red"), ("blue sea", "red"), ("blue sea", "blue sea")]
    expected = [float(reranker.score(query, [document])[0]) for query, document in pairs]
    fake.runs.clear()
    assert reranker.score_pairs(pairs).tolist() == expected
    assert fake.runs == [3], "pairs share a run"
    assert reranker.score_pairs([]).shape == (0,)
    for wrong in ("text", [("a", "b"), "ab"], [("a", None)], [("a", "b", "c")], None):
        with pytest.raises(ArgumentTypeError):
            reranker.score_pairs(wrong)  # type: ignore[arg-type]


async def test_a_load_under_way_does_not_block_the_loop_for_a_second_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeRuntime() as fake:
        embedder = Embedder(fake.qwen3)
        acquire = type(embedder._shared)._acquire
        started, downloaded = threading.Event(), threading.Event()
        waited: list[bool] = []

        def slow(shared):
            started.set()
            waited.append(downloaded.wait(HANGS))
            return acquire(shared)

        monkeypatch.setattr(type(embedder._shared), "_acquire", slow)
        first = asyncio.create_task(embedder.aembed_query("a"))
        while not started.is_set():
            await asyncio.sleep(0.01)
        second = asyncio.create_task(embedder.aembed_query("b"))
        await asyncio.sleep(0.01)
        downloaded.set()  # reached while the load is under way, or the wait above runs out
        await asyncio.gather(first, second)
        assert all(waited)


def test_the_hash_model_keeps_its_limit() -> None:
    limited = Embedder("embrief/hash", max_tokens=3)
    with pytest.warns(TruncationWarning, match="index 1") as record:
        result = limited.encode(["a b c", "a b c d"], role="document")
    assert record[0].filename == __file__, "the warning points at the caller's line"
    assert result.truncated.tolist() == [False, True]
    np.testing.assert_array_equal(result.vectors[0], result.vectors[1])
    with pytest.raises(InputTooLongError, match="index 1 has 4 tokens, the limit is 3"):
        Embedder("embrief/hash", max_tokens=3, truncate="error").embed_documents(["a", "a b c d"])


def test_rerank_items_returns_the_callers_objects(fake: FakeRuntime) -> None:
    items = [{"text": "x"}, {"text": "red planet"}]
    ranked = Reranker(fake.reranker).rerank_items("red planet", items, text=lambda item: item["text"])
    assert ranked[0].item is items[1]
    assert ranked[0].index == 1
    assert items == [{"text": "x"}, {"text": "red planet"}]


def test_progress_is_on_stderr_only(fake: FakeRuntime, capsys: pytest.CaptureFixture[str]) -> None:
    Embedder(fake.qwen3).embed_documents(["a", "b"], progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    Embedder(fake.qwen3).embed_documents(["a", "b"])
    assert capsys.readouterr() == ("", "")


def test_info_tells_what_is_used(fake: FakeRuntime) -> None:
    info = Embedder(fake.qwen3, instruction="Find").info()
    assert info["query_prompt"] == "Instruct: Find\nQuery:"
    assert info["prompts_from"] == "record"
    assert info["backend"] == fake._name
    assert info["dim"] == 64
    assert info["device"] == "cpu"
    assert Reranker(fake.reranker).info()["instruction"].startswith("Given a web search")


def test_a_child_process_gets_its_own_locks_and_threads() -> None:
    """gunicorn --preload and multiprocessing's fork: the parent's threads are gone, its locks may be held."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    code = (
        "import asyncio, os, threading, time, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from embrief import Embedder\nfrom embrief.testing import FakeRuntime\n"
        "with FakeRuntime(delay=0.3) as fake:\n"
        "    embedder = Embedder(fake.qwen3)\n"
        "    asyncio.run(embedder.aembed_query('parent'))\n"
        "    busy = threading.Thread(target=embedder.embed_query, args=('held',)); busy.start(); time.sleep(0.1)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        embedder.embed_query('child'); asyncio.run(embedder.aembed_query('child')); os._exit(7)\n"
        "    busy.join()\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGS)
    assert done.stdout.strip() == "7", done.stderr


def test_a_call_under_way_in_a_daemon_thread_does_not_hold_up_the_exit() -> None:
    code = (
        "import threading, time\nfrom embrief import Embedder\nfrom embrief.testing import FakeRuntime\n"
        "running = threading.Event()\n"
        "fake = FakeRuntime(fault=lambda texts: (running.set(), time.sleep(86400))).__enter__()\n"
        "embedder = Embedder(fake.qwen3)\n"
        "threading.Thread(target=embedder.embed_query, args=('long',), daemon=True).start(); running.wait()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANGS)


def test_closing_while_a_call_runs_lets_it_finish() -> None:
    with FakeRuntime(delay=0.3) as fake:
        embedder = Embedder(fake.qwen3)
        results: list[np.ndarray] = []
        thread = threading.Thread(target=lambda: results.append(embedder.embed_query("q")))
        thread.start()
        time.sleep(0.1)
        embedder.close()
        thread.join()
        assert results[0].shape == (64,)


@pytest.mark.parametrize(
    "name", ["sentence-transformers/all-MiniLM-L12-v2", "Qwen/Qwen3-VL-Reranker-4B", "Qwen/Qwen3-Embedding-0.6B-GGUF"]
)
def test_a_name_close_to_a_recorded_one_may_be_a_model_of_its_own(name: str) -> None:
    assert Embedder(name).settings.model == name


def test_text_that_is_no_unicode_is_refused_with_its_index(fake: FakeRuntime) -> None:
    with pytest.raises(ArgumentError, match=r"texts\[1\] holds half a surrogate pair at position 2") as caught:
        Embedder(fake.qwen3).embed_documents(["ok", "ab\ud800"])
    assert caught.value.index == 1
    with pytest.raises(ArgumentError, match="surrogate"):
        Reranker(fake.reranker).score("\udcff", ["d"])


def test_what_is_no_flag_is_refused() -> None:
    for keyword in ("normalize", "local_files_only", "trust_remote_code"):
        with pytest.raises(ArgumentTypeError, match=f"{keyword} is True or False, not 'false'"):
            Embedder("embrief/hash", **{keyword: "false"})


def test_the_hash_model_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ArgumentError, match="CPU in float32 only"):
        Embedder("embrief/hash", device="cuda:7").embed_query("q")
    with pytest.raises(ArgumentError, match="has no files there"):
        Embedder("embrief/hash", revision="x")


def test_several_widths_of_one_run(fake: FakeRuntime) -> None:
    embedder = Embedder(fake.gemma)
    texts = ["red planet", "blue sea", "red planet"]
    results = embedder.encode_dims(texts, [64, 16, 8], role="document", titles=["T", None, None])
    assert fake.runs == [3]
    for dim, result in results.items():
        view = embedder.with_dim(dim)
        np.testing.assert_array_equal(result.vectors, view.embed_documents(texts, titles=["T", None, None]))
        assert result.space == view.space
    assert embedder.encode_dims([], [8], role="query")[8].vectors.shape == (0, 8)
    with pytest.raises(ArgumentError, match="dim=7"):
        embedder.encode_dims(texts, [7], role="query")
    lexical = Embedder("embrief/hash")
    hashed = lexical.encode_dims(texts, [32, 1024], role="document")[32].vectors
    np.testing.assert_array_equal(hashed, lexical.with_dim(32).embed_documents(texts))


def test_what_is_settled_once_is_computed_once_and_holds_up_no_other_instance() -> None:
    from embrief.serving.resolving import settled

    class Slow:
        def __init__(self) -> None:
            self._lock = threading.RLock()
            self.started, self.go_on = threading.Event(), threading.Event()
            self.calls, self.waited = 0, True

        @settled
        def value(self) -> int:
            self.calls += 1
            self.started.set()
            self.waited = self.go_on.wait(HANGS)
            return 7

    slow, quick = Slow(), Slow()
    threads = [threading.Thread(target=lambda: slow.value) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert slow.started.wait(HANGS)
    quick.go_on.set()
    assert quick.value == 7
    slow.go_on.set()  # reached while the other computes, or its wait runs out
    for thread in threads:
        thread.join()
    assert (slow.value, slow.calls, slow.waited) == (7, 1, True)


@pytest.mark.parametrize("device", ["cuda:0,1", "cuda:0,cuda:1", ["cuda:0", "cuda:1"]])
def test_several_devices_are_refused_with_the_reason(device: object) -> None:
    with pytest.raises(ArgumentError, match="names several, and a model runs on one; start a process for each"):
        Embedder("embrief/hash", device=device)  # type: ignore[arg-type] # the mistake
