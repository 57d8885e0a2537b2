"""Whatever is given for a model's name or any other argument: an error of ours that says what it is and what to do."""

import inspect
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from chroma_embrief import Qwen3EmbeddingFunction
from embrief import (
    ArgumentError,
    Embedder,
    EmbriefError,
    ModelMismatchError,
    Reranker,
    UnknownModelError,
    WeightsUnavailableError,
)
from embrief.cli import app
from langchain_embrief import Qwen3Embeddings, Qwen3Reranker
from llama_index_embrief import Qwen3Embedding, Qwen3Rerank

QWEN = "Qwen/Qwen3-Embedding-0.6B"
CONSTRUCTORS = [
    Embedder, Reranker, Qwen3Embeddings, Qwen3Reranker, Qwen3Embedding, Qwen3Rerank, Qwen3EmbeddingFunction,
]  # fmt: skip

MEANT = {
    "ollama/qwen3-embedding:0.6b": QWEN,
    "qwen3-embedding:0.6b": QWEN,
    "Qwen/Qwen3-Embedding-0.6B:latest": QWEN,
    "embeddinggemma:300m": "google/embeddinggemma-300m",
    "hf.co/Qwen/Qwen3-Embedding-0.6B": QWEN,
    "hf.co/Qwen/Qwen3-Embedding-0.6B-GGUF:Q8_0": QWEN,
    "https://huggingface.co/Qwen/Qwen3-Embedding-0.6B": QWEN,
    "https://huggingface.co/Qwen/Qwen3-Embedding-0.6B/tree/main": QWEN,
    "https://huggingface.co/acme/our-own-model": "acme/our-own-model",
    "HF://Qwen/Qwen3-Embedding-0.6B": QWEN,
    "Qwen/Qwen3-Embedding-0.6B/": QWEN,
    " Qwen/Qwen3-Embedding-0.6B\n": QWEN,
}
ODD_NAMES = [
    "a/b/c", "a b", "my model/x y", "..x/y", "../nothing-here", "./nothing-here", "a/..", "a/../b", "a//b", "//x//",
    "https://example.org/model", "s3://bucket/model", "http://localhost:11434", "file:///tmp/model", "x" * 5000,
    "x" * 97 + "/y", "y/" + "x" * 97, "/" + "x" * 5000, "a\0b", "a/\0", "\0", "", "  ", "C:\\models\\qwen",
    "C:/models/qwen", "models\\qwen", "~nobody-of-this-name/x", "~/no/such/folder", "\ud800/x", "a\nb/c", "é/ü", "-/-",
    "a/-b", "a/b--c", "a/b.git", "a/b\r\nX: y", "openai:no-such-model", "/dev/null", "a/b?c", "a/b#c", "a@b/c",
]  # fmt: skip


@pytest.mark.parametrize("kind", CONSTRUCTORS)
def test_names_that_the_hub_refuses_are_refused_at_once(kind, monkeypatch):
    monkeypatch.setattr(
        "embrief.serving.resolving.fetch", lambda source: pytest.fail(f"asked the hub for {source.id!r}")
    )
    for name in ODD_NAMES:
        with pytest.raises(EmbriefError) as caught:
            kind(name)
        assert len(str(caught.value)) < 700
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(("name", "meant"), MEANT.items())
@pytest.mark.parametrize("kind", [Embedder, Qwen3Embedding])
def test_names_of_other_tools_lead_to_ours(kind, name, meant):
    with pytest.raises(UnknownModelError) as caught:
        kind(name)
    assert repr(name) in str(caught.value)
    assert repr(meant) in str(caught.value).replace(repr(name), "")


@pytest.mark.parametrize("name", ["acme/model-2", "a/b", "A_b/c.d-e", "own/model.v1", "Qwen/Qwen3-Embedding-0.6B-GGUF"])
def test_names_of_the_hubs_are_taken(name):
    """Guards the tests above."""
    assert Embedder(name).settings.model == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.ggml", "before GGUF"),
        ("pytorch_model.bin", "save_pretrained"),
        ("model.pt", "save_pretrained"),
        ("model.pth", "save_pretrained"),
        ("model.onnx", "an ONNX file of unknown making"),
        ("model.zip", "unpack"),
        ("model.safetensors", "pass the folder around it"),
        ("config.json", "pass the folder around it"),
        ("notes.txt", "is a file"),
        ("no_suffix", "is a file"),
    ],
)
@pytest.mark.parametrize("form", [str, Path], ids=["text", "path"])
def test_a_file_is_named_for_what_it_is(tmp_path, name, words, form):
    (tmp_path / name).write_bytes(b"GGUF")
    for kind in (Embedder, Reranker, Qwen3Embeddings):
        with pytest.raises(UnknownModelError, match=words) as caught:
            kind(form(tmp_path / name))
        assert name in str(caught.value)


FOLDERS = {
    "empty": ([], "is empty"),
    "gguf": (["model-q8_0.gguf", "README.md"], "model-q8_0.gguf is no GGUF file"),
    "gguf inside": (["gguf/model-q8_0.gguf", "README.md"], "llama.cpp"),
    "onnx": (["model.onnx", "tokenizer.json"], "an ONNX file of unknown making"),
    "onnx inside": (["config.json", "tokenizer.json", "onnx/model.onnx"], "an ONNX file of unknown making"),
    "openvino": (["config.json", "openvino_model.bin", "openvino_model.xml"], "OpenVINO"),
    "pickled": (["config.json", "tokenizer.json", "pytorch_model.bin"], "save_pretrained"),
    "adapter": (["adapter_config.json", "adapter_model.safetensors", "README.md"], "merge_and_unload"),
    "adapter with a configuration": (
        ["adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json"],
        "merge_and_unload",
    ),
    "weights alone": (["model.safetensors"], r"weights without config\.json"),
    "checkpoints": (
        ["checkpoint-10/model.safetensors", "checkpoint-20/model.safetensors"],
        "pass one of 'checkpoint-10'",
    ),
    "cache": (["refs/main", f"snapshots/{'a' * 40}/config.json", "blobs/x"], "huggingface_hub's cache"),
    "texts": (["a.txt", "b.txt"], r"holds a\.txt, b\.txt and no weights"),
}


@pytest.mark.parametrize(("files", "words"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_is_named_for_what_it_holds_before_anything_is_embedded(tmp_path, qwen3_folder, files, words):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"GGUF")
    if (tmp_path / "config.json").exists():
        # With facts that fit, so that only the weights are wrong.
        shutil.copytree(qwen3_folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises((WeightsUnavailableError, ModelMismatchError), match=words) as caught:
        Embedder(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "embrief pull" not in str(caught.value)


def test_home_is_a_tilde_wherever_a_folder_is_taken(tmp_path, monkeypatch, qwen3_folder, reranker_folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(qwen3_folder, tmp_path / "models" / "mine")
    shutil.copytree(reranker_folder, tmp_path / "models" / "judge")
    plain = Embedder(tmp_path / "models" / "mine")
    for given in ("~/models/mine", Path("~/models/mine")):
        for made in (Embedder(given), Qwen3Embeddings(given).embedder, Qwen3Embedding(given).embedder):
            assert made.space == plain.space
        assert Qwen3EmbeddingFunction(given).space.weights == plain.space.weights
        for made in (Reranker(given.with_name("judge") if isinstance(given, Path) else "~/models/judge"),):
            assert made.info()["folder"] == str(tmp_path / "models" / "judge")
    monkeypatch.chdir(tmp_path / "models" / "mine")
    monkeypatch.setenv("HOME", str(tmp_path / "models" / "mine"))
    for given in ("~", Path("~"), "~/", ".", Path()):
        assert Embedder(given).space == plain.space


def test_the_commands_know_it_too(tmp_path, monkeypatch, qwen3_folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cache").mkdir()
    run = CliRunner().invoke
    asked = []
    monkeypatch.setattr("embrief.cli.models.cached_models", lambda folder: asked.append(folder) or [])
    assert run(app, ["models", "--cache-dir=~/cache"]).exit_code == 0
    monkeypatch.setattr("embrief.cli.pull.find_cached", lambda source: asked.append(source.cache_dir))
    run(app, ["pull", QWEN, "--cache-dir=~/cache"])
    assert asked == [tmp_path / "cache"] * 2
    # Each says that something is not there, at home.
    for words in (["eval", "~/nothing"], ["eval", "compare", "~/nothing", "~/nothing"]):
        result = run(app, words)
        assert result.exit_code == 1
        assert str(tmp_path / "nothing") in result.output
    result = run(app, ["models", "--cache-dir=~nobody-of-this-name/x"])
    assert (result.exit_code, "cannot be a path" in result.output) == (1, True)


ODD_VALUES = [
    None, "", " ", "x", "\0", "a\0b", "\ud800", "~nobody-of-this-name", "x" * 5000, 0, -1, 1, 2**70, 1.5,
    float("nan"), True, b"x", [], ["a"], {}, {"a": 1}, object(), object, np.float32, np.array([1.0, 2.0]),
    np.array("auto"), Path("\0"), Path("x"),
]  # fmt: skip


@pytest.mark.parametrize("kind", [Embedder, Reranker, Qwen3Embeddings, Qwen3Reranker, Qwen3EmbeddingFunction])
def test_odd_arguments_are_taken_or_refused_by_an_error_of_ours(kind):
    model = "embrief/tiny-reranker" if "Rerank" in kind.__name__ else "embrief/hash"
    core = Reranker if "Rerank" in kind.__name__ else Embedder
    names = [name for name, item in inspect.signature(core).parameters.items() if item.kind is item.KEYWORD_ONLY]
    assert len(names) > 10
    refused = 0
    for name in names:
        for value in ODD_VALUES:
            try:
                kind(model, **{name: value})
            except EmbriefError:
                refused += 1
    assert refused > 200


@pytest.mark.parametrize("revision", ["", "..", "../../etc/passwd", "a b", "a\0b", "/x", "x" * 300, "a\nb", "-x y"])
def test_a_revision_stays_inside_the_cache(revision):
    with pytest.raises(ArgumentError, match="is no commit id, branch or tag"):
        Embedder("acme/model", revision=revision)


@pytest.mark.parametrize(
    "error", [OSError("no room"), ValueError("bad"), RuntimeError("odd"), NotADirectoryError("file")]
)
def test_what_the_hubs_library_raises_is_an_error_of_ours(monkeypatch, tmp_path, error):
    import huggingface_hub

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("embrief.files.weights._offline", lambda source: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(WeightsUnavailableError, match=str(error)) as caught:
        Embedder("acme/model", cache_dir=tmp_path).info()
    assert caught.value.__cause__ is error
