"""The tiny model of pictures: texts as the text model has them, pictures as transformers reads them, what it finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Image, plugins
from embrief.cli.demo_images import Picture, pictures
from embrief.errors import ArgumentError, ModelMismatchError
from embrief.facts.records import TINY_EMBEDDING, TINY_VL_EMBEDDING
from embrief.facts.specs import EmbeddingSpec
from embrief.files import folders
from embrief.images.patches import fit

from ..vision_models import model_inputs

pytest.importorskip("PIL")
pytest.importorskip("torch")
TEXTS = ["a sailboat", "Recursively copy a directory tree.", "", "x" * 3000]


@pytest.fixture(scope="module")
def spec() -> EmbeddingSpec:
    found = plugins().catalog.models[TINY_VL_EMBEDDING]
    assert isinstance(found, EmbeddingSpec)
    return found


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(TINY_VL_EMBEDDING, dtype="float32", device="cpu", truncate="silent")


@pytest.fixture(scope="module")
def shown() -> list[Picture]:
    return pictures()


@pytest.fixture(scope="module")
def vectors(embedder: Embedder, shown: list[Picture]) -> np.ndarray:
    return embedder.embed_documents([picture.image for picture in shown])


def test_texts_have_the_vectors_of_the_text_model(embedder):
    text = Embedder(TINY_EMBEDDING, dtype="float32", device="cpu", truncate="silent")
    for role in ("embed_queries", "embed_documents"):
        assert np.abs(getattr(embedder, role)(TEXTS) - getattr(text, role)(TEXTS)).max() == 0
    assert np.abs(embedder.embed_queries(TEXTS, instruction="Find it.")).max() > 0
    assert text.space != embedder.space


def test_the_record_says_what_the_files_hold(spec):
    from safetensors import safe_open

    files = {name for name in spec.folder.iterdir() if name.suffix == ".safetensors"}
    assert {file.name for file in files} == {"tower.safetensors"}
    count = 0
    for file in (*files, spec.folder / "../tiny_embedding/model.safetensors"):
        with safe_open(file, "pt") as stored:
            count += sum(int(np.prod(stored.get_slice(name).get_shape())) for name in stored.keys())  # noqa: SIM118
    assert count == spec.parameters
    assert sum(file.stat().st_size for file in spec.folder.rglob("*") if file.is_file()) <= 6_000_000
    assert (spec.folder / "README.md").read_text("utf-8").startswith("---\nlicense: apache-2.0\n")


def whole(spec: EmbeddingSpec, folder: Path) -> Path:
    """Write the model as others read it: all weights in one folder, by transformers' names."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(spec.folder, folder)
    (folder / "model.safetensors.index.json").unlink()
    text = load_file(spec.folder / "../tiny_embedding/model.safetensors")
    states = {f"model.language_model.{name.removeprefix('model.')}": value for name, value in text.items()}
    states |= {f"model.{name}": value for name, value in load_file(folder / "tower.safetensors").items()}
    (folder / "tower.safetensors").unlink()
    save_file(states, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_pictures_have_the_vectors_of_transformers(spec, embedder, shown, tmp_path):
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer
    from transformers import AutoModel

    folder = whole(spec, tmp_path / "whole")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    images = [picture.image.pixels for picture in shown[:4]]
    # Of another size and shape than it learnt from.
    images.append(np.kron(images[0][:32], np.ones((3, 2, 1), np.uint8)))
    for pixels, ours in zip(images, embedder.embed_documents([Image(pixels) for pixels in images]), strict=True):
        seen = fit(pixels, spec.images.fitted(*pixels.shape[:2]))
        pads = "<|image_pad|>" * (seen.shape[0] * seen.shape[1] // 1024)
        ids = tokenizer.encode(f"<|vision_start|>{pads}<|vision_end|>").ids
        with torch.inference_mode():
            inputs = model_inputs(model, ids, tokenizer.token_to_id("<|image_pad|>"), [seen], spec.images)
            states = model(**inputs).last_hidden_state
        theirs = torch.nn.functional.normalize(states[0, -1].double(), dim=-1).numpy()
        assert theirs @ ours > 0.9999999
    other = Embedder(folder, like=spec.id, dtype="float32", device="cpu")
    for given in ("cat", shown[0].image):
        assert np.abs(other.embed_query(given) - embedder.embed_query(given)).max() == 0


def test_pictures_alone_in_a_batch_and_in_any_order_are_the_same(embedder, shown, vectors):
    images = [picture.image for picture in shown[:9]]
    np.testing.assert_allclose(embedder.embed_documents(images[::-1])[::-1], vectors[:9], atol=1e-6)
    np.testing.assert_allclose(embedder.embed_documents(images[3:4])[0], vectors[3], atol=1e-6)
    # No prompt on either side.
    np.testing.assert_allclose(embedder.embed_query(images[3]), vectors[3], atol=1e-6)


def test_a_prefix_of_a_vector_is_one(embedder, shown, vectors):
    cut = Embedder(TINY_VL_EMBEDDING, dtype="float32", device="cpu", dim=64).embed_documents([shown[0].image, "ship"])
    wanted = vectors[0, :64] / np.linalg.norm(vectors[0, :64])
    np.testing.assert_allclose(cut[0], wanted, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-6)


def test_a_picture_has_no_place_for_an_instruction(embedder, shown):
    with pytest.raises(ArgumentError, match="index 0 has pictures"):
        embedder.embed_query(shown[0].image, instruction="Find it.")


def test_finds_pictures_by_their_names_and_names_by_pictures(embedder, shown, vectors):
    names = [picture.name for picture in shown]
    scores = embedder.embed_queries(names) @ vectors.T
    places = (scores > scores.diagonal()[:, None]).sum(axis=1)
    learnt = np.array([picture.learnt for picture in shown])
    # Chance is 10 of 150.
    assert np.mean(places[learnt] < 10) > 0.85
    assert np.mean(places[~learnt] < 10) > 0.3
    back = vectors @ embedder.embed_documents(names).T
    places = (back > back.diagonal()[:, None]).sum(axis=1)
    assert np.mean(places[learnt] < 10) > 0.85


def test_its_files_elsewhere_are_refused_since_the_text_model_is_not_there(spec, tmp_path):
    folder = tmp_path / "records" / "tiny_vl_embedding"
    shutil.copytree(spec.folder, folder)
    shutil.copytree(spec.folder.parent / "tiny_embedding", folder.parent / "tiny_embedding")
    with pytest.raises(ModelMismatchError, match="must lie in its folder"):
        Embedder(folder).load()


def test_another_folder_may_not_take_the_text_model(spec, tmp_path):
    folder = tmp_path / "taker"
    shutil.copytree(spec.folder, folder)
    index = folder / "model.safetensors.index.json"
    found = json.loads(index.read_text("utf-8"))
    own = str(spec.folder.parent / "tiny_embedding" / "model.safetensors")
    found["weight_map"] = {name: own if ".." in place else place for name, place in found["weight_map"].items()}
    index.write_text(json.dumps(found), "utf-8")
    with pytest.raises(ModelMismatchError, match="must lie in its folder"):
        Embedder(folder).load()


def test_installed_files_may_be_links(spec, embedder, tmp_path, monkeypatch):
    # As installers that keep one copy of each package put them.
    for folder in (spec.folder, spec.folder.parent / "tiny_embedding"):
        for file in (path for path in folder.rglob("*") if path.is_file()):
            link = tmp_path / folder.name / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    monkeypatch.setattr(folders, "_OWN", tmp_path.resolve())
    with Embedder(tmp_path / spec.folder.name, like=spec.id, dtype="float32", device="cpu") as linked:
        assert np.abs(linked.embed_query("cat") - embedder.embed_query("cat")).max() == 0
