from __future__ import annotations

import copy
import json
import uuid

import numpy as np
import pytest
from qdrant_client import models

from embrief import Embedder, Reranker, VectorSpace
from embrief.errors import ArgumentError, ArgumentTypeError, InputTooLongError, PartlyStoredError, SpaceMismatchError
from qdrant_embrief import (
    Hit,
    check_collection,
    create_collection,
    point_id,
    query_texts,
    space_metadata,
    upsert_texts,
    vectors_config,
)

QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
PLANETS = ["Mars is the red planet", "Venus is bright", "Saturn has rings"]


@pytest.fixture
def embedder(fake):
    return Embedder(fake.qwen3)


@pytest.fixture
def docs(client, embedder):
    create_collection(client, "docs", embedder)
    return client


# create_collection


def test_a_new_collection_has_width_cosine_and_stamp(client, embedder, fake):
    assert create_collection(client, "docs", embedder.with_dim(24), metadata={"owner": "me"}) is True
    config = client.get_collection("docs").config
    assert (config.params.vectors.size, config.params.vectors.distance) == (24, models.Distance.COSINE)
    assert config.metadata["owner"] == "me"
    stored = VectorSpace.from_json(json.loads(config.metadata["embrief_space"]))
    assert stored == embedder.with_dim(24).space
    assert fake.loads == 0


def test_named_vectors_have_a_stamp_each(client, embedder):
    vectors = {"full": embedder, "small": embedder.with_dim(16)}
    create_collection(client, "docs", vectors, distance=models.Distance.DOT, on_disk=True)
    config = client.get_collection("docs").config
    assert {name: vector.size for name, vector in config.params.vectors.items()} == {"full": 64, "small": 16}
    assert config.params.vectors["full"].distance == models.Distance.DOT
    assert config.params.vectors["full"].on_disk is True
    assert set(config.metadata["embrief_vectors"]) == {"full", "small"}
    check_collection(client, "docs", {"small": embedder.with_dim(16)})
    with pytest.raises(SpaceMismatchError, match="'small'"):
        check_collection(client, "docs", {"small": embedder})
    same_width = Embedder(embedder.settings.model, normalize=False)
    with pytest.raises(SpaceMismatchError, match="'full'"):
        check_collection(client, "docs", {"full": same_width})


def test_a_collection_that_fits_is_kept(docs, embedder):
    upsert_texts(docs, "docs", embedder, ["a"])
    assert create_collection(docs, "docs", embedder) is False
    assert docs.count("docs").count == 1


def test_an_existing_collection_of_another_space_is_refused(docs, fake):
    with pytest.raises(SpaceMismatchError, match=r"docs.*document_prompt"):
        create_collection(docs, "docs", Embedder(fake.gemma))


def test_own_settings_through_the_clients_own_method(client, embedder):
    client.create_collection("docs", vectors_config=vectors_config(embedder), metadata=space_metadata(embedder))
    check_collection(client, "docs", embedder)


def test_sparse_vectors_beside_the_dense_one(client, embedder):
    sparse = {"words": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    create_collection(client, "docs", embedder, sparse_vectors_config=sparse)
    assert list(client.get_collection("docs").config.params.sparse_vectors) == ["words"]
    upsert_texts(client, "docs", embedder, ["a"])


@pytest.mark.parametrize("wrong", ["model", {}, {"": Embedder("hash")}, {"a": "b"}, None])
def test_no_embedder(client, wrong):
    with pytest.raises((ArgumentError, ArgumentTypeError), match="embedder"):
        create_collection(client, "docs", wrong)
    assert not client.collection_exists("docs")


@pytest.mark.parametrize("key", ["embrief_space", "embrief_vectors"])
def test_metadata_cannot_forge_a_stamp(client, embedder, key):
    with pytest.raises(ArgumentError, match=key):
        create_collection(client, "docs", embedder, metadata={key: "x"})


# the guard


def test_a_same_width_embedder_of_another_space_is_refused_before_it_runs(docs, fake):
    other = Embedder(fake.gemma)
    with pytest.raises(SpaceMismatchError, match="pooling"):
        upsert_texts(docs, "docs", other, ["a"])
    with pytest.raises(SpaceMismatchError, match="pooling"):
        query_texts(docs, "docs", other, "a")
    assert fake.runs == []
    assert docs.count("docs").count == 0


def test_another_instruction_is_the_same_space(docs, embedder):
    upsert_texts(docs, "docs", embedder.with_instruction("x"), ["a"])
    query_texts(docs, "docs", embedder, "a", instruction="y")


def test_a_task_with_a_document_prompt_of_its_own_is_another_space(docs, embedder, fake):
    with pytest.raises(SpaceMismatchError):
        upsert_texts(docs, "docs", embedder.with_task("sentence_similarity"), ["a"])
    with pytest.raises(SpaceMismatchError):
        query_texts(docs, "docs", embedder, "a", task="sentence_similarity")
    query_texts(docs, "docs", embedder, "a", task="code_retrieval")
    assert len(fake.runs) == 1


def test_a_wrong_width_is_our_error_without_a_stamp_too(client, embedder, fake):
    client.create_collection("docs", vectors_config=models.VectorParams(size=5, distance="Cosine"))
    with pytest.raises(SpaceMismatchError, match=r"5 values.*64.*dim=5"):
        upsert_texts(client, "docs", embedder, ["a"])
    with pytest.raises(SpaceMismatchError, match=r"5 values.*64.*dim=5"):
        query_texts(client, "docs", embedder, "a")
    assert fake.runs == []


def test_a_broken_stamp_is_refused(client, embedder):
    client.create_collection("docs", vectors_config=vectors_config(embedder), metadata={"embrief_space": "{"})
    with pytest.raises(SpaceMismatchError, match="cannot be read"):
        upsert_texts(client, "docs", embedder, ["a"])


def test_a_vector_that_is_not_there_is_named(docs, client, embedder):
    with pytest.raises(ArgumentError, match="no vector named 'full'"):
        query_texts(docs, "docs", embedder, "a", using="full")
    create_collection(client, "named", {"full": embedder})
    with pytest.raises(ArgumentError, match=r"no unnamed vector.*'full'"):
        upsert_texts(client, "named", embedder, ["a"])


# upsert_texts


def test_texts_are_embedded_as_documents_and_stored(docs, embedder, fake):
    ids = upsert_texts(docs, "docs", embedder, PLANETS, ids=[3, 1, 2], payloads=[{"n": 1}, None, {"n": 3}])
    assert ids == [3, 1, 2]
    assert fake.texts == PLANETS
    stored = docs.retrieve("docs", ids, with_vectors=True)
    payloads = {point.id: point.payload for point in stored}
    assert payloads[3] == {"document": PLANETS[0], "n": 1}
    assert payloads[1] == {"document": PLANETS[1]}
    vectors = {point.id: point.vector for point in stored}
    assert np.allclose(vectors[2], embedder.embed_documents(PLANETS)[2], atol=1e-6)


def test_titles_reach_the_prompt(client, fake):
    gemma = Embedder(fake.gemma)
    create_collection(client, "docs", gemma)
    upsert_texts(client, "docs", gemma, ["a", "b"], titles=["A", None])
    assert fake.texts == ["title: A | text: a", "title: none | text: b"]


def test_any_key_becomes_a_uuid_and_is_kept(docs, embedder):
    key = uuid.uuid4()
    md5 = "d41d8cd98f00b204e9800998ecf8427e"
    ids = upsert_texts(docs, "docs", embedder, list("abcde"), ids=["file.md#1", 7, key, str(uuid.uuid4()).upper(), md5])
    assert ids[0] == point_id("file.md#1")
    assert ids[1:3] == [7, str(key)]
    payloads = {point.id: point.payload for point in docs.retrieve("docs", ids)}
    assert payloads[ids[0]] == {"document": "a", "key": "file.md#1"}
    assert payloads[ids[2]] == {"document": "c"}
    assert payloads[ids[3]] == {"document": "d"}
    assert payloads[ids[4]]["key"] == md5
    assert uuid.UUID(ids[4]).version == 5


def test_the_id_of_a_key_never_changes():
    assert point_id("file.md#1") == "56c926b5-946e-5506-8be0-8da45ea65223"
    assert point_id("a") != point_id("A")


def test_the_same_key_replaces_its_point(docs, embedder):
    upsert_texts(docs, "docs", embedder, ["old"], ids=["k"])
    upsert_texts(docs, "docs", embedder, ["new"], ids=["k"])
    assert docs.count("docs").count == 1
    assert docs.retrieve("docs", [point_id("k")])[0].payload["document"] == "new"


def test_ids_are_made_where_none_are_given(docs, embedder):
    ids = upsert_texts(docs, "docs", embedder, ["a", "a"])
    assert len(set(ids)) == 2
    assert docs.count("docs").count == 2


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (-1, ArgumentError),
        (2**64, ArgumentError),
        ("", ArgumentError),
        (True, ArgumentTypeError),
        (1.5, ArgumentTypeError),
    ],
)
def test_ids_that_cannot_be(docs, embedder, fake, wrong, error):
    with pytest.raises(error, match="id"):
        upsert_texts(docs, "docs", embedder, ["a", "b"], ids=[0, wrong])
    assert fake.runs == []


def test_an_id_given_twice_is_refused(docs, embedder):
    with pytest.raises(ArgumentError, match=r"ids\[2\].*ids\[0\]") as caught:
        upsert_texts(docs, "docs", embedder, ["a", "b", "c"], ids=["x", 1, point_id("x")])
    assert caught.value.index == 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"texts": "abc"}, ArgumentTypeError, "texts is a list"),
        ({"texts": ["a", 3]}, ArgumentTypeError, r"texts\[1\]"),
        ({"texts": None}, ArgumentTypeError, "texts is a list"),
        ({"ids": [1]}, ArgumentError, "1 ids for 2 texts"),
        ({"ids": "ab"}, ArgumentTypeError, "ids is a list"),
        ({"payloads": [{}]}, ArgumentError, "1 payloads for 2 texts"),
        ({"payloads": {"a": 1}}, ArgumentTypeError, "payloads is a list"),
        ({"payloads": [{}, "x"]}, ArgumentTypeError, r"payloads\[1\]"),
        ({"payloads": [{}, {"document": "other"}]}, ArgumentError, r"payloads\[1\].*'document'"),
        ({"payloads": [{}, {"key": "other"}], "ids": ["a", "b"]}, ArgumentError, r"payloads\[1\].*'key'"),
        ({"titles": ["a"]}, ArgumentError, "1 titles for 2 texts"),
        ({"batch_size": 0}, ArgumentError, "batch_size=0"),
    ],
)
def test_wrong_arguments_are_found_before_the_first_text_is_embedded(docs, embedder, fake, change, error, message):
    arguments = {"texts": ["a", "b"], **change}
    texts = arguments.pop("texts")
    with pytest.raises(error, match=message):
        upsert_texts(docs, "docs", embedder, texts, **arguments)
    assert fake.runs == []


def test_texts_go_in_batches(docs, embedder, fake):
    upsert_texts(docs, "docs", embedder, (f"t{i}" for i in range(7)), batch_size=3)
    assert fake.runs == [3, 3, 1]
    assert docs.count("docs").count == 7


def test_no_texts(docs, embedder, fake):
    assert upsert_texts(docs, "docs", embedder, []) == []
    assert fake.runs == []


def test_a_servers_limit_makes_smaller_batches(docs, embedder, fake, monkeypatch):
    info = docs.get_collection("docs")
    info.config.strict_mode_config = models.StrictModeConfigOutput(upsert_max_batchsize=2)
    monkeypatch.setattr(docs._client, "get_collection", lambda **arguments: info)
    upsert_texts(docs, "docs", embedder, list("abcde"))
    assert fake.runs == [2, 2, 1]


def test_an_error_in_a_later_batch_has_the_callers_index(docs, fake):
    def fault(texts):
        if "long" in texts:
            raise InputTooLongError("the text at index 1 is too long", index=1, tokens=9, limit=8)

    embedder = Embedder(fake.qwen3, truncate="error")
    fake.fault = fault
    with pytest.raises(PartlyStoredError, match="from text 2 on failed") as caught:
        upsert_texts(docs, "docs", embedder, ["a", "b", "c", "long"], batch_size=2)
    assert caught.value.index == caught.value.__cause__.index == 3


def test_the_callers_lists_are_not_changed(docs, embedder):
    payloads, ids = [{"n": [1]}], ["k"]
    before = copy.deepcopy((payloads, ids))
    upsert_texts(docs, "docs", embedder, ["a"], ids=ids, payloads=payloads)
    assert (payloads, ids) == before


def test_each_named_vector_gets_its_own(client, embedder, fake):
    vectors = {"full": embedder, "small": embedder.with_dim(16)}
    create_collection(client, "docs", vectors)
    upsert_texts(client, "docs", vectors, PLANETS, ids=[0, 1, 2])
    stored = client.retrieve("docs", [1], with_vectors=True)[0].vector
    assert np.allclose(stored["small"], embedder.with_dim(16).embed_documents(PLANETS)[1], atol=1e-6)
    hit = query_texts(client, "docs", embedder.with_dim(16), "Saturn rings", using="small", instruction="", limit=1)[0]
    assert hit.id == 2


def test_own_payload_keys(docs, embedder):
    payloads = [{"key": 1}]
    upsert_texts(docs, "docs", embedder, ["a"], ids=["k"], payloads=payloads, text_key="page_content", id_key="name")
    hit = query_texts(docs, "docs", embedder, "a", text_key="page_content")[0]
    assert hit.text == "a"
    assert hit.payload == {"page_content": "a", "name": "k", "key": 1}


# query_texts


@pytest.fixture
def planets(docs, embedder, fake):
    upsert_texts(docs, "docs", embedder, PLANETS, ids=[0, 1, 2], payloads=[{"n": i} for i in range(3)])
    fake.texts.clear()
    return docs


def test_queries_have_the_query_prompt_and_their_own_instruction(planets, embedder, fake):
    query_texts(planets, "docs", embedder, "red")
    query_texts(planets, "docs", embedder, "red", instruction="Find planets")
    query_texts(planets, "docs", embedder, "red", instruction="")
    assert fake.texts == [QUERY + "red", "Instruct: Find planets\nQuery:red", "red"]


def test_hits_are_the_scored_points(planets, embedder):
    hits = query_texts(planets, "docs", embedder, "red planet", limit=2)
    found = planets.query_points("docs", embedder.embed_query("red planet").tolist(), limit=2).points
    # The client in memory rounds the scores of equal searches differently.
    assert [(hit.point.id, hit.point.payload) for hit in hits] == [(point.id, point.payload) for point in found]
    assert [hit.score for hit in hits] == pytest.approx([point.score for point in found], abs=1e-6)
    assert [(hit.id, hit.score, hit.payload, hit.rerank_score) for hit in hits] == [
        (hit.point.id, hit.point.score, hit.point.payload, None) for hit in hits
    ]


def test_filters_and_limit(planets, embedder):
    some = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=1))])
    assert {hit.id for hit in query_texts(planets, "docs", embedder, "red", query_filter=some)} == {1, 2}
    assert len(query_texts(planets, "docs", embedder, "red", limit=1)) == 1


def test_reranking_orders_anew_and_changes_no_hit(planets, embedder, fake):
    plain = query_texts(planets, "docs", embedder, "Venus is bright", limit=3)
    before = copy.deepcopy(plain)
    reranker = Reranker(fake.reranker)
    hits = query_texts(
        planets, "docs", embedder, "has rings", limit=3, top_n=2, reranker=reranker, rerank_instruction="Judge"
    )
    assert hits[0].id == 2
    assert len(hits) == 2
    assert hits[0].rerank_score > hits[1].rerank_score
    assert all(0 <= hit.rerank_score <= 1 for hit in hits)
    assert plain == before
    assert hits[0].score == next(
        hit.score for hit in query_texts(planets, "docs", embedder, "has rings") if hit.id == 2
    )
    assert {pair.body for pair in fake.pairs} == set(PLANETS)
    assert "<Instruct>: Judge\n<Query>: has rings" in fake.pairs[0].head


@pytest.mark.parametrize(
    ("given", "fetched", "kept"),
    [({}, 40, 10), ({"top_n": 3}, 12, 3), ({"limit": 7}, 7, 7), ({"limit": 7, "top_n": 2}, 7, 2)],
)
def test_a_reranker_chooses_among_more_than_it_returns(docs, embedder, fake, given, fetched, kept):
    upsert_texts(docs, "docs", embedder, [f"t{i}" for i in range(50)])
    hits = query_texts(docs, "docs", embedder, "t1", reranker=Reranker(fake.reranker), **given)
    assert (len(fake.pairs), len(hits)) == (fetched, kept)


def test_wrong_numbers(planets, embedder, fake):
    reranker = Reranker(fake.reranker)
    for arguments, message in (
        ({"limit": 0}, "limit=0"),
        ({"top_n": 2}, "top_n=2 is for a reranker"),
        ({"rerank_instruction": "x"}, "is for a reranker"),
        ({"limit": 2, "top_n": 3, "reranker": reranker}, "top_n=3 is more than the limit=2"),
    ):
        with pytest.raises(ArgumentError, match=message):
            query_texts(planets, "docs", embedder, "a", **arguments)
    with pytest.raises(ArgumentTypeError, match="top_n is a whole number or None, not True"):
        query_texts(planets, "docs", embedder, "a", top_n=True, reranker=reranker)
    with pytest.raises(ArgumentTypeError, match="Reranker"):
        query_texts(planets, "docs", embedder, "a", reranker="Qwen/Qwen3-Reranker-0.6B")
    with pytest.raises(ArgumentTypeError, match="using="):
        query_texts(planets, "docs", {"full": embedder}, "a")
    with pytest.raises(ArgumentTypeError, match="one string"):
        query_texts(planets, "docs", embedder, ["a"])


def test_points_of_others_without_a_text(docs, embedder, fake):
    docs.upsert("docs", [models.PointStruct(id=1, vector=[1.0] * 64, payload={"page_content": "x"})])
    hit = query_texts(docs, "docs", embedder, "a")[0]
    assert isinstance(hit, Hit)
    assert hit.text is None
    with pytest.raises(ArgumentError, match=r"'document'.*'page_content'"):
        query_texts(docs, "docs", embedder, "a", reranker=Reranker(fake.reranker))
    again = query_texts(docs, "docs", embedder, "a", reranker=Reranker(fake.reranker), text_key="page_content")
    assert again[0].text == "x"


def test_an_empty_collection(docs, embedder, fake):
    assert query_texts(docs, "docs", embedder, "a", reranker=Reranker(fake.reranker)) == []


def test_one_key_cannot_hold_the_text_and_the_id(docs, embedder):
    with pytest.raises(ArgumentError, match="text_key and id_key are both 'key'"):
        upsert_texts(docs, "docs", embedder, ["a"], ids=["k"], text_key="key")
