from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, fastembed_common, models
from qdrant_client.models import Document, PointStruct, Prefetch

from embrief import Embedder
from embrief.errors import ArgumentError, SpaceMismatchError
from qdrant_embrief import acreate_collection, attach, create_collection, space_metadata, vectors_config

pytest.importorskip("fastembed")
FOREIGN = "BAAI/bge-small-en-v1.5"


class FakeTextEmbedding:
    """Stands where fastembed's class does; the real one downloads weights."""

    made: ClassVar[list[str]] = []

    def __init__(self, model_name, **options):
        self.made.append(model_name)

    def embed(self, documents, batch_size):
        return [np.full(64, 1.0) for _ in documents]

    def query_embed(self, query, batch_size=1):
        return self.embed(query, batch_size)

    @staticmethod
    def list_supported_models():
        return [{"model": name, "dim": 64} for name in (FOREIGN, "shared/name", "Qwen/Qwen3-Embedding-0.6B")]


@pytest.fixture(autouse=True)
def fastembed(monkeypatch):
    import qdrant_client.embed.embedder as seam

    FakeTextEmbedding.made = []
    monkeypatch.setattr(seam, "TextEmbedding", FakeTextEmbedding)
    monkeypatch.setattr(fastembed_common, "TextEmbedding", FakeTextEmbedding)
    monkeypatch.setattr(fastembed_common.FastEmbedMisc, "_TEXT_MODELS", set())
    return FakeTextEmbedding


@pytest.fixture
def collection(client, fake):
    client.create_collection("docs", vectors_config=vectors_config(Embedder(fake.qwen3)))
    return client


def test_unknown_names_go_to_fastembed(collection, fake, fastembed):
    attach(collection, Embedder(fake.qwen3))
    collection.upsert("docs", [PointStruct(id=1, vector=Document(text="a", model=FOREIGN))])
    assert fastembed.made == [FOREIGN]
    assert fake.texts == []
    assert collection.query_points("docs", query=Document(text="a", model=FOREIGN)).points[0].score > 0.999


def test_both_kinds_of_names_in_one_batch_keep_their_places(collection, fake, fastembed):
    attach(collection, Embedder(fake.qwen3))
    names = [FOREIGN, fake.qwen3, FOREIGN, fake.qwen3]
    vectors = [Document(text=f"t{i}", model=name) for i, name in enumerate(names)]
    collection.upsert("docs", [PointStruct(id=i, vector=vector) for i, vector in enumerate(vectors)])
    ours = Embedder(fake.qwen3).embed_documents(["t1", "t3"])
    stored = [point.vector for point in collection.retrieve("docs", range(4), with_vectors=True)]
    assert np.allclose(stored[0], 1 / 8)
    assert np.allclose(stored[2], 1 / 8)
    assert np.allclose([stored[1], stored[3]], ours, atol=1e-6)


def test_our_names_win_over_fastembeds(collection, fake, fastembed):
    attach(collection, {"Shared/Name": Embedder(fake.qwen3)})
    collection.upsert("docs", [PointStruct(id=1, vector=Document(text="a", model="shared/NAME"))])
    assert (fastembed.made, fake.texts) == ([], ["a"])


def test_embedding_size_of_other_names_is_theirs(client, fake):
    attach(client, Embedder(fake.qwen3))
    assert client.get_embedding_size(FOREIGN) == 64
    with pytest.raises(ValueError, match="nobody/knows"):
        client.get_embedding_size("nobody/knows")


def test_names_that_nobody_knows_are_qdrants_error(collection, fake):
    attach(collection, Embedder(fake.qwen3))
    both = [Document(text="a", model=fake.qwen3), Document(text="b", model="nobody/knows")]
    with pytest.raises(ValueError, match=r"nobody/knows is not found among supported models"):
        collection.upsert("docs", [PointStruct(id=i, vector=vector) for i, vector in enumerate(both)])
    assert fake.runs == []
    inference = models.InferenceObject(object="a", model="nobody/knows")
    with pytest.raises(ValueError, match="nobody/knows"):
        collection.query_points("docs", query=inference)


def test_models_that_fastembed_had_loaded_stay_loaded(collection, fake, fastembed):
    collection.upsert("docs", [PointStruct(id=1, vector=Document(text="a", model=FOREIGN))])
    attach(collection, Embedder(fake.qwen3))
    collection.upsert("docs", [PointStruct(id=2, vector=Document(text="a", model=FOREIGN))])
    assert fastembed.made == [FOREIGN]


def test_without_fastembed_ours_work_and_others_name_the_remedy(collection, fake, monkeypatch):
    def absent():
        raise ImportError("fastembed is not installed")

    monkeypatch.setattr(fastembed_common.FastEmbedMisc, "import_fastembed", absent)
    attach(collection, Embedder(fake.qwen3))
    collection.upsert("docs", [PointStruct(id=1, vector=Document(text="a", model=fake.qwen3))])
    collection.upload_points("docs", [PointStruct(id=2, vector=Document(text="b", model=fake.qwen3))])
    assert fake.texts == ["a", "b"]
    with pytest.raises(ImportError, match="fastembed is not installed"):
        collection.upsert("docs", [PointStruct(id=1, vector=Document(text="a", model=FOREIGN))])


def test_local_bm25_goes_to_fastembed(collection, fake, monkeypatch):
    import qdrant_client.embed.embedder as seam

    class Sparse:
        def __init__(self, model_name, **options):
            self.name = model_name

        def embed(self, documents, batch_size):
            raise RuntimeError(f"fastembed was asked for {self.name}")

    monkeypatch.setattr(seam, "SparseTextEmbedding", Sparse)
    attach(collection, Embedder(fake.qwen3))
    with pytest.raises(RuntimeError, match="Qdrant/bm25"):
        collection.upsert("docs", [PointStruct(id=1, vector={"s": Document(text="a", model="Qdrant/bm25")})])


@pytest.fixture
def stamped(client, fake):
    """A stamped unnamed vector, and beside it a collection with a stamped and a plain named one."""
    embedder = Embedder(fake.qwen3)
    create_collection(client, "docs", embedder, sparse_vectors_config={"words": models.SparseVectorParams()})
    plain = models.VectorParams(size=64, distance="Cosine")
    client.create_collection(
        "mixed",
        vectors_config={"ours": vectors_config(embedder), "plain": plain},
        metadata=space_metadata({"ours": embedder}),
    )
    return attach(client, {"docs-model": embedder})


def test_a_foreign_name_for_a_stamped_vector_is_refused(stamped, fake, fastembed):
    foreign = Document(text="a", model=FOREIGN)
    refused = pytest.raises(SpaceMismatchError, match=rf"'{FOREIGN}' is not attached.*Attached: 'docs-model'\.")
    with refused:
        stamped.query_points("docs", query=foreign)
    with refused:
        stamped.query_points("docs", prefetch=Prefetch(query=foreign), query=models.FusionQuery(fusion="rrf"))
    with refused:
        stamped.upsert("docs", [PointStruct(id=1, vector=foreign)])
    with refused:
        stamped.upload_collection("docs", [foreign], ids=[1])
    with refused:
        stamped.upsert("mixed", [PointStruct(id=1, vector={"plain": foreign, "ours": foreign})])
    assert (fastembed.made, stamped.count("docs").count) == ([], 0)


async def test_a_foreign_name_for_a_stamped_vector_is_refused_by_async_clients(fake, fastembed):
    client, embedder = AsyncQdrantClient(":memory:"), Embedder(fake.qwen3)
    await acreate_collection(attach(client, embedder), "docs", embedder)
    foreign = Document(text="a", model=FOREIGN)
    with pytest.raises(SpaceMismatchError, match="is not attached"):
        await client.query_points("docs", query=foreign)
    with pytest.raises(SpaceMismatchError, match="is not attached"):
        await client.upsert("docs", [PointStruct(id=1, vector=foreign)])
    with pytest.raises(SpaceMismatchError, match="is not attached"):
        client.upload_points("docs", [PointStruct(id=1, vector=foreign)])
    assert fastembed.made == []
    await client.close()


def test_foreign_names_stay_free_where_there_is_no_stamp(stamped, fastembed, monkeypatch):
    import qdrant_client.embed.embedder as seam

    class Sparse:
        def __init__(self, model_name, **options):
            raise RuntimeError(f"fastembed was asked for {model_name}")

    monkeypatch.setattr(seam, "SparseTextEmbedding", Sparse)
    stamped.upsert("mixed", [PointStruct(id=1, vector={"plain": Document(text="a", model=FOREIGN)})])
    assert stamped.query_points("mixed", query=Document(text="a", model=FOREIGN), using="plain").points[0].score > 0.999
    with pytest.raises(RuntimeError, match="Qdrant/bm25"):
        stamped.query_points("docs", query=Document(text="a", model="Qdrant/bm25"), using="words")


def test_a_model_attached_by_another_name_never_reaches_fastembed(collection, fake, fastembed, monkeypatch):
    listed = [{"model": fake.qwen3, "dim": 64}]
    monkeypatch.setattr(fastembed, "list_supported_models", staticmethod(lambda: listed))
    attach(collection, {"docs": Embedder(fake.qwen3), "notes": Embedder(fake.qwen3), "gemma": Embedder(fake.gemma)})
    for name in (fake.qwen3, fake.qwen3.upper()):
        with pytest.raises(ArgumentError, match=r"as 'docs' and 'notes'.*attach\(client\) for all recorded models"):
            collection.query_points("docs", query=Document(text="a", model=name))
        with pytest.raises(ArgumentError, match="as 'docs' and 'notes'"):
            collection.upsert("docs", [PointStruct(id=1, vector=Document(text="a", model=name))])
        with pytest.raises(ArgumentError, match="as 'docs' and 'notes'"):
            collection.get_embedding_size(name)
    assert (fastembed.made, fake.runs) == ([], [])
    attach(collection)
    collection.query_points("docs", query=Document(text="a", model=fake.qwen3))
    assert (fastembed.made, len(fake.runs)) == ([], 1)


@pytest.fixture
def remote(fake):
    """A client of a server that is not there; what would be sent is kept."""
    client = QdrantClient(url="http://127.0.0.1:9", check_compatibility=False)
    embedder = Embedder(fake.qwen3)
    local = QdrantClient(":memory:")
    create_collection(local, "docs", embedder, sparse_vectors_config={"words": models.SparseVectorParams()})
    info = local.get_collection("docs")
    local.close()
    client.sent = []
    client._client.get_collection = lambda collection_name, **arguments: info
    client._client.upsert = lambda **arguments: client.sent.extend(arguments["points"])
    client._client.query_points = lambda **arguments: client.sent.append(arguments["query"])
    yield attach(client, embedder)
    client.close()


def test_a_server_gets_our_vectors_and_its_own_bm25_documents(remote, fake):
    words = Document(text="a", model="Qdrant/bm25", options={"language": "german"})
    remote.upsert("docs", [PointStruct(id=1, vector={"": Document(text="a", model=fake.qwen3), "words": words})])
    vector = remote.sent[0].vector
    assert np.allclose(vector[""], Embedder(fake.qwen3).embed_documents(["a"])[0])
    assert vector["words"] == words
    remote.query_points("docs", query=words, using="words")
    assert remote.sent[1].nearest == words
