"""Write a Qwen3 checkpoint as a GGUF file, as llama.cpp's own converter would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.system.installed import is_installed

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q4_0")

_TOP = {"embed_tokens": "token_embd", "norm": "output_norm"}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str | None:
    """Return a Qwen3 tensor's name in GGUF, or None for an output head of its own, which an embedder does not use.

    Args:
        name: as in the checkpoint, with or without the `model.` in front.

    Raises:
        ValueError: a tensor that Qwen3 does not have.
    """
    if name == "lm_head.weight":
        return None
    stem = name.removeprefix("model.").removesuffix(".weight")
    if stem in _TOP and name.endswith(".weight"):
        return f"{_TOP[stem]}.weight"
    kind, _, rest = stem.partition(".")
    number, _, part = rest.partition(".")
    if kind == "layers" and number.isdigit() and part in _LAYER and name.endswith(".weight"):
        return f"blk.{number}.{_LAYER[part]}.weight"
    raise ValueError(f"the tensor {name!r} has no place in a Qwen3 GGUF file; convert with llama.cpp's own converter")


def read_vocabulary(tokenizer: dict[str, Any], size: int) -> tuple[list[str], list[str], set[int]]:
    """Read a byte-level BPE tokenizer.

    Args:
        tokenizer: what tokenizer.json holds.
        size: rows of the embedding table; ids without a token get a placeholder.

    Returns:
        Tokens by id, merges as "left right", and the ids of special tokens.

    Raises:
        ValueError: it is no BPE tokenizer, or has an id beyond the table.
    """
    model = tokenizer["model"]
    if model.get("type") != "BPE":
        raise ValueError(f"tokenizer.json holds a {model.get('type')!r} model; only byte-level BPE is converted")
    added = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
    by_id = {number: token for token, number in model["vocab"].items()}
    by_id |= {number: entry["content"] for number, entry in added.items()}
    if by_id and max(by_id) >= size:
        raise ValueError(f"tokenizer.json has the id {max(by_id)}, but the embedding table ends at {size - 1}")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    special = {number for number, entry in added.items() if entry.get("special")}
    return [by_id.get(number, f"[PAD{number}]") for number in range(size)], merges, special


def write_gguf(folder: Path, file: Path, form: str) -> None:
    """Convert the checkpoint in `folder`; one tensor is in memory at a time.

    Args:
        folder: holds config.json, tokenizer.json and safetensors.
        file: where to write.
        form: one of `FORMATS`: how matrices are stored. Norm weights are always float32.

    Raises:
        RuntimeError: the package gguf is not installed.
        ValueError: `form` is not known, or the checkpoint is no Qwen3 with a BPE tokenizer.
    """
    if form not in FORMATS:
        raise ValueError(f"{form!r} is not written; choose from {', '.join(FORMATS)}")
    if not is_installed("gguf"):
        raise RuntimeError("writing a GGUF file needs the package gguf: pip install gguf")
    import gguf

    config = json.loads((folder / "config.json").read_text("utf-8"))
    if config.get("model_type") != "qwen3":
        raise ValueError(f"{folder.name} is a {config.get('model_type')!r} model; only qwen3 is converted")
    writer = gguf.GGUFWriter(file, "qwen3")
    _write_facts(writer, config, folder)
    shards = _shards(folder)
    places = {name: shard for shard, names in shards.items() for name in names}
    wanted = [(name, target) for name in places if (target := gguf_name(name))]
    form_type = gguf.GGMLQuantizationType[form]
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if form == "F32" else f"MOSTLY_{form}"])
    for name, target in wanted:
        shape = _shape(folder / places[name], name)
        if len(shape) == 1:
            writer.add_tensor_info(target, shape, np.dtype(np.float32), 4 * shape[0])
        else:
            stored = gguf.quant_shape_to_byte_shape(shape, form_type)
            # For raw formats the writer turns a byte shape back into the tensor's shape.
            writer.add_tensor_info(target, stored, np.dtype(np.uint8), int(np.prod(stored)), raw_dtype=form_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, _ in wanted:
        values = _values(folder / places[name], name)
        writer.write_tensor_data(values if values.ndim == 1 else gguf.quants.quantize(values, form_type).view(np.uint8))
    writer.close()


def _write_facts(writer: Any, config: dict[str, Any], folder: Path) -> None:
    import gguf

    rope = config.get("rope_parameters") or {}
    writer.add_name(folder.name)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(float(config.get("rope_theta") or rope["rope_theta"]))
    if (folder / "modules.json").is_file():
        # A reranker's file says none: its score is taken from the logits.
        writer.add_pooling_type(gguf.PoolingType.LAST)
    tokens, merges, special = read_vocabulary(
        json.loads((folder / "tokenizer.json").read_text("utf-8")), config["vocab_size"]
    )
    kinds = [
        gguf.TokenType.CONTROL if number in special
        else gguf.TokenType.UNUSED if token == f"[PAD{number}]"
        else gguf.TokenType.NORMAL
        for number, token in enumerate(tokens)
    ]  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    # Ids are given ready-made, so nothing here is ever added; llama.cpp only wants an end token to exist.
    end = config.get("eos_token_id") or 0
    writer.add_eos_token_id(end[0] if isinstance(end, list) else end)
    writer.add_add_bos_token(False)


def _shards(folder: Path) -> dict[str, list[str]]:
    """Return file name -> the names of its tensors."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    found = {}
    for file in files:
        with safe_open(folder / file, framework="pt") as opened:
            found[file] = list(opened.keys())
    return found


def _shape(file: Path, name: str) -> tuple[int, ...]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return tuple(opened.get_slice(name).get_shape())


def _values(file: Path, name: str) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:  # numpy has no bfloat16
        values: np.ndarray = opened.get_tensor(name).float().numpy()
        return values
