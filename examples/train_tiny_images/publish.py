"""Writes what is beside the text model: the tower, and small files laid out as those of Qwen3-VL-Embedding."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tower
from pictures import SIDE, Pictures, Split
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

TEXT = "model.safetensors"
SPECIALS = {"<|im_start|>": "<|vision_start|>", "<|im_end|>": "<|vision_end|>", "<think>": "<|image_pad|>"}
"""Tokens that mean nothing to the text model, and what they are called here."""
_PREFIX = "visual."
_SHEET_LEARNT, _SHEET_NEW, _SHEET_COLUMNS = 100, 50, 15
_SIGNS = re.compile(r"button|o.clock|thirty|arrow|keycap|square|circle|person|man\b|woman|moon|symbol|sign|mark|\bno\b")


def write(found: tower.Tower, text: Path, folder: Path) -> None:
    """Write the folder.

    Args:
        found: The tower.
        text: The folder of the text model, which stays where it is: the index names its weights there.
        folder: Where to write; beside `text` when it is used.
    """
    folder.mkdir(parents=True)
    tokenizer = _renamed(text, folder)
    config = json.loads((text / "config.json").read_text("utf-8"))
    begin, end, pad = (tokenizer[name] for name in SPECIALS.values())
    _json(folder / "config.json", _config(config, begin, end, pad))
    _json(folder / "preprocessor_config.json", _preprocessor())
    shutil.copy(text / "modules.json", folder)
    shutil.copytree(text / "1_Pooling", folder / "1_Pooling")
    shutil.copy(Path(__file__).parent / "card.md", folder / "README.md")
    states = {f"{_PREFIX}{name}": value.to(torch.bfloat16).contiguous() for name, value in found.state_dict().items()}
    save_file(states, folder / "tower.safetensors", metadata={"format": "pt"})
    with safe_open(text / TEXT, "pt") as file:
        place = dict.fromkeys(file.keys(), f"../{text.name}/{TEXT}")
        size = (text / TEXT).stat().st_size
    place |= dict.fromkeys(states, "tower.safetensors")
    total = size + (folder / "tower.safetensors").stat().st_size
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(place.items()))}
    _json(folder / "model.safetensors.index.json", index)


def read(file: Path) -> dict[str, Tensor]:
    """Return the weights of a tower that was written."""
    return {name.removeprefix(_PREFIX): value.float() for name, value in load_file(file).items()}


def write_sheet(pictures: Pictures, split: Split, folder: Path) -> None:
    """Write what `embrief demo --images` shows: drawings of Noto on white in one file, and what they are.

    Two thirds were learnt from; none is one of several that differ in the person alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [(place, True) for place in _single(pictures, split.emoji)[:_SHEET_LEARNT]]
    chosen += [(place, False) for place in _single(pictures, split.measured)[:_SHEET_NEW]]
    random.Random(5).shuffle(chosen)
    rgba = pictures.styles["noto"][[place for place, _ in chosen]].astype(np.float64)
    alpha = rgba[..., 3:] / 255
    cells = np.round(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    rows = cells.reshape(-1, _SHEET_COLUMNS, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(rows.reshape(-1, _SHEET_COLUMNS * SIDE, 3)).save(folder / "sheet.png", optimize=True)
    names = [json.dumps([pictures.emoji[place].label, learnt], ensure_ascii=False) for place, learnt in chosen]
    (folder / "names.json").write_text("[\n" + ",\n".join(names) + "\n]\n", "utf-8")


def _single(pictures: Pictures, places: Sequence[int]) -> list[int]:
    """Return places in an order of no meaning, without emoji made of several and without signs and clocks."""
    found = [
        place
        for place in places
        if "-" not in pictures.emoji[place].key and not _SIGNS.search(pictures.emoji[place].label)
    ]
    return random.Random(5).sample(found, len(found))


def _renamed(text: Path, folder: Path) -> dict[str, int]:
    """Write the tokenizer with other names for three tokens, and return its special tokens."""
    tokenizer: dict[str, Any] = json.loads((text / "tokenizer.json").read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {SPECIALS.get(name, name): number for name, number in vocabulary.items()}
    for token in tokenizer["added_tokens"]:
        token["content"] = SPECIALS.get(token["content"], token["content"])
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), "utf-8")
    settings = json.loads((text / "tokenizer_config.json").read_text("utf-8"))
    _json(folder / "tokenizer_config.json", {**settings, "eos_token": "<|endoftext|>"})
    return {token["content"]: token["id"] for token in tokenizer["added_tokens"]}


def _config(text: dict[str, Any], begin: int, end: int, pad: int) -> dict[str, Any]:
    part = {name: value for name, value in text.items() if name not in ("architectures", "tie_word_embeddings")}
    part["model_type"] = "qwen3_vl_text"
    part["rope_parameters"] = {
        **part["rope_parameters"], "mrope_interleaved": True, "mrope_section": list(tower.SECTIONS),
    }  # fmt: skip
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "dtype": "bfloat16",
        "image_token_id": pad,
        "model_type": "qwen3_vl",
        "text_config": part,
        "tie_word_embeddings": True,
        "vision_config": {
            "deepstack_visual_indexes": [],
            "depth": tower.DEPTH,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": tower.WIDTH,
            "in_channels": 3,
            "intermediate_size": tower.INNER,
            "model_type": "qwen3_vl",
            "num_heads": tower.HEADS,
            "num_position_embeddings": tower.GRID**2,
            "out_hidden_size": tower.OUT,
            "patch_size": tower.PATCH,
            "spatial_merge_size": tower.MERGE,
            "temporal_patch_size": 2,
        },
        "vision_end_token_id": end,
        "vision_start_token_id": begin,
    }


def _preprocessor() -> dict[str, Any]:
    # Squares are seen as they were learnt; longer pictures get more tokens.
    unit = (tower.MERGE * tower.PATCH) ** 2
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5] * 3,
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "image_std": [0.5] * 3,
        "merge_size": tower.MERGE,
        "patch_size": tower.PATCH,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": 6 * unit, "shortest_edge": 4 * unit},
        "temporal_patch_size": 2,
    }


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
