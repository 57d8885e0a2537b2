"""The ids of folders in the plain published layout: stored next to people's vectors, so they stay as they are."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Reranker

pytest.importorskip("torch")
QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "yes", "no", "text")
GEMMA_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "text")


def put(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2), "utf-8")


def put_tensors(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write a safetensors file byte by byte: no library's next release may change these bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for number, (name, shape) in enumerate(shapes.items(), start=1):
        values = ((np.arange(np.prod(shape)) * 37 + number * 11) % 101 / 64 - 0.75).astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + len(values)]}
        body += values
    encoded = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + body)


def put_weights(folder: Path, shapes: dict[str, tuple[int, ...]], *, shards: int) -> None:
    if shards == 1:
        put_tensors(folder / "model.safetensors", shapes)
        return
    names = list(shapes)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        part = names[number::shards]
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        put_tensors(folder / file, {name: shapes[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    total = sum(4 * int(np.prod(shape)) for shape in shapes.values())
    put(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def put_tokenizer(folder: Path, tokens: tuple[str, ...], template: tuple[str, ...], **settings: object) -> None:
    specials = [token for token in tokens if token.startswith("<")]
    ids = {token: tokens.index(token) for token in tokens}
    steps = [
        {"Sequence": {"id": "A", "type_id": 0}} if part == "$A" else {"SpecialToken": {"id": part, "type_id": 0}}
        for part in template
    ]
    special = {part: {"id": part, "ids": [ids[part]], "tokens": [part]} for part in template if part != "$A"}
    processor = {"type": "TemplateProcessing", "single": steps, "pair": steps, "special_tokens": special}
    put(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": ids[token],
                    "content": token,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for token in specials
            ],
            "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": processor if special else None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": ids, "unk_token": "text"},
        },
    )
    put(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **settings})


def put_modules(folder: Path, kinds: tuple[str, ...], pooling: str) -> None:
    entries = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{kind}" if index else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    put(folder / "modules.json", entries)
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    flags = {f"pooling_mode_{mode}": mode == pooling for mode in modes}
    put(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 8, **flags, "include_prompt": True})


def layers(norms: tuple[str, ...], count: int, vocabulary: int, prefix: str = "") -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (vocabulary, 8)}
    for number in range(count):
        layer = f"layers.{number}."
        shapes |= {f"{layer}{norm}.weight": (8,) for norm in norms}
        shapes |= {f"{layer}self_attn.{name}_norm.weight": (4,) for name in "qk"}
        shapes |= {f"{layer}self_attn.{name}_proj.weight": (8 if name in "qo" else 4, 8) for name in "qkvo"}
        shapes |= {f"{layer}mlp.{name}_proj.weight": (16, 8) for name in ("gate", "up")}
        shapes |= {f"{layer}mlp.down_proj.weight": (8, 16)}
    shapes["norm.weight"] = (8,)
    return {prefix + name: shape for name, shape in shapes.items()}


QWEN_CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "head_dim": 4,
    "hidden_act": "silu",
    "hidden_size": 8,
    "initializer_range": 0.02,
    "intermediate_size": 16,
    "max_position_embeddings": 512,
    "max_window_layers": 2,
    "model_type": "qwen3",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.3",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": len(QWEN_TOKENS),
}
QWEN_NORMS = ("input_layernorm", "post_attention_layernorm")
GEMMA_CONFIG = {
    "_sliding_window_pattern": 6,
    "architectures": ["Gemma3TextModel"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "dtype": "float32",
    "eos_token_id": 1,
    "final_logit_softcapping": None,
    "head_dim": 4,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 8,
    "initializer_range": 0.02,
    "intermediate_size": 16,
    "layer_types": ["sliding_attention", "full_attention"],
    "max_position_embeddings": 512,
    "model_type": "gemma3_text",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 4,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 16,
    "transformers_version": "4.57.0.dev0",
    "use_bidirectional_attention": True,
    "use_cache": True,
    "vocab_size": len(GEMMA_TOKENS),
}
GEMMA_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def qwen_embedder(folder: Path, *, shards: int) -> Path:
    put(folder / "config.json", QWEN_CONFIG)
    put(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0, "transformers_version": "4.51.3"})
    put_tokenizer(folder, QWEN_TOKENS, ("$A", "<|endoftext|>"), eos_token="<|im_end|>", pad_token="<|endoftext|>")
    put(folder / "vocab.json", {"text": 0})
    (folder / "merges.txt").write_text("#version: 0.2\nt e\n", "utf-8")
    put_modules(folder, ("Transformer", "Pooling", "Normalize"), "lasttoken")
    put(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {
                "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
                "document": "",
            },
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    put_weights(folder, layers(QWEN_NORMS, 2, len(QWEN_TOKENS)), shards=shards)
    return folder


def gemma_embedder(folder: Path, *, shards: int) -> Path:
    put(folder / "config.json", GEMMA_CONFIG)
    put_tokenizer(
        folder, GEMMA_TOKENS, ("<bos>", "$A", "<eos>"), bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    put(folder / "special_tokens_map.json", {"bos_token": "<bos>"})
    put(folder / "added_tokens.json", {"<image_soft_token>": 4})
    (folder / "tokenizer.model").write_bytes(b"sentencepiece")
    put_modules(folder, ("Transformer", "Pooling", "Dense", "Dense", "Normalize"), "mean_tokens")
    for index, (inputs, outputs) in ((2, (8, 16)), (3, (16, 8))):
        dense = folder / f"{index}_Dense"
        activation = "torch.nn.modules.linear.Identity"
        config = {"in_features": inputs, "out_features": outputs, "bias": False, "activation_function": activation}
        put(dense / "config.json", config)
        put_tensors(dense / "model.safetensors", {"linear.weight": (outputs, inputs)})
    put(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    put(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": "task: search result | query: ", "document": "title: none | text: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    put_weights(folder, layers(GEMMA_NORMS, 2, len(GEMMA_TOKENS)), shards=shards)
    return folder


def reranker(folder: Path, *, shards: int) -> Path:
    put(folder / "config.json", QWEN_CONFIG)
    put_tokenizer(folder, QWEN_TOKENS, ("$A",), eos_token="<|im_end|>", pad_token="<|endoftext|>")
    put_weights(folder, layers(QWEN_NORMS, 2, len(QWEN_TOKENS), prefix="model."), shards=shards)
    return folder


@pytest.mark.parametrize(
    ("make", "shards", "space", "fingerprint"),
    [
        (qwen_embedder, 1, "es1-344ef85f342619f7d774bfda71d8f2f9", "ef1-719e546353077f40ef65b54dd6bae352"),
        (qwen_embedder, 2, "es1-533ee971b0b07d2f52d62d0da2755661", "ef1-4e69ec6c39ab0e5d037a28c4928ce7f7"),
        (gemma_embedder, 1, "es1-a8c4bc3c4e592265e919c628452992ea", "ef1-c1d91eda71f9e9bf7ffd6fcd163d15ec"),
        (gemma_embedder, 3, "es1-183bbf9a1facee05a8d110cbc3d60135", "ef1-3726f17c2534c3e76f1edc57e7e7f40a"),
    ],
)
def test_embedders_of_the_published_layout_keep_their_ids(
    make, shards: int, space: str, fingerprint: str, tmp_path: Path
) -> None:
    embedder = Embedder(make(tmp_path / "model", shards=shards), dtype="float32", device="cpu")
    assert (embedder.space.id, embedder.fingerprint) == (space, fingerprint)
    # The folder is a model that loads: nothing that refuses folders may make this test pass on the id alone.
    assert embedder.embed_documents(["text", "yes"]).shape == (2, 8)


@pytest.mark.parametrize(
    ("shards", "fingerprint"),
    [(1, "rf1-b9f02cb644ae2338fe0b4101b5ca2f75"), (2, "rf1-bfbf694692ea162a988bb6f4d959a9d0")],
)
def test_rerankers_of_the_published_layout_keep_their_ids(shards: int, fingerprint: str, tmp_path: Path) -> None:
    found = Reranker(reranker(tmp_path / "model", shards=shards), dtype="float32", device="cpu")
    assert found.fingerprint == fingerprint
    assert found.score("text", ["yes", "no"]).shape == (2,)


def test_the_tiny_family_keeps_its_ids() -> None:
    assert Embedder("embrief/tiny-embedding").space.id == "es1-a5ad135836f6174dc30a4d8ffdae8f19"
    assert (
        Reranker("embrief/tiny-reranker", dtype="float32", device="cpu").fingerprint
        == "rf1-8aecf2a07157556871c9b52f1e50afa1"
    )
