"""What counts as texts, numbers and Unicode; memory of large calls; streams of documents."""

from __future__ import annotations

import array
import asyncio
import collections
import io
import itertools
import json
import pickle
import shutil
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from embrief import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    Embedder,
    Image,
    InputTooLongError,
    ItemFailedError,
    ModelMismatchError,
    NonFiniteVectorError,
    Reranker,
    TruncationWarning,
)
from embrief.facades import arguments
from embrief.facts import vectors as core_vectors
from embrief.testing import FakeRuntime

HALF = "half \ud800 a pair"
NO_LISTS = {
    "string": ("a b", r"\[text\]|\[document\]|\[item\]|\[title\]|\[pair\]|one string"),
    "bytes": (b"a b", "not bytes"),
    "bytearray": (bytearray(b"a"), "not bytearray"),
    "memoryview": (memoryview(b"a"), "not memoryview"),
    "mapping": ({"a": "b"}, r"\.values\(\)"),
    "ordered mapping": (collections.OrderedDict(a="b"), r"\.values\(\)"),
    "counter": (collections.Counter("ab"), r"\.values\(\)"),
    "set": ({"a", "b"}, "sorted"),
    "frozen set": (frozenset("ab"), "sorted"),
    "items view": ({"a": "b"}.items(), "sorted"),
    "open file": (io.StringIO("a\nb\n"), "open file"),
    "temporary file": (tempfile.SpooledTemporaryFile("w+"), "open file"),  # noqa: SIM115 - never on a disk
    "pandas table": (pd.DataFrame({"text": ["a"], "title": ["b"]}), r"\['text'\]"),
    "polars table": (pl.DataFrame({"text": ["a"]}), r"\['text'\]"),
    "arrow table": (pa.table({"text": ["a"]}), r"\['text'\]"),
    "array of two dimensions": (np.array([["a", "b"]]), "table"),
    "empty array of two dimensions": (np.empty((0, 3)), "table"),
    "array without dimensions": (np.array("a"), r"\.item\(\)"),
    "object array without dimensions": (np.array("a", object), r"\.item\(\)"),
    "tensor without dimensions": (torch.tensor(1), r"\.item\(\)"),
    "number": (3, "not int"),
    "none": (None, "not NoneType"),
    "path": (Path("file.txt"), "not PosixPath"),
    "class": (str, "not type"),
}
LISTS = {
    "tuple": lambda items: tuple(items),
    "generator": lambda items: (item for item in items),
    "map": lambda items: map(str, items),
    "deque": collections.deque,
    "values of a mapping": lambda items: dict(enumerate(items)).values(),
    "numpy strings": np.array,
    "numpy objects": lambda items: np.array(items, object),
    "pandas column": lambda items: pd.DataFrame({"text": items}, index=range(5, 5 + len(items)))["text"],
    "pandas strings": lambda items: pd.Series(items, dtype="string"),
    "pandas index": pd.Index,
    "polars column": pl.Series,
}
NO_STRINGS = {
    "None": (None, "missing value"),
    "NaN": (float("nan"), "missing value"),
    "numpy's NaN": (np.float32("nan"), "missing value"),
    "pandas' NA": (pd.NA, "missing value"),
    "pandas' NaT": (pd.NaT, "missing value"),
    "masked": (np.ma.masked, "missing value"),
    "bytes": (b"a", "decode"),
    "numpy bytes": (np.bytes_(b"a"), "decode"),
    "array without dimensions": (np.array("a"), "item"),
    "number": (1.5, "must be a string"),
    "list": (["a"], "must be a string"),
}


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


@pytest.mark.parametrize("kind", NO_LISTS)
def test_what_has_no_texts_in_order_is_refused_with_the_remedy(fake: FakeRuntime, kind: str) -> None:
    value, remedy = NO_LISTS[kind]
    embedder, gemma, reranker = Embedder(fake.qwen3), Embedder(fake.gemma), Reranker(fake.reranker)
    for call in (
        embedder.embed_documents,
        embedder.embed_queries,
        embedder.iter_documents,
        embedder.aiter_documents,
        lambda texts: embedder.encode(texts, role="query"),
        lambda texts: asyncio.run(embedder.aembed_documents(texts)),
        lambda dims: embedder.encode_dims(["a"], dims, role="document"),
        lambda texts: reranker.score("q", texts),
        lambda texts: reranker.rerank("q", texts),
        lambda items: reranker.rerank_items("q", items, text=str),
        lambda pairs: reranker.score_pairs(pairs),
    ):
        with pytest.raises(ArgumentTypeError, match=remedy):
            call(value)
    if value is not None:
        with pytest.raises(ArgumentTypeError, match=remedy):
            gemma.embed_documents(["a", "b"], titles=value)
    assert fake.loads == 0


@pytest.mark.parametrize("kind", LISTS)
def test_everything_that_has_an_order_is_a_list_of_texts(fake: FakeRuntime, kind: str) -> None:
    texts = ["red planet", "blue planet", "red planet"]
    embedder, gemma = Embedder(fake.qwen3), Embedder(fake.gemma)
    expected = embedder.embed_documents(texts)
    np.testing.assert_array_equal(embedder.embed_documents(LISTS[kind](texts)), expected)
    np.testing.assert_array_equal(list(embedder.iter_documents(LISTS[kind](texts))), expected)
    np.testing.assert_array_equal(
        gemma.embed_documents(texts, titles=LISTS[kind](texts)), gemma.embed_documents(texts, titles=texts)
    )
    assert [item.index for item in Reranker(fake.reranker).rerank("blue", LISTS[kind](texts))] == [1, 0, 2]


@pytest.mark.parametrize("kind", NO_STRINGS)
def test_what_is_no_string_is_refused_with_its_index_and_the_remedy(fake: FakeRuntime, kind: str) -> None:
    value, remedy = NO_STRINGS[kind]
    embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
    for call in (embedder.embed_documents, embedder.embed_queries, lambda texts: reranker.rerank("q", texts)):
        with pytest.raises(ArgumentTypeError, match=rf"\[2\] is .*{remedy}") as caught:
            call(["a", "b", value])
        assert caught.value.index == 2
    for call in (embedder.embed_query, lambda text: reranker.rerank(text, ["d"])):
        with pytest.raises(ArgumentTypeError, match="is one string, not"):
            call(value)
    with pytest.raises(ArgumentTypeError, match="pair"):
        reranker.score_pairs([("q", value)])
    assert fake.loads == 0


def test_keys_of_a_mapping_have_an_order(fake: FakeRuntime) -> None:
    embedder = Embedder(fake.qwen3)
    found = embedder.embed_documents({"b": 1, "a": 2}.keys())
    np.testing.assert_array_equal(found, embedder.embed_documents(["b", "a"]))


def test_a_column_with_a_gap_names_the_gap(fake: FakeRuntime) -> None:
    for column in (pd.Series(["a", None]), pd.Series(["a", None], dtype="string"), pd.Series(["a", float("nan")])):
        with pytest.raises(ArgumentTypeError, match=r"texts\[1\] is .*missing value: leave it out") as caught:
            Embedder(fake.qwen3).embed_documents(column)
        assert caught.value.index == 1


def test_numbers_of_numpy_are_numbers_everywhere(fake: FakeRuntime) -> None:
    for kind in (np.int8, np.int32, np.int64, np.uint16):
        embedder = Embedder(fake.qwen3, dim=kind(16), max_tokens=kind(64), batch_tokens=kind(32))
        plain = Embedder(fake.qwen3, dim=16, max_tokens=64, batch_tokens=32)
        assert embedder.settings == plain.settings
        assert json.dumps(embedder.space.to_json()) == json.dumps(plain.space.to_json())
        assert (embedder.fingerprint, repr(embedder)) == (plain.fingerprint, repr(plain))
        assert pickle.loads(pickle.dumps(embedder)).dim == 16
        assert type(embedder.with_dim(kind(32)).dim) is int
        assert list(embedder.encode_dims(["a"], np.array([8, 16], kind), role="document")) == [8, 16]
        reranker = Reranker(fake.reranker, max_tokens=kind(64))
        assert len(reranker.rerank("q", ["a", "b"], top_n=kind(1))) == 1
        assert len(reranker.rerank_items("q", ["a", "b"], text=str, top_n=kind(1))) == 1
    for value in (True, np.True_, 16.0, np.float32(16), "16", np.array([16])):
        for make in (
            lambda value: Embedder(fake.qwen3, dim=value),
            lambda value: Embedder(fake.qwen3, max_tokens=value),
            lambda value: Embedder(fake.qwen3, batch_tokens=value),
            lambda value: Embedder(fake.qwen3).with_dim(value),
            lambda value: Embedder(fake.qwen3).encode_dims(["a"], [value], role="query"),
            lambda value: Reranker(fake.reranker, max_tokens=value),
            lambda value: Reranker(fake.reranker).rerank("q", ["a"], top_n=value),
        ):
            with pytest.raises(ArgumentTypeError, match="whole number"):
                make(value)
    with pytest.raises(ArgumentTypeError, match=r"dims\[0\] is a whole number, not None"):
        Embedder(fake.qwen3).encode_dims(["a"], [None], role="query")  # type: ignore[list-item]


def test_half_a_surrogate_pair_is_refused_wherever_a_string_enters(fake: FakeRuntime) -> None:
    embedder, gemma, reranker = Embedder(fake.qwen3), Embedder(fake.gemma), Reranker(fake.reranker)
    for call in (
        lambda: embedder.embed_query(HALF),
        lambda: embedder.embed_documents(["fine", HALF]),
        lambda: embedder.embed_query("q", instruction=HALF),
        lambda: embedder.render(HALF, role="query"),
        lambda: embedder.render("q", role="query", instruction=HALF),
        lambda: embedder.with_instruction(HALF),
        lambda: Embedder(fake.qwen3, instruction=HALF),
        lambda: gemma.embed_documents(["fine", "fine"], titles=[None, HALF]),
        lambda: gemma.render("d", role="document", title=HALF),
        lambda: list(gemma.iter_documents(["fine"], titles=[HALF])),
        lambda: list(embedder.iter_documents(["fine", HALF])),
        lambda: reranker.score(HALF, ["d"]),
        lambda: reranker.score("q", ["fine", HALF]),
        lambda: reranker.score_pairs([("fine", "fine"), (HALF, "d")]),
        lambda: reranker.score("q", ["d"], instruction=HALF),
        lambda: reranker.with_instruction(HALF),
        lambda: reranker.render("q", HALF),
        lambda: Reranker(fake.reranker, instruction=HALF),
    ):
        with pytest.raises(ArgumentError, match="half a surrogate pair"):
            call()
    assert fake.loads == 0
    assert embedder.embed_documents(["\U0001f600 is whole"]).shape == (1, 64)


def test_data_that_nest_too_deeply_are_refused() -> None:
    nested: object = "leaf"
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ArgumentError, match="nests too deeply") as caught:
        arguments.unicode(nested, "payloads[3]", 3)
    assert caught.value.index == 3


def test_half_a_surrogate_pair_in_a_folders_prompts_is_refused(qwen3_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(qwen3_folder, tmp_path / "model")
    prompts = {"prompts": {"query": "find \ud800: ", "document": ""}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    with pytest.raises(ModelMismatchError, match=r"'query' in .*config_sentence_transformers"):
        Embedder(folder)


@pytest.mark.parametrize("backend", ["engine", "sentence-transformers"])
def test_a_limit_that_holds_only_special_tokens_is_refused(
    qwen3_folder: Path, gemma_folder: Path, backend: str
) -> None:
    for folder, room in ((qwen3_folder, 2), (gemma_folder, None)):
        tight = Embedder(folder, max_tokens=1, truncate="silent", backend=backend, dtype="float32")
        for call in (tight.embed_documents, tight.embed_queries):
            with pytest.raises(InputTooLongError, match="leaves no room for text"):
                call(["cats and physics"])
        with pytest.raises(InputTooLongError, match="leaves no room for text"):
            tight.embed_query("cats and physics", instruction="")
        if room is not None:
            least = Embedder(folder, max_tokens=room, truncate="silent", backend=backend, dtype="float32")
            assert least.embed_documents(["cats and physics"]).shape == (1, 48)


def test_a_limit_without_room_for_a_document_is_refused(reranker_folder: Path) -> None:
    tight = Reranker(reranker_folder, max_tokens=2, truncate="silent", dtype="float32")
    for instruction in (None, "", "long " * 10):
        with pytest.raises(InputTooLongError, match="leaves no room for a document"):
            tight.score("q", ["document"], instruction=instruction)


def peak(call) -> tuple[int, np.ndarray]:
    """Return the bytes that a call needs at most, its result included, and the result."""
    tracemalloc.start()
    try:
        found = call()
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("equal", [1, 10])
def test_a_corpus_needs_little_more_memory_than_its_vectors(equal: int) -> None:
    """`equal`: every so many text is the same one."""
    texts = [f"text {0 if number % equal == 0 and equal > 1 else number}" for number in range(50_000)]
    embedder = Embedder("embrief/hash", dim=64)
    few = embedder.embed_documents(texts[:50])
    needed, vectors = peak(lambda: embedder.embed_documents(texts))
    assert vectors.nbytes == 50_000 * 64 * 4
    assert needed <= 1.5 * vectors.nbytes
    np.testing.assert_array_equal(vectors[:50], few)


def test_a_corpus_of_short_vectors_is_never_held_in_full_width() -> None:
    texts = [f"text {number}" for number in range(4_000)]
    with FakeRuntime(batch_tokens=256, width=4096) as fake:
        embedder = Embedder(fake.qwen3, dim=512)
        few = embedder.embed_documents(texts[:50])
        needed, vectors = peak(lambda: embedder.embed_documents(texts))
    assert needed <= 1.5 * vectors.nbytes + 256 * 4096 * 8 * 4
    np.testing.assert_array_equal(vectors[:50], few)


@pytest.mark.parametrize("dim", [1, 7, 300, 768, 1024])
def test_blocks_give_the_vectors_of_the_whole_to_the_last_bit(dim: int) -> None:
    raw = np.random.default_rng(dim).standard_normal((2500, dim + 5)).astype(np.float32) * 7
    raw[17] = 0
    cut = np.ascontiguousarray(raw[:, :dim])
    norms = np.sqrt(np.square(cut.astype(np.float64)).sum(axis=1))
    norms[17] = 1
    expected = (cut / norms[:, None]).astype(np.float32)
    for given in (raw.copy(), cut.copy(), cut[::1][:], np.asfortranarray(cut), cut.astype(np.float64)):
        kept = given.copy()
        found = core_vectors.finish(given, count=2500, dim=dim, normalize=True, what="model")
        np.testing.assert_array_equal(found, expected)
        assert found.flags.c_contiguous
        if found is not given:
            np.testing.assert_array_equal(given, kept)
    raw[[2100, 2400], -1] = np.nan
    with pytest.raises(NonFiniteVectorError, match=r"index 2100 \(2 of 2500") as caught:
        core_vectors.finish(raw, count=2500, dim=dim, normalize=True, what="model")
    assert caught.value.index == 2100


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_in_any_block(normalize: bool, bad: float) -> None:
    raw = np.full((300, 1024), 2, np.float32)
    raw[[130, 299], -1] = bad
    with pytest.raises(NonFiniteVectorError, match=r"index 130 \(2 of 300") as caught:
        core_vectors.finish(raw, count=300, dim=1024, normalize=normalize, what="model")
    assert caught.value.index == 130


def test_equal_texts_share_a_vector_wherever_they_stand() -> None:
    rng = np.random.default_rng(0)
    texts = [f"text {number}" for number in rng.integers(0, 3000, 5000)]
    embedder = Embedder("embrief/hash", dim=16)
    alone = {text: embedder.embed_documents([text])[0] for text in texts[:200]}
    vectors = embedder.embed_documents(texts)
    rows = {text: vectors[row] for row, text in reversed(list(enumerate(texts)))}
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(vectors[row], rows[text])
    for text, vector in alone.items():
        np.testing.assert_array_equal(rows[text], vector)


@pytest.mark.parametrize("batch_tokens", [None, 64])
def test_nan_in_what_is_cut_off_is_still_found(batch_tokens: int | None) -> None:
    with FakeRuntime(batch_tokens=batch_tokens) as fake:
        embedder = Embedder(fake.qwen3, dim=8)
        model = embedder.load()._shared.model.load()
        inner = getattr(model, "_whole", model)
        run = inner.run

        def broken(texts, options):
            found = run(texts, options)
            found.array("dense")[[item.body == "bad" for item in texts], -1] = np.nan
            return found

        inner.run = broken
        with pytest.raises(NonFiniteVectorError) as caught:
            embedder.embed_documents(["a", "b", "bad"])
        assert caught.value.index == 2


def test_a_stream_gives_the_vectors_of_a_list(fake: FakeRuntime) -> None:
    texts = [f"text {number % 2000}" for number in range(2500)]
    for name, titles in ((fake.qwen3, None), (fake.gemma, [f"t{n}" if n % 3 else None for n in range(2500)])):
        embedder = Embedder(name)
        expected = embedder.embed_documents(texts, titles=titles)
        streamed = embedder.iter_documents(iter(texts), titles=None if titles is None else iter(titles), task=None)
        found = list(streamed)
        np.testing.assert_array_equal(np.vstack(found), expected)
        assert found[0].base is None

        async def collect(texts, titles, embedder=embedder) -> list[np.ndarray]:
            return [vector async for vector in embedder.aiter_documents(texts, titles=titles)]

        async def later(items) -> AsyncIterator[str]:
            for item in items:
                await asyncio.sleep(0)
                yield item

        for source in (iter, later):
            beside = None if titles is None else source(titles)
            np.testing.assert_array_equal(np.vstack(asyncio.run(collect(source(texts), beside))), expected)


def test_a_stream_of_pictures_is_taken_in_smaller_blocks(fake: FakeRuntime) -> None:
    """Texts of a block are small; pixels of a thousand photographs fill the memory."""
    embedder, taken = Embedder(fake.vision), 0
    picture = Image(np.zeros((8, 8, 3), np.uint8))

    def endless() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield {"image": picture, "text": "red"} if taken % 2 else "blue"

    async def slowly() -> AsyncIterator[Any]:
        for item in endless():
            yield item

    async def first() -> np.ndarray:
        return await anext(embedder.aiter_documents(slowly()))

    expected = embedder.embed_documents([[picture, "red"]])[0]
    np.testing.assert_array_equal(next(iter(embedder.iter_documents(endless()))), expected)
    assert taken == 63
    taken = 0
    np.testing.assert_array_equal(asyncio.run(first()), expected)
    assert taken == 63


def test_an_endless_stream_is_read_as_it_is_used_and_needs_constant_memory() -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        for read in itertools.count(1):
            yield f"text {read}"

    embedder = Embedder("embrief/hash", dim=64)
    stream = embedder.iter_documents(endless())
    assert read == 0
    next(stream)
    assert read <= 2048
    needed = [peak(lambda count=count: sum(1 for _ in itertools.islice(stream, count)))[0] for count in (3_000, 18_000)]
    assert needed[1] < 1.5 * needed[0]
    stream.close()
    embedder.close()
    with pytest.raises(ClosedError):
        embedder.iter_documents(endless())


def test_a_stream_checks_its_kind_at_once_and_its_items_by_block(fake: FakeRuntime) -> None:
    embedder, gemma = Embedder(fake.qwen3), Embedder(fake.gemma)
    with pytest.raises(ArgumentError, match="no task 'nonsense'"):
        embedder.iter_documents([], task="nonsense")
    with pytest.raises(ArgumentTypeError, match="progress is True or False"):
        embedder.iter_documents([], progress="no")  # type: ignore[arg-type]
    texts: list[object] = [f"text {number}" for number in range(3000)]
    texts[2500] = None
    stream = embedder.iter_documents(texts)  # type: ignore[arg-type]
    received = list(itertools.islice(stream, 2048))
    with pytest.raises(ArgumentTypeError, match=r"texts\[2500\] is NoneType") as caught:
        next(stream)
    assert (caught.value.index, len(received)) == (2500, 2048)
    for titles, match in (
        ([HALF if number == 2000 else "t" for number in range(3000)], r"titles\[2000\] holds half"),
        (["t"] * 2000, "the titles end at index 2000"),
        (["t"] * 3001, "the texts end at index 3000"),
    ):
        with pytest.raises(ArgumentError, match=match) as wrong:
            list(gemma.iter_documents((f"text {number}" for number in range(3000)), titles=titles))
        assert wrong.value.index in (2000, 3000)
    with pytest.raises(ArgumentError, match="no place for a title") as untitled:
        list(embedder.iter_documents(["a"] * 2000, titles=[None] * 1999 + ["t"]))
    assert untitled.value.index == 1999


def test_errors_of_a_stream_count_from_its_first_text_and_it_can_be_taken_up_again() -> None:
    texts = [f"text {number}" for number in range(3000)]

    def fault(found) -> None:
        if "text 2222" in found:
            raise RuntimeError("the machine is on fire")

    with FakeRuntime(batch_tokens=64, fault=fault) as fake:
        stream = Embedder(fake.qwen3).iter_documents(texts)
        received = list(itertools.islice(stream, 2048))
        with pytest.raises(ItemFailedError, match="index 2222") as caught:
            next(stream)
        assert caught.value.index == 2222
        expected = Embedder(fake.qwen3).embed_documents([text for text in texts if text != "text 2222"])
        rest = texts[len(received) :]
        rest.remove("text 2222")
        received += Embedder(fake.qwen3).iter_documents(rest)
        np.testing.assert_array_equal(np.vstack(received), expected)
    with FakeRuntime() as fake:
        long = ["short"] * 2000 + ["a b c d e f g h"]
        with pytest.raises(InputTooLongError, match="index 2000") as found:
            list(Embedder(fake.qwen3, max_tokens=4, truncate="error").iter_documents(long))
        assert (found.value.index, found.value.tokens) == (2000, 8)
        with pytest.warns(TruncationWarning, match="first at index 2000"):
            list(Embedder(fake.qwen3, max_tokens=4).iter_documents(long))


def test_a_stream_shows_progress(fake: FakeRuntime, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"text {number}" for number in range(1500)]
    list(Embedder(fake.qwen3).iter_documents(texts, progress=True))
    assert "1500/1500" in capsys.readouterr().err
    list(Embedder(fake.qwen3).iter_documents(iter(texts), progress=True))
    assert "1500/?" in capsys.readouterr().err


def test_an_asynchronous_stream_is_for_the_asynchronous_twin(fake: FakeRuntime) -> None:
    async def texts() -> AsyncIterator[str]:
        yield "a"

    for call in (Embedder(fake.qwen3).embed_documents, Embedder(fake.qwen3).iter_documents):
        with pytest.raises(ArgumentTypeError, match="aiter_documents"):
            call(texts())  # type: ignore[operator]


def test_an_array_of_numbers_is_no_list_of_texts(fake: FakeRuntime) -> None:
    for value in (np.arange(3), array.array("i", [1]), range(3), torch.arange(3)):
        with pytest.raises(ArgumentTypeError, match=r"texts\[0\] is .*must be a string"):
            Embedder(fake.qwen3).embed_documents(value)
