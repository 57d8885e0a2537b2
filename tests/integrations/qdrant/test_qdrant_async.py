from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.models import Document, PointStruct, PointVectors, Prefetch

from embrief import Embedder, Reranker
from embrief.errors import ArgumentError, ArgumentTypeError, SpaceMismatchError
from embrief.serving.resolving import ResolvedModel
from qdrant_embrief import (
    acheck_collection,
    acreate_collection,
    aquery_texts,
    attach,
    aupsert_texts,
    create_collection,
    query_texts,
    upsert_texts,
)

QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


@pytest.fixture
async def attached(aclient, fake):
    embedder = Embedder(fake.qwen3)
    attach(aclient, embedder)
    await acreate_collection(aclient, "docs", embedder)
    return aclient


@asynccontextmanager
async def heartbeat():
    """Fail if the event loop stood still for long while the block ran."""
    beats = [time.perf_counter()]

    async def beat():
        while True:
            await asyncio.sleep(0.01)
            beats.append(time.perf_counter())

    task = asyncio.create_task(beat())
    await asyncio.sleep(0.02)
    yield
    task.cancel()
    longest = max(after - before for before, after in zip(beats, [*beats[1:], time.perf_counter()], strict=True))
    assert longest < 0.2, f"the event loop stood still for {longest:.2f} s"


async def test_embedding_never_stops_the_event_loop(attached, fake):
    await attached.upsert("docs", [PointStruct(id=1, vector=Document(text="warm", model=fake.qwen3))])
    fake.threads.clear()
    fake.delay = 0.4
    document = Document(text="a", model=fake.qwen3)
    async with heartbeat():
        await attached.upsert("docs", [PointStruct(id=1, vector=document)])
    async with heartbeat():
        await attached.query_points("docs", query=document, prefetch=[Prefetch(query=document)])
    async with heartbeat():
        await attached.query_batch_points("docs", [models.QueryRequest(query=document)])
    assert threading.current_thread().name not in fake.threads
    assert fake.texts[1:] == ["a", QUERY + "a", QUERY + "a", QUERY + "a"]


async def test_helpers_never_stop_the_event_loop(aclient, fake):
    embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
    await acreate_collection(aclient, "docs", embedder)
    embedder.load()
    reranker.load()
    fake.threads.clear()
    fake.delay = 0.4
    async with heartbeat():
        await aupsert_texts(aclient, "docs", embedder, ["Mars is red", "Venus is bright"])
    async with heartbeat():
        hits = await aquery_texts(aclient, "docs", embedder, "Venus is", reranker=reranker, top_n=1)
    assert hits[0].text == "Venus is bright"
    assert threading.current_thread().name not in fake.threads


@pytest.fixture
def slow_facts(monkeypatch):
    """Facts that take their time to come, as those of a model without a record do; keeps who waited for them."""
    waited = []
    facts = ResolvedModel.__dict__["spec"].__get__

    def spec(shared):
        waited.append(threading.current_thread().name)
        if len(waited) == 1:
            time.sleep(0.4)  # where a download happens
        return facts(shared, ResolvedModel)

    def start():
        waited.clear()
        monkeypatch.setattr(ResolvedModel, "spec", property(spec))
        return waited

    return start


@pytest.mark.parametrize("named", [False, True])
async def test_helpers_never_wait_for_facts_on_the_event_loop(aclient, fake, slow_facts, named):
    embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
    given, using = ({"a": embedder, "b": Embedder(fake.gemma)}, "a") if named else (embedder, None)
    calls = {
        "new": lambda: acreate_collection(aclient, "docs", given),
        "kept": lambda: acreate_collection(aclient, "docs", given),
        "check": lambda: acheck_collection(aclient, "docs", given),
        "upsert": lambda: aupsert_texts(aclient, "docs", given, ["Mars is red"]),
        "query": lambda: aquery_texts(aclient, "docs", embedder, "Mars is", using=using, task="code_retrieval"),
        "rerank": lambda: aquery_texts(aclient, "docs", embedder, "Mars is", using=using, reranker=reranker),
    }
    for call in calls.values():
        waited = slow_facts()
        async with heartbeat():
            await call()
        assert waited != []
        assert threading.current_thread().name not in waited


async def test_attached_clients_never_wait_for_facts_on_the_event_loop(attached, fake, slow_facts):
    options = {"mrl": 64, "task": "code_retrieval"}
    query = Document(text="a", model=fake.qwen3, options=options)
    point = PointStruct(id=1, vector=Document(text="a", model=fake.qwen3))
    calls = {
        "query": lambda: attached.query_points("docs", query=query, prefetch=Prefetch(query=query)),
        "batch": lambda: attached.query_batch_points("docs", [models.QueryRequest(query=query)]),
        "upsert": lambda: attached.upsert("docs", [point]),
        "vectors": lambda: attached.update_vectors("docs", [PointVectors(id=1, vector=point.vector)]),
    }
    for call in calls.values():
        waited = slow_facts()
        async with heartbeat():
            await call()
        assert waited != []
        assert threading.current_thread().name not in waited


async def test_every_write_is_a_document(attached, fake):
    document = Document(text="a", model=fake.qwen3)
    await attached.upsert("docs", models.Batch(ids=[1], vectors=[document]))
    await attached.upsert(collection_name="docs", points=[PointStruct(id=1, vector=document)])
    await attached.update_vectors("docs", points=[PointVectors(id=1, vector=document)])
    operation = models.UpsertOperation(upsert=models.PointsList(points=[PointStruct(id=1, vector=document)]))
    await attached.batch_update_points("docs", update_operations=[operation])
    assert fake.texts == ["a"] * 4


async def test_every_query_is_a_query(attached, fake):
    document = Document(text="a", model=fake.qwen3, options={"instruction": "I"})
    await attached.query_points_groups("docs", group_by="kind", query=document)
    await attached.query_points("docs", prefetch=Prefetch(query=document), query=models.FusionQuery(fusion="rrf"))
    recommend = models.RecommendQuery(recommend=models.RecommendInput(positive=[document]))
    await attached.query_points("docs", query=recommend)
    await attached.query_batch_points("docs", requests=[models.QueryRequest(query=document)])
    assert fake.texts == ["Instruct: I\nQuery:a"] * 4


async def test_concurrent_calls_keep_their_vectors(attached, fake):
    texts = [f"text {i} of many" for i in range(20)]
    fake.delay = 0.005
    await asyncio.gather(*(
        attached.upsert("docs", [PointStruct(id=i, vector=Document(text=text, model=fake.qwen3))])
        for i, text in enumerate(texts)
    ))  # fmt: skip
    options = {"instruction": ""}
    found = await asyncio.gather(
        *(attached.query_points("docs", query=Document(text=t, model=fake.qwen3, options=options)) for t in texts)
    )
    assert [answer.points[0].id for answer in found] == list(range(20))
    assert fake.loads == 1


async def test_numbers_and_filters_pass_untouched(attached, fake):
    await attached.upsert("docs", [PointStruct(id=1, vector=[1.0] + [0.0] * 63)])
    found = await attached.query_points("docs", np.eye(1, 64, dtype=np.float32)[0], limit=1, with_vectors=True)
    assert found.points[0].id == 1
    assert len(found.points[0].vector) == 64
    assert (await attached.query_points("docs")).points[0].id == 1
    assert fake.runs == []


async def test_a_same_width_model_of_another_space_is_refused(attached, fake):
    attach(attached, Embedder(fake.gemma))
    with pytest.raises(SpaceMismatchError):
        await attached.upsert("docs", [PointStruct(id=1, vector=Document(text="a", model=fake.gemma))])
    with pytest.raises(SpaceMismatchError):
        await attached.query_points("docs", query=Document(text="a", model=fake.gemma))
    assert fake.runs == []


async def test_unknown_keywords_stay_errors(attached, fake):
    with pytest.raises((TypeError, AssertionError), match="nonsense"):
        await attached.query_points("docs", query=Document(text="a", model=fake.qwen3), nonsense=1)


async def test_uploads_embed_in_the_calling_thread(attached, fake):
    """Ordinary functions in Qdrant's async client: the docs say to give them a thread."""
    points = [PointStruct(id=1, vector=Document(text="a", model=fake.qwen3))]
    await asyncio.to_thread(attached.upload_points, "docs", points, parallel=2)
    assert fake.texts == ["a"]


async def test_path_clients(tmp_path, fake):
    client = attach(AsyncQdrantClient(path=str(tmp_path)), Embedder(fake.qwen3))
    await acreate_collection(client, "docs", Embedder(fake.qwen3))
    await client.upsert("docs", [PointStruct(id=1, vector=Document(text="a", model=fake.qwen3))])
    await client.close()
    again = AsyncQdrantClient(path=str(tmp_path))
    assert await acreate_collection(again, "docs", Embedder(fake.qwen3)) is False
    with pytest.raises(SpaceMismatchError):
        await acheck_collection(again, "docs", Embedder(fake.gemma))
    await again.close()


async def test_helpers_give_what_their_twins_give(aclient, client, fake):
    embedder, reranker = Embedder(fake.gemma), Reranker(fake.reranker)
    texts, ids = ["Mars is red", "Venus is bright", "Saturn has rings"], ["m", "v", "s"]
    settings = {"ids": ids, "titles": ["A", None, "C"], "payloads": [{"n": 1}, None, {}], "batch_size": 2}
    await acreate_collection(aclient, "docs", embedder, metadata={"owner": "me"})
    create_collection(client, "docs", embedder, metadata={"owner": "me"})
    one = await aupsert_texts(aclient, "docs", embedder, texts, **settings)
    assert one == upsert_texts(client, "docs", embedder, texts, **settings)
    query = {"instruction": "find", "reranker": reranker, "top_n": 2, "limit": 3, "rerank_instruction": "judge"}
    first = await aquery_texts(aclient, "docs", embedder, "Venus is", **query)
    assert first == query_texts(client, "docs", embedder, "Venus is", **query)
    assert fake.texts[:3] == fake.texts[3:6]
    assert len(fake.pairs) == 6
    assert fake.pairs[:3] == fake.pairs[3:]
    found = await aquery_texts(aclient, "docs", embedder, "Venus")
    assert [hit.rerank_score for hit in found] == [None] * 3


async def test_the_wrong_kind_of_client_names_the_twin(aclient, client, fake):
    embedder = Embedder(fake.qwen3)
    with pytest.raises(ArgumentTypeError, match="use acreate_collection"):
        create_collection(aclient, "docs", embedder)
    with pytest.raises(ArgumentTypeError, match="use aupsert_texts"):
        upsert_texts(aclient, "docs", embedder, ["a"])
    with pytest.raises(ArgumentTypeError, match="use aquery_texts"):
        query_texts(aclient, "docs", embedder, "a")
    with pytest.raises(ArgumentTypeError, match="use create_collection"):
        await acreate_collection(client, "docs", embedder)
    with pytest.raises(ArgumentTypeError, match="use upsert_texts"):
        await aupsert_texts(client, "docs", embedder, ["a"])
    with pytest.raises(ArgumentTypeError, match="use query_texts"):
        await aquery_texts(client, "docs", embedder, "a")


async def test_async_helpers_check_the_space_first(aclient, fake):
    await acreate_collection(aclient, "docs", Embedder(fake.qwen3))
    other = Embedder(fake.gemma)
    with pytest.raises(SpaceMismatchError):
        await aupsert_texts(aclient, "docs", other, ["a"])
    with pytest.raises(SpaceMismatchError):
        await aquery_texts(aclient, "docs", other, "a")
    with pytest.raises(SpaceMismatchError):
        await acreate_collection(aclient, "docs", other)
    with pytest.raises(ArgumentError, match="limit=0"):
        await aquery_texts(aclient, "docs", Embedder(fake.qwen3), "a", limit=0)
    assert fake.runs == []
