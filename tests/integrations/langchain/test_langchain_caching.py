"""Cache keys and record managers: where LangChain trusts a name that the user gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore

from embrief.testing import FakeRuntime
from langchain_embrief import EmbriefEmbeddings, GemmaEmbeddings, Qwen3Embeddings


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


def cached(
    embeddings: EmbriefEmbeddings, store: InMemoryByteStore, queries: InMemoryByteStore | bool = False
) -> CacheBackedEmbeddings:
    return CacheBackedEmbeddings.from_bytes_store(
        embeddings,
        store,
        namespace=embeddings.cache_namespace(),
        query_embedding_cache=queries,
        key_encoder="sha256",
    )


def test_a_cached_document_is_not_embedded_again(fake: FakeRuntime) -> None:
    store = InMemoryByteStore()
    first = cached(Qwen3Embeddings(fake.qwen3), store).embed_documents(["Mars", "Venus"])
    again = cached(Qwen3Embeddings(fake.qwen3), store).embed_documents(["Venus", "Mars"])
    assert again == first[::-1]
    assert fake.texts == ["Mars", "Venus"]


def test_other_dims_models_tasks_and_limits_never_collide(fake: FakeRuntime) -> None:
    store = InMemoryByteStore()
    variants: list[EmbriefEmbeddings] = [
        Qwen3Embeddings(fake.qwen3),
        Qwen3Embeddings(fake.qwen3, dim=16),
        Qwen3Embeddings(fake.qwen3, normalize=False),
        Qwen3Embeddings(fake.qwen3, max_tokens=9),
        GemmaEmbeddings(fake.gemma),
        GemmaEmbeddings(fake.gemma, task="clustering"),
        Qwen3Embeddings("embrief/hash", dim=64),
    ]
    for embeddings in variants:
        assert cached(embeddings, store).embed_documents(["Mars"]) == embeddings.embed_documents(["Mars"])
    assert len(list(store.yield_keys())) == len(variants)


def test_what_changes_no_document_vector_changes_no_document_key(fake: FakeRuntime) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3)
    same = [
        embeddings.with_instruction("Find planets"),
        Qwen3Embeddings(fake.qwen3, batch_tokens=100),
        Qwen3Embeddings(fake.qwen3, local_files_only=True),
        Qwen3Embeddings(fake.qwen3, dim=64),
        embeddings.model_copy(deep=True),
    ]
    assert {other.cache_namespace() for other in same} == {embeddings.cache_namespace()}


def test_query_names_follow_the_query_prompt_and_everything_of_the_document_name(fake: FakeRuntime) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3)
    names = [
        embeddings.cache_namespace(),
        embeddings.query_cache_namespace(),
        embeddings.with_instruction("Find planets").query_cache_namespace(),
        embeddings.with_instruction("").query_cache_namespace(),
        embeddings.with_dim(16).query_cache_namespace(),
        GemmaEmbeddings(fake.gemma).query_cache_namespace(),
        GemmaEmbeddings(fake.gemma, task="question_answering").query_cache_namespace(),
    ]
    assert len(set(names)) == len(names)
    assert embeddings.query_cache_namespace() == Qwen3Embeddings(fake.qwen3).query_cache_namespace()


def test_trap_query_embedding_cache_true_gives_the_document_vector(fake: FakeRuntime) -> None:
    """If this fails, LangChain has separated the keys: take the warning out of docs/langchain.md."""
    embeddings = Qwen3Embeddings(fake.qwen3)
    backed = cached(embeddings, InMemoryByteStore(), queries=True)
    document = backed.embed_documents(["Mars"])[0]
    assert backed.embed_query("Mars") == document != embeddings.embed_query("Mars")


async def test_query_vectors_in_a_store_named_after_the_query_prompt(fake: FakeRuntime, tmp_path) -> None:
    """The recipe of docs/langchain.md: one folder per query prompt."""
    plain = Qwen3Embeddings(fake.qwen3)
    documents = LocalFileStore(tmp_path / "documents")
    for embeddings in (plain, plain.with_instruction("Find planets"), plain.with_dim(16)) * 2:
        backed = CacheBackedEmbeddings.from_bytes_store(
            embeddings,
            documents,
            namespace=embeddings.cache_namespace(),
            query_embedding_cache=LocalFileStore(tmp_path / embeddings.query_cache_namespace()),
            key_encoder="sha256",
        )
        assert backed.embed_documents(["Mars"])[0] == embeddings.embed_documents(["Mars"])[0]
        assert backed.embed_query("Mars") == await backed.aembed_query("Mars") == embeddings.embed_query("Mars")
    folders = {folder.name: len(list(folder.iterdir())) for folder in tmp_path.iterdir()}
    assert sorted(folders.values()) == [1, 1, 1, 2]
    assert folders["documents"] == 2


def test_trap_the_indexing_api_does_not_see_another_model(fake: FakeRuntime) -> None:
    """If this fails, `index` has learnt about embeddings: take the warning out of docs/langchain.md."""
    manager = InMemoryRecordManager(namespace="planets")
    manager.create_schema()
    documents = [Document("Mars", metadata={"source": "a"})]
    for embeddings, expected in ((Qwen3Embeddings(fake.qwen3), 1), (Qwen3Embeddings(fake.qwen3, dim=16), 0)):
        store = InMemoryVectorStore(embeddings)
        assert index(documents, manager, store, key_encoder="sha256")["num_added"] == expected


def test_a_record_manager_named_after_the_embeddings_indexes_again(fake: FakeRuntime) -> None:
    """The recipe of docs/langchain.md."""
    documents = [Document("Mars", metadata={"source": "a"})]
    added = []
    managers: dict[str, InMemoryRecordManager] = {}
    one = Qwen3Embeddings(fake.qwen3)
    for embeddings in (
        one,
        one.with_instruction("Find planets"),
        one.with_dim(16),
        GemmaEmbeddings(fake.gemma),
    ):
        namespace = f"planets/{embeddings.cache_namespace()}"
        manager = managers.setdefault(namespace, InMemoryRecordManager(namespace=namespace))
        added.append(index(documents, manager, InMemoryVectorStore(embeddings), key_encoder="sha256")["num_added"])
    assert added == [1, 0, 1, 1]
