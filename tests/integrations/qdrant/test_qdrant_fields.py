"""Each document is compared with the very vector field it is for: by `using=`, a prefetch's name, or a point's keys."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.embed._inspection_cache import CACHE_STR_PATH
from qdrant_client.models import Document, PointStruct, PointVectors, Prefetch

from embrief import Embedder
from embrief.errors import ArgumentError, SpaceMismatchError
from qdrant_embrief import attach, create_collection
from qdrant_embrief.inference.documents import USER_DATA, documents

Q = Document(text="x", model="q")
G = Document(text="x", model="g")
RIGHT = {"a": Q, "b": G}
SWAPPED = {"a": G, "b": Q}
RRF = models.FusionQuery(fusion=models.Fusion.RRF)


def recommend(*positive, negative=()):
    return models.RecommendQuery(recommend=models.RecommendInput(positive=list(positive), negative=list(negative)))


def pair(positive, negative):
    return models.ContextPair(positive=positive, negative=negative)


def feedback(target, example):
    strategy = models.NaiveFeedbackStrategy(naive=models.NaiveFeedbackStrategyParams(a=1, b=1, c=1))
    item = models.FeedbackItem(example=example, score=1.0)
    given = models.RelevanceFeedbackInput(target=target, feedback=[item], strategy=strategy)
    return models.RelevanceFeedbackQuery(relevance_feedback=given)


def queries(d):
    """Every kind of query, with a document in every place that takes one."""
    other = [1.0] + [0.0] * 63
    return {
        "document": d,
        "inference object": models.InferenceObject(object="x", model=d.model),
        "nearest": models.NearestQuery(nearest=d, mmr=models.Mmr(diversity=0.5)),
        "positive": recommend(d),
        "positive after an id": recommend(1, d),
        "positive after a vector": recommend(other, d),
        "negative": recommend(1, negative=[other, d]),
        "target": models.DiscoverQuery(discover=models.DiscoverInput(target=d, context=[])),
        "discover context": models.DiscoverQuery(
            discover=models.DiscoverInput(target=other, context=[pair(1, 1), pair(other, d)])
        ),
        "context": models.ContextQuery(context=pair(d, other)),
        "context list": models.ContextQuery(context=[pair(1, other), pair(other, d)]),
        "feedback target": feedback(d, other),
        "feedback example": feedback(other, d),
    }


QUERIES = list(queries(Q))


def query_calls(d, using):
    """Every place of a query, in the form (method, arguments)."""
    calls = {f"query {kind}": ("query_points", {"query": query, "using": using}) for kind, query in queries(d).items()}
    fetch = Prefetch(query=d, using=using)
    nested = Prefetch(prefetch=[Prefetch(prefetch=fetch, query=RRF)], query=RRF)
    beside = [Prefetch(query=RIGHT["a"], using="a"), fetch]
    for kind, prefetch in (("one", fetch), ("nested", nested), ("beside", beside)):
        # The outer name is another one: it must not decide about the prefetch.
        calls[f"prefetch {kind}"] = ("query_points", {"prefetch": prefetch, "query": RIGHT["b"], "using": "b"})
        calls[f"prefetch {kind}, fusion"] = ("query_points", {"prefetch": prefetch, "query": RRF})
    calls["prefetch of a kind"] = (
        "query_points",
        {"prefetch": Prefetch(query=recommend(1, d), using=using), "query": RRF},
    )
    calls["groups"] = ("query_points_groups", {"group_by": "kind", "query": d, "using": using})
    calls["groups prefetch"] = ("query_points_groups", {"group_by": "kind", "prefetch": beside, "query": RRF})
    first = models.QueryRequest(query=RIGHT["a"], using="a")
    calls["batch"] = ("query_batch_points", {"requests": [first, models.QueryRequest(query=d, using=using)]})
    calls["batch prefetch"] = (
        "query_batch_points",
        {"requests": [first, models.QueryRequest(prefetch=nested, query=RRF)]},
    )
    return calls


def write_calls(vector):
    point = PointStruct(id=2, vector=vector, payload={"document": G})
    fine = PointStruct(id=3, vector=RIGHT)
    changed = PointVectors(id=1, vector=vector)
    batch = models.Batch(
        ids=[3, 2], vectors={name: [RIGHT[name], vector[name]] for name in vector}, payloads=[{"a": G}] * 2
    )
    operations = {
        "upsert operation": models.UpsertOperation(upsert=models.PointsList(points=[fine, point])),
        "batch operation": models.UpsertOperation(upsert=models.PointsBatch(batch=batch)),
        "vectors operation": models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=[changed])),
    }
    return {
        "upsert": ("upsert", {"points": [fine, point]}),
        "upsert batch": ("upsert", {"points": batch}),
        "update_vectors": ("update_vectors", {"points": [changed]}),
        **{name: ("batch_update_points", {"update_operations": [item]}) for name, item in operations.items()},
    }


def upload_calls(vector):
    fine = PointStruct(id=3, vector=RIGHT)
    point = PointStruct(id=2, vector=vector)
    return {
        "upload_points": ("upload_points", {"points": [fine, point]}),
        "upload_points of a stream": ("upload_points", {"points": iter([fine, point])}),
        "upload_collection": ("upload_collection", {"vectors": [dict(RIGHT), dict(vector)], "ids": [3, 2]}),
        "upload_collection of a stream": (
            "upload_collection",
            {"vectors": iter([dict(RIGHT), dict(vector)]), "ids": [3, 2]},
        ),
    }


QUERY_CALLS = list(query_calls(Q, "a"))
WRITE_CALLS = list(write_calls(RIGHT))
UPLOAD_CALLS = list(upload_calls(RIGHT))


@pytest.fixture
def embedders(fake):
    return {"q": Embedder(fake.qwen3), "g": Embedder(fake.gemma)}


def fill(embedders, client):
    """A collection of two vectors of one width and two spaces, with one point."""
    create_collection(client, "two", {"a": embedders["q"], "b": embedders["g"]})
    client.upsert("two", [PointStruct(id=1, vector={"a": [1.0] + [0.0] * 63, "b": [1.0] * 64}, payload={"kind": 1})])


@pytest.fixture
def two(client, embedders):
    fill(embedders, client)
    return attach(client, embedders)


@pytest.fixture
async def atwo(tmp_path, embedders):
    first = QdrantClient(path=str(tmp_path))
    fill(embedders, first)
    first.close()
    client = AsyncQdrantClient(path=str(tmp_path))
    yield attach(client, embedders)
    await client.close()


@pytest.fixture(params=["sync", "async"])
def call(request, two, atwo):
    """Run a method on a client of each kind."""

    async def run(method, arguments):
        answer = getattr(two if request.param == "sync" else atwo, method)("two", **arguments)
        return await answer if inspect.isawaitable(answer) else answer

    return run


@pytest.mark.parametrize("kind", QUERY_CALLS)
async def test_a_query_of_another_space_than_its_fields_is_refused(call, fake, kind):
    with pytest.raises(SpaceMismatchError, match=r"vector 'a'.*document_prompt"):
        await call(*query_calls(G, "a")[kind])
    assert fake.runs == []
    await call(*query_calls(Q, "a")[kind])
    assert fake.runs != []


@pytest.mark.parametrize("kind", WRITE_CALLS)
async def test_a_point_of_another_space_than_its_fields_is_refused(call, fake, kind):
    with pytest.raises(SpaceMismatchError, match=r"vector 'a'.*document_prompt"):
        await call(*write_calls(SWAPPED)[kind])
    with pytest.raises(SpaceMismatchError, match=r"vector 'b'.*document_prompt"):
        await call(*write_calls({"b": Q})[kind])
    assert fake.runs == []
    assert (await call("count", {})).count == 1
    await call(*write_calls(RIGHT)[kind])
    assert fake.runs != []


@pytest.mark.parametrize("kind", UPLOAD_CALLS)
async def test_an_upload_of_another_space_than_its_fields_is_refused(call, fake, kind):
    with pytest.raises(SpaceMismatchError, match=r"vector 'a'.*document_prompt"):
        await call(*upload_calls(SWAPPED)[kind])
    assert fake.runs == []
    await call(*upload_calls(RIGHT)[kind])
    assert (await call("count", {})).count == 3


async def test_uploads_may_leave_the_async_clients_thread(atwo, fake):
    arguments = upload_calls(SWAPPED)["upload_points"][1]
    with pytest.raises(SpaceMismatchError, match="vector 'a'"):
        await asyncio.to_thread(atwo.upload_points, "two", **arguments)
    assert fake.runs == []


async def test_a_width_of_another_field_is_refused_before_numpy_sees_it(client, fake):
    big = Embedder(fake.qwen3)
    attach(client, big)
    sizes = {"full": 64, "small": 32}
    for name, metadata in (("stamped", True), ("plain", False)):
        if metadata:
            create_collection(client, name, {"full": big, "small": big.with_dim(32)})
        else:
            config = {key: models.VectorParams(size=size, distance="Cosine") for key, size in sizes.items()}
            client.create_collection(name, vectors_config=config)
        cut = Document(text="x", model=fake.qwen3, options={"mrl": 32})
        full = Document(text="x", model=fake.qwen3)
        for wrong, using in ((cut, "full"), (full, "small")):
            with pytest.raises(SpaceMismatchError, match=f"vector '{using}'"):
                client.query_points(name, query=wrong, using=using)
            with pytest.raises(SpaceMismatchError, match=f"vector '{using}'"):
                client.upsert(name, [PointStruct(id=1, vector={using: wrong})])
        client.query_points(name, query=cut, using="small")
    assert len(fake.runs) == 2


async def test_a_task_counts_for_its_field(two, fake):
    task = Document(text="x", model="q", options={"task": "sentence_similarity"})
    with pytest.raises(SpaceMismatchError, match=r"vector 'a'.*document_prompt"):
        two.query_points("two", query=task, using="a")
    assert fake.runs == []


async def test_a_name_that_the_collection_lacks_is_an_error_with_its_names(call, two, fake):
    with pytest.raises(ArgumentError, match=r"no unnamed vector; it has 'a', 'b': name it"):
        await call("query_points", {"query": Q})
    with pytest.raises(ArgumentError, match=r"no unnamed vector"):
        # As in Qdrant, a prefetch without a name does not take the one around it.
        await call("query_points", {"prefetch": Prefetch(query=Q), "query": Q, "using": "a"})
    with pytest.raises(ArgumentError, match=r"no vector named 'c'"):
        await call("upsert", {"points": [PointStruct(id=1, vector={"c": Q})]})
    assert fake.runs == []


def test_a_sparse_field_is_said_to_be_sparse(client, embedders):
    sparse = {"words": models.SparseVectorParams()}
    create_collection(client, "docs", embedders["q"], sparse_vectors_config=sparse)
    attach(client, embedders)
    with pytest.raises(ArgumentError, match="only a sparse vector named 'words'"):
        client.query_points("docs", query=Q, using="words")


def test_a_stream_of_requests_is_read_once(two, fake):
    requests = (models.QueryRequest(query=Q, using="a") for _ in range(2))
    assert [len(answer.points) for answer in two.query_batch_points("two", requests)] == [1, 1]


def test_calls_without_documents_do_not_read_the_collection(two, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("one request too many")

    monkeypatch.setattr(type(two._client), "get_collection", refuse)
    two.query_points("two", query=[1.0] * 64, using="a")
    points = [PointStruct(id=5, vector={"a": [1.0] * 64}, payload={"document": Q})]
    two.upsert("two", points)
    two.upload_points("two", points)


def test_documents_in_a_payload_are_the_users_own(two, fake):
    assert list(documents(PointStruct(id=1, vector={"a": Q}, payload={"x": G}))) == [("a", Q)]


def test_contract_no_field_that_is_skipped_holds_documents():
    """A failure means that Qdrant embeds something the check does not look at."""
    steps = {step for paths in CACHE_STR_PATH.values() for path in paths for step in path.split(".")}
    assert steps
    assert not steps & USER_DATA


@pytest.fixture
def server(two):
    """A server that answers what an upload asks."""
    info = two.get_collection("two").model_dump(mode="json")
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, result):
            asked.append((self.command, self.path.partition("?")[0]))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.answer(info)

        def do_PUT(self):
            self.answer({"operation_id": 1, "status": "completed"})

        def log_message(self, *args):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    running.asked = asked
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.mark.parametrize("kind", [QdrantClient, AsyncQdrantClient])
async def test_uploads_to_a_server_are_compared(server, embedders, fake, kind):
    """Also in the async client, whose connections an ordinary function cannot use."""
    client = kind(url=f"http://127.0.0.1:{server.server_port}", check_compatibility=False)
    attach(client, embedders)
    with pytest.raises(SpaceMismatchError, match="vector 'a'"):
        client.upload_points("two", [PointStruct(id=2, vector=SWAPPED)])
    assert (fake.runs, server.asked) == ([], [("GET", "/collections/two")])
    client.upload_points("two", [PointStruct(id=2, vector=RIGHT)])
    assert server.asked[1:] == [("GET", "/collections/two"), ("PUT", "/collections/two/points")]
    closing = client.close()
    if closing is not None:
        await closing
