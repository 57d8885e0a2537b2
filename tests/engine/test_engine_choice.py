"""Which models the engine runs, what it refuses and why, int8, and what it imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embrief import ArgumentError, Embedder, ModelMismatchError, PluginWarning, Reranker
from embrief.engine.description import UnsupportedError, describe
from embrief.files.config_keys import ARCHITECTURES
from embrief.files.json_files import JsonObject

pytest.importorskip("sentence_transformers")


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")


def config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **changes)


def add_module(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    modules.append({"idx": 9, "name": "9", "path": "9_LSTM", "type": "sentence_transformers.models.LSTM"})
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    (folder / "9_LSTM").mkdir()
    (folder / "9_LSTM" / "config.json").write_text("{}", "utf-8")


@pytest.fixture(params=["qwen3", "gemma"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(f"{request.param}_folder"))


def test_the_engine_runs_both_architectures_and_says_so(folder: Path, reranker_folder: Path) -> None:
    for facade in (Embedder(folder), Reranker(reranker_folder)):
        assert facade.info()["backend"] == "engine"
        assert facade.info()["backend_reason"] == "it is the fastest"
        assert not facade.info()["loaded"]
    assert Embedder(folder, backend="sentence-transformers").info()["backend_reason"] == "asked for"


QWEN_REFUSED = {
    "stretched positions": (config(rope_scaling={"rope_type": "yarn", "factor": 4.0}, rope_parameters=None), "yarn"),
    "both generations of positions": (
        config(rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}),
        "both rope_parameters and rope_scaling",
    ),
    "part of a head turned": (config(partial_rotary_factor=0.5), "partial_rotary_factor"),
    "sliding windows": (config(use_sliding_window=True, sliding_window=8, max_window_layers=1), "sliding windows"),
    "some sliding layers": (config(layer_types=["full_attention", "sliding_attention"]), "sliding windows"),
    "attention bias": (config(attention_bias=True), "attention_bias"),
    "bidirectional": (config(use_bidirectional_attention=True), "bidirectional"),
    "another activation": (config(hidden_act="gelu"), "gelu"),
    "parts of a head": (
        config(rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}),
        "partial_rotary",
    ),
    "too few kinds of layers": (config(layer_types=["full_attention"]), "1 layer_types"),
    "a decoder": (config(is_decoder=True), "is_decoder"),
    "softcapping": (config(attn_logit_softcapping=30.0), "attn_logit_softcapping"),
    "a key of tomorrow": (config(residual_scale=0.5), "'residual_scale'"),
    "quantised": (config(quantization_config={"quant_method": "gptq"}), "quantization_config"),
    "code of its own": (config(auto_map={"AutoModel": "modeling.Model"}), "code"),
    "a module": (add_module, "LSTM"),
    "no tokenizer.json": (lambda folder: (folder / "tokenizer.json").rename(folder / "vocab.json"), "tokenizer.json"),
}


@pytest.mark.parametrize("case", QWEN_REFUSED)
def test_what_the_engine_does_not_run_falls_to_sentence_transformers(
    qwen3_folder: Path, other_folder: Path, case: str
) -> None:
    change, reason = QWEN_REFUSED[case]
    shutil.copytree(qwen3_folder, other_folder)
    change(other_folder)
    info = Embedder(other_folder).info()
    assert info["backend"] == "sentence-transformers"
    assert info["backend_reason"].startswith("the engine ")
    assert reason in info["backend_reason"]
    with pytest.raises(ArgumentError, match=f"'engine' cannot run .*{reason}"):
        Embedder(other_folder, backend="engine")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_offered_has_a_description(name: str, tmp_path: Path) -> None:
    """Of an empty config.json it may miss a key, and must not say that it runs others only."""
    with pytest.raises(UnsupportedError) as error:
        describe(JsonObject({"model_type": name}, tmp_path / "config.json"))
    assert f"not {name!r}" not in str(error.value)


def test_gemma_that_generates_and_other_dense_layers_too(gemma_folder: Path, other_folder: Path) -> None:
    shutil.copytree(gemma_folder, other_folder)
    edit(other_folder / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.ReLU")
    info = Embedder(other_folder).info()
    assert (info["backend"], "ReLU" in info["backend_reason"]) == ("sentence-transformers", True)
    edit(other_folder / "2_Dense" / "config.json", activation_function="torch.nn.modules.linear.Identity")
    assert Embedder(other_folder).info()["backend"] == "engine"
    edit(other_folder / "config.json", use_bidirectional_attention=False)
    info = Embedder(other_folder).info()
    assert (info["backend"], "generator" in info["backend_reason"]) == ("sentence-transformers", True)


def test_another_architecture_says_that_no_faster_runtime_runs_it(classifier_folder: Path) -> None:
    info = Reranker(classifier_folder).info()
    assert info["backend"] == "sentence-transformers"
    assert "xlm-roberta" in info["backend_reason"]


def test_a_model_that_fell_back_still_runs(qwen3_folder: Path, other_folder: Path) -> None:
    shutil.copytree(qwen3_folder, other_folder)
    edit(other_folder / "config.json", use_sliding_window=True, sliding_window=8, max_window_layers=1, layer_types=None)
    fallen = Embedder(other_folder, dtype="float32", device="cpu").embed_documents(["a " * 50])
    engine = Embedder(qwen3_folder, dtype="float32", device="cpu").embed_documents(["a " * 50])
    assert cosines(fallen, engine)[0] < 0.999, "the window changes this text, so the engine must not run it"


@pytest.mark.parametrize("name", ["layers.1.self_attn.q_proj.bias", "layers.3.mlp.up_proj.weight"])
def test_a_tensor_that_nobody_asked_for_is_refused(qwen3_folder: Path, other_folder: Path, name: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(qwen3_folder, other_folder)
    file = other_folder / "model.safetensors"
    save_file({**load_file(file), name: torch.ones(64)}, file, {"format": "pt"})
    with pytest.raises(ModelMismatchError, match=f"does not use, '{name}'"):
        Embedder(other_folder).load()


def test_a_tensor_of_the_wrong_shape_is_refused(qwen3_folder: Path, other_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(qwen3_folder, other_folder)
    file = other_folder / "model.safetensors"
    tensors = load_file(file)
    name = "layers.1.self_attn.q_proj.weight"
    save_file({**tensors, name: tensors[name][:48].contiguous()}, file, {"format": "pt"})
    with pytest.raises(ModelMismatchError, match="q_proj"):
        Embedder(other_folder).load()


# int8


def test_int8_is_an_explicit_choice_with_a_fingerprint_of_its_own(folder: Path) -> None:
    exact, small = Embedder(folder, dtype="float32", device="cpu"), Embedder(folder, dtype="int8", device="cpu")
    assert Embedder(folder, device="cpu").info()["dtype"] in ("float32", "bfloat16")
    assert small.info()["dtype"] in ("int8", "int7")
    assert small.fingerprint != exact.fingerprint
    assert small.query_fingerprint != exact.query_fingerprint
    assert small.space == exact.space


def test_int8_is_close_to_float32_and_does_not_depend_on_the_batch(folder: Path, texts: list[str]) -> None:
    exact, small = Embedder(folder, dtype="float32", device="cpu"), Embedder(folder, dtype="int8", device="cpu")
    many = [*texts[:-1], *(f"{number} and {number * 7}" for number in range(40))]
    found = small.embed_queries(many)
    near = cosines(found, exact.embed_queries(many))
    assert near.min() > 0.99
    assert near.mean() > 0.995
    assert np.abs(found - exact.embed_queries(many)).max() > 1e-6, "this was not int8"
    alone = np.stack([small.embed_query(text) for text in many])
    assert cosines(found, alone).min() > 0.9995


def test_int8_scores_are_close_to_float32(reranker_folder: Path, texts: list[str]) -> None:
    exact, small = (Reranker(reranker_folder, dtype=dtype, device="cpu") for dtype in ("float32", "int8"))
    one, other = exact.score("which planet is red?", texts), small.score("which planet is red?", texts)
    assert 0 < np.abs(one - other).max() < 0.05


def test_int8_is_refused_where_nothing_runs_it(
    qwen3_folder: Path, classifier_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    with pytest.raises(ArgumentError, match=r"int8.*engine"):
        Embedder(qwen3_folder, backend="sentence-transformers", dtype="int8").load()
    with pytest.raises(ArgumentError, match=r"int8.*engine"):
        Reranker(classifier_folder, dtype="int8").load()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ArgumentError, match=r"int8.*CPU only, not on mps"):
        Embedder(qwen3_folder, dtype="int8", device="mps").load()


# Files and imports


def test_other_weights_saved_over_the_folder_change_nothing_in_a_loaded_model(
    folder: Path, other_folder: Path, texts: list[str]
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, other_folder)
    loaded = Embedder(other_folder, dtype="float32", device="cpu")
    before = loaded.embed_documents(texts)
    file = other_folder / "model.safetensors"
    content = file.read_bytes()
    with file.open("r+b") as stream:
        # In place, which a mapped file would show.
        stream.write(b"\0" * len(content))
    np.testing.assert_array_equal(loaded.embed_documents(texts), before)
    file.write_bytes(content)
    tensors = {name: tensor * 1.5 if "proj" in name else tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    np.testing.assert_array_equal(loaded.embed_documents(texts), before)
    assert cosines(Embedder(other_folder, dtype="float32", device="cpu").embed_documents(texts), before).min() < 0.999


@pytest.mark.parametrize("blocked", [False, True])
def test_the_engine_needs_neither_transformers_nor_sentence_transformers(
    qwen3_folder: Path, gemma_folder: Path, reranker_folder: Path, blocked: bool
) -> None:
    code = (
        "import sys\n"
        f"if {blocked}: sys.modules.update(transformers=None, sentence_transformers=None)\n"
        "from embrief import Embedder, Reranker\n"
        f"for folder in ({str(qwen3_folder)!r}, {str(gemma_folder)!r}):\n"
        "    embedder = Embedder(folder, dtype='float32', device='cpu')\n"
        "    print(embedder.embed_query('a').shape, embedder.embed_documents(['a', 'b']).shape)\n"
        "    print(embedder.info()['backend'])\n"
        f"print(Reranker({str(reranker_folder)!r}, dtype='float32', device='cpu').score('q', ['d', 'e']).shape)\n"
        "heavy = {'transformers', 'sentence_transformers'}\n"
        "print(sorted(name for name in heavy if sys.modules.get(name)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*["(48,) (2, 48)", "engine"] * 2, "(2,)", "[]"]


def test_a_runtime_that_fails_when_it_is_asked_is_passed_over(qwen3_folder: Path) -> None:
    from embrief.discovery.catalog import Catalog
    from embrief.files.model_files import read_files
    from embrief.runtimes.base import Ask, Offer, Runtime
    from embrief.serving.choosing import ask_all, choose, choose_named, passed_over

    class Whole(Runtime):
        name = "whole"

        def offer(self, spec, ask):  # type: ignore[no-untyped-def]
            return Offer(device="cpu", dtype="float32")

        def load(self, request):  # type: ignore[no-untyped-def]
            raise AssertionError("never loaded")

    class Broken(Whole):
        name = "broken"
        preference = 5

        def offer(self, spec, ask):  # type: ignore[no-untyped-def]
            raise SystemExit("the end")

    told: list[tuple[str, str]] = []
    spec = Embedder(qwen3_folder).spec
    catalog = Catalog(lambda name, problem: told.append((name, problem)))
    catalog.add_backend(Broken())
    catalog.add_backend(Whole())
    files = read_files(qwen3_folder)
    with pytest.warns(PluginWarning, match="the end"):
        answers = ask_all(catalog, spec, files=files)
    chosen, _ = choose(spec, answers)
    assert chosen.name == "whole"
    assert "the end" in passed_over(spec, chosen, answers)
    assert [name for name, _ in told] == ["broken"]
    with pytest.raises(ArgumentError, match="the end"):
        choose_named(catalog, spec, "broken", Ask(files=files))
