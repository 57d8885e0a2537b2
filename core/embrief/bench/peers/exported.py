"""The torch module that OpenVINO and ONNX Runtime get to convert: ids in, pooled and normalised vectors out."""

from __future__ import annotations

import inspect
import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def embedding_module(folder: Path) -> torch.nn.Module:
    """Load transformers' model in float32 behind `forward(ids, last)`.

    Args:
        folder: the checkpoint.

    Returns:
        A module that takes ids (int64, shape `(batch, tokens)`, padded on the right) and the column of each row's last
        token (int64, shape `(batch,)`) and returns vectors (float32, shape `(batch, dim)`). It takes no mask: in a
        causal model padding on the right changes nothing to its left, and an engine told only "causal" can use its
        fastest attention.
    """
    import torch
    from transformers import AutoModel

    class Rotation(torch.nn.Module):
        """Cosines and sines of all positions as a table: computed in bf16, far positions would run together."""

        cos: torch.Tensor
        sin: torch.Tensor

        def __init__(self, plain: Any, length: int) -> None:
            super().__init__()
            cos, sin = plain(torch.empty(0), torch.arange(length).unsqueeze(0))
            self.register_buffer("cos", cos)
            self.register_buffer("sin", sin)

        def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.cos[:, : position_ids.shape[1]], self.sin[:, : position_ids.shape[1]]

    class Embedding(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            model.rotary_emb = Rotation(model.rotary_emb, model.config.max_position_embeddings)
            self.model = model

        def forward(self, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
            positions = torch.arange(ids.shape[1]).unsqueeze(0)
            hidden = self.model(
                input_ids=ids,
                # A mapping is taken as ready-made masks: none here, so attention is plainly causal.
                attention_mask={"full_attention": None},
                position_ids=positions,
                use_cache=False,
            ).last_hidden_state
            pooled = hidden[torch.arange(ids.shape[0]), last]
            return torch.nn.functional.normalize(pooled, dim=-1)

    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True)
    return Embedding(model).eval()


def width_of(folder: Path) -> int:
    """Return the length of the vectors of the checkpoint in `folder`."""
    return int(json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"])


def calibration_rows(folder: Path, count: int, longest: int) -> list[np.ndarray]:
    """Return token ids of real English, the standard library's docstrings, to calibrate a quantiser on.

    Args:
        folder: the checkpoint, for its tokenizer.
        count: how many rows.
        longest: tokens per row at most.

    Returns:
        Arrays of ids, int64, shape `(1, tokens)`.
    """
    import argparse
    import logging
    import shutil
    import statistics
    import textwrap

    from tokenizers import Tokenizer

    texts = sorted(
        {
            text
            for module in (argparse, logging, random, shutil, statistics, textwrap)
            for member in (module, *vars(module).values())
            if (text := inspect.getdoc(member)) and len(text) > 200
        }
    )
    chosen = random.Random(0).sample(texts, min(count, len(texts)))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [np.array([tokenizer.encode(text).ids[:longest]], dtype=np.int64) for text in chosen]
