"""Whatever is wrong with a JSON file of a model folder, the error is typed and names the file and the remedy."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from embrief import Embedder, ModelMismatchError, Reranker, WeightsUnavailableError

pytest.importorskip("torch")

READ = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "tokenizer.json",
)
DAMAGE = {
    "empty": b"",
    "blank": b" \n\t",
    "zeros": b"\0" * 64,
    "cut short": b'{"hidden_size": 48, "prom',
    "latin 1": '{"name": "\xe9"}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "nesting bomb": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "a long number": b'{"hidden_size": ' + b"9" * 5000 + b"}",
    "not a number": b'{"hidden_size": NaN}',
    "infinity": b'{"hidden_size": -Infinity}',
    "overflow": b'{"hidden_size": 1e999}',
    "a string": b'"model"',
    "null": b"null",
    "numbers": b"[1, 2]",
    "html": b"<!doctype html><title>404</title>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12\n",
}


@pytest.fixture
def folder(gemma_folder: Path, other_folder: Path) -> Path:
    return Path(shutil.copytree(gemma_folder, other_folder))


def edit(file: Path, **changes: object) -> None:
    data = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**data, **changes}), "utf-8")


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named(folder: Path, name: str, damage: str) -> None:
    (folder / name).write_bytes(DAMAGE[damage])
    backend = "sentence-transformers" if name == "tokenizer.json" and damage in ("empty", "cut short") else None
    with pytest.raises(ModelMismatchError, match="fetch or save the file again") as caught:
        Embedder(folder, backend=backend).load()
    assert str(folder / name) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_score_head_is_named(reranker_folder: Path, other_folder: Path, damage: str) -> None:
    shutil.copytree(reranker_folder, other_folder)
    paths = {"Transformer": "", "LogitScore": "1_LogitScore"}
    modules = [{"type": f"sentence_transformers.models.{name}", "path": path} for name, path in paths.items()]
    (other_folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    file = other_folder / "1_LogitScore" / "config.json"
    file.parent.mkdir()
    file.write_bytes(DAMAGE[damage])
    with pytest.raises(ModelMismatchError, match=r"1_LogitScore.*fetch or save the file again"):
        Reranker(other_folder).load()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"hidden_size": "48"}),
        ("config.json", {"hidden_size": 48.0}),
        ("config.json", {"hidden_size": True}),
        ("config.json", {"hidden_size": -48}),
        ("config.json", {"hidden_size": [48]}),
        ("config.json", {"model_type": 3}),
        ("config.json", {"num_hidden_layers": "7"}),
        ("config.json", {"num_key_value_heads": 1.0}),
        ("config.json", {"head_dim": "16"}),
        ("config.json", {"rms_norm_eps": "1e-6"}),
        ("config.json", {"query_pre_attn_scalar": [16]}),
        ("config.json", {"use_bidirectional_attention": "true"}),
        ("config.json", {"attention_bias": 0}),
        ("config.json", {"rope_parameters": [1]}),
        ("config.json", {"layer_types": "full_attention"}),
        ("config.json", {"hidden_activation": True}),
        ("config.json", {"architectures": "Gemma3TextModel"}),
        ("config.json", {"architectures": [1]}),
        ("config.json", {"max_position_embeddings": "many"}),
        ("config_sentence_transformers.json", {"prompts": ["query"]}),
        ("config_sentence_transformers.json", {"prompts": {"query": 1}}),
        ("config_sentence_transformers.json", {"prompts": {"query": "lone \ud800"}}),
        ("config_sentence_transformers.json", {"default_prompt_name": ["query"]}),
        ("sentence_bert_config.json", {"max_seq_length": "256"}),
        ("tokenizer_config.json", {"model_max_length": "2048"}),
        ("1_Pooling/config.json", {"word_embedding_dimension": "48"}),
        ("1_Pooling/config.json", {"pooling_mode": 7}),
        ("3_Dense/config.json", {"out_features": None}),
        ("3_Dense/config.json", {"out_features": "48"}),
    ],
)
def test_a_value_of_the_wrong_type_is_named(folder: Path, name: str, change: dict[str, object]) -> None:
    if name == "tokenizer_config.json":
        (folder / "sentence_bert_config.json").unlink()
    if name == "1_Pooling/config.json":
        # The Dense layers have the last word about the width.
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
        kept = [entry for entry in modules if "Dense" not in entry["type"]]
        (folder / "modules.json").write_text(json.dumps(kept), "utf-8")
    edit(folder / name, **change)
    with pytest.raises(ModelMismatchError, match="fetch or save the file again") as caught:
        Embedder(folder)
    assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize(
    "entry", [{"path": ""}, {"type": 1, "path": ""}, {"type": "a.Transformer"}, {"type": "a.b", "path": None}]
)
def test_an_entry_of_modules_json_without_a_string_is_named(folder: Path, entry: dict[str, object]) -> None:
    (folder / "modules.json").write_text(json.dumps([entry]), "utf-8")
    with pytest.raises(ModelMismatchError, match=r"in .*modules\.json is .*, not a string"):
        Embedder(folder)


@pytest.mark.parametrize("name", ["config.json", "modules.json", "tokenizer_config.json"])
def test_a_folder_or_a_pipe_in_place_of_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(WeightsUnavailableError, match="is not a file"):
        Embedder(folder)
    if hasattr(os, "mkfifo"):
        (folder / name).rmdir()
        os.mkfifo(folder / name)
        with pytest.raises(WeightsUnavailableError, match="is not a file"):
            Embedder(folder)


def test_a_file_that_is_far_too_large_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("r+b") as stream:
        stream.truncate(2**40)
    with pytest.raises(ModelMismatchError, match=r"config\.json has more than 16 MiB"):
        Embedder(folder)
