"""Which files hold a model's weights, and that all runtimes and the name of the space go by the same ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embrief import Embedder, ModelMismatchError, Reranker, WeightsUnavailableError

pytest.importorskip("sentence_transformers")
BACKENDS = ("engine", "sentence-transformers")
INDEX = "model.safetensors.index.json"
TEXT = ["a text about copying directory trees"]
Tensors = dict[str, Any]


def embedder(folder: Path, backend: str | None = None) -> Embedder:
    return Embedder(folder, backend=backend, dtype="float32", device="cpu")


def reranker(folder: Path, backend: str | None = None) -> Reranker:
    return Reranker(folder, backend=backend, dtype="float32", device="cpu")


def load(file: Path) -> Tensors:
    from safetensors.torch import load_file

    return load_file(file)


def save(tensors: Tensors, file: Path) -> None:
    from safetensors.torch import save_file

    file.parent.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"})


def edit(file: Path, **changes: object) -> None:
    data = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**data, **changes}), "utf-8")


def shard(folder: Path, *, into: str = "", scale: float = 1.0) -> dict[str, str]:
    """Write the weights once more, in two shards with an index; return the index."""
    tensors = load(folder / "model.safetensors")
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{into}model-{number:05}-of-00002.safetensors"
        save({name: tensors[name] * scale for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}), "utf-8")


@pytest.fixture
def copy(qwen3_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen3_folder, tmp_path / "model"))


@pytest.fixture
def sharded(copy: Path) -> Path:
    shard(copy)
    (copy / "model.safetensors").unlink()
    return copy


@pytest.fixture(scope="module")
def expected(qwen3_folder: Path) -> np.ndarray:
    return embedder(qwen3_folder, "engine").embed_documents(TEXT)


# One file, or shards


def shards_of_another_model(folder: Path) -> None:
    shard(folder, scale=0.5)


def stale_index(folder: Path) -> None:
    write_index(folder, {"embed_tokens.weight": "model-00001-of-00009.safetensors"})


def damaged_index(folder: Path) -> None:
    (folder / INDEX).write_bytes(b"\xff{")


def other_files(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "consolidated.safetensors").write_bytes(b"another format")
    save({"x": load(folder / "model.safetensors")["norm.weight"]}, folder / "model.fp16.safetensors")


@pytest.mark.parametrize("beside", [shards_of_another_model, stale_index, damaged_index, other_files])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lies_beside_a_single_file_is_not_read(
    qwen3_folder: Path, copy: Path, expected: np.ndarray, beside: Callable[[Path], None], backend: str
) -> None:
    beside(copy)
    found = embedder(copy, backend)
    assert found.space == embedder(qwen3_folder).space
    np.testing.assert_allclose(found.embed_documents(TEXT), expected, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rerankers_read_the_single_file_too(reranker_folder: Path, tmp_path: Path, backend: str) -> None:
    folder = Path(shutil.copytree(reranker_folder, tmp_path / "model"))
    shard(folder, scale=0.5)
    np.testing.assert_allclose(
        reranker(folder, backend).score("a query", TEXT),
        reranker(reranker_folder, "engine").score("a query", TEXT),
        atol=1e-5,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_shards_in_a_folder_of_their_own_count(copy: Path, expected: np.ndarray, backend: str) -> None:
    shard(copy, into="weights/")
    (copy / "model.safetensors").unlink()
    first = embedder(copy, backend)
    np.testing.assert_allclose(first.embed_documents(TEXT), expected, atol=1e-5)
    file = copy / "weights" / "model-00002-of-00002.safetensors"
    save({name: tensor * 1.5 for name, tensor in load(file).items()}, file)
    other = embedder(copy, backend)
    assert other.space.id != first.space.id
    assert np.abs(other.embed_documents(TEXT) - expected).max() > 1e-3
    file.unlink()
    with pytest.raises(WeightsUnavailableError, match=r"weights/model-00002"):
        embedder(copy, backend).load()


@pytest.mark.parametrize(
    "name",
    [
        "../other.safetensors", "weights/../../other.safetensors", "/tmp/other.safetensors", "C:\\other.safetensors",
        "..\\other.safetensors", "away/other.safetensors", "", "nul\0.safetensors", f"{'a' * 300}.safetensors",
    ],
)  # fmt: skip
def test_shards_outside_of_the_folder_are_refused(sharded: Path, name: str) -> None:
    shutil.copytree(sharded, sharded.parent / "elsewhere")
    shutil.copy(sharded / "model-00001-of-00002.safetensors", sharded.parent / "other.safetensors")
    shutil.copy(sharded / "model-00001-of-00002.safetensors", sharded.parent / "elsewhere" / "other.safetensors")
    (sharded / "away").symlink_to(sharded.parent / "elsewhere")
    weight_map = json.loads((sharded / INDEX).read_text("utf-8"))["weight_map"]
    write_index(sharded, {key: name if "00001" in file else file for key, file in weight_map.items()})
    with pytest.raises(ModelMismatchError, match=r"index\.json"):
        embedder(sharded).load()


def test_files_that_are_links_are_read_as_hub_caches_have_them(sharded: Path, expected: np.ndarray) -> None:
    blobs = sharded.parent / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(sharded.glob("*.safetensors"))):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    np.testing.assert_allclose(embedder(sharded).embed_documents(TEXT), expected, atol=1e-6)


@pytest.mark.parametrize(
    "weight_map", [None, [], {}, "model.safetensors", {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": "pytorch_model.bin"}]
)
def test_an_index_that_does_not_map_names_to_files_is_refused(sharded: Path, weight_map: object) -> None:
    write_index(sharded, weight_map)
    with pytest.raises(ModelMismatchError, match=r"index\.json"):
        embedder(sharded).load()


@pytest.mark.parametrize("backend", BACKENDS)
def test_shards_that_contradict_each_other_or_the_index_are_refused(sharded: Path, backend: str) -> None:
    first, second = sorted(sharded.glob("*.safetensors"))
    tensors, others = load(first), load(second)
    name = sorted(tensors)[0]
    save({**others, name: tensors[name] * 2}, second)
    with pytest.raises(ModelMismatchError, match=f"'{name}' is both in"):
        embedder(sharded, backend).load()
    # Moved to the other shard, which the index does not know.
    save({key: tensor for key, tensor in tensors.items() if key != name}, first)
    with pytest.raises(ModelMismatchError, match=f"says that tensor '{name}'"):
        embedder(sharded, backend).load()
    save(others, second)
    with pytest.raises(ModelMismatchError, match=f"says that tensor '{name}'"):
        embedder(sharded, backend).load()


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_that_several_processes_saved_are_refused(copy: Path, backend: str) -> None:
    save(load(copy / "model.safetensors"), copy / "shard-00000-model-00001-of-00001.safetensors")
    with pytest.raises(ModelMismatchError, match="several processes"):
        embedder(copy, backend).load()


@pytest.mark.parametrize("backend", [None, "sentence-transformers"])
def test_a_configuration_that_names_another_file_is_refused(copy: Path, backend: str | None) -> None:
    save({name: tensor * 2 for name, tensor in load(copy / "model.safetensors").items()}, copy / "o.safetensors")
    edit(copy / "config.json", transformers_weights="o.safetensors")
    with pytest.raises(ModelMismatchError, match="transformers_weights"):
        embedder(copy, backend).load()


def test_an_index_without_metadata_is_refused_where_transformers_fails_on_it(sharded: Path) -> None:
    weight_map = json.loads((sharded / INDEX).read_text("utf-8"))["weight_map"]
    (sharded / INDEX).write_text(json.dumps({"weight_map": weight_map}), "utf-8")
    embedder(sharded, "engine").load()
    with pytest.raises(ModelMismatchError, match="metadata"):
        embedder(sharded, "sentence-transformers").load()


def test_pickled_weights_of_a_module_are_never_loaded(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text("utf-8"))
    kind = "sentence_transformers.models.LayerNorm"
    modules.insert(2, {"idx": 9, "name": "9", "path": "2_LayerNorm", "type": kind})
    (copy / "modules.json").write_text(json.dumps(modules), "utf-8")
    (copy / "2_LayerNorm").mkdir()
    (copy / "2_LayerNorm" / "config.json").write_text('{"dimension": 48}', "utf-8")
    (copy / "2_LayerNorm" / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises((WeightsUnavailableError, ModelMismatchError), match="2_LayerNorm"):
        embedder(copy).load()


def test_code_of_the_folder_counts_where_it_may_run(copy: Path) -> None:
    code = copy / "modeling_own.py"
    code.write_text("FACTOR = 1", "utf-8")
    plain = embedder(copy).space
    code.write_text("FACTOR = 2", "utf-8")
    assert embedder(copy).space == plain, "nothing runs it"
    edit(copy / "config.json", auto_map={"AutoModel": "modeling_own.Model"})
    own = embedder(copy).space
    code.write_text("FACTOR = 3", "utf-8")
    assert embedder(copy).space.id != own.id
