"""A message about two spaces says which is stored; folders have names; another kind is in the framework's words."""

import shutil
from pathlib import Path

import chromadb
import pytest
from qdrant_client import QdrantClient, models

from chroma_embrief import Qwen3EmbeddingFunction, open_collection
from embrief import ArgumentError, Embedder, ModelMismatchError, Reranker, SpaceMismatchError
from embrief.errors import WrongKindError
from embrief.stores import require_same
from langchain_embrief import GemmaEmbeddings, Qwen3Embeddings, Qwen3Reranker
from llama_index_embrief import Qwen3Embedding, Qwen3Rerank
from qdrant_embrief import attach, check_collection, create_collection

SIDES = "stored: dim=256, this embedder: dim=64"
EMBEDDING, RERANKING = "embrief/tiny-embedding", "embrief/tiny-reranker"


def refused(call):
    with pytest.raises(SpaceMismatchError) as caught:
        call()
    return str(caught.value)


def test_the_guard_says_which_side_is_stored():
    stored, mine = Embedder("embrief/hash", dim=256), Embedder("embrief/hash", dim=64)
    assert SIDES in refused(lambda: require_same(stored.space, mine.space, where="the store"))
    found = stored.space.differences(Embedder("embrief/hash", dim=64, normalize=False).space)
    assert found == [SIDES, "stored: normalize=True, this embedder: normalize=False"]
    assert stored.space.differences(mine.space, names=("mine", "yours")) == ["mine: dim=256, yours: dim=64"]
    assert stored.space.differences(stored.space) == []


def test_chroma_and_qdrant_say_it_too(tmp_path):
    stored, mine = Embedder("embrief/hash", dim=256), Embedder("embrief/hash", dim=64)
    client = chromadb.PersistentClient(str(tmp_path))
    open_collection(client, "docs", Qwen3EmbeddingFunction(embedder=stored))
    assert SIDES in refused(lambda: open_collection(client, "docs", Qwen3EmbeddingFunction(embedder=mine)))
    qdrant = QdrantClient(":memory:")
    create_collection(qdrant, "docs", stored)
    assert SIDES in refused(lambda: check_collection(qdrant, "docs", mine))
    # Without a stamp only the width is known.
    qdrant.create_collection("bare", models.VectorParams(size=256, distance=models.Distance.COSINE))
    assert SIDES in refused(lambda: check_collection(qdrant, "bare", mine))
    qdrant.close()


def test_a_folder_has_its_name(tmp_path, qwen3_folder):
    from safetensors.torch import load_file, save_file

    for name in ("first-tune", "second-tune"):
        shutil.copytree(qwen3_folder, tmp_path / name)
    file = tmp_path / "second-tune" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    first, second = (Embedder(tmp_path / name) for name in ("first-tune", "second-tune"))
    message = refused(lambda: require_same(first.space, second.space, where="the store"))
    assert "of the folder 'first-tune', this embedder: weights=" in message
    assert "of the folder 'second-tune'" in message
    message = refused(lambda: require_same(first.space, Embedder("embrief/hash").space, where="the store"))
    assert "stored: model=the folder 'first-tune', this embedder: model='embrief/hash'" in message
    assert "'local'" not in message
    assert "'local'" not in repr(Qwen3EmbeddingFunction(tmp_path / "first-tune"))
    assert "first-tune" in repr(Qwen3EmbeddingFunction(tmp_path / "first-tune"))


KINDS = [
    (Embedder, RERANKING, f"use Reranker({RERANKING!r})"),
    (Reranker, EMBEDDING, f"use Embedder({EMBEDDING!r})"),
    (Qwen3Embeddings, RERANKING, f"use Qwen3Reranker({RERANKING!r})"),
    (GemmaEmbeddings, RERANKING, f"use Qwen3Reranker({RERANKING!r})"),
    (Qwen3Reranker, EMBEDDING, f"use Qwen3Embeddings({EMBEDDING!r})"),
    (Qwen3Embedding, RERANKING, f"use Qwen3Rerank({RERANKING!r})"),
    (Qwen3Rerank, EMBEDDING, f"use Qwen3Embedding({EMBEDDING!r})"),
    (Qwen3EmbeddingFunction, RERANKING, f"use rerank_results(results, queries, Reranker({RERANKING!r}))"),
]


@pytest.mark.parametrize(("kind", "model", "words"), KINDS)
def test_a_model_of_the_other_kind_leads_to_the_frameworks_own_class(kind, model, words):
    with pytest.raises(WrongKindError) as caught:
        kind(model)
    assert isinstance(caught.value, ArgumentError)
    assert isinstance(caught.value, ModelMismatchError)
    what = "a reranker" if model == RERANKING else "an embedding model"
    assert str(caught.value) == f"{model} is {what}; {words}"


@pytest.mark.parametrize(("kind", "words"), [(Reranker, "Embedder"), (Qwen3Reranker, "Qwen3Embeddings")])
def test_so_does_a_folder(kind, words, qwen3_folder):
    with pytest.raises(WrongKindError) as caught:
        kind(qwen3_folder)
    assert f"use {words}({str(Path(qwen3_folder))!r})" in str(caught.value)


def test_qdrant_reads_hits_with_a_reranker():
    client = attach(QdrantClient(":memory:"))
    create_collection(client, "docs", Embedder("embrief/hash"))
    document = models.Document(text="a", model=RERANKING)
    with pytest.raises(WrongKindError, match=r"use query_texts\(\.\.\., reranker=Reranker\('embrief/tiny-reranker'\)"):
        client.query_points("docs", query=document)
    client.close()
