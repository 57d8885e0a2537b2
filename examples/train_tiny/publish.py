"""Writes the models as Qwen3-Embedding and Qwen3-Reranker are laid out on the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import vocabulary
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Qwen3Model

from embrief.facts.records.qwen3 import EMBEDDING_PROMPTS

_CONFIG = (
    "attention_bias", "attention_dropout", "bos_token_id", "dtype", "eos_token_id", "head_dim", "hidden_act",
    "hidden_size", "initializer_range", "intermediate_size", "max_position_embeddings", "model_type",
    "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "pad_token_id", "rms_norm_eps",
    "rope_parameters", "tie_word_embeddings", "vocab_size",
)  # fmt: skip
"""What Qwen's own config.json says, without what transformers adds to any model's."""
_MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def embedder(model: Qwen3Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Write an embedding model that embrief, sentence-transformers and transformers load."""
    _write(model, tokenizer, folder, prefix="", ends=True)
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(kinds)
    ]
    _json(folder / "modules.json", modules)
    pooling = {f"pooling_mode_{mode}": mode == "lasttoken" for mode in _MODES}
    width = model.config.hidden_size
    _json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **pooling, "include_prompt": True})
    task = EMBEDDING_PROMPTS.tasks[0]
    settings = {
        "prompts": {"query": task.query.head, "document": task.document.head},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    _json(folder / "config_sentence_transformers.json", settings)
    _card(folder, "card_embedding.md")


def reranker(model: Qwen3Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a language model whose next word is yes or no; its head are its token vectors."""
    _write(model, tokenizer, folder, prefix="model.", ends=False)
    _card(folder, "card_reranker.md")


def _write(model: Qwen3Model, tokenizer: Tokenizer, folder: Path, *, prefix: str, ends: bool) -> None:
    vocabulary.save(tokenizer, folder, ends=ends)
    tensors = {f"{prefix}{name}": value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    weights = folder / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes it readable to its owner only
    model.config.dtype = torch.bfloat16
    settings: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    kept = {name: settings[name] for name in _CONFIG}
    _json(folder / "config.json", {"architectures": ["Qwen3ForCausalLM"], **kept})


def _card(folder: Path, name: str) -> None:
    shutil.copyfile(Path(__file__).with_name(name), folder / "README.md")


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
