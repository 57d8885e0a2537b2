"""A tiny checkpoint of EmbeddingGemma 2 whose tower reads pictures, and what transformers makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from embrief.facts.records.gemma import EMBEDDING_2_IMAGES as IMAGES

from .conftest import write_json

PLACES = 3360
"""A line of the largest budget has so many patches."""
PREPROCESSOR = {
    "do_convert_rgb": True, "do_normalize": False, "do_rescale": True, "do_resize": True, "image_mean": [0.0] * 3,
    "image_processor_type": "Gemma4ImageProcessor", "image_std": [1.0] * 3, "max_soft_tokens": 280, "patch_size": 16,
    "pooling_kernel_size": 3, "resample": 3, "rescale_factor": 1 / 255,
}  # fmt: skip


def write_seeing_gemma2(source: Path, folder: Path, **tower: object) -> Path:
    """Copy an embedder as of `write_gemma2` and give it another tower, all of whose tensors are random."""
    import torch
    from transformers import AutoConfig, AutoModel

    shutil.copytree(source, folder)
    torch.manual_seed(11)
    config = AutoConfig.from_pretrained(source)
    own = config.vision_config.to_dict() | {
        "num_hidden_layers": 3, "hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "position_embedding_size": PLACES, **tower,
    }  # fmt: skip
    config.vision_config = type(config.vision_config).from_dict(own)
    model = AutoModel.from_config(config)
    model.language_model.load_state_dict(AutoModel.from_pretrained(source).language_model.state_dict())
    for name, parameter in (*model.vision_tower.named_parameters(), *model.embed_vision.named_parameters()):
        if "norm" in name:
            mean = len(parameter) ** -0.5 if "q_norm" in name else 1.0
            torch.nn.init.normal_(parameter, mean=mean, std=0.3 * mean)
        else:
            torch.nn.init.normal_(parameter, std=0.3 if "table" in name else 0.15)
    for name, buffer in model.vision_tower.named_buffers():
        # Narrow enough to clip something.
        if name.endswith(("_min", "_max")):
            buffer.fill_(-1.5 if name.endswith("_min") else 1.0)
        elif "std_" in name:
            torch.nn.init.normal_(buffer, mean=1.0, std=0.3)
    model.save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    return folder


@lru_cache
def transformers_model(folder: Path, dtype: str = "float32"):
    import torch
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def marks(shown: Sequence[np.ndarray], max_pixels: int | None = None) -> str:
    """What stands for pictures in a prompt."""
    counts = [IMAGES.tokens(*one.shape[:2], max_pixels) for one in shown]
    return "".join(f"<|image>{'<|image|>' * count}<image|>" for count in counts)


def oracle(folder: Path, prompt: str, shown: Sequence[np.ndarray], budget: int = 280, dtype: str = "float32"):
    """Return the vector of transformers' model, its own preprocessing included, pooled in float32."""
    import torch
    from tokenizers import Tokenizer
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(prompt).ids
    more = {}
    if shown:
        seen = Gemma4ImageProcessorPil(max_soft_tokens=budget)(
            list(shown), input_data_format="channels_last", return_tensors="pt"
        )
        more = {"pixel_values": seen["pixel_values"], "image_position_ids": seen["image_position_ids"]}
    with torch.inference_mode():
        states = transformers_model(folder, dtype)(input_ids=torch.tensor([ids]), **more).last_hidden_state[0]
    return torch.nn.functional.normalize(states.float().mean(0), dim=0).numpy()
