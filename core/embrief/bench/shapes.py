"""The published shapes of the models that are measured, as config.json and as a list of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from embrief.facts.specs import EmbeddingSpec, RerankerSpec

Kind = Literal["embedder", "reranker"]
_PATTERN = 6
"""Every sixth layer of EmbeddingGemma attends to everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One architecture at one size."""

    name: str
    family: Literal["qwen3", "gemma3_text"]
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
    dense: tuple[tuple[int, int], ...] = ()
    """(in, out) of each Dense layer after the pooling."""
    pieces: int = 8000
    """Tokens of the tokenizer made for it."""

    def config(self, layers: int) -> dict[str, Any]:
        """Return config.json of the published model, with another number of layers."""
        common = {
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
            "rope_scaling": None,
            "rope_theta": 1000000,
            "dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": self.vocabulary,
        }
        if self.family == "qwen3":
            return common | {
                "architectures": ["Qwen3ForCausalLM"],
                "bos_token_id": 0,
                "eos_token_id": 0,
                "hidden_act": "silu",
                "max_window_layers": layers,
                "sliding_window": None,
                "tie_word_embeddings": True,
                "use_sliding_window": False,
            }
        return common | {
            "architectures": ["Gemma3TextModel"],
            "_sliding_window_pattern": _PATTERN,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": [
                "sliding_attention" if (index + 1) % _PATTERN else "full_attention" for index in range(layers)
            ],
            "query_pre_attn_scalar": self.head_dim,
            "rope_local_base_freq": 10000.0,
            "sliding_window": self.window,
            "use_bidirectional_attention": True,
        }

    def tensors(self, layers: int, prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of each tensor, in the order of the file.

        Args:
            layers: How many layers to describe.
            prefix: What stands before each name, such as `model.` in a language model's files.
        """
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield f"{prefix}embed_tokens.weight", (self.vocabulary, self.hidden)
        norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
        if self.family == "gemma3_text":
            norms += ("pre_feedforward_layernorm", "post_feedforward_layernorm")
        for index in range(layers):
            layer = f"{prefix}layers.{index}."
            yield from ((f"{layer}{norm}.weight", (self.hidden,)) for norm in norms)
            yield f"{layer}self_attn.q_proj.weight", (queries, self.hidden)
            yield f"{layer}self_attn.k_proj.weight", (keys, self.hidden)
            yield f"{layer}self_attn.v_proj.weight", (keys, self.hidden)
            yield f"{layer}self_attn.o_proj.weight", (self.hidden, queries)
            yield f"{layer}self_attn.q_norm.weight", (self.head_dim,)
            yield f"{layer}self_attn.k_norm.weight", (self.head_dim,)
            yield f"{layer}mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield f"{layer}mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield f"{layer}mlp.down_proj.weight", (self.hidden, self.intermediate)
        yield f"{prefix}norm.weight", (self.hidden,)


QWEN3 = Shape(
    name="Qwen3-0.6B", family="qwen3", hidden=1024, intermediate=3072, layers=28, heads=16, kv_heads=8, head_dim=128,
    vocabulary=151669, context=32768,
)  # fmt: skip
GEMMA = Shape(
    name="EmbeddingGemma-300m", family="gemma3_text", hidden=768, intermediate=1152, layers=24, heads=3, kv_heads=1,
    head_dim=256, vocabulary=262144, context=2048, window=512, dense=((768, 3072), (3072, 768)),
)  # fmt: skip
TINY_QWEN3 = Shape(
    name="tiny-qwen3", family="qwen3", hidden=48, intermediate=96, layers=2, heads=4, kv_heads=2, head_dim=16,
    vocabulary=900, context=2048, pieces=800,
)  # fmt: skip
TINY_GEMMA = Shape(
    name="tiny-gemma", family="gemma3_text", hidden=48, intermediate=96, layers=2, heads=3, kv_heads=1, head_dim=16,
    vocabulary=900, context=1024, window=32, dense=((48, 96), (96, 48)), pieces=800,
)  # fmt: skip
SHAPES = {"real": (QWEN3, GEMMA), "tiny": (TINY_QWEN3, TINY_GEMMA)}


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
    if config.get("model_type") not in ("qwen3", "gemma3_text"):
        return None
    hidden, width = int(config["hidden_size"]), int(config["head_dim"])
    heads, kv_heads = int(config["num_attention_heads"]), int(config["num_key_value_heads"])
    weights = hidden * width * (2 * heads + 2 * kv_heads) + 3 * hidden * int(config["intermediate_size"])
    return 2 * weights * int(config["num_hidden_layers"])
