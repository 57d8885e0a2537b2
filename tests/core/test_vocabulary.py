"""A tokenizer that knows more tokens than the model has vectors for is refused when the model is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embrief import Embedder, ItemFailedError, ModelMismatchError, Reranker

pytest.importorskip("sentence_transformers")

BACKENDS = ("engine", "sentence-transformers")


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text("utf-8"))
    change(data)
    file.write_text(json.dumps(data), "utf-8")


def add(content: str, number: int, *, special: bool) -> Callable[[dict[str, Any]], object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return lambda data: data["added_tokens"].append({"id": number, "content": content, "special": special, **flags})


def rows(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"])


def grow(data: dict[str, Any]) -> None:
    data["model"]["vocab"]["zzzzzz"] = len(data["model"]["vocab"]) + 7


def move(data: dict[str, Any]) -> None:
    """Give a token another id, so that the number of tokens stays."""
    data["model"]["vocab"]["Ġcopy"] = 5000


def closing(data: dict[str, Any]) -> None:
    """Let the post-processor put in an id that the vocabulary does not have."""
    steps = data["post_processor"]
    name = next(iter(steps["special_tokens"]))
    steps["special_tokens"][name]["ids"] = [4242]


CHANGES = {
    "a larger vocabulary": lambda size: grow,
    "a token far away": lambda size: move,
    "an added token": lambda size: add("<new>", size, special=False),
    "a special token": lambda size: add("<new>", size, special=True),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", CHANGES)
def test_an_embedder(qwen3_folder: Path, tmp_path: Path, backend: str, change: str) -> None:
    folder = Path(shutil.copytree(qwen3_folder, tmp_path / "model"))
    edit(folder, CHANGES[change](rows(folder)))
    with pytest.raises(ModelMismatchError, match=r"1 tokens that the model .*resize_token_embeddings"):
        Embedder(folder, backend=backend).load()


def test_ids_of_the_post_processor_alone(gemma_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gemma_folder, tmp_path / "model"))
    edit(folder, closing)
    with pytest.raises(ModelMismatchError, match="id 4242"):
        Embedder(folder, backend="engine").load()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_reranker(reranker_folder: Path, tmp_path: Path, backend: str, change: str) -> None:
    folder = Path(shutil.copytree(reranker_folder, tmp_path / "model"))
    edit(folder, CHANGES[change](rows(folder)))
    with pytest.raises(ModelMismatchError, match="1 tokens that the model has no vector for"):
        Reranker(folder, backend=backend).load()


@pytest.mark.parametrize("change", CHANGES)
def test_an_encoder_that_classifies(classifier_folder: Path, tmp_path: Path, change: str) -> None:
    folder = Path(shutil.copytree(classifier_folder, tmp_path / "model"))
    edit(folder, CHANGES[change](rows(folder)))
    with pytest.raises(ModelMismatchError, match="1 tokens that the model has no vector for"):
        Reranker(folder).load()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_table_with_rows_to_spare_is_fine(qwen3_folder: Path, tmp_path: Path, backend: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(qwen3_folder, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    table = tensors["embed_tokens.weight"]
    tensors["embed_tokens.weight"] = table.repeat(2, 1)[: len(table) + 27].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": len(table) + 27}), "utf-8")
    ours = Embedder(folder, backend=backend, dtype="float32").embed_query("x")
    np.testing.assert_allclose(ours, Embedder(qwen3_folder, dtype="float32").embed_query("x"), atol=1e-6)
    # The first token beyond the tokenizer's own is a row of the table.
    edit(folder, add("<new>", len(table), special=True))
    Embedder(folder, backend=backend).load()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_token_for_pictures_that_embeddinggemma_is_published_with(
    gemma_folder: Path, tmp_path: Path, backend: str
) -> None:
    folder = Path(shutil.copytree(gemma_folder, tmp_path / "model"))
    edit(folder, add("<image_soft_token>", rows(folder), special=True))
    embedder = Embedder(folder, backend=backend, dtype="float32").load()
    right = Embedder(gemma_folder, dtype="float32").embed_documents(["a", "b"])
    np.testing.assert_allclose(embedder.embed_documents(["a", "b"]), right, atol=2e-6)
    with pytest.raises(ItemFailedError, match="index 3 contains '<image_soft_token>'") as caught:
        embedder.embed_documents(["a", "b", "a", "see <image_soft_token> here"])
    assert caught.value.index == 3
    assert embedder.embed_documents(["see <image_soft_token > here"]).shape == (1, 48)


NAMED = {
    "an additional token": {"additional_special_tokens": ["Mars"]},
    "an extra token": {"extra_special_tokens": {"planet_token": "Mars"}},
    "a padding token": {"pad_token": {"content": "Mars", "special": True}},
    "a decoder": {"added_tokens_decoder": {"5": {"content": "Mars", "special": False}}},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", NAMED)
def test_tokens_that_only_tokenizer_config_names_are_refused(
    qwen3_folder: Path, reranker_folder: Path, tmp_path: Path, case: str, backend: str
) -> None:
    for number, (source, facade) in enumerate(((qwen3_folder, Embedder), (reranker_folder, Reranker))):
        folder = Path(shutil.copytree(source, tmp_path / str(number)))
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **NAMED[case]}), "utf-8")
        with pytest.raises(ModelMismatchError, match=r"names 'Mars', and tokenizer\.json has no such token"):
            facade(folder, backend=backend).load()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "change", [{"split_special_tokens": True}, {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": True}]
)
def test_settings_that_make_other_tokens_are_refused(
    qwen3_folder: Path, tmp_path: Path, change: dict[str, object], backend: str
) -> None:
    folder = Path(shutil.copytree(qwen3_folder, tmp_path / "model"))
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **change}), "utf-8")
    with pytest.raises(ModelMismatchError, match=rf"sets '{list(change)[-1]}'"):
        Embedder(folder, backend=backend).load()
