"""The same picture gives the same vector through the engine, every framework, the server and the command line."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import chromadb
import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from typer.testing import CliRunner

from chroma_embrief import Qwen3VLEmbeddingFunction
from embrief import Embedder, Image, plugins
from embrief.servers import HttpSimple
from langchain_embrief import Qwen3VLEmbeddings
from llama_index_embrief import Qwen3VLEmbedding
from qdrant_embrief import attach

pytest.importorskip("transformers.models.qwen3_vl")
OPTIONS = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def pixels() -> list[np.ndarray]:
    """Two pictures of different sizes, with edges that a change of size would move."""
    chance = np.random.default_rng(5)
    return [chance.integers(0, 256, size, np.uint8) for size in ((70, 110, 3), (96, 64, 3))]


@pytest.fixture
def embedder(vision_folder: Path) -> Embedder:
    return Embedder(vision_folder, **OPTIONS)


@pytest.fixture
def vectors(embedder: Embedder, pixels: list[np.ndarray]) -> np.ndarray:
    found = embedder.embed_documents([Image(picture) for picture in pixels])
    assert found[0] @ found[1] < 0.999, "pictures that are told apart"
    return found


@pytest.fixture
def files(tmp_path: Path, pixels: list[np.ndarray]) -> list[Path]:
    paths = [tmp_path / f"{place}.png" for place in range(len(pixels))]
    for path, picture in zip(paths, pixels, strict=True):
        path.write_bytes(Image(picture).to_png())
    return paths


def test_frameworks(
    vision_folder: Path, embedder: Embedder, vectors: np.ndarray, pixels: list[np.ndarray], files: list[Path]
) -> None:
    names = [str(path) for path in files]
    llama_index = Qwen3VLEmbedding(str(vision_folder), **OPTIONS)
    np.testing.assert_allclose(llama_index.get_image_embedding_batch(names), vectors, atol=1e-6)
    langchain = Qwen3VLEmbeddings(str(vision_folder), **OPTIONS)
    np.testing.assert_allclose(langchain.embed_images(names), vectors, atol=1e-6)

    chroma = chromadb.EphemeralClient().create_collection(
        "same-pictures", embedding_function=Qwen3VLEmbeddingFunction(embedder=embedder)
    )
    chroma.add(ids=["0", "1"], images=pixels)
    np.testing.assert_allclose(chroma.get(include=["embeddings"])["embeddings"], vectors, atol=1e-5)
    found = chroma.query(query_images=[pixels[1]], n_results=1, include=["distances"])
    asked = embedder.embed_query(Image(pixels[1]))
    assert found["ids"] == [["1"]]
    np.testing.assert_allclose(1 - found["distances"][0][0], asked @ vectors[1], atol=1e-4)

    qdrant = QdrantClient(":memory:")
    attach(qdrant, {"tiny": embedder})
    qdrant.create_collection("same", models.VectorParams(size=embedder.dim, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(id=place, vector=models.Image(image=path, model="tiny")) for place, path in enumerate(files)
    ]
    qdrant.upsert("same", points)
    stored, _ = qdrant.scroll("same", with_vectors=True)
    np.testing.assert_allclose([point.vector for point in sorted(stored, key=lambda at: at.id)], vectors, atol=1e-5)
    qdrant.close()


def test_the_server(embedder: Embedder, vectors: np.ndarray, files: list[Path]) -> None:
    pytest.importorskip("fastapi", reason="the extra `server` is not installed")
    from fastapi.testclient import TestClient

    from embrief.server.app import create_app
    from embrief.server.models import ServedModels

    encoded = [base64.b64encode(path.read_bytes()).decode() for path in files]
    app = create_app(ServedModels({"eyes": embedder}, {}))
    with TestClient(app, base_url="http://127.0.0.1:8642") as client:
        simple = client.post("/img/embed", json={"input": encoded}).json()
        jina = client.post(
            "/v1/embeddings", json={"model": "eyes", "input": [{"image": text} for text in encoded]}
        ).json()
        uris = [f"data:image/png;base64,{text}" for text in encoded]
        parts = [[{"type": "image_url", "image_url": {"url": uri}}] for uri in uris]
        openai = client.post("/v1/embeddings", json={"model": "eyes", "input": parts}).json()
        messages = [
            client.post("/v1/embeddings", json={"model": "eyes", "messages": [{"role": "user", "content": one}]}).json()
            for one in parts
        ]
        asked = {"model": "eyes", "input_type": "search_document", "embedding_types": ["float"]}
        inputs = client.post("/v2/embed", json={**asked, "inputs": [{"content": one} for one in parts]}).json()
        images = client.post("/v2/embed", json={**asked, "input_type": "image", "images": uris}).json()
    for answer in (simple, jina, openai, inputs, images):
        np.testing.assert_allclose(_vectors(answer), vectors, atol=1e-6)
    np.testing.assert_allclose([_vectors(answer)[0] for answer in messages], vectors, atol=1e-6)


def _vectors(answer: dict) -> list:
    if "data" in answer:
        return [item["embedding"] for item in answer["data"]]
    found = answer["embeddings"] if "embeddings" in answer else answer["embedding"]
    return found["float"] if isinstance(found, dict) else found


def test_a_service_with_a_route_for_pictures(
    embedder: Embedder, vectors: np.ndarray, pixels: list[np.ndarray], vision_folder: Path
) -> None:
    pytest.importorskip("fastapi", reason="the extra `server` is not installed")
    from embrief.server.app import create_app
    from embrief.server.models import ServedModels

    from ..server.conftest import listening

    # Of a folder nobody can say whether the server has the same.
    record = replace(embedder.spec, id="test/tiny-vl", revision="1", aliases=(), folder=vision_folder)
    plugins().catalog.add_model(record)
    try:
        with listening(create_app(ServedModels({"eyes": embedder}, {}))) as server:
            service = HttpSimple(base_url=server.url, text_endpoint="/txt/embed", image_endpoint="/img/embed")
            there = Embedder(record.id, backend=service)
            found = there.embed_documents([Image(picture) for picture in pixels])
            asked = there.embed_query(Image(pixels[0]))
    finally:
        plugins().catalog.remove("", [record.id])
    np.testing.assert_allclose(found, vectors, atol=1e-6)
    np.testing.assert_allclose(asked, embedder.embed_query(Image(pixels[0])), atol=1e-6)


def test_the_command_line(vision_folder: Path, pixels: list[np.ndarray], files: list[Path]) -> None:
    from embrief.cli import app

    # In the number format that the machine's processor likes best.
    own = Embedder(vision_folder, device="cpu").embed_documents([Image(picture) for picture in pixels])
    lines = "".join(json.dumps({"image": str(path)}) + "\n" for path in files)
    ran = CliRunner().invoke(app, ["embed", "--model", str(vision_folder), "--device", "cpu", "-"], input=lines)
    assert ran.exit_code == 0, ran.output
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    np.testing.assert_allclose([item["embedding"] for item in found], own, atol=1e-6)


def test_an_indexed_folder(
    vision_folder: Path, pixels: list[np.ndarray], files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from embrief.cli import app
    from embrief.indexing import table
    from embrief.indexing.workspace import Workspace

    monkeypatch.setattr(table, "user_folder", lambda kind: tmp_path / "data")
    monkeypatch.setenv("EMBRIEF_DEVICE", "cpu")
    album = tmp_path / "album"
    album.mkdir()
    for path in files:
        path.rename(album / path.name)
    ran = CliRunner().invoke(app, ["index", str(album), "--model", str(vision_folder), "--store", "chroma"])
    assert ran.exit_code == 0, ran.output
    with Workspace() as workspace, workspace.opened(workspace.choose(cwd=album)) as collection:
        places = {path: passage for passage, path in collection.paths().items()}
        stored = collection.vectors(list(places.values()))
    # In the number format that the machine's processor likes best.
    own = Embedder(vision_folder, device="cpu").embed_documents([Image(picture) for picture in pixels])
    np.testing.assert_allclose([stored[places[path.name]] for path in files], own, atol=1e-6)
