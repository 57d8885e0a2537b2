"""The node postprocessor."""

from __future__ import annotations

import copy
import json
import pickle
import threading

import numpy as np
import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from embrief import ArgumentError, ArgumentTypeError, Embedder, Reranker
from embrief.testing import FakeRuntime
from llama_index_embrief import Qwen3Rerank, RerankedNode

TEXTS = ["venus is bright", "mars is red", "the red planet mars", "saturn"]
QUERY = "red planet mars"


def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=text, metadata={"n": str(n)}), score=0.9 - n / 10)
        for n, text in enumerate(TEXTS)
    ]


def bodies(found: list[NodeWithScore]) -> list[str]:
    return [node.text for node in found]


def test_it_is_what_llama_index_expects() -> None:
    assert BaseNodePostprocessor.__name__ in [base.__name__ for base in Qwen3Rerank.__mro__]
    assert Qwen3Rerank.class_name() == "Qwen3Rerank"
    assert Qwen3Rerank().model == "Qwen/Qwen3-Reranker-0.6B"


def test_model_by_position_keyword_and_facade(fake: FakeRuntime) -> None:
    facade = Reranker(fake.reranker, instruction="Find planets")
    made = [
        Qwen3Rerank(fake.reranker, instruction="Find planets"),
        Qwen3Rerank(model=fake.reranker, instruction="Find planets"),
        Qwen3Rerank(reranker=facade),
    ]
    assert made[2].reranker is facade
    assert [rerank.instruction for rerank in made] == ["Find planets"] * 3
    for rerank in made:
        rerank.postprocess_nodes(nodes(), query_str=QUERY)
    assert fake.loads == 1
    assert {"<Instruct>: Find planets\n" in pair.head for pair in fake.pairs} == {True}


def test_errors_of_the_constructor(fake: FakeRuntime) -> None:
    with pytest.raises(ArgumentTypeError, match="Qwen3Rerank has no option top_k"):
        Qwen3Rerank(fake.reranker, top_k=3)
    with pytest.raises(ArgumentTypeError, match="dim"):
        Qwen3Rerank(fake.reranker, dim=3)
    with pytest.raises(ArgumentError, match="leave out model, instruction"):
        Qwen3Rerank(fake.reranker, reranker=Reranker(fake.reranker), instruction="x")
    with pytest.raises(ArgumentTypeError, match="Reranker, not Embedder"):
        Qwen3Rerank(reranker=Embedder(fake.qwen3))
    for top_n in (0, -1, True, "3"):
        with pytest.raises(ValueError, match="top_n"):
            Qwen3Rerank(fake.reranker, top_n=top_n)


async def test_order_scores_and_top_n(fake: FakeRuntime) -> None:
    rerank = Qwen3Rerank(fake.reranker)
    everything = rerank.postprocess_nodes(nodes(), query_str=QUERY)
    assert bodies(everything) == [TEXTS[2], TEXTS[1], TEXTS[0], TEXTS[3]]  # ties in input order
    two = Qwen3Rerank(fake.reranker, top_n=2)
    assert bodies(two.postprocess_nodes(nodes(), QueryBundle(QUERY))) == [TEXTS[2], TEXTS[1]]
    assert bodies(await two.apostprocess_nodes(nodes(), query_str=QUERY)) == [TEXTS[2], TEXTS[1]]
    core = [
        place.score for place in Reranker(fake.reranker).rerank(QUERY, [f"n: {n}\n\n{t}" for n, t in enumerate(TEXTS)])
    ]
    assert [node.score for node in everything] == core
    # numpy numbers would pass unseen until somebody writes JSON.
    assert {type(node.score) for node in everything} == {float}
    assert all(json.loads(node.to_json())["score"] == node.score for node in everything)


def test_the_model_reads_the_embed_text(fake: FakeRuntime) -> None:
    node = TextNode(text="t", metadata={"a": "1", "b": "2"}, excluded_embed_metadata_keys=["b"])
    Qwen3Rerank(fake.reranker).postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    assert [pair.body for pair in fake.pairs] == ["a: 1\n\nt"]


async def test_inputs_are_not_changed(fake: FakeRuntime) -> None:
    given = nodes()
    before, scores = [node.to_dict() for node in given], [node.score for node in given]
    rerank = Qwen3Rerank(fake.reranker, top_n=2)
    found = rerank.postprocess_nodes(given, query_str=QUERY) + await rerank.apostprocess_nodes(given, query_str=QUERY)
    assert [node.to_dict() for node in given] == before
    assert [node.score for node in given] == scores
    assert not {id(node) for node in found} & {id(node) for node in given}
    assert {id(node.node) for node in found} <= {id(node.node) for node in given}


def test_retrieval_score_is_kept_without_polluting_texts(fake: FakeRuntime) -> None:
    given = nodes()
    found = Qwen3Rerank(fake.reranker).postprocess_nodes(given, query_str=QUERY)
    assert [node.retrieval_score for node in found] == [given[n].score for n in (2, 1, 0, 3)]
    for node in found:
        for mode in MetadataMode:
            assert "score" not in node.get_content(mode)
        assert set(node.metadata) == {"n"}
    assert json.loads(found[0].to_json())["retrieval_score"] == given[2].score


def test_retrieval_score_survives_a_second_reranking_and_may_be_missing(fake: FakeRuntime) -> None:
    rerank = Qwen3Rerank(fake.reranker)
    once = rerank.postprocess_nodes(nodes(), query_str=QUERY)
    twice = rerank.with_instruction("Find planets").postprocess_nodes(once, query_str=QUERY)
    assert [node.retrieval_score for node in twice] == [node.retrieval_score for node in once]
    none = rerank.postprocess_nodes([NodeWithScore(node=TextNode(text="t"))], query_str=QUERY)[0]
    assert none.retrieval_score is None


def test_a_numpy_retrieval_score_becomes_a_float(fake: FakeRuntime) -> None:
    given = nodes()[:1]
    given[0].score = np.float32(0.5)
    found = Qwen3Rerank(fake.reranker).postprocess_nodes(given, query_str=QUERY)
    assert type(found[0].retrieval_score) is float


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("count", [4, 0])
@pytest.mark.parametrize("top_n", [None, 2])
async def test_events_in_pairs_also_for_no_nodes(
    fake: FakeRuntime, events, legacy, asynchronous: bool, count: int, top_n: int | None
) -> None:
    given = nodes()[:count]
    old = [node.score for node in given]
    rerank = Qwen3Rerank(fake.reranker, top_n=top_n, callback_manager=CallbackManager([legacy]))
    if asynchronous:
        found = await rerank.apostprocess_nodes(given, query_str=QUERY)
    else:
        found = rerank.postprocess_nodes(given, query_str=QUERY)
    assert events.names() == ["ReRankStartEvent", "ReRankEndEvent"]
    start, end = events.events
    # top_n=None is not allowed in the event.
    assert (start.model_name, start.top_n) == (fake.reranker, count if top_n is None else 2)
    assert start.query.query_str == QUERY
    assert [node.score for node in start.nodes] == old  # still, after the reranking
    assert [id(node) for node in end.nodes] == [id(node) for node in found]
    assert [name for name, _ in legacy.started] == [name for name, _ in legacy.ended] == ["reranking"]
    started, ended = legacy.started[0][1], legacy.ended[0][1]
    assert started["nodes"] == given
    assert started["query_str"] == QUERY
    assert started["model_name"] == fake.reranker
    assert started["top_k"] == start.top_n
    assert ended["nodes"] == found
    assert len(found) == min(count, top_n or count)
    if not count:
        assert fake.loads == 0


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_no_query_is_an_error_before_any_event(fake: FakeRuntime, events, legacy, asynchronous: bool) -> None:
    rerank = Qwen3Rerank(fake.reranker, callback_manager=CallbackManager([legacy]))
    if asynchronous:
        with pytest.raises(ArgumentError, match="query_str= or query_bundle="):
            await rerank.apostprocess_nodes(nodes())
    else:
        with pytest.raises(ArgumentError, match="query_str= or query_bundle="):
            rerank.postprocess_nodes(nodes())
    assert events.names() == []
    assert legacy.started == []


def test_a_failing_model_ends_the_callback(fake: FakeRuntime, events, legacy) -> None:
    def fault(texts) -> None:
        raise RuntimeError("out of memory")

    fake.fault = fault
    with pytest.raises(RuntimeError, match="out of memory"):
        Qwen3Rerank(fake.reranker, callback_manager=CallbackManager([legacy])).postprocess_nodes(
            nodes(), query_str=QUERY
        )
    assert "reranking" in [name for name, _ in legacy.ended]
    assert "ReRankEndEvent" not in events.names()


async def test_both_methods_make_a_span(fake: FakeRuntime, spans) -> None:
    rerank = Qwen3Rerank(fake.reranker)
    rerank.postprocess_nodes(nodes(), query_str=QUERY)
    await rerank.apostprocess_nodes(nodes(), query_str=QUERY)
    assert spans.entered == ["Qwen3Rerank._postprocess_nodes", "Qwen3Rerank._apostprocess_nodes"]


async def test_async_never_blocks_the_event_loop(fake: FakeRuntime, heartbeat, monkeypatch) -> None:
    fake.delay = 0.3
    reading: set[str] = set()
    real = TextNode.get_content

    def spy(self, *args, **kwargs):
        reading.add(threading.current_thread().name)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(TextNode, "get_content", spy)
    async with heartbeat() as gaps:
        await Qwen3Rerank(fake.reranker).apostprocess_nodes(nodes(), query_str=QUERY)
    assert len(gaps) > 20
    assert max(gaps) < 0.2
    assert threading.current_thread().name not in fake.threads | reading


async def test_with_instruction_shares_the_model_and_keeps_options(fake: FakeRuntime) -> None:
    rerank = Qwen3Rerank(fake.reranker, top_n=2)
    other = rerank.with_instruction("Find moons")
    assert (other.instruction, other.top_n) == ("Find moons", 2)
    assert other.callback_manager is rerank.callback_manager
    rerank.postprocess_nodes(nodes(), query_str=QUERY)
    await other.apostprocess_nodes(nodes(), query_str=QUERY)
    assert "Find moons" not in fake.pairs[0].head
    assert "<Instruct>: Find moons\n" in fake.pairs[-1].head
    assert fake.loads == 1


def test_round_trip_pickle_and_copy(fake: FakeRuntime) -> None:
    rerank = Qwen3Rerank(fake.reranker, top_n=2, instruction="Find moons", max_tokens=300, device="cpu")
    expected = [(node.text, node.score) for node in rerank.postprocess_nodes(nodes(), query_str=QUERY)]
    data = pickle.dumps(rerank)
    assert len(data) < 5000
    for again in (
        Qwen3Rerank.from_dict(rerank.to_dict()),
        Qwen3Rerank.from_json(rerank.to_json()),
        pickle.loads(data),
        copy.deepcopy(rerank),
        rerank.model_copy(),
    ):
        assert again.to_dict() == rerank.to_dict()
        assert again.reranker.settings == rerank.reranker.settings
        assert [(node.text, node.score) for node in again.postprocess_nodes(nodes(), query_str=QUERY)] == expected
    assert fake.loads == 1
    assert rerank.model_copy(update={"top_n": 3}).top_n == 3
    with pytest.raises(ArgumentTypeError, match="top_k"):
        rerank.model_copy(update={"top_k": 3})


def test_top_n_can_be_assigned_and_the_model_cannot(fake: FakeRuntime) -> None:
    rerank = Qwen3Rerank(fake.reranker)
    rerank.top_n = 1
    assert len(rerank.postprocess_nodes(nodes(), query_str=QUERY)) == 1
    for name in ("model", "instruction"):
        with pytest.raises(ValueError, match="frozen"):
            setattr(rerank, name, "x")


def test_reranked_node_is_a_node_with_score() -> None:
    node = RerankedNode(node=TextNode(text="t"), score=0.5, retrieval_score=0.25)
    assert isinstance(node, NodeWithScore)
    assert node.to_dict()["retrieval_score"] == 0.25
    assert node.class_name() == "RerankedNode"


def test_top_n_is_checked_when_it_is_assigned(fake: FakeRuntime) -> None:
    rerank = Qwen3Rerank(fake.reranker, top_n=1)
    rerank.top_n = 2
    assert rerank.top_n == 2
    with pytest.raises(ValueError, match="top_n"):
        rerank.top_n = 0
