"""The GGUF files that `embrief bench` writes of its random weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from embrief.bench.peers import gguf_file


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
