"""Tiny checkpoints of Qwen3-VL with random weights, in the files and names of the published ones."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embrief.images.patches import patches

from .conftest import randomize_norms, save_tokenizer, train_tokenizer, write_json, write_modules

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.facts.specs import ImageSpec

VISION_SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
HIDDEN_SIZE = 48


def model_inputs(model: Any, ids: Sequence[int], pad: int, shown: Sequence[NDArray[np.uint8]], spec: ImageSpec) -> Any:
    """Arguments of transformers' model for one row of ids, with fitted pictures where `pad` stands."""
    import torch

    row = torch.tensor([ids])
    # Without a mask some older releases take a picture's tokens, which share a place in time, for rows of their own.
    found: dict[str, Any] = {"input_ids": row, "attention_mask": torch.ones_like(row), "use_cache": False}
    if shown:
        values = [patches(one, patch=spec.patch, merge=spec.merge, mean=spec.mean, std=spec.std) for one in shown]
        found |= {
            "pixel_values": torch.from_numpy(np.concatenate(values)),
            "image_grid_thw": torch.tensor(
                [(1, one.shape[0] // spec.patch, one.shape[1] // spec.patch) for one in shown]
            ),
        }
        # Older releases find the pictures themselves.
        if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
            found["mm_token_type_ids"] = (row == pad).int()
    return found


INSTRUCTION = "Represent the user's input."
CHAT_TEMPLATE = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\n" + INSTRUCTION.replace("'", "\\'") + "<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role == 'user' %}{{- '<|im_start|>user\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}{%- for part in message.content %}"
    "{%- if 'image' in part %}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif 'text' in part %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}{{- '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""What the published chat template makes of a system line, texts and pictures, and of nothing else."""


def vision_config(vocabulary: int, special: dict[str, int], *, tied: bool) -> dict[str, object]:
    """config.json in the published form: both parts nested, positions in the older keys."""
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "dtype": "float32",
        "image_token_id": special["<|image_pad|>"],
        "model_type": "qwen3_vl",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": special["<|endoftext|>"],
            "dtype": "float32",
            "eos_token_id": special["<|im_end|>"],
            "head_dim": 16,
            "hidden_act": "silu",
            "hidden_size": HIDDEN_SIZE,
            "initializer_range": 0.02,
            "intermediate_size": 96,
            "max_position_embeddings": 4096,
            "model_type": "qwen3_vl_text",
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
            "rope_theta": 5000000,
            "use_cache": True,
            "vocab_size": vocabulary,
        },
        "tie_word_embeddings": tied,
        "transformers_version": "4.57.1",
        "use_cache": False,
        "video_token_id": special["<|video_pad|>"],
        "vision_config": {
            "deepstack_visual_indexes": [0, 1],
            "depth": 3,
            "dtype": "float32",
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 32,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 56,
            "model_type": "qwen3_vl",
            "num_heads": 2,
            "num_position_embeddings": 36,
            "out_hidden_size": HIDDEN_SIZE,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "vision_end_token_id": special["<|vision_end|>"],
        "vision_start_token_id": special["<|vision_start|>"],
    }


def _write(folder: Path, corpus: list[str], *, end: str | None, head: bool, tied: bool) -> Path:
    # Not in the lowest release of transformers.
    pytest.importorskip("transformers.models.qwen3_vl")
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(7)
    tokenizer = train_tokenizer(corpus, end=end, specials=VISION_SPECIALS)
    save_tokenizer(
        tokenizer, folder, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=262144,
        chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    (folder / "chat_template.jinja").write_bytes(CHAT_TEMPLATE.encode())
    special = {token: tokenizer.token_to_id(token) for token in VISION_SPECIALS}
    config = vision_config(tokenizer.get_vocab_size(), special, tied=tied)
    write_json(folder / "config.json", config)
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig.from_pretrained(folder))
    randomize_norms(model)
    for name, parameter in model.named_parameters():
        if name.endswith("patch_embed.proj.weight"):
            torch.nn.init.normal_(parameter, std=0.05)
        elif name.endswith("bias"):
            # Zeros would hide a forgotten one.
            torch.nn.init.normal_(parameter, std=0.2)
        elif name.endswith("pos_embed.weight"):
            torch.nn.init.normal_(parameter, std=0.5)
    # The published embedders have no output layer.
    states = {name: value for name, value in model.state_dict().items() if head or not name.startswith("lm_head")}
    model.save_pretrained(folder, state_dict=states)
    write_json(folder / "config.json", config)
    write_json(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
            "image_mean": [0.5] * 3, "image_processor_type": "Qwen2VLImageProcessorFast", "image_std": [0.5] * 3,
            "max_pixels": 1310720, "merge_size": 2, "min_pixels": 4096, "patch_size": 16,
            "processor_class": "Qwen3VLProcessor", "resample": 3, "rescale_factor": 1 / 255,
            "size": {"longest_edge": 1310720, "shortest_edge": 4096}, "temporal_patch_size": 2,
        },
    )  # fmt: skip
    return folder


def make_vision_embedder(folder: Path, corpus: list[str]) -> Path:
    """Write an embedder laid out like Qwen/Qwen3-VL-Embedding-2B, with modules.json in the older names."""
    _write(folder, corpus, end="<|endoftext|>", head=False, tied=True)
    write_modules(folder, "lasttoken", HIDDEN_SIZE)
    return folder


def make_vision_reranker(folder: Path, corpus: list[str], *, tied: bool = True) -> Path:
    """Write a reranker laid out like Qwen/Qwen3-VL-Reranker-2B, whose tokenizer appends nothing."""
    return _write(folder, corpus, end=None, head=not tied, tied=tied)


def write_new_modules(folder: Path) -> None:
    """Write modules.json and what belongs to it as sentence-transformers 6 has it for models that read pictures."""
    package = "sentence_transformers"
    kinds = {
        "Transformer": f"{package}.base.modules.transformer.Transformer",
        "Pooling": f"{package}.sentence_transformer.modules.pooling.Pooling",
        "Normalize": f"{package}.base.modules.normalize.Normalize",
    }
    write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": f"{index}_{kind}" if index else "", "type": name}
            for index, (kind, name) in enumerate(kinds.items())
        ],
    )
    write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": HIDDEN_SIZE, "pooling_mode": "lasttoken"})
    method = {"method": "forward", "method_output_name": "last_hidden_state"}
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {
                **dict.fromkeys(("text", "image", "video"), method),
                "message": {**method, "format": "structured"},
            },
            "module_output_name": "token_embeddings",
            "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
            "unpad_inputs": False,
        },
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "", "document": ""}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def edited(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return config.json with changes: objects are changed key by key, and `None` takes a key out."""
    found = dict(config)
    for key, value in changes.items():
        found[key] = edited(found.get(key, {}), value) if isinstance(value, dict) else value
    return {key: value for key, value in found.items() if value is not None}
