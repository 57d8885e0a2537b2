"""A Qwen3 reranker trained as sequence classification: one label at the end of the template."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embrief import AmbiguousModelError, ModelMismatchError, Reranker
from embrief.files.identify import verify_files
from embrief.files.model_files import read_files

transformers = pytest.importorskip("transformers")

PAIRS = [("What is red?", "Mars is often called the Red Planet."), ("x", ""), ("copy a tree", "Venus is bright. " * 20)]
BACKENDS = ("engine", "sentence-transformers")
Make = Callable[[Path, int], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_classified: Make) -> Path:
    return make_classified(tmp_path_factory.mktemp("models") / "own-reranker", 1)


def expected(folder: Path, pairs: list[tuple[str, str]], like: Reranker) -> list[float]:
    """Return the logit of transformers for each rendered pair."""
    import torch

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for query, document in pairs:
        pair = like.render(query, document)
        ids = tokenizer(f"{pair.head}{pair.body}{pair.tail}", return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            found.append(float(model(**ids).logits[0, 0]))
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("like", [None, "Qwen/Qwen3-Reranker-0.6B"])
def test_its_scores_are_those_of_transformers(folder: Path, backend: str, like: str | None) -> None:
    reranker = Reranker(folder, backend=backend, like=like, dtype="float32", device="cpu")
    assert (reranker.spec.scoring, reranker.info()["backend"]) == ("label", backend)
    right = 1 / (1 + np.exp(-np.array(expected(folder, PAIRS, reranker))))
    assert np.ptp(right) > 0.01
    np.testing.assert_allclose(reranker.score_pairs(PAIRS), right, atol=2e-6)


def test_the_engine_takes_it_by_default(folder: Path) -> None:
    assert Reranker(folder).info()["backend"] == "engine"


@pytest.mark.parametrize("labels", [2, 3])
def test_several_labels_are_refused_with_a_way(tmp_path: Path, make_classified: Make, labels: int) -> None:
    folder = make_classified(tmp_path / "several", labels)
    for like in (None, "Qwen/Qwen3-Reranker-0.6B"):
        with pytest.raises(ModelMismatchError, match=rf"{labels} labels; a reranker has one.*num_labels=1"):
            Reranker(folder, like=like)


def test_two_labels_can_be_made_one(tmp_path: Path, make_classified: Make) -> None:
    """What the message advises: the rows of yes and no, subtracted."""
    from safetensors.torch import load_file, save_file

    folder = make_classified(tmp_path / "two", 2)
    tensors = load_file(folder / "model.safetensors")
    tensors["score.weight"] = (tensors["score.weight"][1] - tensors["score.weight"][0])[None].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "LABEL_0"}}), "utf-8")
    reranker = Reranker(folder, dtype="float32")
    right = 1 / (1 + np.exp(-np.array(expected(folder, PAIRS, reranker))))
    np.testing.assert_allclose(reranker.score_pairs(PAIRS), right, atol=2e-6)


def test_what_sentence_transformers_trained_needs_to_say_its_template(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    entry = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    (copy / "modules.json").write_text(json.dumps([entry]), "utf-8")
    (copy / "sentence_bert_config.json").write_text('{"transformer_task": "sequence-classification"}', "utf-8")
    with pytest.raises(AmbiguousModelError, match=r"pass like='Qwen/Qwen3-Reranker-0\.6B'"):
        Reranker(copy)
    ours = Reranker(copy, like="Qwen/Qwen3-Reranker-0.6B", dtype="float32").score_pairs(PAIRS)
    np.testing.assert_allclose(ours, Reranker(folder, dtype="float32").score_pairs(PAIRS), atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", ["absent", "two rows"])
def test_a_label_without_its_weights_is_refused(folder: Path, tmp_path: Path, backend: str, change: str) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    tensors["score.weight"] = tensors["score.weight"].repeat(2, 1)
    if change == "absent":
        del tensors["score.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelMismatchError):
        Reranker(copy, backend=backend).load()


def test_the_files_of_a_record_have_one_label_too(classifier_folder: Path, tmp_path: Path) -> None:
    spec = Reranker(classifier_folder).spec
    folder = Path(shutil.copytree(classifier_folder, tmp_path / "two"))
    verify_files(read_files(folder), spec)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["id2label"] = {"0": "no", "1": "yes"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelMismatchError, match="2 labels; a reranker has one"):
        verify_files(read_files(folder), spec)
