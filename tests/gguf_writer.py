"""Write small checkpoints as GGUF files: as llama.cpp's own converter does, and with the faults that such files have.

Names and values are those of its converter (conversion/base.py, qwen.py, gemma.py and gguf-py/gguf/vocab.py of the
llama.cpp that llama-cpp-python 0.3.36 carries); the format is version 3 of docs/gguf.md in ggml's repository.
Byte-level BPE tokenizers and float32 only. The package gguf writes such files too, but is no dependency of the tests.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embrief.bench.peers.gguf_file import read_vocabulary

Pooling = Literal["none", "mean", "cls", "last", "rank"]
Facts = dict[str, bool | int | float | str | list[int] | list[str]]
Tensors = dict[str, np.ndarray]
Change = Callable[[Facts, Tensors], None]
"""Called with what is about to be written, which it may change."""

# By place: the number that llama.cpp's enum gives each.
POOLINGS: tuple[Pooling, ...] = ("none", "mean", "cls", "last", "rank")
# Kinds of tokens.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# Types of values.
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
ALIGNMENT = 32
TOP = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# What the same name means differs: Qwen3 has a norm before its feed-forward part, Gemma one after attention too.
NORMS = {
    "qwen3": {"post_attention_layernorm": "ffn_norm"},
    "gemma3_text": {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}
ARCHITECTURES = {"qwen3": "qwen3", "gemma3_text": "gemma-embedding"}
# The converter bakes this one instruction into every reranker.
RERANK_TEMPLATE = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def write_embedder(
    folder: Path,
    file: Path,
    *,
    pooling: Pooling | None = None,
    adds_end: bool = True,
    dense: bool = True,
    change: Change | None = None,
) -> Path:
    """Write an embedder; as it stands in the folder if nothing else is asked for.

    Args:
        folder: a Qwen3 or EmbeddingGemma checkpoint in sentence-transformers' layout.
        file: where to write; returned.
        pooling: what the file says; by default last for Qwen3 and mean for EmbeddingGemma.
        adds_end: whether the file says that the end token is appended. Many files in the wild do not say it.
        dense: whether EmbeddingGemma's two Dense layers are in it. llama.cpp's converter leaves them out unless it is
            called with --sentence-transformers-dense-modules.
        change: what is wrong with the file besides.
    """
    config, tokenizer, _ = _read_json(folder)
    gemma = config["model_type"] == "gemma3_text"
    single = [part.get("SpecialToken", {}).get("id") for part in tokenizer["post_processor"]["single"]]
    facts, tensors = _model_facts(folder), _model_tensors(folder)
    facts |= _vocabulary_facts(folder, end=single[-1])
    facts["tokenizer.ggml.add_bos_token"] = single[0] is not None
    if adds_end:
        facts["tokenizer.ggml.add_eos_token"] = True
    prefix = ARCHITECTURES[config["model_type"]]
    facts[f"{prefix}.pooling_type"] = POOLINGS.index(pooling or ("mean" if gemma else "last"))
    if gemma and dense:
        for number in (2, 3):
            weight = _read_tensors(folder / f"{number}_Dense")["linear.weight"]
            facts[f"{prefix}.dense_{number}_feat_out"], facts[f"{prefix}.dense_{number}_feat_in"] = weight.shape
            tensors[f"dense_{number}.weight"] = weight
    if change is not None:
        change(facts, tensors)
    return write(file, facts, tensors)


def write_reranker(folder: Path, file: Path, *, head: bool = True, change: Change | None = None) -> Path:
    """Write a Qwen3 reranker: two rows of the output layer as its head, labels, RANK pooling, and the template.

    Args:
        folder: a language model's checkpoint.
        file: where to write; returned.
        head: False gives what the converter makes of a folder whose name does not hold "qwen3-reranker": a plain
            language model, with which llama-server ranks all the same.
        change: what is wrong with the file besides.
    """
    config, tokenizer, settings = _read_json(folder)
    facts, tensors = _model_facts(folder), _model_tensors(folder)
    facts |= _vocabulary_facts(folder, end=settings["eos_token"])
    facts["tokenizer.ggml.add_bos_token"] = False
    if head:
        ids = _ids(tokenizer)
        facts[f"{ARCHITECTURES[config['model_type']]}.pooling_type"] = POOLINGS.index("rank")
        facts[f"{ARCHITECTURES[config['model_type']]}.classifier.output_labels"] = ["yes", "no"]
        facts["tokenizer.chat_template.rerank"] = RERANK_TEMPLATE
        facts["tokenizer.chat_templates"] = ["rerank"]
        # Of an output layer of its own only these two rows are in the file.
        output = tensors.pop("output.weight", tensors["token_embd.weight"])
        tensors["cls.output.weight"] = output[[ids["yes"], ids["no"]]]
    if change is not None:
        change(facts, tensors)
    return write(file, facts, tensors)


def _read_json(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    names = ("config.json", "tokenizer.json", "tokenizer_config.json")
    config, tokenizer, settings = (json.loads((folder / name).read_text("utf-8")) for name in names)
    return config, tokenizer, settings


def _model_facts(folder: Path) -> Facts:
    config, _, _ = _read_json(folder)
    prefix, rope = ARCHITECTURES[config["model_type"]], config["rope_parameters"]
    facts: Facts = {
        "general.architecture": prefix,
        "general.type": "model",
        "general.name": folder.name,
        "general.file_type": 0,  # all float32
        f"{prefix}.block_count": config["num_hidden_layers"],
        f"{prefix}.context_length": config["max_position_embeddings"],
        f"{prefix}.embedding_length": config["hidden_size"],
        f"{prefix}.feed_forward_length": config["intermediate_size"],
        f"{prefix}.attention.head_count": config["num_attention_heads"],
        f"{prefix}.attention.head_count_kv": config["num_key_value_heads"],
        f"{prefix}.attention.key_length": config["head_dim"],
        f"{prefix}.attention.value_length": config["head_dim"],
        f"{prefix}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{prefix}.rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
    }
    if config["model_type"] == "gemma3_text":
        facts[f"{prefix}.rope.freq_base_swa"] = float(rope["sliding_attention"]["rope_theta"])
        # As config.json has it: llama.cpp halves it, as transformers does when it reads config.json.
        facts[f"{prefix}.attention.sliding_window"] = config["sliding_window"]
    return facts


def _model_tensors(folder: Path) -> Tensors:
    config, _, _ = _read_json(folder)
    kind = config["model_type"]
    parts = LAYER | NORMS[kind]
    found = {}
    for name, values in _read_tensors(folder).items():
        stem = name.removeprefix("model.").removesuffix(".weight")
        if stem in TOP:
            target = TOP[stem]
        else:
            _, number, part = stem.split(".", 2)
            target = f"blk.{number}.{parts[part]}"
        # Gemma's norms multiply by 1 + weight; llama.cpp multiplies by what is in the file.
        shifted = kind == "gemma3_text" and stem.endswith("norm")
        found[f"{target}.weight"] = values + 1 if shifted else values
    return found


def _vocabulary_facts(folder: Path, *, end: str) -> Facts:
    config, tokenizer, settings = _read_json(folder)
    tokens, merges, special = read_vocabulary(tokenizer, config["vocab_size"])
    ids, added = _ids(tokenizer), {entry["id"] for entry in tokenizer["added_tokens"]}
    kinds = [
        CONTROL if number in special
        else USER_DEFINED if number in added
        else UNUSED if token == f"[PAD{number}]"
        else NORMAL
        for number, token in enumerate(tokens)
    ]  # fmt: skip
    facts: Facts = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": ids[end],
        "tokenizer.ggml.padding_token_id": ids[settings["pad_token"]],
    }
    if settings["eos_token"] != end:  # a Qwen3 embedder's texts end with another token than its tokenizer_config names
        facts["tokenizer.ggml.eot_token_id"] = ids[settings["eos_token"]]
    if "bos_token" in settings:
        facts["tokenizer.ggml.bos_token_id"] = ids[settings["bos_token"]]
    return facts


def _ids(tokenizer: dict[str, Any]) -> dict[str, int]:
    return {**tokenizer["model"]["vocab"], **{entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}}


def _read_tensors(folder: Path) -> Tensors:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def write(file: Path, facts: Facts, tensors: Tensors) -> Path:
    """Write facts and tensors. float16 tensors stay so, all others become float32."""
    kinds = {name: "<f2" if values.dtype == np.float16 else "<f4" for name, values in tensors.items()}
    stored = {name: np.ascontiguousarray(values, dtype=kinds[name]).tobytes() for name, values in tensors.items()}
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    for name, value in facts.items():
        header += _text(name) + _value(value)
    offset = 0
    for name, values in tensors.items():
        dims = values.shape[::-1]  # the fastest first
        header += _text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        header += struct.pack("<IQ", kinds[name] == "<f2", offset)  # 0: float32, 1: float16
        offset += _padded(len(stored[name]))
    data = b"".join(part.ljust(_padded(len(part)), b"\0") for part in stored.values())
    file.write_bytes(header.ljust(_padded(len(header)), b"\0") + data)
    return file


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: bool | int | float | str | list[int] | list[str]) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    texts = [part for part in value if isinstance(part, str)]
    if texts:
        return struct.pack("<IIQ", ARRAY, STRING, len(texts)) + b"".join(map(_text, texts))
    return struct.pack(f"<IIQ{len(value)}i", ARRAY, INT32, len(value), *value)
