"""The vision tower of Qwen3-VL at a published shape, as config.json and as a list of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SPECIALS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
"""Tokens of a model that reads pictures, in the order of their keys in config.json."""
_PATCH, _MERGE, _FRAMES = 16, 2, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """A vision tower of one size."""

    depth: int
    hidden: int
    intermediate: int
    heads: int
    places: int
    """Rows of the table of learned positions: a square."""
    taken_after: tuple[int, ...]
    """Blocks whose outcome is added behind the first layers of the text model."""

    def cut(self, share: float) -> Tower:
        """Return the tower with a share of its blocks, and no fewer than are taken from."""
        depth = min(self.depth, max(len(self.taken_after) + 1, round(self.depth * share)))
        taken = tuple((place + 1) * depth // self.depth - 1 for place in self.taken_after)
        return Tower(
            depth=depth,
            hidden=self.hidden,
            intermediate=self.intermediate,
            heads=self.heads,
            places=self.places,
            taken_after=taken,
        )

    def config(self, width: int) -> dict[str, Any]:
        """Return `vision_config` of config.json.

        Args:
            width: Values per token of the text model.
        """
        return {
            "deepstack_visual_indexes": list(self.taken_after),
            "depth": self.depth,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": self.hidden,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "model_type": "qwen3_vl",
            "num_heads": self.heads,
            "num_position_embeddings": self.places,
            "out_hidden_size": width,
            "patch_size": _PATCH,
            "spatial_merge_size": _MERGE,
            "temporal_patch_size": _FRAMES,
        }

    def tensors(self, prefix: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of each tensor.

        Args:
            prefix: What stands before each name.
            width: Values per token of the text model.
        """
        hidden, block = self.hidden, self.hidden * _MERGE**2
        yield f"{prefix}patch_embed.proj.weight", (hidden, 3, _FRAMES, _PATCH, _PATCH)
        yield f"{prefix}patch_embed.proj.bias", (hidden,)
        yield f"{prefix}pos_embed.weight", (self.places, hidden)
        for index in range(self.depth):
            layer = f"{prefix}blocks.{index}."
            yield from _with_bias(f"{layer}norm1", (hidden,))
            yield from _with_bias(f"{layer}norm2", (hidden,))
            yield from _with_bias(f"{layer}attn.qkv", (3 * hidden, hidden))
            yield from _with_bias(f"{layer}attn.proj", (hidden, hidden))
            yield from _with_bias(f"{layer}mlp.linear_fc1", (self.intermediate, hidden))
            yield from _with_bias(f"{layer}mlp.linear_fc2", (hidden, self.intermediate))
        mergers = [f"{prefix}deepstack_merger_list.{index}." for index in range(len(self.taken_after))]
        for merger, normed in ((f"{prefix}merger.", hidden), *((merger, block) for merger in mergers)):
            yield from _with_bias(f"{merger}norm", (normed,))
            yield from _with_bias(f"{merger}linear_fc1", (block, block))
            yield from _with_bias(f"{merger}linear_fc2", (width, block))


def tower_flops(config: Mapping[str, Any], tokens: Iterable[int]) -> int:
    """Return the floating-point operations in the blocks of a tower: linear layers, and each patch with all others.

    Args:
        config: `vision_config` of config.json.
        tokens: How many tokens of the text model each picture becomes.
    """
    depth, hidden = int(config["depth"]), int(config["hidden_size"])
    weights = depth * (4 * hidden**2 + 2 * hidden * int(config["intermediate_size"]))
    patches = [count * int(config["spatial_merge_size"]) ** 2 for count in tokens]
    return sum(2 * count * (weights + 2 * depth * hidden * count) for count in patches)


def _with_bias(name: str, size: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", size
    yield f"{name}.bias", size[:1]


def whole_config(text: dict[str, Any], tower: Tower, specials: dict[str, int]) -> dict[str, Any]:
    """Return config.json with both parts.

    Args:
        text: That of a text model of Qwen3.
        tower: The tower.
        specials: The ids of `SPECIALS`.
    """
    half = int(text["head_dim"]) // 2
    # The published sections of heads of 128, in the proportion of others.
    high = half * 20 // 64
    own = {
        "model_type": "qwen3_vl_text",
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [half - 2 * high, high, high],
            "rope_type": "default",
        },
        "rope_theta": 5000000,
    }
    tied = text["tie_word_embeddings"]
    kept = {key: value for key, value in text.items() if key not in ("architectures", "tie_word_embeddings")}
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "dtype": text["dtype"],
        "image_token_id": specials["<|image_pad|>"],
        "model_type": "qwen3_vl",
        "text_config": {**kept, **own},
        "tie_word_embeddings": tied,
        "video_token_id": specials["<|video_pad|>"],
        "vision_config": tower.config(int(text["hidden_size"])),
        "vision_end_token_id": specials["<|vision_end|>"],
        "vision_start_token_id": specials["<|vision_start|>"],
    }


def preprocessor(least: int, most: int) -> dict[str, Any]:
    """Return preprocessor_config.json, with the least and the largest area in which a picture is seen."""
    return {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3,
        "image_processor_type": "Qwen2VLImageProcessorFast", "image_std": [0.5] * 3, "max_pixels": most,
        "merge_size": _MERGE, "min_pixels": least, "patch_size": _PATCH, "processor_class": "Qwen3VLProcessor",
        "resample": 3, "rescale_factor": 1 / 255, "size": {"longest_edge": most, "shortest_edge": least},
        "temporal_patch_size": _FRAMES,
    }  # fmt: skip
