"""The ids of vector spaces are a storage format: these were written by the first release and can never change."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embrief import Embedder, EmbeddingSpec, plugins
from embrief.stores import stamp

# A changed id orphans every stored collection. New records and widths are added here; a line is only ever changed
# together with the record's revision.
GOLDEN: dict[str, str] = json.loads(Path(__file__).with_name("space_ids.json").read_text("utf-8"))
RECORDED = [
    spec for spec in map(plugins().registry.find_model, plugins().registry.models) if isinstance(spec, EmbeddingSpec)
]


def variants(spec: EmbeddingSpec) -> list[dict[str, Any]]:
    """Every task, the widths that people use, and vectors that are not normalised."""
    widths = [width for width in (32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 2560) if width in spec.mrl]
    tasks = [task.name for task in spec.prompts.tasks]
    return [
        {},
        {"normalize": False},
        *({"task": task} for task in tasks),
        *({"dim": width} for width in widths),
        *({"task": task, "dim": width} for task in tasks[1:] for width in widths[:1]),
    ]


def line(model: str, options: dict[str, Any]) -> str:
    return ", ".join([model, *(f"{name}={value!r}" for name, value in options.items())])


@pytest.mark.parametrize("spec", RECORDED, ids=lambda spec: spec.id)
def test_the_ids_of_recorded_models_stay(spec: EmbeddingSpec) -> None:
    now = {line(spec.id, options): Embedder(spec.id, **options).space.id for options in variants(spec)}
    assert now == {name: GOLDEN.get(name) for name in now}


def test_no_id_is_forgotten() -> None:
    """A record that is gone takes its collections with it."""
    lines = {line(spec.id, options) for spec in RECORDED for options in variants(spec)}
    assert {name for name in GOLDEN if not name.startswith("folder ")} == lines


def test_what_stores_keep_stays() -> None:
    assert stamp(Embedder("google/embeddinggemma-300m").space) == {
        "embrief_space": (
            '{"dim": 768, "document_prompt": "title: none | text: ", "id": "es1-7795646c0642e542a0711a86731f2f09", '
            '"label": "", "lexical": false, "model": "google/embeddinggemma-300m", "normalize": true, '
            '"pooling": "mean", "weights": "64614b0b8b64f0c6c1e52b07e4e9a4e8fe4d2da2"}'
        )
    }


@pytest.mark.parametrize("layout", ["qwen3", "qwen3 in shards", "gemma"])
def test_the_ids_of_folders_in_the_published_layout_stay(layout: str, tmp_path: Path) -> None:
    """Downloaded models and fine-tunes: what is beside the weights in the published repositories changes nothing."""
    folder = write_gemma(tmp_path) if layout == "gemma" else write_qwen3(tmp_path, shards=layout.endswith("shards"))
    assert Embedder(str(folder)).space.id == GOLDEN[f"folder {layout}"]


def write_qwen3(folder: Path, *, shards: bool) -> Path:
    hidden, rows = 16, write_tokenizer(folder, end="<|endoftext|>", other="<|im_end|>")
    shapes = decoder(hidden, rows)
    if shards:
        names = sorted(shapes)
        parts = {"model-00001-of-00002.safetensors": names[:4], "model-00002-of-00002.safetensors": names[4:]}
        for file, part in parts.items():
            write_tensors(folder / file, {name: shapes[name] for name in part})
        weight_map = {name: file for file, part in parts.items() for name in part}
        write(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": weight_map})
    else:
        write_tensors(folder / "model.safetensors", shapes)
    write(
        folder / "config.json",
        {
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "head_dim": 8,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "initializer_range": 0.02,
            "intermediate_size": 24,
            "max_position_embeddings": 32768,
            "max_window_layers": 28,
            "model_type": "qwen3",
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "num_key_value_heads": 1,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            "transformers_version": "4.51.3",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": rows,
        },
    )
    write(folder / "generation_config.json", {"bos_token_id": 0, "do_sample": True, "transformers_version": "4.51.3"})
    write_modules(folder, ["Transformer", "Pooling", "Normalize"], hidden, "lasttoken")
    query = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
    write(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": query, "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    return folder


def write_gemma(folder: Path) -> Path:
    hidden, rows = 16, write_tokenizer(folder, end="<eos>", other="<pad>")
    shapes = decoder(hidden, rows) | {
        f"layers.0.{side}_feedforward_layernorm.weight": (hidden,) for side in ("pre", "post")
    }
    write_tensors(folder / "model.safetensors", shapes)
    write(
        folder / "config.json",
        {
            "architectures": ["Gemma3TextModel"],
            "attention_bias": False,
            "attn_logit_softcapping": None,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "final_logit_softcapping": None,
            "head_dim": 8,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": hidden,
            "intermediate_size": 24,
            "layer_types": ["sliding_attention"],
            "max_position_embeddings": 2048,
            "model_type": "gemma3_text",
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "num_key_value_heads": 1,
            "pad_token_id": 1,
            "query_pre_attn_scalar": 8,
            "rms_norm_eps": 1e-06,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": None,
            "rope_theta": 1000000.0,
            "sliding_window": 512,
            "torch_dtype": "float32",
            "transformers_version": "4.57.0.dev0",
            "use_bidirectional_attention": True,
            "use_cache": True,
            "vocab_size": rows,
        },
    )
    write_modules(folder, ["Transformer", "Pooling", "Dense", "Dense", "Normalize"], hidden, "mean_tokens")
    for index, (inputs, outputs) in ((2, (hidden, 32)), (3, (32, hidden))):
        write_tensors(folder / f"{index}_Dense" / "model.safetensors", {"linear.weight": (outputs, inputs)})
        write(
            folder / f"{index}_Dense" / "config.json",
            {
                "in_features": inputs,
                "out_features": outputs,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
    write(folder / "sentence_bert_config.json", {"max_seq_length": 2048, "do_lower_case": False})
    write(folder / "generation_config.json", {"do_sample": True, "top_k": 64, "transformers_version": "4.57.0.dev0"})
    write(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "__version__": {"sentence_transformers": "5.1.0", "transformers": "4.57.0.dev0", "pytorch": "2.8.0+cu128"},
            "prompts": {"query": "task: search result | query: ", "document": "title: none | text: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    return folder


def decoder(hidden: int, rows: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a decoder of one layer."""
    layer = {
        "self_attn.q_proj": (16, hidden),
        "self_attn.k_proj": (8, hidden),
        "self_attn.v_proj": (8, hidden),
        "self_attn.o_proj": (hidden, 16),
        "self_attn.q_norm": (8,),
        "self_attn.k_norm": (8,),
        "mlp.gate_proj": (24, hidden),
        "mlp.up_proj": (24, hidden),
        "mlp.down_proj": (hidden, 24),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes = {f"layers.0.{name}.weight": shape for name, shape in layer.items()}
    return {"embed_tokens.weight": (rows, hidden), "norm.weight": (hidden,), **shapes}


def write_tensors(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write float32 tensors byte by byte: what a library chooses to put into the header may change."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for count, (name, shape) in enumerate(shapes.items(), start=1):
        values = (np.arange(np.prod(shape)) % 7 - 3 + count).astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_tokenizer(folder: Path, *, end: str, other: str) -> int:
    """Write a tokenizer of words; return how many it knows."""
    specials = [end, other]
    words = [*specials, "<unk>", *"abcdefgh"]
    write(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": index,
                    "content": token,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for index, token in enumerate(specials)
            ],
            "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {end: {"id": end, "ids": [0], "tokens": [end]}},
            },
            "decoder": None,
            "model": {
                "type": "WordLevel",
                "vocab": {word: index for index, word in enumerate(words)},
                "unk_token": "<unk>",
            },
        },
    )
    tokens = {"eos_token": end, "pad_token": other, "unk_token": "<unk>"}
    write(
        folder / "tokenizer_config.json",
        {**tokens, "model_max_length": 2048, "tokenizer_class": "PreTrainedTokenizerFast"},
    )
    write(folder / "special_tokens_map.json", tokens)
    return len(words)


def write_modules(folder: Path, kinds: list[str], width: int, mode: str) -> None:
    write(
        folder / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": f"{index}_{kind}" if index else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for index, kind in enumerate(kinds)
        ],
    )
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    write(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": width,
            **{f"pooling_mode_{name}": name == mode for name in modes},
            "include_prompt": True,
        },
    )


def write(file: Path, value: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value), "utf-8")
