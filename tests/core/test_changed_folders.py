"""A folder that changes between reading its facts and loading its weights gives no vector under the old space."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, ModelMismatchError, Reranker

pytest.importorskip("sentence_transformers")
BACKENDS = ("engine", "sentence-transformers")
TEXT = ["a text about copying directory trees"]


def embedder(folder: Path, backend: str | None = None) -> Embedder:
    return Embedder(folder, backend=backend, dtype="float32", device="cpu")


def edit(file: Path, **changes: object) -> None:
    data = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**data, **changes}), "utf-8")


def scale(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({name: tensor * 1.5 for name, tensor in load_file(file).items()}, file, {"format": "pt"})


def in_place(folder: Path) -> None:
    """Other values, with the size and the time of the last writing as before."""
    file = folder / "model.safetensors"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-64:] = content[-128:-64]
    with file.open("r+b") as stream:
        stream.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def in_its_place(folder: Path) -> None:
    other = folder.parent / "other.safetensors"
    shutil.copy2(folder / "model.safetensors", other)
    scale(other)
    other.replace(folder / "model.safetensors")


CHANGES: dict[str, Callable[[Path], None]] = {
    "tensors": lambda folder: scale(folder / "model.safetensors"),
    "tensors in place": in_place,
    "another file in its place": in_its_place,
    "configuration": lambda folder: edit(folder / "config.json", rope_theta=999.0, rope_parameters=None),
    "tokenizer": lambda folder: shutil.copy(folder.parent / "tokenizer.json", folder / "tokenizer.json"),
    "a layer": lambda folder: scale(folder / "2_Dense" / "model.safetensors"),
    "the activation of a layer": lambda folder: edit(
        folder / "3_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh"
    ),
    "pooling": lambda folder: edit(
        folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True
    ),
    "the list of modules": lambda folder: (folder / "modules.json").write_text(
        (folder / "modules.json").read_text("utf-8").replace("2_Dense", "9_Dense"), "utf-8"
    ),
    "prompts": lambda folder: edit(
        folder / "config_sentence_transformers.json", prompts={"query": "", "document": "d"}
    ),
    "a limit": lambda folder: edit(folder / "sentence_bert_config.json", max_seq_length=8),
    "a file that appears": lambda folder: (folder / "added_tokens.json").write_text("{}", "utf-8"),
}


@pytest.fixture
def copy(gemma_folder: Path, qwen3_folder: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(gemma_folder, tmp_path / "model"))
    shutil.copytree(folder / "2_Dense", folder / "9_Dense")
    scale(folder / "9_Dense" / "model.safetensors")
    shutil.copy(qwen3_folder / "tokenizer.json", tmp_path / "tokenizer.json")
    return folder


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_change_before_the_first_text_is_refused(copy: Path, change: str, backend: str) -> None:
    found = embedder(copy, backend)
    space = found.space
    CHANGES[change](copy)
    with pytest.raises(ModelMismatchError, match=r"changed since its facts were read \(.+\).* make a new embedder"):
        found.embed_documents(TEXT)
    # Not only the first time.
    with pytest.raises(ModelMismatchError):
        found.load()
    assert found.space == space


def test_a_new_embedder_has_the_new_model(copy: Path) -> None:
    old = embedder(copy)
    before = old.space
    in_place(copy)
    new = embedder(copy)
    assert new.space.id != before.id
    new.load()
    with pytest.raises(ModelMismatchError):
        old.load()


def test_facts_of_one_model_and_weights_of_another_name_no_space(copy: Path) -> None:
    found = embedder(copy)
    scale(copy / "model.safetensors")
    with pytest.raises(ModelMismatchError, match="changed since"):
        _ = found.space


def test_rerankers_too(reranker_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(reranker_folder, tmp_path / "model"))
    for backend in BACKENDS:
        found = Reranker(folder, backend=backend, device="cpu")
        scale(folder / "model.safetensors")
        with pytest.raises(ModelMismatchError, match="changed since"):
            found.score("a query", TEXT)


@pytest.mark.parametrize("moment", ["while it loads", "half-written"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_change_while_the_weights_load_is_refused(
    copy: Path, backend: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer is read before or after the weights: a moment within the load in either runtime."""
    import tokenizers
    import transformers

    file = copy / "model.safetensors"

    def meanwhile(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if moment == "while it loads":
                scale(file)
            else:
                file.write_bytes(file.read_bytes()[:-100])
            return original(*arguments, **options)

        return call

    found = embedder(copy, backend)
    if backend == "engine":

        class Tokenizer:
            from_file = staticmethod(meanwhile(tokenizers.Tokenizer.from_file))

        monkeypatch.setattr("embrief.engine.tokens.Tokenizer", Tokenizer)
    else:
        monkeypatch.setattr(
            transformers.AutoConfig, "from_pretrained", meanwhile(transformers.AutoConfig.from_pretrained)
        )
    with pytest.raises(ModelMismatchError, match="changed since"):
        found.embed_documents(TEXT)


def test_a_loaded_model_and_files_that_do_not_count_change_nothing(copy: Path) -> None:
    found = embedder(copy)
    (copy / "README.md").write_text("a model", "utf-8")
    (copy / "training.log").write_text("done", "utf-8")
    before = found.embed_documents(TEXT)
    scale(copy / "model.safetensors")
    np.testing.assert_array_equal(found.embed_documents(TEXT), before)
