"""The same picture gives the same vector through the core and every framework, on both sides of a search."""

from __future__ import annotations

import io

import chromadb
import numpy as np
import pytest
from PIL import Image as Pillow
from qdrant_client import QdrantClient, models

from chroma_embrief import ImageLoader, Qwen3VLEmbeddingFunction, add_documents, open_collection
from embrief import Embedder, Image
from embrief.testing import FakeRuntime
from langchain_embrief import Qwen3VLEmbeddings, image_query
from llama_index_embrief import Qwen3VLEmbedding
from qdrant_embrief import attach, create_collection, query_texts, upsert_texts


@pytest.fixture
def fake():
    with FakeRuntime() as runtime:
        yield runtime


@pytest.fixture
def jpeg(tmp_path):
    """A photograph as cameras write it: lossy, and lying on its side."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    exif = Pillow.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", exif=exif)
    path = tmp_path / "photo.jpg"
    path.write_bytes(file.getvalue())
    return path


@pytest.fixture
def client():
    qdrant = QdrantClient(":memory:")
    yield qdrant
    qdrant.close()


def test_documents(fake, jpeg, client, tmp_path):
    embedder = Embedder(fake.vision)
    expected = embedder.embed_documents([Image(jpeg)])[0]
    function = Qwen3VLEmbeddingFunction(embedder=embedder)
    loader = ImageLoader(folder=jpeg.parent)
    made = {
        "bytes": embedder.embed_documents([Image(jpeg.read_bytes())])[0],
        "Pillow": embedder.embed_documents([Image(Pillow.open(jpeg))])[0],
        "LlamaIndex": Qwen3VLEmbedding(embedder=embedder).get_image_embedding(str(jpeg)),
        "LangChain": Qwen3VLEmbeddings(embedder=embedder).embed_images([str(jpeg)])[0],
        "Chroma": function(loader([jpeg.name]))[0],
    }
    chroma = chromadb.PersistentClient(str(tmp_path / "db"))
    collection = open_collection(chroma, "photos", function, data_loader=loader)
    collection.add(ids=["uri"], uris=[jpeg.name])
    add_documents(chroma, collection, [Image(jpeg)], ids=["image"])
    kept = collection.get(ids=["uri", "image"], include=["embeddings"])
    made |= {f"Chroma {name}": row for name, row in zip(kept["ids"], kept["embeddings"], strict=True)}
    attach(client, embedder)
    create_collection(client, "photos", embedder)
    held = models.Image(image=jpeg, model=fake.vision)
    client.upsert("photos", [models.PointStruct(id=1, vector=held)])
    upsert_texts(client, "photos", embedder, [Image(jpeg)], ids=[2])
    made |= {f"Qdrant {point.id}": point.vector for point in client.retrieve("photos", [1, 2], with_vectors=True)}
    for name, vector in made.items():
        assert np.allclose(vector, expected, atol=1e-6), name
    unturned = Image(np.asarray(Pillow.open(jpeg).convert("RGB")))
    assert not np.allclose(embedder.embed_documents([unturned])[0], expected, atol=1e-3)


def test_queries(fake, jpeg, client):
    embedder = Embedder(fake.vision, instruction="Find the same place")
    Qwen3VLEmbeddings(embedder=embedder).embed_image_query(str(jpeg))
    function = Qwen3VLEmbeddingFunction(embedder=embedder)
    function.embed_query([np.asarray(Image(jpeg).pixels)])
    function.embed_query([image_query(str(jpeg))])
    attach(client, embedder)
    create_collection(client, "photos", embedder)
    client.query_points("photos", query=models.Image(image=jpeg, model=fake.vision))
    query_texts(client, "photos", embedder, image_query(str(jpeg)))
    embedder.embed_query(Image(jpeg))
    assert len(fake.texts) == 6
    assert len(set(fake.texts)) == 1
    assert "Find the same place." in fake.texts[0]
