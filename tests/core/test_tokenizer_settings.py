"""Files beside tokenizer.json move vectors under transformers: what they change is in the space, or refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embrief import Embedder, ModelMismatchError

pytest.importorskip("sentence_transformers")

BACKENDS = ("engine", "sentence-transformers")
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
TEXTS = ["Mars is Á planet", "火星 mars", "copy"]


later = pytest.mark.skipif(
    "EMBRIEF_LOWEST" in os.environ, reason="the lowest transformers does not build these tokenizers anew"
)


def edit(file: Path, **changes: object) -> None:
    data = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**data, **changes}), "utf-8")


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT whose tokenizer puts texts into lower case."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "mars", "Mars", "is", "a", "á", "Á", "planet", "火", "星"]
    torch.manual_seed(5)
    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    made = tmp_path_factory.mktemp("bert") / "plain"
    BertModel(config).save_pretrained(made)
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(made)
    folder = made.with_name("model")
    transformer = Transformer(str(made))
    SentenceTransformer(modules=[transformer, Pooling(16, pooling_mode="mean"), Normalize()], device="cpu").save(
        str(folder)
    )
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    return folder


@pytest.fixture
def bert(bert_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert_folder, tmp_path / "bert"))


@later
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("key", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_a_setting_that_overrides_the_normalizer_is_another_space(
    bert_folder: Path, bert: Path, key: str, name: str
) -> None:
    with Embedder(bert_folder, dtype="float32", device="cpu") as plain:
        before, space = plain.embed_documents(TEXTS), plain.space
    edit(bert / name, **{key: False})
    with Embedder(bert, dtype="float32", device="cpu") as other:
        assert np.abs(other.embed_documents(TEXTS) - before).max() > 1e-3
        assert other.space != space
    # Where tokenizer.json is taken as it is, nothing reads the setting.
    edit(bert / "tokenizer_config.json", tokenizer_class="TokenizersBackend")
    with Embedder(bert, dtype="float32", device="cpu") as other:
        np.testing.assert_allclose(other.embed_documents(TEXTS), before, atol=1e-6)
        assert other.space == space


@pytest.mark.parametrize("key", ["unk_token", "cls_token"])
@pytest.mark.parametrize("value", ["[PAD]", {"__type": "AddedToken", "content": "[PAD]"}])
def test_another_token_of_a_tokenizer_that_is_built_anew_is_another_space(
    bert_folder: Path, bert: Path, key: str, value: object
) -> None:
    texts = ["mars zebra"]
    with Embedder(bert_folder, dtype="float32", device="cpu") as plain:
        before, space = plain.embed_documents(texts), plain.space
    edit(bert / "tokenizer_config.json", **{key: value})
    with Embedder(bert, dtype="float32", device="cpu") as other:
        assert np.abs(other.embed_documents(texts) - before).max() > 1e-3
        assert other.space != space


@later
def test_settings_that_say_what_the_normalizer_says_are_the_same_space(bert_folder: Path, bert: Path) -> None:
    space = Embedder(bert_folder).space
    edit(bert / "tokenizer_config.json", strip_accents=True)
    assert Embedder(bert).space == space
    file = bert / "tokenizer.json"
    cased = {**json.loads(file.read_text("utf-8"))["normalizer"], "lowercase": False}
    edit(file, normalizer=cased)
    edit(bert / "tokenizer_config.json", do_lower_case=False, strip_accents=None)
    right = Embedder(bert).space
    # Without it, the text would be put into lower case.
    settings = json.loads((bert / "tokenizer_config.json").read_text("utf-8"))
    del settings["do_lower_case"]
    (bert / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    assert Embedder(bert).space != right


@later
def test_the_setting_counts_for_a_tokenizer_that_is_a_list_of_words(bert: Path) -> None:
    words = json.loads((bert / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    (bert / "vocab.txt").write_text("\n".join(words), "utf-8")
    (bert / "tokenizer.json").unlink()
    space = Embedder(bert).space
    edit(bert / "tokenizer_config.json", do_lower_case=False)
    assert Embedder(bert).space != space


def copied(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "model"))


def known(folder: Path) -> dict[str, Any]:
    """Return the first added token of tokenizer.json."""
    return dict(json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"][0])


def check_refused(folder: Path, backend: str, file: str, message: str) -> None:
    with pytest.raises(ModelMismatchError, match=message) as caught:
        Embedder(folder, backend=backend).load()
    assert str(folder / file) in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer_config.json", {"extra_special_tokens": ["x"]}),
        ("tokenizer_config.json", {"additional_special_tokens": [{"content": "x"}]}),
        ("tokenizer_config.json", {"eos_token": "x"}),
        ("special_tokens_map.json", {"eos_token": "x"}),
        ("special_tokens_map.json", {"extra_special_tokens": {"planet_token": "x"}}),
        ("special_tokens_map.json", {"additional_special_tokens": ["x"]}),
        ("added_tokens.json", {"x": 5}),
        ("added_tokens.json", {"Planet": 5000}),
    ],
)
def test_an_ordinary_word_that_another_file_makes_a_token_is_refused(
    gemma_folder: Path, tmp_path: Path, file: str, change: dict[str, object], backend: str
) -> None:
    folder = copied(gemma_folder, tmp_path)
    assert "x" in json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    edit(folder / file, **change)
    check_refused(folder, backend, file, r"tokenizer\.json has no such token among its added_tokens")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip", "normalized"])
def test_another_flag_of_an_added_token_is_refused(qwen3_folder: Path, tmp_path: Path, flag: str, backend: str) -> None:
    folder = copied(qwen3_folder, tmp_path)
    token = known(folder)
    number = str(token.pop("id"))
    edit(folder / "tokenizer_config.json", added_tokens_decoder={number: token})
    Embedder(folder, backend=backend).load()
    edit(folder / "tokenizer_config.json", added_tokens_decoder={number: {**token, flag: not token[flag]}})
    check_refused(folder, backend, "tokenizer_config.json", "another id or other flags")


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_id_of_an_added_token_is_refused(qwen3_folder: Path, tmp_path: Path, backend: str) -> None:
    folder = copied(qwen3_folder, tmp_path)
    token = known(folder)
    edit(folder / "added_tokens.json", **{token["content"]: token["id"]})
    Embedder(folder, backend=backend).load()
    edit(folder / "added_tokens.json", **{token["content"]: token["id"] + 1})
    check_refused(folder, backend, "added_tokens.json", "another id or other flags")


def test_older_files_are_not_read_beside_a_decoder(qwen3_folder: Path, tmp_path: Path) -> None:
    folder = copied(qwen3_folder, tmp_path)
    tokens = json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    edit(folder / "tokenizer_config.json", added_tokens_decoder={str(token.pop("id")): token for token in tokens})
    edit(folder / "special_tokens_map.json", eos_token="x", split_special_tokens=True)
    edit(folder / "added_tokens.json", Planet=5000)
    right = Embedder(qwen3_folder, dtype="float32").embed_documents(TEXTS)
    for backend in BACKENDS:
        ours = Embedder(folder, backend=backend, dtype="float32", device="cpu").embed_documents(TEXTS)
        np.testing.assert_allclose(ours, right, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("tokenizer_config.json", {"additional_special_tokens": 5}, "is 5, not a list or an object"),
        ("tokenizer_config.json", {"additional_special_tokens": "abc"}, "is 'abc', not a list or an object"),
        ("special_tokens_map.json", {"extra_special_tokens": True}, "is True, not a list or an object"),
        ("tokenizer_config.json", {"added_tokens_decoder": ["x"]}, "is a list, not an object"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": "x"}}, "not an object"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {}}}, "not the id of a token"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"one": {"content": "x"}}}, "not the id of a token"),
        ("added_tokens.json", {"x": "5"}, "whole number"),
        ("special_tokens_map.json", {"split_special_tokens": True}, "sets 'split_special_tokens'"),
    ],
)
def test_values_of_another_type_are_named(
    qwen3_folder: Path, tmp_path: Path, file: str, change: dict[str, object], message: str, backend: str
) -> None:
    folder = copied(qwen3_folder, tmp_path)
    edit(folder / file, **change)
    check_refused(folder, backend, file, message)


def test_the_files_of_foreign_modules_are_part_of_the_space(qwen3_folder: Path, tmp_path: Path) -> None:
    folder = copied(qwen3_folder, tmp_path)
    entries = json.loads((folder / "modules.json").read_text("utf-8"))
    entries.append({"idx": len(entries), "name": "own", "path": "9_Own", "type": "own_package.Own"})
    (folder / "modules.json").write_text(json.dumps(entries), "utf-8")
    (folder / "9_Own").mkdir()

    def space() -> str:
        return Embedder(folder, trust_remote_code=True).space.id

    bare = space()
    edit(folder / "9_Own" / "own.json", factor=1)
    first = space()
    edit(folder / "9_Own" / "own.json", factor=2)
    assert len({bare, first, space()}) == 3
    (folder / "9_Own" / "own.json").write_text("[1, 2]", "utf-8")
    assert space() not in (bare, first)


def test_the_tokenizers_as_published_pass(data: Path) -> None:
    from embrief.runtimes.torch_common import check_named_tokens

    for folder in sorted((data / "tokenizers").iterdir()):
        check_named_tokens(folder)
