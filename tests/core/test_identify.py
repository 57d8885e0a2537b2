"""Telling models apart by their files, and what is checked when one is loaded."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from embrief import (
    AmbiguousModelError,
    ArgumentError,
    Embedder,
    InputTooLongError,
    MissingDependencyError,
    ModelMismatchError,
    Reranker,
    UnknownModelError,
    WeightsUnavailableError,
)
from embrief.system.installed import install_command

pytest.importorskip("sentence_transformers")


def edit(file: Path, **changes: object) -> None:
    data = json.loads(file.read_text("utf-8"))
    data.update(changes)
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}), "utf-8")


@pytest.fixture
def qwen3_copy(qwen3_folder: Path, other_folder: Path) -> Path:
    return Path(shutil.copytree(qwen3_folder, other_folder))


@pytest.fixture
def gemma_copy(gemma_folder: Path, other_folder: Path) -> Path:
    return Path(shutil.copytree(gemma_folder, other_folder))


def test_an_embedder_is_known_by_its_modules(qwen3_folder: Path, gemma_folder: Path) -> None:
    qwen, gemma = Embedder(qwen3_folder), Embedder(gemma_folder)
    assert (qwen.spec.pooling, qwen.spec.padding_side, qwen.dim) == ("last", "left", 48)
    assert (gemma.spec.pooling, gemma.spec.padding_side, gemma.dim) == ("mean", "right", 48)
    assert gemma.spec.max_tokens == 256
    assert "float16" in gemma.spec.banned_dtypes
    assert qwen.info()["prompts_from"] == "folder"
    assert not qwen.info()["recorded"]


def test_reranker_settles_what_a_language_model_is(reranker_folder: Path) -> None:
    assert Reranker(reranker_folder).spec.scoring == "yes_no"
    with pytest.raises(AmbiguousModelError, match=r"like=.*Reranker\(\.\.\.\)"):
        Embedder(reranker_folder)


def test_an_embedder_is_no_reranker(qwen3_folder: Path, qwen3_copy: Path, classifier_folder: Path) -> None:
    with pytest.raises(ModelMismatchError, match="use Embedder"):
        Reranker(qwen3_folder)
    (qwen3_copy / "modules.json").unlink()
    with pytest.raises(ModelMismatchError, match=r"appends '<\|endoftext\|>'"):
        Reranker(qwen3_copy)
    with pytest.raises(AmbiguousModelError):
        Embedder(classifier_folder)


def test_a_reranker_with_modules_is_no_embedder(reranker_folder: Path, other_folder: Path) -> None:
    shutil.copytree(reranker_folder, other_folder)
    modules = [
        {
            "idx": 0,
            "name": "0",
            "path": "",
            "type": "sentence_transformers.base.modules.transformer.Transformer",
        },
        {
            "idx": 1,
            "name": "1",
            "path": "1_LogitScore",
            "type": "sentence_transformers.cross_encoder.modules.LogitScore",
        },
    ]
    (other_folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    with pytest.raises(ModelMismatchError, match="is a reranker; use Reranker"):
        Embedder(other_folder)
    with pytest.raises(WeightsUnavailableError, match=r"lacks 1_LogitScore/config\.json"):
        Reranker(other_folder).load()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(other_folder)
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    head = other_folder / "1_LogitScore" / "config.json"
    head.parent.mkdir()
    head.write_text(json.dumps({"true_token_id": yes, "false_token_id": no}), "utf-8")
    expected = Reranker(reranker_folder).score("q", ["d"])
    np.testing.assert_allclose(Reranker(other_folder).score("q", ["d"]), expected)
    head.write_text(json.dumps({"true_token_id": 50, "false_token_id": 51}), "utf-8")
    with pytest.raises(ModelMismatchError, match=r"reads the tokens \[51, 50\]"):
        Reranker(other_folder).load()
    saved = {"prompts": {"main": "Find astronomy"}, "default_prompt_name": "main"}
    (other_folder / "config_sentence_transformers.json").write_text(json.dumps(saved), "utf-8")
    assert "<Instruct>: Find astronomy\n" in Reranker(other_folder).render("q", "d").head
    assert "<Instruct>: told\n" in Reranker(other_folder, instruction="told").render("q", "d").head


def test_the_end_token_tells_an_embedder_without_modules(
    qwen3_folder: Path, qwen3_copy: Path, texts: list[str]
) -> None:
    (qwen3_copy / "modules.json").unlink()
    ours = Embedder(qwen3_copy, dtype="float32").embed_documents(texts)
    np.testing.assert_allclose(ours, Embedder(qwen3_folder, dtype="float32").embed_documents(texts), atol=1e-6)


def test_like_settles_it_too(reranker_folder: Path, qwen3_copy: Path) -> None:
    with pytest.raises(ModelMismatchError, match="ends a text with token"):
        Embedder(reranker_folder, like="Qwen/Qwen3-Embedding-0.6B").load()
    with pytest.raises(ModelMismatchError, match="not like BAAI/bge-m3"):
        Embedder(reranker_folder, like="BAAI/bge-m3")
    with pytest.raises(UnknownModelError, match="did you mean"):
        Embedder(reranker_folder, like="Qwen/Qwen3-Embedding-0.5B")
    with pytest.raises(ArgumentError, match="another kind"):
        Embedder(reranker_folder, like="Qwen/Qwen3-Reranker-0.6B")


@pytest.mark.parametrize("generation", ["new", "several", "none"])
def test_both_generations_of_pooling_files(qwen3_copy: Path, generation: str) -> None:
    file = qwen3_copy / "1_Pooling" / "config.json"
    if generation == "new":
        file.write_text(json.dumps({"embedding_dimension": 48, "pooling_mode": "lasttoken"}), "utf-8")
        assert Embedder(qwen3_copy).spec.pooling == "last"
        assert Embedder(qwen3_copy).dim == 48
        return
    edit(file, pooling_mode_lasttoken=generation == "several", pooling_mode_max_tokens=generation == "several")
    with pytest.raises(ModelMismatchError, match="one of last, mean and cls"):
        Embedder(qwen3_copy)


def test_a_fine_tunes_own_prompts_beat_the_familys(qwen3_copy: Path) -> None:
    file = qwen3_copy / "config_sentence_transformers.json"
    edit(file, prompts={"query": "my query: {title} ", "passage": "my passage: ", "legal": "law: "})
    embedder = Embedder(qwen3_copy)
    assert embedder.render("q", role="query") == "my query: {title} q"
    assert embedder.render("d", role="document") == "my passage: d"
    assert embedder.render("x", role="query", task="legal") == "law: x"
    with pytest.raises(ArgumentError, match="prompts of its own kind"):
        embedder.render("q", role="query", instruction="told")
    with pytest.raises(ArgumentError, match="has no task 'code_retrieval'"):
        embedder.with_task("code_retrieval")
    assert embedder.info()["prompts_from"] == "folder"
    assert embedder.space.document_prompt == "my passage: "
    edit(file, prompts={"query": "Instruct: The task it was tuned for\nQuery:", "document": ""})
    tuned = Embedder(qwen3_copy)
    assert tuned.render("q", role="query") == "Instruct: The task it was tuned for\nQuery:q"
    assert tuned.render("q", role="query", instruction="told") == "Instruct: told\nQuery:q", "call > folder"
    assert Embedder(qwen3_copy, instruction="told").render("q", role="query") == "Instruct: told\nQuery:q"
    edit(file, prompts={"query": "", "document": ""})
    assert Embedder(qwen3_copy).render("q", role="query") == "q", "empty prompts are the folder's own too"
    edit(file, prompts=...)
    family = Embedder(qwen3_copy)
    assert family.render("q", role="query").startswith("Instruct: Given a web search")
    assert family.info()["prompts_from"] == "family"


def test_a_default_prompt_name_is_followed(qwen3_copy: Path) -> None:
    edit(
        qwen3_copy / "config_sentence_transformers.json",
        prompts={"main": "everything: "},
        default_prompt_name="main",
    )
    assert Embedder(qwen3_copy).render("x", role="query") == "everything: x"
    assert Embedder(qwen3_copy).render("x", role="document") == "everything: x"


def test_a_default_prompt_stays_on_the_side_that_its_name_says(qwen3_copy: Path) -> None:
    edit(
        qwen3_copy / "config_sentence_transformers.json",
        prompts={"s2p_query": "find: "},
        default_prompt_name="s2p_query",
    )
    assert Embedder(qwen3_copy).render("x", role="query") == "find: x"
    assert Embedder(qwen3_copy).render("x", role="document") == "x"


def test_titles_survive_only_the_familys_document_prompt(gemma_copy: Path) -> None:
    assert Embedder(gemma_copy).render("d", role="document", title="T") == "title: T | text: d"
    edit(gemma_copy / "config_sentence_transformers.json", prompts={"query": "q: ", "document": "d: "})
    with pytest.raises(ArgumentError, match="no place for a title"):
        Embedder(gemma_copy).render("d", role="document", title="T")


def test_a_space_of_a_folder_is_its_content_not_its_path(qwen3_folder: Path, qwen3_copy: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    assert Embedder(qwen3_copy).space == Embedder(qwen3_folder).space
    file = qwen3_copy / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors, file, metadata={"format": "pt", "note": "saved again"})
    assert Embedder(qwen3_copy).space == Embedder(qwen3_folder).space
    name = next(name for name in tensors if "q_proj" in name)
    tensors[name] = tensors[name] + 0.01 * torch.randn_like(tensors[name])
    save_file(tensors, file, metadata={"format": "pt"})
    assert Embedder(qwen3_copy).space != Embedder(qwen3_folder).space


def test_a_lost_end_token_is_refused(qwen3_copy: Path) -> None:
    edit(qwen3_copy / "tokenizer.json", post_processor=None)
    with pytest.raises(ModelMismatchError, match="ends a text with token"):
        Embedder(qwen3_copy).load()


def test_lost_tensors_are_refused(qwen3_copy: Path, reranker_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for folder, facade in (
        (qwen3_copy, Embedder),
        (shutil.copytree(reranker_folder, tmp_path / "r"), Reranker),
    ):
        file = Path(folder) / "model.safetensors"
        tensors = load_file(file)
        tensors.pop(next(name for name in tensors if "layers.1.mlp.up_proj" in name))
        save_file(tensors, file, metadata={"format": "pt"})
        for backend in ("engine", "sentence-transformers"):
            with pytest.raises(ModelMismatchError, match="lack"):
                facade(folder, backend=backend).load()


def test_pickled_weights_are_refused(qwen3_copy: Path) -> None:
    import torch
    from safetensors.torch import load_file

    file = qwen3_copy / "model.safetensors"
    torch.save(load_file(file), qwen3_copy / "pytorch_model.bin")
    file.unlink()
    with pytest.raises(WeightsUnavailableError, match=r"lacks model\.safetensors"):
        Embedder(qwen3_copy).load()


def test_a_wrong_width_is_refused(qwen3_copy: Path) -> None:
    edit(qwen3_copy / "1_Pooling" / "config.json", word_embedding_dimension=64)
    with pytest.raises(ModelMismatchError, match="gives 48 values per vector, its record says 64"):
        Embedder(qwen3_copy).load()


def test_an_incomplete_folder_names_the_missing_file(qwen3_copy: Path) -> None:
    (qwen3_copy / "1_Pooling" / "config.json").unlink()
    with pytest.raises(WeightsUnavailableError, match=r"config\.json is missing"):
        Embedder(qwen3_copy)
    (qwen3_copy / "config.json").write_text("{", "utf-8")
    with pytest.raises(ModelMismatchError, match="not valid JSON"):
        Embedder(qwen3_copy)
    (qwen3_copy / "config.json").unlink()
    with pytest.raises(WeightsUnavailableError, match=r"config\.json is missing"):
        Embedder(qwen3_copy)


def test_yes_and_no_must_be_single_tokens(reranker_folder: Path, other_folder: Path) -> None:
    shutil.copytree(reranker_folder, other_folder)
    file = other_folder / "tokenizer.json"
    data = json.loads(file.read_text("utf-8"))
    data["model"]["merges"] = [pair for pair in data["model"]["merges"] if "".join(pair) not in ("yes", "ye", "es")]
    data["model"]["vocab"] = {
        token if token != "yes" else "zzyes": number for token, number in data["model"]["vocab"].items()
    }
    file.write_text(json.dumps(data), "utf-8")
    with pytest.raises(ModelMismatchError, match="no single token for 'yes'"):
        Reranker(other_folder).load()


def test_a_classifier_with_several_labels_is_refused(classifier_folder: Path, other_folder: Path) -> None:
    shutil.copytree(classifier_folder, other_folder)
    edit(
        other_folder / "config.json",
        id2label={"0": "a", "1": "b", "2": "c"},
        label2id={"a": 0, "b": 1, "c": 2},
    )
    with pytest.raises(ModelMismatchError, match="3 labels"):
        Reranker(other_folder)


def test_a_qwen3_that_only_claims_to_be_a_classifier_is_refused(reranker_folder: Path, other_folder: Path) -> None:
    shutil.copytree(reranker_folder, other_folder)
    edit(other_folder / "config.json", architectures=["Qwen3ForSequenceClassification"])
    with pytest.raises(ModelMismatchError, match="2 labels"):
        Reranker(other_folder)
    edit(other_folder / "config.json", id2label={"0": "LABEL_0"})
    with pytest.raises(ModelMismatchError, match=r"score\.weight"):
        Reranker(other_folder).load()


def test_a_long_text_under_truncate_error_runs_nothing(
    qwen3_folder: Path, reranker_folder: Path, texts: list[str]
) -> None:
    strict = Embedder(qwen3_folder, truncate="error", max_tokens=20)
    with pytest.raises(InputTooLongError, match=r"index 2 has \d+ tokens, the limit is 20") as caught:
        strict.embed_documents(["a", "a", texts[-1]])
    assert caught.value.index == 2
    assert caught.value.tokens > caught.value.limit == 20
    with pytest.raises(InputTooLongError):
        strict.embed_query(texts[-1])
    with pytest.raises(InputTooLongError, match="index 1"):
        Reranker(reranker_folder, truncate="error", max_tokens=150).score("q", ["a", texts[-1]])


def test_a_query_that_leaves_no_room_is_an_error_whatever_truncate_says(
    reranker_folder: Path, classifier_folder: Path, texts: list[str]
) -> None:
    for folder, limit in ((reranker_folder, 150), (classifier_folder, 20)):
        reranker = Reranker(folder, truncate="silent", max_tokens=limit)
        with pytest.raises(InputTooLongError, match="only documents are ever truncated") as caught:
            reranker.score_pairs([("q", "d"), (texts[-1], "a document")])
        assert caught.value.index == 1


def test_revision_is_for_the_hub(qwen3_folder: Path) -> None:
    with pytest.raises(ArgumentError, match="is a folder"):
        Embedder(qwen3_folder, revision="a" * 40)


def test_a_model_saved_again_to_its_folder_is_loaded_again(qwen3_copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    old = Embedder(qwen3_copy, dtype="float32")
    before = old.embed_query("q")
    file = qwen3_copy / "model.safetensors"
    changed = {name: tensor * 1.1 for name, tensor in load_file(file).items()}
    # A new file in its place: the old one may still be mapped into memory.
    save_file(changed, file.with_suffix(".new"), metadata={"format": "pt"})
    file.with_suffix(".new").replace(file)
    new = Embedder(qwen3_copy, dtype="float32")
    assert np.abs(new.embed_query("q") - before).max() > 1e-4
    np.testing.assert_array_equal(old.embed_query("q"), before)


def test_without_torch_the_message_holds_the_command(monkeypatch: pytest.MonkeyPatch, qwen3_copy: Path) -> None:
    import importlib.util

    real = importlib.util.find_spec
    # Nor any other runtime that reads such files.
    gone = {"torch", "mistralrs"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in gone else real(name, *rest))
    with pytest.raises(MissingDependencyError, match=re.escape(f"needs torch: {install_command('torch')}")):
        Embedder(qwen3_copy)


def test_an_absent_device_is_refused(qwen3_folder: Path) -> None:
    import torch

    with pytest.raises(ArgumentError, match="is not there"):
        Embedder(qwen3_folder, device=f"cuda:{torch.cuda.device_count()}").load()


def test_minilm_with_its_real_weights(minilm_folder: Path, data: Path) -> None:
    """Published vectors of another implementation: the whole path with real weights."""
    golden = json.loads((data / "goldens" / "vectors" / "all-minilm-l6-v2.json").read_text("utf-8"))
    ours = Embedder(minilm_folder, dtype="float32").embed_documents(golden["texts"])
    expected = np.array(golden["vectors_normalised"])
    assert (ours * expected).sum(1).min() > 0.9999
    assert abs(float(ours[0] @ ours[1]) - golden["cosine"]) < 1e-3


def test_minilm_retrieves(minilm_folder: Path) -> None:
    """The same model without any shared data: Mars is the Red Planet."""
    planets = [
        "Venus is often called Earth's twin because of its similar size and proximity.",
        "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
        "Jupiter, the largest planet in our solar system, has a prominent red spot.",
        "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
    ]
    embedder = Embedder(minilm_folder, dtype="float32")
    scores = embedder.embed_documents(planets) @ embedder.embed_query("Which planet is known as the Red Planet?")
    np.testing.assert_allclose(scores, [0.46371, 0.81205, 0.72828, 0.75051], atol=5e-3)


def rewrite(file: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    change(tensors)
    # A new file in its place: the old one may still be mapped into memory.
    save_file(tensors, file.with_suffix(".new"), metadata={"format": "pt"})
    file.with_suffix(".new").replace(file)


def test_a_rewritten_dense_layer_is_another_model(gemma_copy: Path) -> None:
    old = Embedder(gemma_copy, dtype="float32")
    before, space = old.embed_documents(["d"]), old.space
    rewrite(gemma_copy / "2_Dense" / "model.safetensors", lambda tensors: tensors["linear.weight"].mul_(-1.5))
    new = Embedder(gemma_copy, dtype="float32")
    assert np.abs(new.embed_documents(["d"]) - before).max() > 1e-3
    assert new.space != space
    assert old.space == space, "a loaded model keeps the space of what it loaded"
    np.testing.assert_array_equal(old.embed_documents(["d"]), before)


def test_a_few_changed_rows_are_another_space(qwen3_folder: Path, qwen3_copy: Path) -> None:
    rewrite(qwen3_copy / "model.safetensors", lambda tensors: tensors["embed_tokens.weight"][:2].add_(0.5))
    assert Embedder(qwen3_copy).space != Embedder(qwen3_folder).space


def test_a_loaded_model_outlives_its_folder(qwen3_copy: Path) -> None:
    embedder = Embedder(qwen3_copy, dtype="float32")
    before = embedder.embed_documents(["d"])
    shutil.rmtree(qwen3_copy)
    np.testing.assert_array_equal(embedder.embed_documents(["d"]), before)


def test_what_is_not_the_model_does_not_change_its_space(qwen3_folder: Path, qwen3_copy: Path) -> None:
    shutil.copytree(qwen3_folder, qwen3_copy / "checkpoint-500")
    (qwen3_copy / "README.md").write_text("notes", "utf-8")
    edit(qwen3_copy / "config.json", transformers_version="99")
    assert Embedder(qwen3_copy).space == Embedder(qwen3_folder).space
    edit(qwen3_copy / "config.json", rope_theta=7)
    assert Embedder(qwen3_copy).space != Embedder(qwen3_folder).space


def test_dense_weights_must_be_safetensors(gemma_copy: Path) -> None:
    import torch
    from safetensors.torch import load_file

    file = gemma_copy / "3_Dense" / "model.safetensors"
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()
    with pytest.raises(WeightsUnavailableError, match=r"lacks 3_Dense/model\.safetensors"):
        Embedder(gemma_copy).load()


def test_foreign_modules_are_refused(qwen3_copy: Path) -> None:
    file = qwen3_copy / "modules.json"
    file.write_text(
        file.read_text("utf-8").replace("sentence_transformers.models.Normalize", "evil.code.Normalize"), "utf-8"
    )
    with pytest.raises(ModelMismatchError, match="not part of sentence-transformers"):
        Embedder(qwen3_copy)
    file.write_text("[{]", "utf-8")
    with pytest.raises(ModelMismatchError, match="is not valid JSON"):
        Embedder(qwen3_copy)


def test_pooling_without_the_prompt_is_refused(qwen3_copy: Path) -> None:
    edit(qwen3_copy / "1_Pooling" / "config.json", include_prompt=False)
    with pytest.raises(ModelMismatchError, match="leaving the prompt out"):
        Embedder(qwen3_copy)


def test_an_adapter_says_how_to_merge_it(qwen3_copy: Path) -> None:
    (qwen3_copy / "config.json").rename(qwen3_copy / "adapter_config.json")
    with pytest.raises(WeightsUnavailableError, match="merge_and_unload"):
        Embedder(qwen3_copy)


def test_old_names_of_layer_norms_are_not_missing(minilm_folder: Path, other_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(minilm_folder, other_folder)
    file = other_folder / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(file).items()
    }
    save_file(old, file, metadata={"format": "pt"})
    ours = Embedder(other_folder, dtype="float32").embed_query("planets")
    np.testing.assert_allclose(ours, Embedder(minilm_folder, dtype="float32").embed_query("planets"), atol=1e-6)


def test_roberta_counts_positions_from_the_padding_id(classifier_folder: Path, texts: list[str]) -> None:
    spec = Reranker(classifier_folder).spec
    assert (spec.context, spec.max_tokens) == (258, 256)
    with pytest.raises(ArgumentError, match=r"more than .* can hold"):
        Reranker(classifier_folder, max_tokens=259)
    full = Reranker(classifier_folder, max_tokens=258, truncate="silent")
    assert full.score("q", [texts[-1] * 5]).shape == (1,)


def test_a_limit_that_holds_only_the_prompt_is_refused(qwen3_folder: Path) -> None:
    short = Embedder(qwen3_folder, max_tokens=8, truncate="silent")
    with pytest.raises(InputTooLongError, match="the prompt of the text at index 0 has"):
        short.embed_queries(["", "cats and quantum physics"])
    assert short.embed_documents(["cats and quantum physics and more of them"]).shape == (1, 48)


def test_a_path_is_a_folder_and_never_a_name(
    minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "all-MiniLM-L6-v2").symlink_to(minilm_folder)
    monkeypatch.chdir(tmp_path)
    assert Embedder("all-MiniLM-L6-v2").info()["folder"] is None
    assert Embedder(Path("all-MiniLM-L6-v2")).info()["folder"] == str(minilm_folder)
    assert Embedder("./all-MiniLM-L6-v2").info()["folder"] == str(minilm_folder)
    with pytest.raises(UnknownModelError, match="no model folder"):
        Embedder(Path("models/none"))


def test_a_folder_with_the_name_of_a_record_is_not_that_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Embedder("embrief/tiny-embedding").space
    broken = tmp_path / "embrief" / "tiny-embedding"
    broken.mkdir(parents=True)
    (broken / "modules.json").write_text("[", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert Embedder("embrief/tiny-embedding").space == expected
    with pytest.raises(ModelMismatchError, match=r"modules\.json"):
        Embedder("./embrief/tiny-embedding")


def test_what_the_system_refuses_is_our_error(qwen3_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refused)
        with pytest.raises(WeightsUnavailableError, match=r"cannot be read .*Permission denied.*give this user"):
            Embedder(qwen3_copy)
    modules = json.loads((qwen3_copy / "modules.json").read_text("utf-8"))
    modules[1]["path"] = "x" * 300
    (qwen3_copy / "modules.json").write_text(json.dumps(modules), "utf-8")
    with pytest.raises(WeightsUnavailableError):
        Embedder(qwen3_copy)
