"""The space guard of indexes in memory, and LlamaIndex's own Chroma and Qdrant stores on our collections."""

from __future__ import annotations

import json

import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.vector_stores import ExactMatchFilter, MetadataFilters, SimpleVectorStore

from embrief import ArgumentTypeError, SpaceMismatchError
from embrief.stores import KEY
from llama_index_embrief import Qwen3Embedding, guard

OURS = Qwen3Embedding("embrief/hash", dim=64)
OTHERS = {
    "width": OURS.with_dim(32),
    "space": Qwen3Embedding("embrief/hash", dim=64, normalize=False),
    "foreign": MockEmbedding(64),
}
MARS, VENUS = "Mars is the Red Planet.", "Venus is bright."
QUESTION = "Which planet is red?"


@pytest.fixture
def index():
    index = guard(VectorStoreIndex([], embed_model=OURS))
    index.insert(Document(text=MARS, metadata={"moons": "2"}))
    index.insert_nodes([TextNode(text=VENUS)])
    return index


@pytest.fixture(params=OTHERS)
def other(request):
    return OTHERS[request.param]


def _count(index):
    return len(index.vector_store.data.embedding_dict)


def test_a_guarded_index_works_as_before(index):
    assert index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].text == MARS
    only = MetadataFilters(filters=[ExactMatchFilter(key="moons", value="2")])
    assert [hit.text for hit in index.as_retriever(filters=only).retrieve(QUESTION)] == [MARS]
    assert guard(index) is index
    same = Qwen3Embedding("embrief/hash", dim=64, device="cpu")
    assert index.as_retriever(embed_model=same, similarity_top_k=1).retrieve(QUESTION)[0].text == MARS
    assert isinstance(index, VectorStoreIndex)
    index.delete_ref_doc(next(iter(index.ref_doc_info)), delete_from_docstore=True)
    assert _count(index) == 1


async def test_a_guarded_index_works_as_before_without_blocking(index):
    await index.ainsert_nodes([TextNode(text="Pluto is small.")])
    hits = await index.as_retriever(similarity_top_k=1).aretrieve("Which one is small?")
    assert hits[0].text == "Pluto is small."
    assert all(KEY in item for item in index.vector_store.data.metadata_dict.values())


def test_a_retriever_or_engine_with_another_model_is_refused(index, other):
    with pytest.raises(SpaceMismatchError, match=r"dim|normalize|none of embrief's"):
        index.as_retriever(embed_model=other)
    from llama_index.core.llms import MockLLM

    with pytest.raises(SpaceMismatchError):
        index.as_query_engine(embed_model=other, llm=MockLLM())
    index.as_query_engine(llm=MockLLM()).query(QUESTION)


def test_another_model_is_refused_on_write_and_query(index, other):
    with pytest.raises(SpaceMismatchError):
        index._embed_model = other
    index.__dict__["_embed_model"] = other
    for call in (
        lambda: index.insert(Document(text="x")),
        lambda: index.insert_nodes([TextNode(text="x")]),
        lambda: index.as_retriever(),
    ):
        with pytest.raises(SpaceMismatchError):
            call()
    assert _count(index) == 2


async def test_and_without_blocking(index, other):
    index.__dict__["_embed_model"] = other
    with pytest.raises(SpaceMismatchError):
        await index.ainsert_nodes([TextNode(text="x")])
    assert _count(index) == 2


def test_a_vector_of_another_width_is_refused(index):
    vector = OTHERS["width"].get_query_embedding(QUESTION)
    with pytest.raises(SpaceMismatchError, match=r"64 values, and this one has 32"):
        index.as_retriever().retrieve(QueryBundle(QUESTION, embedding=vector))
    nodes = [TextNode(text="good", embedding=[0.1] * 64), TextNode(text="bad", embedding=vector)]
    with pytest.raises(SpaceMismatchError, match=r"64 values, and this one has 32"):
        index.insert_nodes(nodes)
    assert _count(index) == 2


def test_the_space_is_persisted_with_the_index(index, other, tmp_path):
    index.storage_context.persist(str(tmp_path))

    def reload(model):
        return load_index_from_storage(StorageContext.from_defaults(persist_dir=str(tmp_path)), embed_model=model)

    again = guard(reload(OURS))
    assert again.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].text == MARS
    with pytest.raises(SpaceMismatchError):
        again.as_retriever(embed_model=other)
    for adopt in (False, True):
        with pytest.raises(SpaceMismatchError):
            guard(reload(other), adopt=adopt)
    again.insert_nodes([TextNode(text="Pluto is small.")])
    again.storage_context.persist(str(tmp_path))
    assert _count(guard(reload(OURS))) == 3


def test_vectors_of_an_unknown_model_need_adopt(tmp_path):
    index = VectorStoreIndex.from_documents([Document(text=MARS), Document(text=VENUS)], embed_model=OURS)
    with pytest.raises(SpaceMismatchError, match=r"2 of them.*adopt=True"):
        guard(index)
    assert type(index) is VectorStoreIndex
    guard(index, adopt=True).storage_context.persist(str(tmp_path))
    guard(load_index_from_storage(StorageContext.from_defaults(persist_dir=str(tmp_path)), embed_model=OURS))


def test_what_was_written_past_the_guard_is_noticed(index, tmp_path):
    index.storage_context.persist(str(tmp_path))
    plain = load_index_from_storage(StorageContext.from_defaults(persist_dir=str(tmp_path)), embed_model=OURS)
    plain.insert_nodes([TextNode(text="x")])
    with pytest.raises(SpaceMismatchError, match="1 of them"):
        guard(plain)


def test_the_width_is_compared_when_adopting():
    index = VectorStoreIndex.from_documents([Document(text=MARS)], embed_model=OURS)
    index._embed_model = OTHERS["width"]
    with pytest.raises(SpaceMismatchError, match=r"32 values, and this one has 64"):
        guard(index, adopt=True)


@pytest.mark.parametrize("value", ["", "{", "[]", None, 7, [], "[" * 100_000])
def test_a_stamp_that_cannot_be_read_is_refused(value, index, tmp_path):
    index.storage_context.persist(str(tmp_path))
    file = tmp_path / "default__vector_store.json"
    data = json.loads(file.read_text("utf-8"))
    next(iter(data["metadata_dict"].values()))[KEY] = value
    file.write_text(json.dumps(data), "utf-8")
    again = load_index_from_storage(StorageContext.from_defaults(persist_dir=str(tmp_path)), embed_model=OURS)
    for adopt in (False, True):
        with pytest.raises(SpaceMismatchError, match="cannot be read"):
            guard(again, adopt=adopt)


def test_what_is_no_index_in_memory_is_an_error():
    from llama_index.core import SummaryIndex

    with pytest.raises(ArgumentTypeError, match="VectorStoreIndex, not SummaryIndex"):
        guard(SummaryIndex([]))
    with pytest.raises(SpaceMismatchError, match="MockEmbedding is none of embrief's"):
        guard(VectorStoreIndex([], embed_model=OTHERS["foreign"]))


def test_a_store_of_a_users_own_class_is_not_replaced():
    class Mine(SimpleVectorStore):
        pass

    index = _from(store := Mine())
    for adopt in (False, True):
        with pytest.raises(ArgumentTypeError, match="not on a Mine"):
            guard(index, adopt=adopt)
    assert index.vector_store is store


def test_llama_indexs_constructors_on_a_guarded_index_are_refused(index):
    for kind in (type(index), index):
        with pytest.raises(ArgumentTypeError, match=r"guard\(index, adopt=True\)"):
            kind.from_documents([Document(text=MARS)], embed_model=OURS)
    with pytest.raises(ArgumentTypeError, match=r"guard\(index, adopt=True\)"):
        type(index)([], embed_model=OURS)


def test_llama_indexs_constructors_on_a_guarded_store_make_plain_ones(index, other, tmp_path):
    store = index.vector_store
    index.storage_context.persist(str(tmp_path))
    for made in (
        store.from_persist_dir(str(tmp_path)),
        store.from_persist_path(str(tmp_path / "default__vector_store.json")),
        store.from_namespaced_persist_dir(str(tmp_path))["default"],
        type(store).from_dict(store.to_dict()),
    ):
        assert type(made) is SimpleVectorStore
        context = StorageContext.from_defaults(vector_store=made)
        guard(VectorStoreIndex([], storage_context=context, embed_model=OURS))
        with pytest.raises(SpaceMismatchError):
            guard(VectorStoreIndex([], storage_context=context, embed_model=other), adopt=True)


def _from(store):
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex.from_documents(
        [Document(text=MARS), Document(text=VENUS)], storage_context=context, embed_model=OURS
    )


def test_the_recipe_for_chroma(tmp_path):
    reason = "llama-index-vector-stores-chroma is no dependency"
    stores = pytest.importorskip("llama_index.vector_stores.chroma", reason=reason)
    import chromadb

    from chroma_embrief import Qwen3EmbeddingFunction, open_collection

    client = chromadb.PersistentClient(str(tmp_path), chromadb.Settings(anonymized_telemetry=False))
    function = Qwen3EmbeddingFunction(embedder=OURS.embedder)
    index = _from(stores.ChromaVectorStore(chroma_collection=open_collection(client, "planets", function)))
    assert index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].text == MARS
    again = stores.ChromaVectorStore(chroma_collection=open_collection(client, "planets", function))
    index = VectorStoreIndex.from_vector_store(again, embed_model=OURS)
    assert index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].text == MARS
    with pytest.raises(SpaceMismatchError, match="normalize"):
        open_collection(client, "planets", Qwen3EmbeddingFunction(embedder=OTHERS["space"].embedder))
    with pytest.raises(ArgumentTypeError, match=r"not on a ChromaVectorStore.*chroma_embrief"):
        guard(index)


def test_the_recipe_for_qdrant():
    reason = "llama-index-vector-stores-qdrant is no dependency"
    stores = pytest.importorskip("llama_index.vector_stores.qdrant", reason=reason)
    from qdrant_client import QdrantClient

    from qdrant_embrief import check_collection, create_collection

    client = QdrantClient(":memory:")
    create_collection(client, "planets", OURS.embedder)
    index = _from(stores.QdrantVectorStore(client=client, collection_name="planets"))
    assert index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].text == MARS
    check_collection(client, "planets", OURS.embedder)
    again = stores.QdrantVectorStore(client=client, collection_name="planets")
    index = VectorStoreIndex.from_vector_store(again, embed_model=OURS)
    assert index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].text == MARS
    with pytest.raises(SpaceMismatchError, match="normalize"):
        check_collection(client, "planets", OTHERS["space"].embedder)
    # One that LlamaIndex made by itself is unknown.
    _from(stores.QdrantVectorStore(client=client, collection_name="own"))
    with pytest.raises(SpaceMismatchError, match="nothing says"):
        check_collection(client, "own", OURS.embedder)
    check_collection(client, "own", OURS.embedder, adopt=True)
    check_collection(client, "own", OURS.embedder)
    client.close()
