from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.models import Document, PointStruct, PointVectors, Prefetch

from embrief import Embedder
from embrief.errors import ArgumentError, ArgumentTypeError, SpaceMismatchError, UnknownModelError
from qdrant_embrief import attach, create_collection, vectors_config

QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


def points(model: str, *texts: str, **options: object) -> list[PointStruct]:
    return [
        PointStruct(id=index, vector=Document(text=text, model=model, options=options or None))
        for index, text in enumerate(texts)
    ]


@pytest.fixture
def attached(client, fake):
    embedder = Embedder(fake.qwen3)
    attach(client, embedder)
    create_collection(client, "docs", embedder)
    return client


def test_attach_returns_the_same_client(client, fake):
    kind = type(client)
    assert attach(client, Embedder(fake.qwen3)) is client
    assert isinstance(client, kind)
    assert fake.loads == 0


def test_points_get_the_document_prompt_and_queries_the_query_prompt(attached, fake):
    attached.upsert("docs", points(fake.qwen3, "Mars is red."))
    assert fake.texts == ["Mars is red."]
    attached.query_points("docs", query=Document(text="red", model=fake.qwen3))
    assert fake.texts[1:] == [QUERY + "red"]


def test_gemma_has_prompts_on_both_sides(client, fake):
    embedder = Embedder(fake.gemma)
    attach(client, embedder)
    create_collection(client, "docs", embedder)
    client.upsert("docs", points(fake.gemma, "Mars"))
    client.query_points("docs", query=Document(text="red", model=fake.gemma))
    assert fake.texts == ["title: none | text: Mars", "task: search result | query: red"]


def test_every_write_is_a_document(attached, fake):
    document = Document(text="a", model=fake.qwen3)
    attached.upsert("docs", models.Batch(ids=[1], vectors=[document]))
    attached.update_vectors("docs", [PointVectors(id=1, vector=document)])
    operation = models.UpsertOperation(upsert=models.PointsList(points=[PointStruct(id=1, vector=document)]))
    attached.batch_update_points("docs", [operation])
    attached.upload_points("docs", points(fake.qwen3, "a"))
    attached.upload_collection("docs", [document], ids=[1])
    assert fake.texts == ["a"] * 5


def test_every_query_is_a_query(attached, fake):
    document = Document(text="a", model=fake.qwen3)
    attached.query_batch_points("docs", [models.QueryRequest(query=document)])
    attached.query_points_groups("docs", group_by="kind", query=document)
    attached.query_points("docs", prefetch=Prefetch(query=document), query=models.FusionQuery(fusion=models.Fusion.RRF))
    attached.query_points("docs", query=models.RecommendQuery(recommend=models.RecommendInput(positive=[document])))
    assert fake.texts == [QUERY + "a"] * 4


def test_nested_prefetch_with_fusion_of_two_vectors(client, fake):
    big = Embedder(fake.qwen3)
    small = big.with_dim(16)
    attach(client, big)
    create_collection(client, "docs", {"full": big, "small": small})

    def vector(text):
        cut = Document(text=text, model=fake.qwen3, options={"mrl": 16})
        return {"full": Document(text=text, model=fake.qwen3), "small": cut}

    texts = ["Mars is red", "Venus is bright", "Saturn has rings"]
    client.upsert("docs", [PointStruct(id=i, vector=vector(text)) for i, text in enumerate(texts)])
    stored = client.retrieve("docs", [0], with_vectors=True)[0].vector
    assert np.allclose(stored["full"], big.embed_documents(texts)[0], atol=1e-6)
    assert np.allclose(stored["small"], small.embed_documents(texts)[0], atol=1e-6)
    fake.texts.clear()
    query = vector("Saturn rings")
    found = client.query_points(
        "docs",
        prefetch=[
            Prefetch(query=query["full"], using="full", limit=3),
            Prefetch(prefetch=Prefetch(query=query["small"], using="small"), query=query["full"], using="full"),
        ],
        query=models.FusionQuery(fusion=models.Fusion.RRF),
    )
    assert len(found.points) == 3
    assert found.points[0].id == 2
    assert set(fake.texts) == {QUERY + "Saturn rings"}


def test_same_vector_as_the_core(attached, fake):
    attached.upsert("docs", points(fake.qwen3, "Mars is red."))
    stored = attached.retrieve("docs", [0], with_vectors=True)[0].vector
    assert np.allclose(stored, Embedder(fake.qwen3).embed_documents(["Mars is red."])[0], atol=1e-6)


def test_instruction_task_and_empty_instruction_per_query(attached, fake):
    for options in ({"instruction": "Find {red} things\n"}, {"instruction": ""}, {"task": "code_retrieval"}):
        attached.query_points("docs", query=Document(text="q", model=fake.qwen3, options=options))
    embedder = Embedder(fake.qwen3)
    code = embedder.render("q", role="query", task="code_retrieval")
    assert fake.texts == ["Instruct: Find {red} things\n\nQuery:q", "q", code]


def test_titles_of_a_batch_go_through_the_model_together(client, fake):
    embedder = Embedder(fake.gemma)
    attach(client, embedder)
    create_collection(client, "docs", embedder)
    titles = [None, {"title": "T1"}, {"title": "T2"}]
    vectors = [Document(text=f"text {i}", model=fake.gemma, options=title) for i, title in enumerate(titles)]
    client.upsert("docs", [PointStruct(id=i, vector=vector) for i, vector in enumerate(vectors)])
    assert fake.texts == ["title: none | text: text 0", "title: T1 | text: text 1", "title: T2 | text: text 2"]
    assert fake.runs == [3]


def test_options_that_differ_keep_their_points(client, fake):
    embedder = Embedder(fake.gemma)
    attach(client, embedder)
    client.create_collection("docs", vectors_config=vectors_config(embedder))
    tasks = ["retrieval", "clustering", "retrieval", "clustering"]
    client.upsert("docs", [
        PointStruct(id=i, vector=Document(text=f"t{i}", model=fake.gemma, options={"task": task}))
        for i, task in enumerate(tasks)
    ])  # fmt: skip
    for i, task in enumerate(tasks):
        stored = client.retrieve("docs", [i], with_vectors=True)[0].vector
        assert np.allclose(stored, embedder.embed_documents([f"t{i}"], task=task)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": 16}, "'dimensions'.*'instruction', 'mrl', 'task', 'title'"),
        ({"instruct": "x", "dims": 3}, "'dims', 'instruct'"),
        ({"mrl": 7}, "dim=7"),
        ({"task": "nonsense"}, "nonsense"),
        ({"title": "x"}, "titles belong to documents"),
    ],
)
def test_wrong_options_of_a_query(attached, fake, options, message):
    with pytest.raises(ArgumentError, match=message):
        attached.query_points("docs", query=Document(text="q", model=fake.qwen3, options=options))
    assert fake.runs == []


def test_a_task_with_a_document_prompt_of_its_own_is_another_space(attached, fake):
    with pytest.raises(SpaceMismatchError, match="document_prompt"):
        attached.upsert("docs", points(fake.qwen3, "a", task="sentence_similarity"))
    assert fake.runs == []


def test_wrong_types_of_options(attached, fake):
    for options in ({"mrl": [16]}, {"instruction": 3}):
        with pytest.raises(ArgumentTypeError, match="option"):
            attached.query_points("docs", query=Document(text="q", model=fake.qwen3, options=options))
    with pytest.raises(ArgumentTypeError):
        attached.query_points("docs", query=Document(text="q", model=fake.qwen3, options={"mrl": "16"}))
    bm25 = models.Bm25Config(avg_len=3)
    with pytest.raises(ArgumentError, match="avg_len"):
        attached.query_points("docs", query=Document(text="q", model=fake.qwen3, options=bm25))


def test_an_instruction_for_points_is_refused(attached, fake):
    with pytest.raises(ArgumentError, match="is for queries"):
        attached.upsert("docs", points(fake.qwen3, "a", instruction="x"))


def test_a_title_without_a_place_is_refused(attached, fake):
    with pytest.raises(ArgumentError, match="no place for a title"):
        attached.upsert("docs", points(fake.qwen3, "a", title="x"))


def test_inference_objects_are_texts_of_our_models(attached, fake):
    inference = models.InferenceObject(object="a", model=fake.qwen3, options={"instruction": "I"})
    attached.query_points("docs", query=inference)
    assert fake.texts == ["Instruct: I\nQuery:a"]


def test_two_models_in_one_client_and_one_request(client, fake):
    qwen, gemma = Embedder(fake.qwen3), Embedder(fake.gemma)
    attach(client, {"one": qwen, "two": gemma})
    create_collection(client, "docs", {"a": qwen, "b": gemma})
    vector = {"a": Document(text="t", model="one"), "b": Document(text="t", model="two")}
    client.upsert("docs", [PointStruct(id=1, vector=vector)])
    assert sorted(fake.texts) == ["t", "title: none | text: t"]
    stored = client.retrieve("docs", [1], with_vectors=True)[0].vector
    assert np.allclose(stored["a"], qwen.embed_documents(["t"])[0], atol=1e-6)
    assert np.allclose(stored["b"], gemma.embed_documents(["t"])[0], atol=1e-6)


def test_names_are_compared_without_case(attached, fake):
    attached.upsert("docs", points(fake.qwen3.upper(), "a"))
    assert fake.texts == ["a"]


def test_none_serves_every_recorded_model_made_at_first_use(client, fake):
    attach(client)
    create_collection(client, "docs", Embedder(fake.qwen3))
    assert fake.loads == 0
    client.upsert("docs", points(fake.qwen3, "a"))
    client.upsert("docs", points(fake.qwen3, "b"))
    assert (fake.loads, fake.texts) == (1, ["a", "b"])


def test_aliases_of_recorded_models(client):
    embedder = Embedder("hash", dim=32)
    attach(client, embedder)
    create_collection(client, "docs", embedder)
    for name in ("hash", "embrief/hash"):
        client.upsert("docs", points(name, "a"))


def test_known_mistakes_are_named(client):
    attach(client)
    client.create_collection("docs", vectors_config=vectors_config(Embedder("hash", dim=32)))
    with pytest.raises(UnknownModelError, match="google/embeddinggemma-300m"):
        client.upsert("docs", points("google/embedding-gemma-300m", "a"))
    with pytest.raises(ArgumentError, match="Reranker"):
        client.upsert("docs", points("Qwen/Qwen3-Reranker-0.6B", "a"))


def test_attaching_twice_adds_and_replaces(client, fake):
    attach(client, {"m": Embedder("hash", dim=64)})
    kind, inner = type(client), client._model_embedder
    attach(client, Embedder(fake.gemma))
    attach(client, {"M": Embedder(fake.qwen3)})
    assert type(client) is kind
    assert client._model_embedder is inner
    create_collection(client, "docs", Embedder(fake.qwen3))
    client.upsert("docs", points("m", "a"))
    assert fake.texts == ["a"]
    assert client.get_embedding_size(fake.gemma) == 64


def test_a_refused_second_attach_changes_nothing(attached, fake):
    with pytest.raises(ArgumentTypeError):
        attach(attached, {"new": Embedder(fake.gemma), "bad": "text"})
    assert attached._model_embedder.models.find("new") is None


@pytest.mark.parametrize("wrong", ["Qwen/Qwen3-Embedding-0.6B", {"a": "b"}, {1: Embedder("hash")}, 3])
def test_embedders_of_the_wrong_type(client, wrong):
    before = client._model_embedder
    with pytest.raises(ArgumentTypeError, match="Embedder"):
        attach(client, wrong)
    assert client._model_embedder is before


def test_an_empty_name_is_refused(client):
    with pytest.raises(ArgumentError, match="empty name"):
        attach(client, {"": Embedder("hash")})


def test_embedding_size_is_the_embedders(client, fake):
    attach(client, Embedder(fake.qwen3, dim=24))
    assert client.get_embedding_size(fake.qwen3) == 24


def test_vectors_given_as_numbers_pass_untouched(attached, fake):
    attached.upsert("docs", [PointStruct(id=1, vector=[1.0] + [0.0] * 63)])
    assert attached.query_points("docs", query=np.eye(1, 64, dtype=np.float32)[0]).points[0].id == 1
    assert fake.runs == []


def test_parallel_upload_keeps_one_model(attached, fake, monkeypatch):
    import qdrant_client.embed.model_embedder as seam

    def refuse(*args, **kwargs):
        raise AssertionError("a worker pool would load the model again")

    monkeypatch.setattr(seam, "ParallelWorkerPool", refuse)
    texts = [f"text {i}" for i in range(200)]
    attached.upload_points("docs", iter(points(fake.qwen3, *texts)), parallel=2)
    documents = (Document(text=text, model=fake.qwen3) for text in texts)
    attached.upload_collection("docs", documents, ids=range(200), parallel=0)
    assert fake.loads == 1
    assert attached.count("docs").count == 200
    assert sorted(fake.texts) == sorted(texts * 2)


def test_batches_are_larger_than_qdrants_eight(attached, fake):
    attached.upsert("docs", points(fake.qwen3, *map(str, range(64))))
    assert fake.runs == [64]


def test_the_clients_own_batch_size_wins(fake):
    client = QdrantClient(":memory:", local_inference_batch_size=5)
    embedder = Embedder(fake.qwen3)
    create_collection(attach(client, embedder), "docs", embedder)
    client.upsert("docs", points(fake.qwen3, *map(str, range(12))))
    client.close()
    assert fake.runs == [5, 5, 2]


def test_threads_never_get_each_others_vectors(attached, fake, monkeypatch):
    inner = attached._model_embedder
    process = type(inner)._process_model

    def slow(self, *args, **kwargs):
        time.sleep(0.001)  # lets another thread in where the base class is between collecting and handing out
        return process(self, *args, **kwargs)

    monkeypatch.setattr(type(inner), "_process_model", slow)
    texts = [f"text {i} of many" for i in range(40)]
    attached.upsert("docs", points(fake.qwen3, *texts))
    embedder = Embedder(fake.qwen3, instruction="")
    fake.delay = 0.002
    barrier = threading.Barrier(4)

    def search(part):
        barrier.wait()
        return [
            attached.query_points(
                "docs", query=Document(text=texts[i], model=fake.qwen3, options={"instruction": ""}), limit=1
            ).points[0]
            for i in range(part, 40, 4)
        ]

    with ThreadPoolExecutor(4) as pool:
        for part, found in enumerate(pool.map(search, range(4))):
            assert [point.id for point in found] == list(range(part, 40, 4))
            assert all(point.score > 0.999 for point in found)
    assert embedder.dim == 64


def test_a_failed_batch_leaves_nothing_behind(attached, fake):
    def fault(texts):
        raise RuntimeError("out of order")

    fake.fault = fault
    with pytest.raises(RuntimeError, match="out of order"):
        attached.upsert("docs", points(fake.qwen3, "first", "second"))
    fake.fault = None
    attached.upsert("docs", points(fake.qwen3, "third"))
    stored = attached.retrieve("docs", [0], with_vectors=True)[0].vector
    assert np.allclose(stored, Embedder(fake.qwen3).embed_documents(["third"])[0], atol=1e-6)


def test_a_batch_that_fails_halfway_leaves_no_vectors_for_the_next(client, fake):
    embedders = {"one": Embedder(fake.qwen3), "two": Embedder(fake.gemma)}
    attach(client, embedders)
    create_collection(client, "docs", embedders)

    def fault(texts):
        if texts[0].startswith("title:"):
            raise RuntimeError("out of order")

    fake.fault = fault
    both = {"one": Document(text="first", model="one"), "two": Document(text="first", model="two")}
    with pytest.raises(RuntimeError, match="out of order"):
        client.upsert("docs", [PointStruct(id=1, vector=both)])
    fake.fault = None
    client.upsert("docs", [PointStruct(id=1, vector={"one": Document(text="second", model="one")})])
    stored = client.retrieve("docs", [1], with_vectors=True)[0].vector
    assert np.allclose(stored["one"], embedders["one"].embed_documents(["second"])[0], atol=1e-6)


def test_the_callers_points_are_not_changed(attached, fake):
    given = points(fake.qwen3, "a")
    attached.upsert("docs", given)
    assert isinstance(given[0].vector, Document)


def test_qdrant_gets_plain_lists(attached, fake, monkeypatch):
    seen = []
    monkeypatch.setattr(attached._client, "upsert", lambda **arguments: seen.extend(arguments["points"]))
    attached.upsert("docs", points(fake.qwen3, "a"))
    assert type(seen[0].vector) is list
    assert type(seen[0].vector[0]) is float


def test_a_same_width_model_of_another_space_is_refused(attached, fake):
    attach(attached, Embedder(fake.gemma))
    with pytest.raises(SpaceMismatchError, match=r"'docs' holds vectors of the space"):
        attached.upsert("docs", points(fake.gemma, "a"))
    with pytest.raises(SpaceMismatchError, match="document_prompt"):
        attached.query_points("docs", query=Document(text="a", model=fake.gemma))
    with pytest.raises(SpaceMismatchError):
        attached.query_points("docs", prefetch=Prefetch(query=Document(text="a", model=fake.gemma)))
    with pytest.raises(SpaceMismatchError):
        attached.upload_points("docs", points(fake.gemma, "a"))
    assert fake.runs == []
    assert attached.count("docs").count == 0


def test_a_wrong_width_is_refused_before_numpy_sees_it(client, fake):
    attach(client, Embedder(fake.qwen3))
    client.create_collection("docs", vectors_config=models.VectorParams(size=16, distance="Cosine"))
    with pytest.raises(SpaceMismatchError, match=r"16 values.*64"):
        client.query_points("docs", query=Document(text="a", model=fake.qwen3))
    client.query_points("docs", query=Document(text="a", model=fake.qwen3, options={"mrl": 16}))


def test_a_collection_without_a_stamp_takes_any_space_of_its_width(client, fake):
    attach(client, Embedder(fake.gemma))
    client.create_collection("docs", vectors_config=models.VectorParams(size=64, distance="Cosine"))
    client.upsert("docs", points(fake.gemma, "a"))
    assert client.count("docs").count == 1


def test_a_persisted_collection_keeps_its_space(tmp_path, fake):
    embedder = Embedder(fake.qwen3)
    client = attach(QdrantClient(path=str(tmp_path)), embedder)
    create_collection(client, "docs", embedder)
    client.upsert("docs", points(fake.qwen3, "Mars"))
    client.close()
    again = attach(QdrantClient(path=str(tmp_path)), {"q": embedder, "g": Embedder(fake.gemma)})
    assert again.query_points("docs", query=Document(text="Mars", model="q")).points[0].id == 0
    with pytest.raises(SpaceMismatchError):
        again.query_points("docs", query=Document(text="Mars", model="g"))
    again.close()


def test_an_attached_client_is_freed_at_once(fake):
    client = attach(QdrantClient(":memory:"), Embedder(fake.qwen3))
    client.close()
    gone = weakref.ref(client)
    gc.disable()
    try:
        del client
        assert gone() is None
    finally:
        gc.enable()


def test_unknown_keywords_stay_errors(attached, fake):
    with pytest.raises((TypeError, AssertionError), match="nonsense"):
        attached.query_points("docs", query=Document(text="a", model=fake.qwen3), nonsense=1)


def test_a_text_at_two_widths_goes_through_the_model_once(fake):
    embedder = Embedder(fake.qwen3)
    client = attach(QdrantClient(":memory:"), embedder)
    create_collection(client, "docs", {"full": embedder, "small": embedder.with_dim(16)})
    texts = ["red planet", "blue sea"]
    points = [
        PointStruct(
            id=number,
            vector={
                "full": Document(text=text, model=fake.qwen3),
                "small": Document(text=text, model=fake.qwen3, options={"mrl": 16}),
            },
        )
        for number, text in enumerate(texts)
    ]
    client.upsert("docs", points)
    assert fake.texts == texts
    stored = client.retrieve("docs", [0, 1], with_vectors=True)
    for point, text in zip(stored, texts, strict=True):
        np.testing.assert_allclose(point.vector["full"], embedder.embed_documents([text])[0], atol=1e-6)
        np.testing.assert_allclose(point.vector["small"], embedder.with_dim(16).embed_documents([text])[0], atol=1e-6)
    client.close()
