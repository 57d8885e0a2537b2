"""The index in an error is the caller's, also where a wrapper embeds in batches, groups, or only what is not cached."""

import copy
import pickle

import chromadb
import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore.simple_kvstore import SimpleKVStore
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from chroma_embrief import Qwen3EmbeddingFunction, add_documents, open_collection
from embrief import ArgumentTypeError, Embedder, InputTooLongError, PartlyStoredError
from embrief.testing import FakeRuntime
from llama_index_embrief import GemmaEmbedding, Qwen3Embedding
from qdrant_embrief import acreate_collection, attach, aupsert_texts, create_collection, upsert_texts

TEXTS = ["a", "b", "c", "d", "long"]


def too_long(texts):
    for index, text in enumerate(texts):
        if text.endswith("long"):
            raise InputTooLongError(f"the text at index {index} is too long", index=index, tokens=9, limit=8)


@pytest.fixture
def fake():
    with FakeRuntime(fault=too_long) as found:
        yield found


def is_the_callers(caught, index=4):
    error = caught.value.__cause__ if isinstance(caught.value, PartlyStoredError) else caught.value
    assert caught.value.index == index
    assert (error.index, str(error)) == (index, f"the text at index {index} is too long")


def test_in_chromas_batches(fake, tmp_path):
    client = chromadb.PersistentClient(str(tmp_path))
    function = Qwen3EmbeddingFunction(embedder=Embedder(fake.qwen3))
    collection = open_collection(client, "docs", function)
    with pytest.raises(PartlyStoredError) as caught:
        add_documents(client, collection, TEXTS, ids=TEXTS, batch_size=2, embedding_function=function)
    is_the_callers(caught)


async def test_in_qdrants_batches(fake):
    embedder, client = Embedder(fake.qwen3), QdrantClient(":memory:")
    create_collection(client, "docs", embedder)
    with pytest.raises(PartlyStoredError) as caught:
        upsert_texts(client, "docs", embedder, TEXTS, batch_size=3)
    is_the_callers(caught)
    client.close()
    asynchronous = AsyncQdrantClient(":memory:")
    await acreate_collection(asynchronous, "docs", embedder)
    with pytest.raises(PartlyStoredError) as caught:
        await aupsert_texts(asynchronous, "docs", embedder, TEXTS, batch_size=2)
    is_the_callers(caught)
    await asynchronous.close()


def test_in_groups_of_options(fake):
    embedder, client = Embedder(fake.qwen3), attach(QdrantClient(":memory:"), Embedder(fake.qwen3))
    create_collection(client, "docs", embedder)
    documents = [
        models.Document(text=text, model=fake.qwen3, options={"task": "retrieval"} if index % 2 else None)
        for index, text in enumerate([*TEXTS[:-1], "e", "long"])
    ]
    points = [models.PointStruct(id=index, vector=document) for index, document in enumerate(documents)]
    with pytest.raises(InputTooLongError) as caught:
        client.upsert("docs", points)
    is_the_callers(caught, 5)
    client.close()


async def test_beside_a_cache(fake):
    store = SimpleKVStore()
    embedding = Qwen3Embedding(embedder=Embedder(fake.qwen3), embeddings_cache=store)
    embedding.get_text_embedding_batch(["a", "c"])
    with pytest.raises(InputTooLongError) as caught:
        embedding.get_text_embedding_batch(TEXTS)
    is_the_callers(caught)
    with pytest.raises(InputTooLongError) as caught:
        await embedding.aget_text_embedding_batch(TEXTS)
    is_the_callers(caught)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("show_progress", [False, True])
@pytest.mark.parametrize("num_workers", [None, 2])
async def test_in_llama_indexs_batches(fake, cache, show_progress, num_workers):
    embedding = Qwen3Embedding(
        embedder=Embedder(fake.qwen3),
        embed_batch_size=2,
        num_workers=num_workers,
        embeddings_cache=SimpleKVStore() if cache else None,
    )
    embedding.get_text_embedding_batch(["a", "c"])
    with pytest.raises(InputTooLongError) as caught:
        embedding.get_text_embedding_batch(TEXTS, show_progress=show_progress)
    is_the_callers(caught)
    with pytest.raises(InputTooLongError) as caught:
        await embedding.aget_text_embedding_batch(TEXTS, show_progress=show_progress)
    is_the_callers(caught)


async def test_in_the_small_batches_of_llama_indexs_progress_bar(fake):
    embedding = Qwen3Embedding(embedder=Embedder(fake.qwen3))
    texts = [*(f"text {number}" for number in range(40)), "long"]
    with pytest.raises(InputTooLongError) as caught:
        embedding.get_text_embedding_batch(texts, show_progress=True)
    is_the_callers(caught, 40)
    with pytest.raises(InputTooLongError) as caught:
        await embedding.aget_text_embedding_batch(texts, show_progress=True)
    is_the_callers(caught, 40)


async def test_in_batches_of_nodes_with_titles(fake):
    embedding = GemmaEmbedding(embedder=Embedder(fake.gemma), title_metadata_key="title", embed_batch_size=2)
    nodes = [TextNode(text=text, metadata={"title": "T"}) for text in TEXTS]
    with pytest.raises(InputTooLongError) as caught:
        embedding(nodes)
    is_the_callers(caught)
    with pytest.raises(InputTooLongError) as caught:
        await embedding.acall(nodes)
    is_the_callers(caught)


async def test_in_llama_indexs_queries_one_by_one(fake):
    embedding = Qwen3Embedding(embedder=Embedder(fake.qwen3))
    with pytest.raises(InputTooLongError) as caught:
        embedding.get_agg_embedding_from_queries(TEXTS)
    is_the_callers(caught)
    with pytest.raises(InputTooLongError) as caught:
        await embedding.aget_agg_embedding_from_queries(TEXTS)
    is_the_callers(caught)


def test_texts_that_know_their_place_and_title_can_be_pickled_and_copied_by_callbacks(fake):
    seen = LlamaDebugHandler(print_trace_on_end=False)
    embedding = GemmaEmbedding(
        embedder=Embedder(fake.gemma), title_metadata_key="title", callback_manager=CallbackManager([seen])
    )
    embedding([TextNode(text=text, metadata={"title": "T"}) for text in ("a", "b")])
    for pair in seen.get_event_pairs(CBEventType.EMBEDDING):
        chunks = pair[1].payload["chunks"]
        assert pickle.loads(pickle.dumps(chunks)) == copy.deepcopy(chunks) == chunks == ["a", "b"]


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("show_progress", [False, True])
async def test_lengths_are_checked_before_llama_indexs_first_batch(cache, show_progress):
    long = "word " * 50
    with FakeRuntime() as fake:
        embedder = Embedder(fake.qwen3, max_tokens=20, truncate="error")
        store = SimpleKVStore()
        embedding = Qwen3Embedding(embedder=embedder, embed_batch_size=2, embeddings_cache=store if cache else None)
        embedding.get_text_embedding_batch(["a", "c"])
        fake.runs.clear()
        with pytest.raises(InputTooLongError) as caught:
            embedding.get_text_embedding_batch([*TEXTS[:-1], long], show_progress=show_progress)
        assert caught.value.index == 4
        with pytest.raises(InputTooLongError) as caught:
            await embedding.aget_text_embedding_batch([*TEXTS[:-1], long], show_progress=show_progress)
        assert caught.value.index == 4
        assert "4" in str(caught.value)
        assert fake.runs == []
        assert len(store.get_all("embeddings")) == (2 if cache else 0)


async def test_what_is_cached_is_not_checked_for_its_length():
    long = "word " * 50
    with FakeRuntime() as fake:
        store = SimpleKVStore()
        strict = Qwen3Embedding(embedder=Embedder(fake.qwen3, truncate="error"), embeddings_cache=store)
        expected = strict.get_text_embedding_batch(["a", long])
        fake.runs.clear()
        assert strict.get_text_embedding_batch(["a", long]) == expected
        assert await strict.aget_text_embedding_batch(["a", long]) == expected
        assert fake.runs == []


@pytest.mark.parametrize("cache", [False, True])
async def test_titles_are_checked_before_llama_indexs_first_batch(cache):
    with FakeRuntime() as fake:
        embedding = GemmaEmbedding(
            embedder=Embedder(fake.gemma),
            title_metadata_key="title",
            embed_batch_size=2,
            embeddings_cache=SimpleKVStore() if cache else None,
        )
        nodes = [TextNode(text=text, metadata={"title": "T"}) for text in TEXTS]
        nodes[4].metadata["title"] = 7
        with pytest.raises(ArgumentTypeError, match=r"titles\[4\] is int") as caught:
            embedding(nodes)
        assert caught.value.index == 4
        with pytest.raises(ArgumentTypeError, match=r"titles\[4\] is int") as caught:
            await embedding.acall(nodes)
        assert caught.value.index == 4
        assert fake.runs == []
