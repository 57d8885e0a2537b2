"""The space guard of stores in memory, and LangChain's own Chroma and Qdrant stores on our collections."""

from __future__ import annotations

import json

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

from embrief import ArgumentTypeError, SpaceMismatchError
from embrief.stores import KEY
from langchain_embrief import Qwen3Embeddings, guard

OURS = Qwen3Embeddings("embrief/hash", dim=64)
OTHERS = {
    "width": OURS.with_dim(32),
    "space": Qwen3Embeddings("embrief/hash", dim=64, normalize=False),
    "foreign": DeterministicFakeEmbedding(size=64),
}
TEXTS = ["Mars is the Red Planet.", "Venus is bright."]


@pytest.fixture
def store():
    store = guard(InMemoryVectorStore(OURS))
    store.add_texts(TEXTS, metadatas=[{"moons": 2}, {"moons": 0}])
    return store


@pytest.fixture(params=OTHERS)
def other(request):
    return OTHERS[request.param]


def test_a_guarded_store_works_as_before(store):
    found = store.similarity_search_with_score("Which planet is red?", k=1)
    assert found[0][0].page_content == TEXTS[0]
    assert found[0][0].metadata == {"moons": 2}
    assert store.as_retriever(search_type="mmr").invoke("red")[0].page_content == TEXTS[0]
    assert (
        store.similarity_search("red", filter=lambda document: document.metadata["moons"] == 0)[0].metadata["moons"]
        == 0
    )
    assert guard(store) is store
    assert store.embeddings == OURS


async def test_a_guarded_store_works_as_before_without_blocking():
    store = guard(InMemoryVectorStore(OURS))
    await store.aadd_documents([Document(text) for text in TEXTS])
    assert (await store.asimilarity_search("Which planet is red?", k=1))[0].page_content == TEXTS[0]
    assert all(KEY in record for record in store.store.values())


def test_other_embeddings_are_refused(store, other):
    with pytest.raises(SpaceMismatchError, match=r"dim|normalize|none of embrief's"):
        store.embedding = other
    store.add_texts(["Pluto is small."])
    assert len(store.store) == 3


@pytest.mark.parametrize("call", [
    lambda store: store.add_texts(["x"]),
    lambda store: store.add_documents([Document("x")]),
    lambda store: store.similarity_search("x"),
    lambda store: store.similarity_search_with_score("x"),
    lambda store: store.max_marginal_relevance_search("x"),
    lambda store: store.as_retriever().invoke("x"),
])  # fmt: skip
def test_embeddings_that_were_slipped_in_are_refused_on_write_and_query(call, store, other):
    store.__dict__["embedding"] = other
    with pytest.raises(SpaceMismatchError):
        call(store)
    assert len(store.store) == 2


async def test_and_without_blocking(store, other):
    store.__dict__["embedding"] = other
    with pytest.raises(SpaceMismatchError):
        await store.aadd_documents([Document("x")])
    with pytest.raises(SpaceMismatchError):
        await store.as_retriever().ainvoke("x")


def test_a_vector_of_another_width_is_refused(store):
    vector = OTHERS["width"].embed_query("red")
    for search in (
        store.similarity_search_by_vector,
        store.similarity_search_with_score_by_vector,
        store.max_marginal_relevance_search_by_vector,
    ):
        with pytest.raises(SpaceMismatchError, match=r"64 values, and this one has 32"):
            search(vector)
    assert store.similarity_search_by_vector(OURS.embed_query("red planet"), k=1)[0].page_content == TEXTS[0]


def test_the_space_is_kept_in_the_file(store, other, tmp_path):
    store.dump(str(tmp_path / "store.json"))
    again = guard(InMemoryVectorStore.load(str(tmp_path / "store.json"), OURS))
    assert again.similarity_search("Which planet is red?", k=1)[0].metadata == {"moons": 2}
    for adopt in (False, True):
        with pytest.raises(SpaceMismatchError):
            guard(InMemoryVectorStore.load(str(tmp_path / "store.json"), other), adopt=adopt)


async def test_langchains_constructors_on_a_guarded_store_make_guarded_ones(store, other, tmp_path):
    documents = [Document(text) for text in TEXTS]
    for kind in (type(store), store):
        for made in (
            kind.from_texts(TEXTS, OURS),
            kind.from_documents(documents, embedding=OURS),
            await kind.afrom_texts(TEXTS, OURS),
            await kind.afrom_documents(documents, OURS),
        ):
            assert made.similarity_search("Which planet is red?", k=1)[0].page_content == TEXTS[0]
            assert all(KEY in record for record in made.store.values())
            with pytest.raises(SpaceMismatchError):
                made.embedding = other
    with pytest.raises(SpaceMismatchError, match="none of embrief's"):
        store.from_texts(TEXTS, OTHERS["foreign"])


def test_load_on_a_guarded_store_compares(store, other, tmp_path):
    store.dump(str(tmp_path / "store.json"))
    for kind in (type(store), store):
        again = kind.load(str(tmp_path / "store.json"), OURS)
        assert again.similarity_search("Which planet is red?", k=1)[0].metadata == {"moons": 2}
        with pytest.raises(SpaceMismatchError):
            kind.load(str(tmp_path / "store.json"), other)
    plain = InMemoryVectorStore.from_texts(TEXTS, OURS)
    plain.dump(str(tmp_path / "plain.json"))
    with pytest.raises(SpaceMismatchError, match=r"2 of them.*adopt=True"):
        store.load(str(tmp_path / "plain.json"), OURS)


def test_vectors_of_an_unknown_model_need_adopt(tmp_path):
    store = InMemoryVectorStore(OURS)
    store.add_texts(TEXTS)
    with pytest.raises(SpaceMismatchError, match=r"2 of them.*adopt=True"):
        guard(store)
    assert type(store) is InMemoryVectorStore
    guard(store, adopt=True).dump(str(tmp_path / "store.json"))
    guard(InMemoryVectorStore.load(str(tmp_path / "store.json"), OURS))


def test_the_width_is_compared_when_adopting():
    store = InMemoryVectorStore(OURS)
    store.add_texts(TEXTS)
    store.embedding = OTHERS["width"]
    with pytest.raises(SpaceMismatchError, match=r"32 values, and this one has 64"):
        guard(store, adopt=True)


@pytest.mark.parametrize("value", ["", "{", "[]", None, 7, "[" * 100_000])
def test_a_stamp_that_cannot_be_read_is_refused(value, store, tmp_path):
    store.dump(str(tmp_path / "store.json"))
    data = json.loads((tmp_path / "store.json").read_text("utf-8"))
    next(iter(data.values()))[KEY] = value
    (tmp_path / "store.json").write_text(json.dumps(data), "utf-8")
    for adopt in (False, True):
        with pytest.raises(SpaceMismatchError, match="cannot be read"):
            guard(InMemoryVectorStore.load(str(tmp_path / "store.json"), OURS), adopt=adopt)


def test_a_cache_in_front_of_our_embeddings_is_ours():
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_core.stores import InMemoryByteStore

    cached = CacheBackedEmbeddings.from_bytes_store(
        OURS, InMemoryByteStore(), namespace=OURS.cache_namespace(), key_encoder="sha256"
    )
    store = guard(InMemoryVectorStore(cached))
    store.add_texts(TEXTS)
    assert store.similarity_search("Which planet is red?", k=1)[0].page_content == TEXTS[0]
    store.embedding = OURS


def test_what_is_no_store_in_memory_is_an_error():
    with pytest.raises(ArgumentTypeError, match="InMemoryVectorStore, not dict"):
        guard({})
    with pytest.raises(SpaceMismatchError, match="none of embrief's"):
        guard(InMemoryVectorStore(OTHERS["foreign"]))


def test_the_recipe_for_chroma(tmp_path):
    langchain_chroma = pytest.importorskip("langchain_chroma", reason="langchain-chroma is no dependency")
    import chromadb

    from chroma_embrief import Qwen3EmbeddingFunction, open_collection

    client = chromadb.PersistentClient(str(tmp_path), chromadb.Settings(anonymized_telemetry=False))
    function = Qwen3EmbeddingFunction(embedder=OURS.embedder)
    for _ in range(2):
        open_collection(client, "planets", function)
        store = langchain_chroma.Chroma(client=client, collection_name="planets", embedding_function=OURS)
        store.add_texts(TEXTS, ids=["mars", "venus"])
        assert store.similarity_search("Which planet is red?", k=1)[0].page_content == TEXTS[0]
    with pytest.raises(SpaceMismatchError, match="normalize"):
        open_collection(client, "planets", Qwen3EmbeddingFunction(embedder=OTHERS["space"].embedder))
    # One that LangChain made by itself is unknown.
    langchain_chroma.Chroma(client=client, collection_name="own", embedding_function=OURS).add_texts(TEXTS)
    with pytest.raises(SpaceMismatchError, match="nothing says"):
        open_collection(client, "own", function)
    assert open_collection(client, "own", function, adopt=True).count() == 2


def test_the_recipe_for_qdrant(tmp_path):
    langchain_qdrant = pytest.importorskip("langchain_qdrant", reason="langchain-qdrant is no dependency")
    from qdrant_client import QdrantClient

    from qdrant_embrief import check_collection, create_collection, query_texts

    client = QdrantClient(":memory:")
    for _ in range(2):
        create_collection(client, "planets", OURS.embedder)
        store = langchain_qdrant.QdrantVectorStore(client=client, collection_name="planets", embedding=OURS)
        store.add_texts(TEXTS)
        assert store.similarity_search("Which planet is red?", k=1)[0].page_content == TEXTS[0]
    found = query_texts(client, "planets", OURS.embedder, "Which planet is red?", text_key="page_content")
    assert found[0].text == TEXTS[0]
    with pytest.raises(SpaceMismatchError, match="normalize"):
        check_collection(client, "planets", OTHERS["space"].embedder)
    client.close()
