"""Writes the models as Qwen3-Embedding and Qwen3-Reranker are laid out on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import vocabulary
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Qwen3Model

from embrief.models.qwen3 import EMBEDDING_PROMPTS

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
        "prompts": {"query": task.query, "document": task.document},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    _json(folder / "config_sentence_transformers.json", settings)


def reranker(model: Qwen3Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a language model whose next word is yes or no; its head are its token vectors."""
    _write(model, tokenizer, folder, prefix="model.", ends=False)


def _write(model: Qwen3Model, tokenizer: Tokenizer, folder: Path, *, prefix: str, ends: bool) -> None:
    vocabulary.save(tokenizer, folder, ends=ends)
    tensors = {f"{prefix}{name}": value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.dtype = torch.bfloat16
    settings: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    for name in ("transformers_version", "_name_or_path"):
        settings.pop(name, None)  # what merely wrote it
    _json(folder / "config.json", {**settings, "architectures": ["Qwen3ForCausalLM"]})


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
