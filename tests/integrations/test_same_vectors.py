"""The same text gives the same vector through the core and every framework."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import chromadb
import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from chroma_embrief import GemmaEmbeddingFunction, Qwen3EmbeddingFunction
from embrief import Embedder
from langchain_embrief import GemmaEmbeddings, Qwen3Embeddings
from llama_index_embrief import GemmaEmbedding, Qwen3Embedding
from qdrant_embrief import attach


@dataclass
class Family:
    llama_index: type
    langchain: type
    chroma: type
    folder: Path


@pytest.fixture(params=["qwen3", "gemma"])
def family(request: pytest.FixtureRequest) -> Family:
    classes = {
        "qwen3": (Qwen3Embedding, Qwen3Embeddings, Qwen3EmbeddingFunction),
        "gemma": (GemmaEmbedding, GemmaEmbeddings, GemmaEmbeddingFunction),
    }[request.param]
    return Family(*classes, request.getfixturevalue(f"{request.param}_folder"))


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    qdrant = QdrantClient(":memory:")
    yield qdrant
    qdrant.close()


def qdrant_vectors(client: QdrantClient, embedder: Embedder, texts: list[str], query: str) -> tuple[np.ndarray, list]:
    """Store and search through `models.Document`; cosines show which query vector was used."""
    attach(client, {"tiny": embedder})
    client.create_collection("texts", models.VectorParams(size=embedder.dim, distance=models.Distance.COSINE))
    documents = [models.Document(text=text, model="tiny") for text in texts]
    points = [models.PointStruct(id=number, vector=document) for number, document in enumerate(documents)]
    client.upsert("texts", points)
    stored, _ = client.scroll("texts", with_vectors=True, limit=len(texts))
    vectors = np.array([point.vector for point in sorted(stored, key=lambda point: point.id)])
    hits = client.query_points("texts", query=models.Document(text=query, model="tiny"), limit=len(texts)).points
    return vectors, [hit.score for hit in sorted(hits, key=lambda hit: hit.id)]


def chroma_vectors(function, texts: list[str], query: str, tmp_path: Path) -> tuple[np.ndarray, list]:
    collection = chromadb.PersistentClient(str(tmp_path)).create_collection("texts", embedding_function=function)
    collection.add(ids=[str(number) for number in range(len(texts))], documents=texts)
    vectors = collection.get(include=["embeddings"])["embeddings"]
    found = collection.query(query_texts=[query], n_results=len(texts), include=["distances"])
    places = {name: 1 - distance for name, distance in zip(found["ids"][0], found["distances"][0], strict=True)}
    return np.array(vectors), [places[str(number)] for number in range(len(texts))]


def test_core_llama_index_langchain_chroma_and_qdrant_agree(
    family: Family, texts: list[str], client: QdrantClient, tmp_path: Path
) -> None:
    texts = [text for text in texts if text]  # Qdrant and Chroma take no empty text everywhere
    query = "which planet is {red}?\n"
    embedder = Embedder(family.folder, dtype="float32", device="cpu")
    documents, asked = embedder.embed_documents(texts), embedder.embed_query(query)
    options = {"dtype": "float32", "device": "cpu"}

    llama_index = family.llama_index(str(family.folder), **options)
    np.testing.assert_allclose(llama_index.get_text_embedding_batch(texts), documents, atol=1e-6)
    np.testing.assert_allclose(llama_index.get_query_embedding(query), asked, atol=1e-6)

    langchain = family.langchain(str(family.folder), **options)
    np.testing.assert_allclose(langchain.embed_documents(texts), documents, atol=1e-6)
    np.testing.assert_allclose(langchain.embed_query(query), asked, atol=1e-6)

    cosines = documents @ asked
    vectors, scores = chroma_vectors(family.chroma(embedder=embedder), texts, query, tmp_path)
    np.testing.assert_allclose(vectors, documents, atol=1e-5)
    np.testing.assert_allclose(scores, cosines, atol=1e-4)

    vectors, scores = qdrant_vectors(client, embedder, texts, query)
    np.testing.assert_allclose(vectors, documents, atol=1e-5)
    np.testing.assert_allclose(scores, cosines, atol=1e-4)
    # The two roles differ here, so a wrapper that mixed them up could not have passed.
    assert np.abs(embedder.embed_documents([query])[0] - asked).max() > 1e-3
