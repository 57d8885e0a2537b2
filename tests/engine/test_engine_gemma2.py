"""EmbeddingGemma 2 on the engine: texts, with and without the towers beside them, against transformers' own model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embrief import ArgumentError, Embedder, EmbriefError, ModelMismatchError
from embrief.engine.description import describe
from embrief.files.json_files import read_object
from embrief.testing import check_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers.models.embedding_gemma2")

# Up to the window (9 places to each side) and beyond, around the blocks that rows and queries run in, and long.
LENGTHS = [*range(4, 13), 16, 18, 19, 20, 21, 32, 33, 127, 128, 129, 147, 256, 257, 511, 512, 513, 700, 1025, 2050]
PROMPT = "title: none | text: "


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def digits(count: int) -> str:
    """A text of so many tokens: the tokenizers of the test models keep digits apart."""
    return "".join(map(str, np.random.default_rng(count).integers(0, 10, count)))


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")


def edit_text(folder: Path, **changes: object) -> None:
    """Change what config.json says of the text model; `None` takes a key out."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    part = config.get("text_config", config)
    part.update(changes)
    for key in [key for key, value in changes.items() if value is None]:
        del part[key]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def ids_of(folder: Path, texts: list[str], prompt: str = PROMPT) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.encode(prompt + text).ids for text in texts]


def oracle(folder: Path, texts: list[str], dtype: str = "float32", prompt: str = PROMPT) -> np.ndarray:
    """Vectors of transformers' model, each text alone, pooled in float32."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    with torch.inference_mode():
        states = [model(input_ids=torch.tensor([ids])).last_hidden_state[0] for ids in ids_of(folder, texts, prompt)]
        return torch.stack([torch.nn.functional.normalize(one.float().mean(0), dim=0) for one in states]).numpy()


def exact(folder: Path, **options: object) -> Embedder:
    return Embedder(folder, dtype="float32", device="cpu", **options)


@pytest.fixture(scope="module", params=["gemma2", "gemma2_text"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("engine") / request.param
    shutil.copytree(request.getfixturevalue(f"{request.param}_folder"), made)
    return made


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Embedder:
    found = exact(folder)
    assert found.info()["backend"] == "engine"
    return found


def test_every_length_equals_transformers(folder: Path, embedder: Embedder) -> None:
    own = int(embedder.encode([""], role="document").token_counts[0])
    lengths = sorted({max(length, own) for length in LENGTHS})
    texts = [digits(length - own) for length in lengths]
    found = embedder.encode(texts, role="document")
    assert found.token_counts.tolist() == lengths
    assert found.vectors.shape == (len(texts), 64)
    assert cosines(found.vectors, oracle(folder, texts)).min() >= 0.999999
    queries = texts[:12]
    expected = oracle(folder, queries, prompt="task: search result | query: ")
    assert cosines(embedder.embed_queries(queries), expected).min() >= 0.999999


def test_sentence_transformers_gives_the_same(gemma2_text_folder: Path, texts: list[str]) -> None:
    """Of the text model alone: with the towers it asks for torchvision."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    peer = sentence_transformers.SentenceTransformer(str(gemma2_text_folder), device="cpu")
    embedder = exact(gemma2_text_folder)
    assert cosines(embedder.embed_documents(texts), peer.encode_document(texts)).min() >= 0.999999
    assert cosines(embedder.embed_queries(texts), peer.encode_query(texts)).min() >= 0.999999
    for task, name in (("fact_checking", "FactChecking"), ("summarization", "Summarization")):
        expected = peer.encode(texts, prompt_name=name)
        assert cosines(embedder.embed_queries(texts, task=task), expected).min() >= 0.999999


def test_the_order_and_the_company_of_texts_change_nothing(embedder: Embedder, texts: list[str]) -> None:
    mixed = [*texts, *(digits(length) for length in LENGTHS if length < 900), *map(str, range(40))]
    whole = embedder.embed_documents(mixed)
    order = np.random.default_rng(0).permutation(len(mixed))
    np.testing.assert_allclose(embedder.embed_documents([mixed[place] for place in order]), whole[order], atol=1e-5)
    for place in range(0, len(mixed), 5):
        np.testing.assert_allclose(embedder.embed_documents([mixed[place]])[0], whole[place], atol=1e-5)


def test_bfloat16_is_no_further_off_than_transformers(folder: Path, other_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, other_folder)
    file = other_folder / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    texts = [digits(length) for length in LENGTHS if length < 600] + [digits(40 + number) for number in range(40)]
    expected = oracle(other_folder, texts)
    assert cosines(exact(other_folder).embed_documents(texts), expected).min() >= 0.999999
    ours = Embedder(other_folder, dtype="bfloat16", device="cpu").embed_documents(texts)
    theirs = oracle(other_folder, texts, "bfloat16")
    assert (1 - cosines(ours, expected)).mean() <= (1 - cosines(theirs, expected)).mean()


def test_int8_is_close_to_float32(folder: Path, embedder: Embedder, texts: list[str]) -> None:
    small = Embedder(folder, dtype="int8", device="cpu")
    many = [*texts, *(f"{number} and {number * 7}" for number in range(40))]
    found, expected = small.embed_documents(many), embedder.embed_documents(many)
    near = cosines(found, expected)
    # As the other architectures.
    assert near.min() > 0.99
    assert near.mean() > 0.995
    assert np.abs(found - expected).max() > 1e-6, "this was not int8"
    assert small.space == embedder.space


def test_float16_is_refused(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="float16"):
        Embedder(folder, dtype="float16")


def test_a_text_that_is_cut_keeps_its_end(folder: Path, texts: list[str], passed: list[int]) -> None:
    found = exact(folder, max_tokens=20, truncate="silent").encode([texts[-1] * 9], role="document")
    whole = ids_of(folder, [texts[-1] * 9])[0]
    assert found.truncated.all()
    assert passed == [*whole[:19], whole[-1]]


@pytest.mark.parametrize("pooling", ["lasttoken", "mean_tokens"])
def test_the_last_token_is_pooled_where_the_folder_says_so(
    gemma2_text_folder: Path, other_folder: Path, pooling: str
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    shutil.copytree(gemma2_text_folder, other_folder)
    chosen = {f"pooling_mode_{name}": name == pooling for name in ("lasttoken", "mean_tokens")}
    edit(other_folder / "1_Pooling" / "config.json", **chosen)
    embedder = exact(other_folder)
    assert embedder.info()["backend"] == "engine"
    texts = ["which planet is red?", "", "another query", digits(600), digits(90)]
    peer = sentence_transformers.SentenceTransformer(str(other_folder), device="cpu")
    assert cosines(embedder.embed_documents(texts), peer.encode_document(texts)).min() >= 0.999999


def test_a_dense_layer_takes_the_projected_width(gemma2_text_folder: Path, other_folder: Path) -> None:
    from safetensors.torch import save_file

    sentence_transformers = pytest.importorskip("sentence_transformers")
    shutil.copytree(gemma2_text_folder, other_folder)
    modules = json.loads((other_folder / "modules.json").read_text("utf-8"))
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (other_folder / "modules.json").write_text(json.dumps([*modules[:2], dense, {**modules[2], "name": "3"}]), "utf-8")
    (other_folder / "2_Dense").mkdir()
    config = {"out_features": 24, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
    (other_folder / "2_Dense" / "config.json").write_text(json.dumps({"in_features": 64, **config}), "utf-8")
    save_file({"linear.weight": torch.randn(24, 64)}, other_folder / "2_Dense" / "model.safetensors")
    peer = sentence_transformers.SentenceTransformer(str(other_folder), device="cpu")
    texts = ["one", "two words"]
    assert cosines(exact(other_folder).embed_documents(texts), peer.encode_document(texts)).min() >= 0.999999
    edit(other_folder / "2_Dense" / "config.json", in_features=48)
    with pytest.raises(ModelMismatchError, match=r"takes 48 values, and what comes before it in .* gives 64"):
        exact(other_folder)


# The towers


def test_a_written_placeholder_is_read_as_the_whole_model_reads_it(gemma2_folder: Path) -> None:
    texts = ["<|image|> x", "a <|audio|><|video|>", "<|image>y<image|>"]
    found = exact(gemma2_folder).embed_documents(texts)
    assert cosines(found, oracle(gemma2_folder, texts)).min() >= 0.999999
    padded = exact(gemma2_folder).embed_documents(["<pad> x", "a <pad><pad>", "<pad>y<pad>"])
    near = cosines(found, padded)
    assert near[:2].min() >= 0.999999
    assert near[2] < 0.999, "what stands around pictures is read as itself"


def test_the_text_model_alone_reads_every_token_as_itself(gemma2_text_folder: Path) -> None:
    found = exact(gemma2_text_folder).embed_documents(["<|image|> x", "<pad> x"])
    assert cosines(found, oracle(gemma2_text_folder, ["<|image|> x", "<pad> x"])).min() >= 0.999999
    assert cosines(found[:1], found[1:])[0] < 0.999
    # Nor those of the published model, which no small vocabulary has.
    assert describe(read_object(gemma2_text_folder / "config.json")).placeholders is None


Change = Callable[[dict[str, "torch.Tensor"]], dict[str, "torch.Tensor"]]


def write_tensors(source: Path, to: Path, change: Change) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, to)
    file = to / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
    return to


def test_the_whole_model_under_a_prefix(gemma2_folder: Path, other_folder: Path, texts: list[str]) -> None:
    write_tensors(
        gemma2_folder, other_folder, lambda tensors: {f"model.{name}": tensor for name, tensor in tensors.items()}
    )
    found = exact(other_folder).embed_documents(texts)
    np.testing.assert_allclose(found, exact(gemma2_folder).embed_documents(texts), atol=1e-6)


def test_the_towers_do_not_have_to_be_there(gemma2_folder: Path, other_folder: Path, texts: list[str]) -> None:
    write_tensors(
        gemma2_folder,
        other_folder,
        lambda tensors: {name: tensor for name, tensor in tensors.items() if name.startswith("language_model.")},
    )
    edit(other_folder / "config.json", vision_config=None, audio_config=None)
    found = exact(other_folder).embed_documents(texts)
    np.testing.assert_allclose(found, exact(gemma2_folder).embed_documents(texts), atol=1e-6)
    assert cosines(found, oracle(other_folder, texts)).min() >= 0.999999


@pytest.mark.parametrize(
    "name", ["language_model.layers.0.extra.weight", "vision.weight", "language_model.audio_tower"]
)
def test_other_tensors_are_refused(gemma2_folder: Path, other_folder: Path, name: str) -> None:
    write_tensors(gemma2_folder, other_folder, lambda tensors: {**tensors, name: torch.ones(2)})
    with pytest.raises(ModelMismatchError, match=f"1 tensors that the engine does not use, '{name}'"):
        exact(other_folder).embed_documents(["a"])


def test_towers_beside_a_text_model_that_stands_alone_are_refused(gemma2_text_folder: Path, other_folder: Path) -> None:
    write_tensors(gemma2_text_folder, other_folder, lambda tensors: {**tensors, "vision_tower.weight": torch.ones(2)})
    with pytest.raises(ModelMismatchError, match=r"vision_tower\.weight"):
        exact(other_folder).embed_documents(["a"])


@pytest.mark.parametrize(
    "name",
    [
        "layers.2.layer_scalar",
        "layers.0.ple_block.per_layer_input_gate.weight",
        "ple.per_layer_model_projection.weight",
        "embedding_projection.weight",
    ],
)
def test_a_missing_tensor_is_refused(gemma2_folder: Path, other_folder: Path, name: str) -> None:
    write_tensors(
        gemma2_folder,
        other_folder,
        lambda tensors: {key: tensor for key, tensor in tensors.items() if key != f"language_model.{name}"},
    )
    with pytest.raises(ModelMismatchError, match=f"lack 1 tensors, '{name}'"):
        exact(other_folder).embed_documents(["a"])


def test_sentence_transformers_is_not_offered_where_it_cannot_load_the_towers(
    gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embrief.runtimes import built_in

    monkeypatch.setattr(built_in, "is_installed", lambda name: name != "torchvision")
    with pytest.raises(ArgumentError, match=r"cannot run .*torchvision, which is not installed"):
        Embedder(gemma2_folder, backend="sentence-transformers")


# What config.json says

NESTED = {
    "nothing": {},
    "wide epsilon": {"rms_norm_eps": 0.1},
    "keys with zeros": {
        "per_layer_config": {f"0{index}": {"head_dim": 32, "num_key_value_heads": 1} for index in (3, 6)}
    },
    "sizes by kind": {"per_layer_config": None, "global_head_dim": 32, "num_global_key_value_heads": 1},
    "no sizes": {"per_layer_config": None},
    "a size of one layer": {"per_layer_config": {"3": {"head_dim": 32, "num_key_value_heads": 1}}},
    "a layer that is not there": {"per_layer_config": {"7": {"head_dim": 32}}},
    "something else of a layer": {"per_layer_config": {"3": {"head_dim": 32, "intermediate_size": 48}}},
    "no positions named": {"rope_parameters": None},
    "positions of the older generation": {"rope_parameters": None, "rope_theta": 1000.0},
    "flat positions": {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    "other positions": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        }
    },
    "a window on the last layer": {
        "layer_types": [*["sliding_attention"] * 3, "full_attention"] + ["sliding_attention"] * 3
    },
    "a narrow window": {"sliding_window": 3},
    "causal": {"use_bidirectional_attention": False},
    "another scale": {"query_pre_attn_scalar": 64},
    "another activation": {"hidden_activation": "silu"},
    "biases": {"attention_bias": True},
    "softcaps": {"attn_logit_softcapping": 5.0},
    "a key of tomorrow": {"residual_scale": 0.5},
    "another part": {"model_type": "gemma4_text"},
}
TEXTS = ["Mars is often called the Red Planet.", "x", "copying directory trees " * 12]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", NESTED)
def test_vectors_are_those_of_transformers_or_the_folder_is_refused(
    case: str, gemma2_folder: Path, other_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(gemma2_folder, other_folder)
    edit_text(other_folder, **NESTED[case])
    try:
        embedder = exact(other_folder, backend="engine")
        found = embedder.embed_documents(TEXTS)
    except EmbriefError:
        assert case not in ("nothing", "wide epsilon", "keys with zeros", "sizes by kind", "other positions",
                            "no positions named", "a window on the last layer", "a narrow window")  # fmt: skip
        return
    assert cosines(found, oracle(other_folder, TEXTS)).min() >= 0.999999


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"note": 1}, "'note'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"is_decoder": True}, "is_decoder"),
    ],
)
def test_keys_beside_the_text_model_are_known_or_refused(
    gemma2_folder: Path, other_folder: Path, changes: dict[str, object], reason: str
) -> None:
    shutil.copytree(gemma2_folder, other_folder)
    edit(other_folder / "config.json", **changes)
    with pytest.raises(ArgumentError, match=f"'engine' cannot run .*{reason}"):
        Embedder(other_folder, backend="engine")


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_size", "48"), ("embedding_dim", 64.5), ("per_layer_config", 3), ("layer_types", "all")]
)
def test_a_value_of_another_type_is_refused(gemma2_folder: Path, other_folder: Path, key: str, value: object) -> None:
    shutil.copytree(gemma2_folder, other_folder)
    edit_text(other_folder, **{key: value})
    with pytest.raises(ModelMismatchError, match=f"'{key}' in .*config.json"):
        Embedder(other_folder)


def test_a_text_part_of_another_type_is_refused(gemma2_folder: Path, other_folder: Path) -> None:
    shutil.copytree(gemma2_folder, other_folder)
    edit(other_folder / "config.json", text_config="gemma")
    with pytest.raises(ModelMismatchError, match=r"'text_config' in .*config\.json is 'gemma', not an object"):
        Embedder(other_folder)


# The record, the folder and their spaces


def test_the_folder_is_what_its_record_says(folder: Path) -> None:
    spec = replace(Embedder("google/embeddinggemma-2").spec, hidden_size=48, dim=64, mrl=(16, 64), max_tokens=512,
                   context=1024)  # fmt: skip
    check_model(spec, folder)
    with pytest.raises(AssertionError, match="hidden_size is 48, recorded is 512"):
        check_model(replace(spec, hidden_size=512), folder)
    with pytest.raises(AssertionError, match="dim is 64, recorded is 48"):
        check_model(replace(spec, dim=48, mrl=(16,)), folder)


def test_a_fine_tune_takes_what_its_files_do_not_say_from_the_record(folder: Path) -> None:
    embedder, record = Embedder(folder), Embedder("google/embeddinggemma-2")
    assert (embedder.spec.dim, embedder.spec.hidden_size, embedder.spec.architecture) == (64, 48, "embedding_gemma2")
    assert embedder.max_tokens == 4096
    assert embedder.spec.prompts == record.spec.prompts
    assert embedder.info()["unused_prompts"] == []


def test_both_models_of_the_name_have_spaces_of_their_own() -> None:
    first, second = Embedder("google/embeddinggemma-300m"), Embedder("google/embeddinggemma-2")
    assert first.space != second.space
    assert first.render("Q", role="query") == second.render("Q", role="query")
    assert second.dim == 768
    assert second.with_dim(128).dim == 128
    with pytest.raises(ArgumentError, match="256"):
        second.with_dim(200)


# Another implementation: https://pypi.org/project/egemma2, in Rust and without torch

EGEMMA2 = shutil.which("egemma2", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
# It reads the settings of the processors also where there are only texts.
PROCESSORS = {
    "image_processor": {"max_soft_tokens": 280, "patch_size": 16, "pooling_kernel_size": 3},
    "video_processor": {"max_soft_tokens": 140, "patch_size": 16, "pooling_kernel_size": 3, "max_frames": 32},
    "feature_extractor": {
        "feature_size": 128, "sampling_rate": 16000, "fft_length": 512, "frame_length": 320, "hop_length": 160,
        "min_frequency": 0.0, "max_frequency": 8000.0, "mel_floor": 0.001,
    },
}  # fmt: skip


@pytest.mark.skipif(EGEMMA2 is None, reason="egemma2 is not installed")
def test_another_implementation_gives_the_same(gemma2_folder: Path, other_folder: Path) -> None:
    shutil.copytree(gemma2_folder, other_folder)
    (other_folder / "processor_config.json").write_text(json.dumps(PROCESSORS), "utf-8")
    texts = ["one", "two words", digits(300), digits(1500)]
    asked = [part for text in texts for part in ("--text", f"{PROMPT}{text}")]
    done = subprocess.run(
        [str(EGEMMA2), "--model-dir", str(other_folder), "--device", "cpu", "embed", *asked],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout)["embeddings"], np.float32)
    assert cosines(found, exact(gemma2_folder).embed_documents(texts)).min() >= 0.99999
