"""Other engines for `embrief bench`: what is installed gives transformers' vectors for the same ids."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from embrief.bench import peers
from embrief.bench.peers import common, gguf_file, llama, mistral, onnx, vino

MODULES = {module.NAME: module for module in (llama, mistral, vino, onnx)}
# The name shown for each variant -> the least cosine to float32.
VARIANTS = {
    ("llama-cpp-python", "BF16"): 0.999,
    ("llama-cpp-python", "F16"): 0.999,
    ("llama-cpp-python", "Q8_0"): 0.98,
    ("mistralrs", "F32"): 0.99999,
    ("mistralrs", "Q8_0"): 0.98,
    ("openvino", "bf16"): 0.999,
    ("openvino", "int8 dynamic"): 0.98,
    ("openvino", "int8 static"): 0.95,
    ("onnxruntime", "fp32"): 0.99999,
    ("onnxruntime", "int8"): 0.99,
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, qwen3_folder):
    """Like `qwen3_folder`, with widths that Q8_0's blocks of 32 divide, stored in bf16."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    folder = tmp_path_factory.mktemp("peers") / "tiny"
    shutil.copytree(qwen3_folder, folder)
    config = Qwen3Config.from_pretrained(qwen3_folder)
    config.hidden_size, config.intermediate_size, config.head_dim = 64, 128, 32
    torch.manual_seed(4)
    model = Qwen3Model(config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text("utf-8")), "word_embedding_dimension": 64}), "utf-8")
    return folder


@pytest.fixture(scope="module")
def inputs(model_folder, corpus):
    """Rows of 2 to 300 tokens in no order, and their texts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    words = " ".join(corpus).split()
    texts = [" ".join(words[start : start + count]) for start, count in ((0, 1), (50, 90), (9, 3), (200, 40), (3, 12))]
    return [tokenizer.encode(text).ids for text in texts], texts


@pytest.fixture(scope="module")
def expected(model_folder, inputs):
    import torch
    from transformers import Qwen3Model

    model = Qwen3Model.from_pretrained(model_folder, dtype=torch.float32)
    with torch.no_grad():
        last = [model(torch.tensor([row])).last_hidden_state[0, -1] for row in inputs[0]]
    return np.stack([torch.nn.functional.normalize(vector, dim=0).numpy() for vector in last])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=lambda part: part.replace(" ", "-"))
def test_vectors_are_those_of_transformers(name, variant, model_folder, inputs, expected):
    found = [peer for peer in peers.available() if (peer.name, peer.variant) == (name, variant)]
    if not found:
        pytest.skip(f"{name} ({variant}) is not installed")
    rows, texts = inputs
    model = found[0].load(model_folder)
    try:
        vectors = model.embed(rows, texts)
        again = model.embed(rows[::-1], texts[::-1])[::-1]
    finally:
        model.close()
        model.close()
    assert vectors.shape == expected.shape
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors * expected).sum(axis=1).min() > VARIANTS[name, variant]
    np.testing.assert_allclose((vectors * again).sum(axis=1), 1, atol=2e-3)


@pytest.mark.parametrize("name", MODULES)
def test_a_checkpoint_that_cannot_be_loaded_is_told_with_the_engines_name(name, tmp_path):
    found = [peer for peer in peers.available() if peer.name == name]
    if not found:
        pytest.skip(f"{name} is not installed")
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    for peer in found:
        with pytest.raises(RuntimeError, match=f"^{name} failed with "):
            peer.load(tmp_path)


def test_listing_imports_no_engine():
    code = (
        "import sys; from embrief.bench.peers import available; available();"
        "engines = {'llama_cpp', 'gguf', 'mistralrs', 'openvino', 'nncf', 'onnx', 'onnxruntime', 'torch'};"
        "print(sorted(engines & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_listed_where_nothing_is_installed(monkeypatch):
    for module in (common, llama, vino, onnx):
        monkeypatch.setattr(module, "is_installed", lambda name: False)
    assert peers.available() == []


def test_what_is_installed_is_listed_with_its_version(monkeypatch):
    for module in (common, llama, vino, onnx):
        monkeypatch.setattr(module, "is_installed", lambda name: name != "nncf")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name} 1.2")
    listed = peers.available()
    assert [(peer.name, peer.variant) for peer in listed] == [
        key for key in VARIANTS if "openvino int8" not in " ".join(key)
    ]
    assert all(peer.version == f"{peer.name} 1.2" for peer in listed)


def test_a_module_without_a_distribution_is_not_listed(monkeypatch):
    monkeypatch.setattr(common, "is_installed", lambda name: True)
    assert common.version_of("embrief-has-no-such-distribution", "json") == ""


def test_batches_are_sorted_by_length_and_padded_on_the_right():
    rows = [[7, 8, 9], [1], [4, 5], [2], [6, 6, 6]]
    batches = list(common.batches_by_length(rows, 2))
    assert [part for part, _, _ in batches] == [[1, 3], [2, 0], [4]]
    assert batches[0][1].tolist() == [[1, 0], [2, 0]]
    assert batches[1][1].tolist() == [[4, 5, 0], [7, 8, 9]]
    assert [last.tolist() for _, _, last in batches] == [[0, 0], [1, 2], [2]]


def test_batches_come_back_in_the_order_of_the_inputs():
    rows = [[7, 8, 9], [1], [4, 5], [2]]
    vectors = common.run_batches(lambda ids, last: ids[np.arange(len(ids)), last][:, None] * [1, 10], rows, 3, 2)
    assert vectors.tolist() == [[9, 90], [1, 10], [5, 50], [2, 20]]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((2, 4)), r"shape \(2, 4\) for 3 inputs"),
        (np.ones(3), r"shape \(3,\) for 3 inputs"),
        (np.array([[1.0, 0], [0, 0], [0, 0]]), r"input 1 is zero or not finite \(2 of 3"),
        (np.array([[1.0, 0], [1, 1], [np.nan, 0]]), r"input 2 is zero or not finite \(1 of 3"),
    ],
)
def test_vectors_without_direction_are_refused(vectors, message):
    with pytest.raises(RuntimeError, match=message):
        common.normalised(vectors, 3)


def test_an_engines_error_is_told_in_one_line():
    with pytest.raises(RuntimeError, match=r"^engine failed with KeyError: 'rope'$"), common.told_as("engine"):
        raise KeyError("rope")


def test_mistralrs_finds_the_rope_base_where_it_looks(tmp_path):
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling": "last"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text('{"rope_parameters": {"rope_theta": 5000.0}}')
    mistral._present(folder, tmp_path / "shown")
    assert json.loads((tmp_path / "shown" / "config.json").read_text())["rope_theta"] == 5000.0
    assert (tmp_path / "shown" / "1_Pooling" / "config.json").read_text() == '{"pooling": "last"}'
    assert json.loads((folder / "config.json").read_text()) == {"rope_parameters": {"rope_theta": 5000.0}}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("norm.weight", "output_norm.weight"),
        ("layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight"),
        ("model.layers.27.mlp.down_proj.weight", "blk.27.ffn_down.weight"),
        ("model.layers.3.post_attention_layernorm.weight", "blk.3.ffn_norm.weight"),
        ("lm_head.weight", None),
    ],
)
def test_tensors_have_their_gguf_names(name, target):
    assert gguf_file.gguf_name(name) == target


@pytest.mark.parametrize("name", ["layers.0.self_attn.q_proj.bias", "layers.x.mlp.up_proj.weight", "score.weight"])
def test_a_tensor_that_has_no_place_in_gguf_is_refused(name):
    with pytest.raises(ValueError, match=name):
        gguf_file.gguf_name(name)


def test_the_vocabulary_keeps_merges_in_both_notations_and_fills_gaps():
    tokenizer = {
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
        "added_tokens": [{"id": 4, "content": "<end>", "special": True}],
    }
    tokens, merges, special = gguf_file.read_vocabulary(tokenizer, 6)
    assert tokens == ["a", "b", "ab", "[PAD3]", "<end>", "[PAD5]"]
    assert merges == ["a b"]
    assert special == {4}
    tokenizer["model"]["merges"] = ["a b"]
    assert gguf_file.read_vocabulary(tokenizer, 6)[1] == ["a b"]
    with pytest.raises(ValueError, match="the id 4"):
        gguf_file.read_vocabulary(tokenizer, 4)


def test_a_gguf_file_holds_what_the_checkpoint_holds(model_folder, tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    from safetensors import safe_open

    gguf_file.write_gguf(model_folder, tmp_path / "model.gguf", "Q8_0")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    config = json.loads((model_folder / "config.json").read_text("utf-8"))
    for key, value in {
        "general.architecture": "qwen3",
        "qwen3.block_count": config["num_hidden_layers"],
        "qwen3.attention.head_count_kv": config["num_key_value_heads"],
        "qwen3.attention.key_length": config["head_dim"],
        "qwen3.pooling_type": gguf.PoolingType.LAST,
        "tokenizer.ggml.pre": "qwen2",
    }.items():
        assert reader.get_field(key).contents() == value
    assert len(reader.get_field("tokenizer.ggml.tokens").contents()) == config["vocab_size"]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    with safe_open(model_folder / "model.safetensors", framework="pt") as stored:
        assert len(tensors) == len(stored.keys())
        for name in stored.keys():  # noqa: SIM118 - a safetensors file is no mapping
            tensor = tensors[gguf_file.gguf_name(name)]
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_allclose(values, stored.get_tensor(name).float().numpy(), atol=0.005)
