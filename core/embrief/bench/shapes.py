"""The published shapes of the models that are measured, as config.json and as a list of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from embrief.bench.tower import Tower
from embrief.facts.specs import EmbeddingSpec, RerankerSpec

Kind = Literal["embedder", "reranker"]
_PATTERN = 6
"""Every sixth layer of both generations of EmbeddingGemma attends to everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One architecture at one size."""

    name: str
    family: Literal["qwen3", "gemma3_text", "embedding_gemma2", "qwen3_vl"]
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    """Rows of the embedding table. The tokenizer made here has fewer: which rows are used makes no difference."""
    context: int
    window: int | None = None
    """Of layers that do not attend to everything: as config.json has it, in all or to each side."""
    full_heads: tuple[int, int] | None = None
    """Width of a head, and key heads, of the layers that attend to everything, where they differ."""
    layer_input: int = 0
    """Width of what each layer is given of the embeddings, beside the stream; 0 for nothing."""
    projection: int = 0
    """Width of the states behind the model's own projection; 0 where it has none."""
    dense: tuple[tuple[int, int], ...] = ()
    """(in, out) of each Dense layer after the pooling."""
    pieces: int = 8000
    """Tokens of the tokenizer made for it."""
    tower: Tower | None = None
    """What reads pictures, of a model that does."""

    @property
    def least_layers(self) -> int:
        """Return the fewest layers that it can have: pictures are added behind the first ones."""
        return 1 if self.tower is None else len(self.tower.taken_after) + 1

    def tower_of(self, layers: int) -> Tower | None:
        """Return the tower beside so many layers: the same share of its blocks."""
        return None if self.tower is None else self.tower.cut(layers / self.layers)

    @property
    def width(self) -> int:
        """Return the values per token that the pooling gets."""
        return self.projection or self.hidden

    def kinds(self, layers: int) -> list[str]:
        """Return what each of so many layers of EmbeddingGemma attends to."""
        found = ["sliding_attention" if (index + 1) % _PATTERN else "full_attention" for index in range(layers)]
        if self.family == "embedding_gemma2":
            # transformers makes it so, whatever the file says.
            found[-1] = "full_attention"
        return found

    def config(self, layers: int) -> dict[str, Any]:
        """Return config.json with another number of layers; of a model with a tower, that of its text part."""
        common: dict[str, Any] = {
            "model_type": self.family,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "head_dim": self.head_dim,
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.context,
            "num_attention_heads": self.heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": 1e-6,
            "dtype": "bfloat16",
            "vocab_size": self.vocabulary,
        }
        if self.family in ("qwen3", "qwen3_vl"):
            return common | {
                "architectures": ["Qwen3ForCausalLM"],
                "bos_token_id": 0,
                "eos_token_id": 0,
                "hidden_act": "silu",
                "max_window_layers": layers,
                "rope_scaling": None,
                "rope_theta": 1000000,
                "sliding_window": None,
                "tie_word_embeddings": True,
                "use_cache": True,
                "use_sliding_window": False,
            }
        common |= {
            "bos_token_id": 2,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": self.kinds(layers),
            "sliding_window": self.window,
        }
        if self.family == "embedding_gemma2":
            # The text model alone: with the towers beside it, sentence-transformers asks for torchvision.
            return common | {
                "model_type": "embedding_gemma2_text",
                "architectures": ["EmbeddingGemma2TextModel"],
                "embedding_dim": self.projection,
                "hidden_size_per_layer_input": self.layer_input,
                "per_layer_config": {
                    str(index): dict(zip(("head_dim", "num_key_value_heads"), self._heads(kind), strict=True))
                    for index, kind in enumerate(self.kinds(layers))
                    if kind == "full_attention"
                },
            }
        return common | {
            "architectures": ["Gemma3TextModel"],
            "_sliding_window_pattern": _PATTERN,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "query_pre_attn_scalar": self.head_dim,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "use_bidirectional_attention": True,
            "use_cache": True,
        }

    def tensors(self, layers: int, prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of each tensor, in the order of the file.

        Args:
            layers: How many layers to describe.
            prefix: What stands before each name, such as `model.` in a language model's files.
        """
        if (tower := self.tower_of(layers)) is not None:
            yield from tower.tensors(f"{prefix}visual.", self.hidden)
            prefix += "language_model."
        yield f"{prefix}embed_tokens.weight", (self.vocabulary, self.hidden)
        norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
        if self.family not in ("qwen3", "qwen3_vl"):
            norms += ("pre_feedforward_layernorm", "post_feedforward_layernorm")
        for index, kind in enumerate(self.kinds(layers)):
            layer = f"{prefix}layers.{index}."
            width, kv_heads = self._heads(kind)
            queries, keys = self.heads * width, kv_heads * width
            yield from ((f"{layer}{norm}.weight", (self.hidden,)) for norm in norms)
            yield f"{layer}self_attn.q_proj.weight", (queries, self.hidden)
            yield f"{layer}self_attn.k_proj.weight", (keys, self.hidden)
            yield f"{layer}self_attn.v_proj.weight", (keys, self.hidden)
            yield f"{layer}self_attn.o_proj.weight", (self.hidden, queries)
            yield f"{layer}self_attn.q_norm.weight", (width,)
            yield f"{layer}self_attn.k_norm.weight", (width,)
            yield f"{layer}mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield f"{layer}mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield f"{layer}mlp.down_proj.weight", (self.hidden, self.intermediate)
            if self.layer_input:
                yield f"{layer}ple_block.per_layer_input_gate.weight", (self.layer_input, self.hidden)
                yield f"{layer}ple_block.per_layer_projection.weight", (self.hidden, self.layer_input)
                yield f"{layer}ple_block.post_per_layer_input_norm.weight", (self.hidden,)
                yield f"{layer}layer_scalar", (1,)
        yield f"{prefix}norm.weight", (self.hidden,)
        if self.layer_input:
            yield f"{prefix}ple.per_layer_model_projection.weight", (layers * self.layer_input, self.hidden)
            yield f"{prefix}ple.per_layer_projection_norm.weight", (self.layer_input,)
        if self.projection:
            yield f"{prefix}embedding_projection.weight", (self.projection, self.hidden)

    def vector_weights(self, name: str) -> tuple[float, float]:
        """Return mean and deviation of random values for a tensor of one dimension, a norm or a factor.

        With the same value in all of them a forgotten norm would go unnoticed.
        """
        if self.family == "gemma3_text":
            # They are multiplied by 1 + weight.
            return 0.0, 0.3
        if name.endswith("bias"):
            return 0.0, 0.2
        # In EmbeddingGemma 2 nothing else scales attention: with ones a token would see hardly more than one other.
        scales = self.family == "embedding_gemma2" and name.endswith("q_norm.weight")
        mean = self.head_dim**-0.5 if scales else 1.0
        return mean, 0.3 * mean

    def _heads(self, kind: str) -> tuple[int, int]:
        """Return the width of a head and the number of key heads of a layer."""
        if kind == "full_attention" and self.full_heads is not None:
            return self.full_heads
        return self.head_dim, self.kv_heads


QWEN3 = Shape(
    name="Qwen3-0.6B", family="qwen3", hidden=1024, intermediate=3072, layers=28, heads=16, kv_heads=8, head_dim=128,
    vocabulary=151669, context=32768,
)  # fmt: skip
GEMMA = Shape(
    name="EmbeddingGemma-300m", family="gemma3_text", hidden=768, intermediate=1152, layers=24, heads=3, kv_heads=1,
    head_dim=256, vocabulary=262144, context=2048, window=512, dense=((768, 3072), (3072, 768)),
)  # fmt: skip
# The text model; its towers for pictures and sound are not measured.
GEMMA2 = Shape(
    name="EmbeddingGemma-2", family="embedding_gemma2", hidden=512, intermediate=2048, layers=24, heads=4, kv_heads=2,
    head_dim=256, vocabulary=262144, context=8192, window=512, full_heads=(512, 1), layer_input=512, projection=768,
)  # fmt: skip
QWEN3_VL = Shape(
    name="Qwen3-VL-2B", family="qwen3_vl", hidden=2048, intermediate=6144, layers=28, heads=16, kv_heads=8,
    head_dim=128, vocabulary=151936, context=262144,
    tower=Tower(depth=24, hidden=1024, intermediate=4096, heads=16, places=48 * 48, taken_after=(5, 11, 17)),
)  # fmt: skip
TINY_QWEN3 = Shape(
    name="tiny-qwen3", family="qwen3", hidden=48, intermediate=96, layers=2, heads=4, kv_heads=2, head_dim=16,
    vocabulary=900, context=2048, pieces=800,
)  # fmt: skip
TINY_GEMMA = Shape(
    name="tiny-gemma", family="gemma3_text", hidden=48, intermediate=96, layers=2, heads=3, kv_heads=1, head_dim=16,
    vocabulary=900, context=1024, window=32, dense=((48, 96), (96, 48)), pieces=800,
)  # fmt: skip
TINY_GEMMA2 = Shape(
    name="tiny-gemma2", family="embedding_gemma2", hidden=48, intermediate=96, layers=2, heads=4, kv_heads=2,
    head_dim=16, vocabulary=900, context=1024, window=16, full_heads=(32, 1), layer_input=24, projection=64, pieces=800,
)  # fmt: skip
TINY_QWEN3_VL = Shape(
    name="tiny-qwen3-vl", family="qwen3_vl", hidden=48, intermediate=96, layers=4, heads=4, kv_heads=2, head_dim=16,
    vocabulary=900, context=4096, pieces=800,
    tower=Tower(depth=4, hidden=32, intermediate=56, heads=2, places=36, taken_after=(0, 1, 2)),
)  # fmt: skip
SHAPES = {
    "real": {"qwen3": QWEN3, "gemma": GEMMA, "gemma2": GEMMA2, "vision": QWEN3_VL},
    "tiny": {"qwen3": TINY_QWEN3, "gemma": TINY_GEMMA, "gemma2": TINY_GEMMA2, "vision": TINY_QWEN3_VL},
}
SHAPE_OF = {"reranker": "qwen3", "vision reranker": "vision"}
"""The key of the shape that a row's model has, where it is another than the model's."""
ROWS_OF = {"gemma3_text": "gemma", "embedding_gemma2": "gemma2", "qwen3_vl": "vision"}
"""The key of a shape by the architecture that a real model must have for its rows; all others have those of Qwen3."""


def record_of(shape: Shape, kind: Kind) -> EmbeddingSpec | RerankerSpec:
    """Return the record whose prompts and template a shape's checkpoint takes."""
    from embrief.discovery.plugins import catalog

    wanted = EmbeddingSpec if kind == "embedder" else RerankerSpec
    for spec in catalog().models.values():
        if isinstance(spec, wanted) and spec.architecture == shape.family and spec.defines_family:
            return spec
    raise LookupError(f"no record defines the family {shape.family}")


def linear_flops(config: dict[str, Any]) -> int | None:
    """Return the floating-point operations per token in all linear layers; `None` for an unknown architecture.

    Args:
        config: config.json of the model.
    """
    if config.get("model_type") not in ("qwen3", "gemma3_text", "embedding_gemma2_text"):
        return None
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    sizes = {key: int(config[key]) for key in ("head_dim", "num_key_value_heads")}
    own = {int(index): values for index, values in (config.get("per_layer_config") or {}).items()}
    weights = 3 * hidden * int(config["intermediate_size"]) * layers
    for index in range(layers):
        layer = sizes | own.get(index, {})
        heads = 2 * int(config["num_attention_heads"]) + 2 * layer["num_key_value_heads"]
        weights += hidden * layer["head_dim"] * heads
    # What a layer is given of the embeddings is made, gated and put back; then states are projected.
    weights += 3 * hidden * int(config.get("hidden_size_per_layer_input") or 0) * layers
    weights += hidden * int(config.get("embedding_dim") or 0)
    return 2 * weights
