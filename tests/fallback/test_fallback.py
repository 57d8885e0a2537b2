"""A fallback goes on where a member is not there, and nowhere else; vectors of two spaces never get together."""

from __future__ import annotations

import ast
import asyncio
import math
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from embrief import Embedder, Image, Reranker
from embrief.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    DegradedAnswerError,
    InputTooLongError,
    ModelMismatchError,
    NonFiniteVectorError,
    SpaceMismatchError,
    UnauthorizedError,
    UnavailableError,
    UnprobedWarning,
)
from embrief.fallback import FallbackEmbedder, FallbackEvent, FallbackReranker, breaker
from embrief.parity import kept
from embrief.servers import OpenAI, RerankHttp
from embrief.testing import Asked, FakeRuntime, LoopbackServer, Reply
from embrief.testing.faults import vector_of

QWEN = "Qwen/Qwen3-Embedding-0.6B"
BGE = "BAAI/bge-reranker-v2-m3"


class Server:
    """A healthy OpenAI-like server of hashed vectors, until it is told otherwise."""

    def __init__(self, direction: float = 0.0) -> None:
        self.fault: Callable[[list[str]], Reply | None] = lambda texts: None
        self.turn = direction
        self.asked: list[list[str]] = []

    def __call__(self, asked: Asked) -> Reply:
        if not asked.path.endswith("/embeddings"):
            return Reply({}, 404)
        texts = asked.body["input"]
        self.asked.append(texts)
        if (reply := self.fault(texts)) is not None:
            return reply
        rows = [vector_of(text, 1024) + self.turn * vector_of(f"other {text}", 1024) for text in texts]
        return Reply({"data": [{"index": place, "embedding": row.tolist()} for place, row in enumerate(rows)]})

    def count(self, text: str) -> int:
        return sum(any(text in one for one in texts) for texts in self.asked)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Server, Server, list[Embedder]]]:
    """Two servers of one model, and vectors of it that were kept."""
    servers = Server(), Server()
    with ExitStack() as stack:
        urls = [stack.enter_context(LoopbackServer(server)).url for server in servers]
        members = [Embedder(QWEN, backend=OpenAI(base_url=url, tries=1)) for url in urls]
        kept.record(members[0], tmp_path)
        for server in servers:
            server.asked.clear()
        yield (*servers, members)


@pytest.fixture
def events() -> list[FallbackEvent]:
    return []


@pytest.fixture
def chain(two: Any, tmp_path: Path, events: list[FallbackEvent]) -> FallbackEmbedder:
    return FallbackEmbedder(two[2], probes=tmp_path, on_event=events.append)


def down(texts: list[str]) -> Reply:
    return Reply({"error": "away"}, 503, {"Retry-After": "0"})


def expected(text: str) -> np.ndarray:
    return vector_of(text, 1024)


# ---- Who answers


def test_the_first_member_answers(chain: FallbackEmbedder, two: Any, events: list[FallbackEvent]) -> None:
    first, second, _ = two
    assert np.allclose(chain.embed_documents(["red planet"])[0], expected("red planet"), atol=1e-6)
    assert first.count("red planet")
    assert not second.asked
    result = chain.encode(["red planet"], role="document")
    assert result.answered_by == chain.members[0]
    assert not result.degraded
    assert [event.kind for event in events] == ["probed", "answered", "answered"]


def test_the_next_one_answers_where_the_first_is_not_there(chain, two, events) -> None:
    first, _second, _ = two
    first.fault = down
    result = chain.encode(["red planet", "blue planet"], role="document")
    assert np.allclose(result.vectors[1], expected("blue planet"), atol=1e-6)
    assert result.answered_by == chain.members[1]
    assert result.space == chain.space == Embedder(QWEN, backend="ollama").space
    failed = next(event for event in events if event.kind == "failed")
    assert (failed.member, failed.reason) == (chain.members[0], "UnavailableError")
    assert not any("planet" in str(event) for event in events)


def test_every_way_in_goes_on(chain: FallbackEmbedder, two: Any) -> None:
    first, _second, _ = two
    first.fault = down
    query = chain.embed_query("which planet?", instruction="Find it")
    assert np.allclose(query, expected("Instruct: Find it\nQuery:which planet?"), atol=1e-6)
    assert len(list(chain.iter_documents(["a", "b"]))) == 2

    async def inside() -> Any:
        return await chain.aembed_documents(["a"]), await chain.aembed_query("b"), await chain.aencode([], role="query")

    documents, _, empty = asyncio.run(inside())
    assert np.allclose(documents[0], expected("a"), atol=1e-6)
    assert len(empty.vectors) == 0
    short = chain.with_dim(64).embed_documents(["a"])
    assert short.shape == (1, 64)
    assert math.isclose(float(np.linalg.norm(short)), 1, abs_tol=1e-5)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply({"error": "no"}, 401), UnauthorizedError),
        (Reply({"error": "no such model"}, 404), ModelMismatchError),
        (Reply({"data": [{"index": 0, "embedding": [1.0, 2.0]}]}), ModelMismatchError),
        (Reply({"data": [{"index": 0, "embedding": [math.nan] * 1024}]}), NonFiniteVectorError),
        (Reply({"data": []}), BackendError),
        (Reply({"error": {"message": "This model's maximum context length is 512 tokens"}}, 400), InputTooLongError),
    ],
)
def test_what_must_be_seen_is_seen(chain, two, reply: Reply, kind: type[Exception]) -> None:
    """A key that is refused, another model, NaN, too long: the next member would hide it, or fail the same way."""
    first, second, _ = two
    chain.load()
    chain.embed_documents(["warm"])
    first.fault = lambda texts: reply
    with pytest.raises(kind):
        chain.embed_documents(["a"])
    assert not second.count("a") or not second.asked


def test_bad_input_asks_nobody(chain: FallbackEmbedder, two: Any) -> None:
    first, second, _ = two
    with pytest.raises(ArgumentTypeError):
        chain.embed_documents("one text")
    with pytest.raises(ArgumentError):
        chain.encode(["a"], role="passage")  # type: ignore[arg-type]
    assert not first.asked
    assert not second.asked


def test_nobody_can(chain: FallbackEmbedder, two: Any) -> None:
    first, second, _ = two
    first.fault = second.fault = down
    with pytest.raises(UnavailableError, match="no member") as caught:
        chain.embed_documents(["a"])
    assert all(name in str(caught.value) for name in chain.members)


def test_a_member_that_cannot_load_is_passed_over(two: Any, tmp_path: Path, monkeypatch) -> None:
    """No weights on this machine, and nothing is fetched."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    local = Embedder(QWEN, local_files_only=True)
    both = FallbackEmbedder([local, two[2][0]], probes=tmp_path)
    assert both.encode(["a"], role="document").answered_by == both.members[1]


# ---- Breaker


def test_a_member_that_keeps_failing_is_left_alone_and_tried_again(chain, two, events, monkeypatch) -> None:
    first, _second, _ = two
    now = [100.0]
    for member in chain._chain.members:
        member.breaker._clock = lambda: now[0]
    chain.embed_documents(["warm"])
    first.fault = down
    for number in range(breaker.FAILURES):
        chain.embed_documents([f"text {number}"])
        now[0] += 1
    assert "opened" in {event.kind for event in events}
    asked = len(first.asked)
    chain.embed_documents(["while it is open"])
    assert len(first.asked) == asked
    assert chain.info()["members"][0]["breaker"] == "open"
    now[0] += breaker.PAUSE
    assert chain.info()["members"][0]["breaker"] == "half-open"
    chain.embed_documents(["trial"])
    assert len(first.asked) > asked
    first.fault = lambda texts: None
    now[0] += breaker.PAUSE
    assert chain.encode(["back"], role="document").answered_by == chain.members[0]
    assert chain.info()["members"][0]["breaker"] == "closed"


def test_failures_far_apart_open_nothing() -> None:
    now = [0.0]
    one = breaker.Breaker(lambda: now[0])
    for _ in range(20):
        assert not one.failed()
        now[0] += breaker.SPAN / 3
    assert one.state == "closed"


def test_after_the_pause_one_call_tries_alone() -> None:
    now = [0.0]
    one = breaker.Breaker(lambda: now[0])
    assert [one.failed() for _ in range(breaker.FAILURES)] == [False] * (breaker.FAILURES - 1) + [True]
    assert not one.lets_through()
    now[0] += breaker.PAUSE
    assert [one.lets_through() for _ in range(3)] == [True, False, False]
    one.gave_up()
    assert one.lets_through()
    one.failed()
    assert not one.lets_through()
    now[0] += breaker.PAUSE
    assert one.lets_through()
    one.succeeded()
    assert all(one.lets_through() for _ in range(3))


# ---- Probes


def test_without_kept_vectors_nobody_answers(two: Any, tmp_path: Path) -> None:
    both = FallbackEmbedder(two[2], probes=tmp_path / "empty")
    with pytest.raises(SpaceMismatchError, match="--record"):
        both.embed_documents(["a"])
    warned = FallbackEmbedder(two[2], probes=tmp_path / "empty", unprobed="warn")
    with pytest.warns(UnprobedWarning, match="nothing is kept"):
        warned.embed_documents(["a"])


def test_a_member_with_other_vectors_never_answers(two: Any, tmp_path: Path) -> None:
    first, second, members = two
    second.turn = 0.5
    both = FallbackEmbedder(members, probes=tmp_path)
    both.embed_documents(["a"])
    first.fault = down
    with pytest.raises(ModelMismatchError, match="other vectors"):
        both.embed_documents(["a"])


def test_a_little_difference_is_the_number_formats(two: Any, tmp_path: Path) -> None:
    first, second, members = two
    second.turn = 0.1
    both = FallbackEmbedder(members, probes=tmp_path)
    first.fault = down
    assert both.encode(["a"], role="document").answered_by == both.members[1]


def test_a_member_is_probed_once_by_however_many_callers(two: Any, tmp_path: Path) -> None:
    first, _, members = two
    both = FallbackEmbedder(members, probes=tmp_path)
    threads = [threading.Thread(target=both.embed_documents, args=([f"t{number}"],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert first.count("على") == 0
    assert first.count("मंगल") == 1


def test_probes_are_compared_by_text_not_on_average(two: Any, tmp_path: Path) -> None:
    """One bad text of twenty is another model, or a fault that users would meet."""
    first, second, members = two

    def long_ones(texts: list[str]) -> Reply | None:
        if not any(len(text) > 2000 for text in texts):
            return None
        rows = [vector_of(text[:2000], 1024) for text in texts]
        return Reply({"data": [{"index": place, "embedding": row.tolist()} for place, row in enumerate(rows)]})

    second.fault = long_ones
    both = FallbackEmbedder(members, probes=tmp_path)
    first.fault = down
    with pytest.raises(ModelMismatchError, match="over 512"):
        both.embed_documents(["a"])


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"format": 1}', "null", "[" * 10000])
def test_damaged_kept_vectors_are_an_error(two: Any, tmp_path: Path, damage: str) -> None:
    kept.place_of(kept.whole(two[2][0]), tmp_path).write_text(damage, "utf-8")
    with pytest.raises(ArgumentError, match="--record"):
        FallbackEmbedder(two[2], probes=tmp_path).embed_documents(["a"])


def test_kept_vectors_with_other_numbers_are_an_error(two: Any, tmp_path: Path) -> None:
    file = kept.place_of(kept.whole(two[2][0]), tmp_path)
    file.write_text(file.read_text("utf-8").replace('"English": "', '"English": "AAAA'), "utf-8")
    with pytest.raises(ArgumentError, match="cannot be read"):
        FallbackEmbedder(two[2], probes=tmp_path).embed_documents(["a"])


@pytest.mark.parametrize("changes", [{"dim": 256}, {"instruction": "Find it"}, {"dim": 64, "task": "code_retrieval"}])
def test_vectors_kept_of_the_plain_model_serve_its_views(two: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    members = [Embedder(QWEN, backend=member.settings.backend, **changes) for member in two[2]]
    both = FallbackEmbedder(members, probes=tmp_path)
    two[0].fault = down
    assert both.encode(["a"], role="document").vectors.shape == (1, changes.get("dim", 1024))
    assert both.info()["members"][1]["probed"]
    for file in tmp_path.glob("*.json"):
        file.unlink()
    kept.record(members[1], tmp_path)
    assert FallbackEmbedder(two[2][::-1], probes=tmp_path).load()


# ---- One space


def test_a_chain_over_different_models_is_refused(two: Any) -> None:
    hashed = Embedder("embrief/hash", dim=1024)
    with pytest.raises(ArgumentError, match="fallback_chain") as caught:
        FallbackEmbedder([two[2][0], hashed])
    assert hashed.space.id in str(caught.value)
    assert two[2][0].space.id in str(caught.value)
    assert "allow_degraded" in str(caught.value)


@pytest.mark.parametrize("changes", [{"dim": 512}, {"task": "sentence_similarity"}])
def test_one_model_in_two_spaces_is_two(two: Any, changes: dict[str, Any]) -> None:
    other = Embedder(QWEN, backend=two[2][1].settings.backend, **changes)
    with pytest.raises(ArgumentError, match="two spaces"):
        FallbackEmbedder([two[2][0], other])


def test_construction_asks_nobody_and_loads_nothing(two: Any) -> None:
    first, second, members = two
    with FakeRuntime() as fake, pytest.raises(ArgumentError, match="two spaces"):
        FallbackEmbedder([*members, fake.qwen3])
    assert fake.loads == 0
    FallbackEmbedder(members)
    assert not first.asked
    assert not second.asked


@pytest.mark.parametrize("members", [[], ["embrief/hash"], "embrief/hash", [1, 2], None])
def test_members_that_are_none(members: Any) -> None:
    with pytest.raises((ArgumentError, ArgumentTypeError)):
        FallbackEmbedder(members)


def test_below_eight_bits_nobody_is_a_member(two: Any, tmp_path: Path, monkeypatch) -> None:
    coarse = two[2][1]
    monkeypatch.setattr(type(coarse._shared.offer), "__slots__", (), raising=False)
    from dataclasses import replace

    offered = replace(coarse._shared._chosen.offer, dtype="q4_0")
    coarse._shared.__dict__["_chosen"] = replace(coarse._shared._chosen, offer=offered)
    both = FallbackEmbedder(two[2], probes=tmp_path)
    two[0].fault = down
    with pytest.raises(ArgumentError, match="at least 8 bits"):
        both.embed_documents(["a"])


# ---- Degraded answers


@pytest.fixture
def degrading(two: Any, tmp_path: Path, events: list[FallbackEvent]) -> FallbackEmbedder:
    hashed = Embedder("embrief/hash", dim=1024)
    return FallbackEmbedder([*two[2], hashed], allow_degraded=True, probes=tmp_path, on_event=events.append)


def test_a_degraded_answer_is_marked_and_in_its_own_space(degrading, two, events) -> None:
    first, second, _ = two
    assert not degrading.encode(["a"], role="document").degraded
    first.fault = second.fault = down
    result = degrading.encode(["red planet"], role="document")
    assert result.degraded
    assert result.space == Embedder("embrief/hash", dim=1024).space != degrading.space
    assert result.answered_by == degrading.members[2]
    assert "degraded" in {event.kind for event in events}
    assert asyncio.run(degrading.aencode(["a"], role="query", instruction="Find it")).degraded


def test_no_other_method_gives_vectors_of_another_space(degrading: FallbackEmbedder, two: Any) -> None:
    first, second, _ = two
    first.fault = second.fault = down
    for call in (
        lambda: degrading.embed_query("a"),
        lambda: degrading.embed_queries(["a"]),
        lambda: degrading.embed_documents(["a"]),
        lambda: asyncio.run(degrading.aembed_query("a")),
        lambda: asyncio.run(degrading.aembed_queries(["a"])),
        lambda: asyncio.run(degrading.aembed_documents(["a"])),
        lambda: list(degrading.iter_documents(["a"])),
        lambda: degrading.encode_dims(["a"], [64], role="document"),
        lambda: asyncio.run(streamed(degrading)),
        lambda: degrading.check_documents(["a"]),
        lambda: asyncio.run(degrading.acheck_documents(["a"])),
    ):
        with pytest.raises(DegradedAnswerError):
            call()


def test_of_one_space_the_members_of_others_are_not_asked(degrading: FallbackEmbedder, two: Any, events: Any) -> None:
    first, second, _ = two
    whole = degrading.of_one_space()
    assert whole.space == degrading.space
    assert whole.members == degrading.members[:2]
    first.fault = second.fault = down
    with pytest.raises(UnavailableError):
        whole.encode(["a"], role="document")
    assert "degraded" not in {event.kind for event in events}
    # What is known of a member holds for both.
    assert degrading.encode(["a"], role="document").degraded


async def streamed(embedder: Embedder) -> list[Any]:
    return [vector async for vector in embedder.aiter_documents(["a"])]


def langchain(embedder: Embedder) -> list[Callable[[], Any]]:
    found = pytest.importorskip("langchain_embrief").Qwen3Embeddings(embedder=embedder)
    return [
        lambda: found.embed_documents(["a"]),
        lambda: found.embed_query("a"),
        lambda: asyncio.run(found.aembed_documents(["a"])),
        lambda: asyncio.run(found.aembed_query("a")),
    ]


def llama_index(embedder: Embedder) -> list[Callable[[], Any]]:
    core = pytest.importorskip("llama_index.core")
    found = pytest.importorskip("llama_index_embrief").Qwen3Embedding(embedder=embedder)
    return [
        lambda: found.get_text_embedding("a"),
        lambda: found.get_query_embedding("a"),
        lambda: found.get_text_embedding_batch(["a", "b"]),
        lambda: asyncio.run(found.aget_text_embedding("a")),
        lambda: asyncio.run(found.aget_query_embedding("a")),
        lambda: core.VectorStoreIndex.from_documents([core.Document(text="a")], embed_model=found),
    ]


def chroma(embedder: Embedder) -> list[Callable[[], Any]]:
    chromadb = pytest.importorskip("chromadb")
    ours = pytest.importorskip("chroma_embrief")
    function, client = ours.Qwen3EmbeddingFunction(embedder=embedder), chromadb.EphemeralClient()
    collection = ours.open_collection(client, f"fallback-{id(embedder)}", function)
    return [
        lambda: collection.upsert(ids=["1"], documents=["a"]),
        lambda: ours.add_documents(client, collection, ["a"], ids=["1"], embedding_function=function),
        lambda: function.embed_query(["a"]),
    ]


def qdrant(embedder: Embedder) -> list[Callable[[], Any]]:
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    ours = pytest.importorskip("qdrant_embrief")
    ours.create_collection(client, "fallback", embedder)
    return [
        lambda: ours.upsert_texts(client, "fallback", embedder, ["a", "b"]),
        lambda: ours.query_texts(client, "fallback", embedder, "a"),
    ]


WRAPPERS = pytest.mark.parametrize("wrapper", [langchain, llama_index, chroma, qdrant])


@pytest.fixture
def dead() -> Embedder:
    """A member whose server has never been there."""
    return Embedder(QWEN, backend=OpenAI(base_url="http://127.0.0.1:9", tries=1))


@WRAPPERS
@pytest.mark.parametrize("began", [True, False])
def test_wrappers_never_get_a_degraded_answer(
    wrapper: Any, began: bool, degrading: FallbackEmbedder, two: Any, dead: Embedder, tmp_path: Path
) -> None:
    if not began:
        hashed = Embedder("embrief/hash", dim=1024)
        degrading = FallbackEmbedder([dead, dead, hashed], allow_degraded=True, probes=tmp_path)
    calls = wrapper(degrading)
    two[0].fault = two[1].fault = down
    for call in calls:
        with pytest.raises(DegradedAnswerError):
            call()


@WRAPPERS
def test_indexing_goes_on_where_the_first_member_is_not_there(
    wrapper: Any, two: Any, dead: Embedder, tmp_path: Path
) -> None:
    for call in wrapper(FallbackEmbedder([dead, two[2][0]], probes=tmp_path)):
        before = len(two[0].asked)
        call()
        assert len(two[0].asked) > before


def test_no_wrapper_takes_vectors_without_asking_whose_they_are() -> None:
    """`encode` may answer with another space's vectors; the other methods never do."""
    files = [*(Path(__file__).parents[2] / "integrations").rglob("*.py")]
    assert len(files) > 20
    careless = []
    for file in files:
        for function in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            inside = [node for node in ast.walk(function) if isinstance(node, ast.Attribute)]
            # A string's own `encode` has a plain argument and no role.
            encodes = any(
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("encode", "aencode")
                and not isinstance(node.func.value, (ast.JoinedStr, ast.Constant))
                for node in ast.walk(function)
            )
            if encodes and not any(node.attr == "degraded" for node in inside):
                careless.append(f"{file.name}:{function.name}")
    assert not careless


def test_a_view_takes_along_the_members_that_cannot_follow_it(degrading: FallbackEmbedder, two: Any) -> None:
    first, second, _ = two
    first.fault = second.fault = down
    for view in (
        degrading.with_instruction("Find it"),
        degrading.with_task("sentence_similarity"),
        degrading.with_dim(64),
    ):
        assert view.encode(["a"], role="query").degraded


def test_a_view_asks_no_member_for_what_it_cannot_do(two: Any) -> None:
    """The first member reads names of special tokens as letters; a server would read them as it always does."""
    both = FallbackEmbedder([Embedder(QWEN, backend="engine"), two[2][0]])
    with pytest.raises(ArgumentError, match="special_tokens='text' cannot be had from 'openai'"):
        both.with_settings(special_tokens="text")


def test_other_spaces_stand_at_the_end(two: Any) -> None:
    hashed = Embedder("embrief/hash", dim=1024)
    with pytest.raises(ArgumentError, match="at the end"):
        FallbackEmbedder([two[2][0], hashed, two[2][1]], allow_degraded=True)


def test_a_mistake_is_no_reason_for_a_degraded_answer(degrading: FallbackEmbedder, two: Any) -> None:
    two[0].fault = lambda texts: Reply({"error": "no"}, 401)
    with pytest.raises(UnauthorizedError):
        degrading.encode(["a"], role="document")


# ---- Around it


@pytest.mark.parametrize("package", ["langchain_embrief.Qwen3Embeddings", "llama_index_embrief.Qwen3Embedding"])
def test_a_copy_with_an_update_is_still_the_chain(package: str, chain: FallbackEmbedder, two: Any) -> None:
    module, name = package.split(".")
    wrapper = getattr(pytest.importorskip(module), name)(embedder=chain)
    two[0].fault = down
    copied = wrapper.model_copy(update={"dim": 64, "instruction": "Find it"})
    assert isinstance(copied.embedder, FallbackEmbedder)
    assert (copied.dim, copied.instruction) == (64, "Find it")
    assert len(copied.embedder.embed_query("a")) == 64
    for update, error in (
        ({"device": "cuda"}, ArgumentError),
        ({"backend": "ollama"}, ArgumentError),
        ({"dim": 3000}, ArgumentError),
        ({"dim": "64"}, ArgumentTypeError),
        ({"truncate": "maybe"}, ArgumentError),
        ({"unknown": 1}, ArgumentTypeError),
    ):
        with pytest.raises(error):
            wrapper.model_copy(update=update)


def test_copies_of_rerankers_are_still_the_chain(rerankers: Any) -> None:
    both = FallbackReranker(rerankers[2][::-1], last_resort="input-order")
    langchain = pytest.importorskip("langchain_embrief").Qwen3Reranker(reranker=both, top_n=5)
    llama = pytest.importorskip("llama_index_embrief").Qwen3Rerank(reranker=both, top_n=5)
    for wrapper in (langchain, llama):
        copied = wrapper.model_copy(update={"instruction": "Find it"})
        assert isinstance(copied.reranker, FallbackReranker)
        assert (copied.instruction, copied.top_n) == ("Find it", 5)
        fewer = wrapper.model_copy(update={"top_n": 2})
        assert isinstance(fewer.reranker, FallbackReranker)
        assert fewer.top_n == 2
        with pytest.raises(ArgumentError):
            wrapper.model_copy(update={"dtype": "float16"})


def test_a_copy_of_a_declared_model_stays_declared(tmp_path: Path) -> None:
    registry = configured(
        tmp_path,
        "models:\n  mine: {provider: openai, model_id: someone-else, dim: 32, base_url: 'http://127.0.0.1:9'}\n",
    )
    embedder = registry.get("mine")
    assert embedder._shared.choice.declared is not None
    wrapper = pytest.importorskip("langchain_embrief").Qwen3Embeddings(embedder=embedder)
    assert wrapper.model_copy(update={"truncate": "silent"}).embedder.space == embedder.space
    with pytest.raises(ArgumentError, match="leave out device"):
        wrapper.model_copy(update={"device": "cpu"})


def test_what_a_view_says_is_in_its_fingerprint(chain: FallbackEmbedder, two: Any) -> None:
    views = [chain, chain.with_dim(64), chain._view(max_tokens=64), chain._view(truncate="error")]
    assert len({view.fingerprint for view in views}) == len(views)
    assert len({view.query_fingerprint for view in [*views, chain.with_instruction("Find it")]}) == len(views) + 1
    assert chain.with_instruction("Find it").fingerprint == chain.fingerprint == chain.with_dim(1024).fingerprint
    assert chain.fingerprint == FallbackEmbedder(two[2]).fingerprint
    assert chain.fingerprint != FallbackEmbedder(two[2][::-1]).fingerprint


def test_tasks_of_documents_are_in_the_fingerprint() -> None:
    gemma = "google/embeddinggemma-300m"
    members = [Embedder(gemma, backend=OpenAI(base_url=f"http://127.0.0.1:{port}")) for port in (9, 10)]
    chain = FallbackEmbedder(members)
    assert chain.with_task("sentence_similarity").fingerprint != chain.fingerprint


def test_caches_of_frameworks_tell_views_apart(chain: FallbackEmbedder) -> None:
    langchain = pytest.importorskip("langchain_embrief").Qwen3Embeddings(embedder=chain)
    assert langchain.cache_namespace() != langchain.with_dim(64).cache_namespace()
    llama = pytest.importorskip("llama_index_embrief").Qwen3Embedding(embedder=chain)
    assert str(llama.to_dict()) != str(llama.with_dim(64).to_dict())


def test_a_view_pickles_as_what_it_is(degrading: FallbackEmbedder, two: Any) -> None:
    view = degrading.with_dim(64).with_instruction("Find it")
    again = pickle.loads(pickle.dumps(view))
    assert again.settings == view.settings
    assert again.fingerprint == view.fingerprint
    assert again.members == view.members
    assert again.embed_query("a").shape == (64,)
    assert np.array_equal(again.embed_query("a"), view.embed_query("a"))
    two[0].fault = two[1].fault = down
    degraded = again.encode(["a"], role="document")
    assert degraded.degraded
    assert degraded.vectors.shape == (1, 64)


def test_loading_goes_on_too(chain: FallbackEmbedder, two: Any, events: list[FallbackEvent]) -> None:
    first, second, _ = two
    first.fault = down
    assert chain.load() is chain
    assert second.asked, "it was probed"
    assert asyncio.run(chain.aload()) is chain
    chain.check_documents(["a"])


def test_several_widths_say_who_answered(chain: FallbackEmbedder, two: Any) -> None:
    two[0].fault = down
    found = chain.encode_dims(["a"], [64, 128], role="document")
    assert {result.answered_by for result in found.values()} == {chain.members[1]}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_does_not_wait_for_its_parents_probe(tmp_path: Path) -> None:
    script = """
import os, sys, threading, time
from embrief import Embedder
from embrief.fallback import FallbackEmbedder
chain = FallbackEmbedder([Embedder("embrief/hash"), Embedder("embrief/hash", batch_tokens=5)], unprobed="warn")
member = chain._chain.members[0]
member.lock.acquire()
member.breaker._lock.acquire()
child = os.fork()
if not child:
    chain.embed_documents(["a"])
    os._exit(0)
end = time.monotonic() + 60
while os.waitpid(child, os.WNOHANG) == (0, 0):
    if time.monotonic() > end:
        os.kill(child, 9)
        sys.exit("the child hangs")
    time.sleep(0.01)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_it_pickles_without_what_listens(chain: FallbackEmbedder, two: Any) -> None:
    two[0].fault = down
    again = pickle.loads(pickle.dumps(chain))
    assert again.members == chain.members
    assert again.encode(["a"], role="document").answered_by == chain.members[1]


def test_a_cancelled_caller_trips_no_breaker(chain: FallbackEmbedder, two: Any) -> None:
    inside = threading.Event()
    release = threading.Event()

    def hold(texts: list[str]) -> None:
        if "held" in texts:
            inside.set()
            release.wait(60)

    async def cancelled() -> Any:
        task = asyncio.ensure_future(chain.aembed_documents(["held"]))
        while not inside.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    chain.embed_documents(["warm"])
    two[0].fault = hold
    assert isinstance(asyncio.run(cancelled()), asyncio.CancelledError)
    release.set()
    assert chain.encode(["a"], role="document").answered_by == chain.members[0]
    assert not two[1].count("held")


def test_a_listener_that_fails_costs_no_answer(two: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fails(event: FallbackEvent) -> None:
        raise RuntimeError("a listener's own")

    both = FallbackEmbedder(two[2], probes=tmp_path, on_event=fails)
    two[0].fault = down
    for number in range(breaker.FAILURES):
        assert both.encode([f"secret {number}"], role="document").answered_by == both.members[1]
    assert both.info()["members"][0]["breaker"] == "open", "its failures count all the same"
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    assert "listener's own" not in caplog.text


# ---- Rerankers


class RerankServer:
    def __init__(self, sign: float) -> None:
        self.away, self.sign = False, sign

    def __call__(self, asked: Asked) -> Reply:
        if not asked.path.endswith("/rerank"):
            return Reply({}, 404)
        if self.away:
            return Reply({}, 503, {"Retry-After": "0"})
        documents = asked.body["documents"]
        scores = [0.5 + self.sign * len(text) / 1000 for text in documents]
        return Reply({"results": [{"index": place, "relevance_score": score} for place, score in enumerate(scores)]})


@pytest.fixture
def rerankers() -> Iterator[tuple[RerankServer, RerankServer, list[Reranker]]]:
    servers = RerankServer(1), RerankServer(-1)
    with ExitStack() as stack:
        urls = [stack.enter_context(LoopbackServer(server)).url for server in servers]
        models = (BGE, "Qwen/Qwen3-Reranker-0.6B")
        members = [
            Reranker(model, backend=RerankHttp(base_url=url, tries=1, probe="off", scores="probability"))
            for model, url in zip(models, urls, strict=True)
        ]
        yield (*servers, members)


DOCUMENTS = ["long long long", "short", "middle one"]


def test_the_whole_list_is_scored_by_one(rerankers: Any) -> None:
    first, _second, members = rerankers
    both = FallbackReranker(members)
    assert [item.index for item in both.rerank("q", DOCUMENTS)] == [0, 2, 1]
    first.away = True
    assert [item.index for item in both.rerank("q", DOCUMENTS)] == [1, 2, 0]
    assert [item.item for item in both.rerank_items("q", DOCUMENTS, text=str, top_n=1)] == ["short"]
    assert [item.index for item in asyncio.run(both.arerank("q", DOCUMENTS))] == [1, 2, 0]
    assert both.score("q", DOCUMENTS).argmax() == 1
    assert asyncio.run(both.ascore("q", DOCUMENTS)).argmax() == 1
    assert both.score_pairs([("q", "a"), ("r", "bb")]).argmax() == 0
    assert asyncio.run(both.ascore_pairs([("q", "a"), ("r", "bb")])).argmax() == 0


def test_the_last_resort_is_the_order_without_scores(rerankers: Any) -> None:
    first, second, members = rerankers
    first.away = second.away = True
    with pytest.raises(UnavailableError, match="no member"):
        FallbackReranker(members).rerank("q", DOCUMENTS)
    seen: list[FallbackEvent] = []
    last = FallbackReranker(members, last_resort="input-order", on_event=seen.append)
    ranked = last.rerank("q", DOCUMENTS, top_n=2)
    assert [(item.index, item.score) for item in ranked] == [(0, None), (1, None)]
    found = last.rerank_items("q", DOCUMENTS, text=str)
    assert [(item.item, item.score) for item in found] == [(text, None) for text in DOCUMENTS]
    assert "None" in repr(found[0])
    assert [item.score for item in asyncio.run(last.arerank("q", DOCUMENTS))] == [None] * 3
    with pytest.raises(UnavailableError):
        last.score("q", DOCUMENTS)
    assert "degraded" in {event.kind for event in seen}


def test_an_instruction_is_never_dropped(rerankers: Any) -> None:
    """A member that follows none is passed over; if it is the first one, the caller is told."""
    _first, second, members = rerankers
    with pytest.raises(ArgumentError, match="instruction"):
        FallbackReranker(members).rerank("q", DOCUMENTS, instruction="Find it")
    other = FallbackReranker(members[::-1])
    second.away = True
    with pytest.raises((UnavailableError, ArgumentError)):
        other.rerank("q", DOCUMENTS, instruction="Find it")


@pytest.fixture
def pictured() -> Iterator[FakeRuntime]:
    """Models that take pictures and are not there."""

    def away(texts: Any) -> None:
        raise UnavailableError("away")

    with FakeRuntime(fault=away) as fake:
        yield fake


def test_a_reranker_of_texts_is_passed_over_where_there_are_pictures(pictured: FakeRuntime) -> None:
    """It could score texts alone; the error, or the last resort, is that of the members that take pictures."""
    picture = Image(np.zeros((40, 40, 3), np.uint8))
    both = FallbackReranker([pictured.vision_reranker, "embrief/tiny-reranker"])
    calls: list[Callable[[], Any]] = [
        lambda: both.score("q", ["a", picture]),
        lambda: both.score([picture, "q"], ["a"]),
        lambda: both.score_pairs([("q", "a"), ("q", {"image": picture})]),
        lambda: asyncio.run(both.ascore(picture, ["a"])),
        lambda: asyncio.run(both.ascore_pairs([(picture, "a")])),
    ]
    for call in calls:
        with pytest.raises(UnavailableError, match=r"away; embrief/tiny-reranker \(engine\): it takes texts only"):
            call()
    last = FallbackReranker([pictured.vision_reranker, "embrief/tiny-reranker"], last_resort="input-order")
    assert [item.score for item in last.rerank("q", [picture])] == [None]
    assert both.with_settings(max_pixels=4096).members == both.members


def test_an_embedder_of_texts_gives_no_degraded_answer_to_pictures(pictured: FakeRuntime, tmp_path: Path) -> None:
    whole = [Embedder(pictured.vision) for _ in range(2)]
    chain = FallbackEmbedder([*whole, "embrief/hash"], allow_degraded=True, unprobed="warn", probes=tmp_path)
    picture = Image(np.zeros((40, 40, 3), np.uint8))
    with pytest.warns(UnprobedWarning):
        assert chain.encode(["a"], role="document").degraded
    for call in (chain.encode, lambda *given, **more: asyncio.run(chain.aencode(*given, **more))):
        with pytest.raises(UnavailableError, match="away"):
            call(["a", picture], role="document")


def test_wrappers_take_a_fallback(rerankers: Any, two: Any, tmp_path: Path) -> None:
    langchain = pytest.importorskip("langchain_embrief")
    documents = pytest.importorskip("langchain_core.documents")
    first, second, members = rerankers
    first.away = second.away = True
    reranker = langchain.Qwen3Reranker(reranker=FallbackReranker(members, last_resort="input-order"))
    found = reranker.compress_documents([documents.Document(page_content=text) for text in DOCUMENTS], "q")
    assert [document.metadata["relevance_score"] for document in found] == [None] * len(found)
    embeddings = langchain.Qwen3Embeddings(embedder=FallbackEmbedder(two[2], probes=tmp_path))
    two[0].fault = down
    assert len(embeddings.embed_documents(["a", "b"])) == 2


def test_warnings_come_once_per_member(two: Any, tmp_path: Path) -> None:
    both = FallbackEmbedder(two[2], probes=tmp_path / "empty", unprobed="warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        both.embed_documents(["a"])
        both.embed_documents(["b"])
    assert len([warning for warning in caught if warning.category is UnprobedWarning]) == 1


def test_a_reranker_loads_the_first_that_can(rerankers: Any) -> None:
    seen: list[FallbackEvent] = []
    first = Reranker(BGE, backend="sentence-transformers", local_files_only=True, cache_dir="/nonexistent")
    both = FallbackReranker([first, rerankers[2][0]], on_event=seen.append)
    assert both.load() is both
    assert [event.kind for event in seen] == ["failed", "answered"]


# ---- From a configuration


def configured(tmp_path: Path, text: str) -> Any:
    from embrief import Registry, load_config

    pytest.importorskip("yaml")
    file = tmp_path / "embrief.yaml"
    file.write_text(text, "utf-8")
    return Registry(load_config(file))


def test_a_configured_chain(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kept, "user_folder", lambda kind: tmp_path)
    servers = Server(), Server()
    with LoopbackServer(servers[0]) as one, LoopbackServer(servers[1]) as two:
        registry = configured(
            tmp_path,
            f"fallback_chain: [first, second]\nmodels:\n"
            f"  first: {{provider: openai, model_id: {QWEN}, base_url: '{one.url}'}}\n"
            f"  second: {{provider: openai, model_id: {QWEN}, base_url: '{two.url}'}}\n",
        )
        kept.record(registry.get("first"))
        seen: list[FallbackEvent] = []
        chain = registry.chain(on_event=seen.append)
        chain.embed_documents(["warm"])
        servers[0].fault = lambda texts: Reply({"error": "busy"}, 429, {"Retry-After": "500"})
        assert chain.encode(["a"], role="document").answered_by == chain.members[1]
        assert seen[-1].kind == "answered"


def test_a_configured_chain_over_different_models_says_what_to_change(tmp_path: Path) -> None:
    text = (
        "fallback_chain: [first, last]\nmodels:\n  first: {provider: ollama, model_id: bge-m3}\n"
        "  last: {provider: hash, dim: 1024}\n"
    )
    with pytest.raises(ArgumentError, match=r"embrief/hash.*out of fallback_chain.*allow_degraded: true"):
        configured(tmp_path, text).chain()
    chain = configured(tmp_path, f"allow_degraded: true\n{text}").chain()
    assert len(chain.members) == 2
    assert chain.info()["degraded_members"] == [chain.members[1]]
    with pytest.raises(ArgumentError, match="no fallback_chain"):
        configured(tmp_path, "models: {}\n").chain()
