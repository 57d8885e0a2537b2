"""What a text model computes, read from its config.json: facts only, nothing here runs. Imports no torch.

Another decoder or encoder is one more function here, and its name in `config_keys.ARCHITECTURES`; execution (packing,
attention, number formats) stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from embrief.files.config_keys import DECISIVE, OWN, architecture, text_part

if TYPE_CHECKING:
    from embrief.files.json_files import JsonObject

DENSE_ACTIVATIONS = ("Identity", "Tanh")
"""Activations of Dense modules, by class name."""


class UnsupportedError(Exception):
    """The engine does not run this model; the message says why, as the rest of a sentence."""


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What differs between the layers of one model."""

    head_dim: int
    kv_heads: int
    rope_theta: float
    window: int | None = None
    """A token sees those less than this many places away; `None`: all."""


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """What each layer takes from the embeddings beside the stream (per-layer inputs).

    After its feed-forward part a layer adds norm(back(act(gate(stream)) * share)), where its share is a normalised
    projection of the embeddings. The rest are names of tensors: those of the whole model, and those of one layer.
    """

    width: int
    """Values per token of a share."""
    scale: float
    """Factor of the projection, in front of its norm."""
    shares: str
    """(layers * width, hidden)."""
    share_norm: str
    """(width,), of all layers."""
    gate: str
    """(width, hidden)."""
    back: str
    """(hidden, width)."""
    norm: str
    """(hidden,)."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear layer without bias behind the last norm."""

    tensor: str
    """The name of its weights, (width, hidden)."""
    width: int


@dataclass(frozen=True, slots=True)
class Placeholders:
    """Tokens that stand for pictures or sound; in a text they are read as another one."""

    ids: tuple[int, ...]
    read_as: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionModel:
    """A transformer over the patches of a picture, of which a square of patches becomes one token of the text model.

    Its tensors' names begin with `visual.`, behind a prefix of the whole model.
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    patch: int
    """Pixels per side of a patch."""
    frames: int
    """Frames of a video that a patch is read over; of a picture they are equal."""
    merge: int
    """Patches per side of a token."""
    side: int
    """Learned positions per side of a square; those of a picture lie between them."""
    rope_theta: float
    width: int
    """Values per token that the text model gets."""
    taken_after: tuple[int, ...]
    """Layers after which the patches become tokens as well, ascending. Those of the first are added to the stream of
    the text model after its first layer, and so on (DeepStack, arXiv 2406.04334)."""

    @property
    def head_dim(self) -> int:
        """Return the values per head."""
        return self.hidden_size // self.heads

    def products(self, patches: int) -> int:
        """Return how many numbers are multiplied for one picture of so many patches, what makes tokens not counted."""
        weights = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        return self.layers * patches * (weights + 2 * patches * self.hidden_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledVisionModel:
    """A transformer over the patches of a picture, of which the mean of a square becomes one token of the text model.

    Its tensors' names begin with `vision_tower.`, and those of the product behind it with `embed_vision.`.
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    patch: int
    """Pixels per side of a patch."""
    merge: int
    """Patches per side of a token."""
    places: int
    """Learned positions per axis: a picture has at most so many patches per side."""
    rope_theta: float
    clipped: bool
    """Whether the products stand between clips, whose bounds are among the weights."""
    standardised: bool
    """Whether tokens are shifted and scaled by weights."""

    def products(self, patches: int) -> int:
        """Return how many numbers are multiplied for one picture of so many patches, what makes tokens not counted."""
        width = self.head_dim * self.heads
        weights = self.hidden_size * (2 * (width + self.head_dim * self.kv_heads) + 3 * self.intermediate_size)
        return self.layers * patches * (weights + 2 * patches * width)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """A stack of transformer layers with rotary positions and normalised queries and keys."""

    layers: tuple[LayerKind, ...]
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    heads: int
    epsilon: float
    activation: Literal["silu", "gelu_tanh"]
    causal: bool
    attention_scale: float
    """Factor of the products of queries and keys."""
    embedding_scale: float = 1.0
    norm_offset: float = 0.0
    """What is added to the weights of all norms."""
    sandwich_norms: bool = False
    """Whether attention and feed-forward results are normalised before they are added to the stream."""
    value_norm: bool = False
    """Whether the values of attention are normalised as well, without weights."""
    layer_inputs: LayerInputs | None = None
    layer_scalar: str | None = None
    """The name of a layer's tensor with one number, by which the stream is multiplied at the layer's end."""
    projection: Projection | None = None
    placeholders: Placeholders | None = None
    other_parts: tuple[str, ...] = ()
    """What the names of tensors begin with that belong to parts which texts do not pass."""
    vision: VisionModel | PooledVisionModel | None = None
    """What reads pictures, of a model that the engine gives pictures to."""
    sections: tuple[int, int, int] = (0, 0, 0)
    """How many pairs of a head's values turn with a token's time, height and width, of a model with `vision`. Height
    has every third pair from the second on, width from the third on, until they have theirs, and time has the rest."""

    @property
    def spatial(self) -> bool:
        """Return whether the tokens of a picture have positions by rows and columns (M-RoPE)."""
        return any(self.sections)

    @property
    def products(self) -> int:
        """Return how many numbers are multiplied for one token, attention not counted."""
        return sum(
            self.hidden_size * (2 * kind.head_dim * (self.heads + kind.kv_heads) + 3 * self.intermediate_size)
            for kind in self.layers
        )

    @property
    def norms(self) -> dict[str, str]:
        """Return the names of a layer's norms by their place in the layer."""
        if self.sandwich_norms:
            return {
                "before_attention": "input_layernorm",
                "after_attention": "post_attention_layernorm",
                "before_mlp": "pre_feedforward_layernorm",
                "after_mlp": "post_feedforward_layernorm",
            }
        return {"before_attention": "input_layernorm", "before_mlp": "post_attention_layernorm"}


# What says how to train, to generate or to run, or follows from the above; and labels, which have no part in a vector.
_HARMLESS = (
    "_name_or_path", "_attn_implementation", "_attn_implementation_autoset", "_sliding_window_pattern",
    "attention_dropout", "attn_implementation", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id",
    "id2label", "initializer_range", "label2id", "max_window_layers", "num_labels", "output_attentions",
    "output_hidden_states", "pad_token_id", "prefix", "problem_type", "return_dict", "sentence_transformers",
    "task_specific_params", "tokenizer_class", "torch_dtype", "transformers_version", "unsloth_fixed",
    "unsloth_version", "use_cache",
)  # fmt: skip
# Keys about parts that texts do not pass, and about tokens that stand for what those parts read.
_BESIDE = (
    "text_config", "vision_config", "audio_config", "image_token_id", "video_token_id", "audio_token_id",
    "boi_token_id", "eoi_token_id", "boa_token_id", "eoa_token_id", "eoa_token_index", "vision_start_token_id",
    "vision_end_token_id",
)  # fmt: skip
# What the engine never does; a file may say so.
_OFF = ("add_cross_attention", "is_decoder", "is_encoder_decoder", "tie_encoder_decoder", "pruned_heads", "torchscript")


def describe(config: JsonObject) -> TextModel:
    """Return the description of a model.

    Args:
        config: The content of config.json.

    Raises:
        UnsupportedError: The engine does not run this architecture, or not with these settings.
    """
    kind, text = architecture(config), text_part(config)
    if kind not in _DESCRIBERS:
        raise UnsupportedError(f"runs {' and '.join(_DESCRIBERS)}, not {kind!r}")
    if text is not config:
        _check_keys(config, {"model_type", "architectures", "tie_word_embeddings", "quantization_config", *_BESIDE})
    _check_keys(text, {*DECISIVE, *OWN.get(kind, {})})
    try:
        return _DESCRIBERS[kind](text, config)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UnsupportedError(f"cannot read config.json: {error!r}") from error


def _check_keys(config: Mapping[str, Any], known: set[str]) -> None:
    """Refuse what the engine does not do, and keys that nobody here knows."""
    for key in ("attention_bias", "attn_logit_softcapping", "final_logit_softcapping", "quantization_config", *_OFF):
        if config.get(key):
            raise UnsupportedError(f"does not run models with {key}={config[key]!r}")
    if config.get("rope_parameters") and config.get("rope_scaling"):
        # transformers puts the older key over, or into, the newer one, each architecture in its own way.
        raise UnsupportedError("does not run models with both rope_parameters and rope_scaling")
    for key, value in config.items():
        if value is not None and key not in known and key not in _HARMLESS and key not in _OFF:
            raise UnsupportedError(f"does not know the key {key!r} in config.json")


def _qwen3(config: Mapping[str, Any], whole: Mapping[str, Any]) -> TextModel:
    """Qwen3: causal, grouped queries, SwiGLU (transformers' modeling_qwen3, arXiv 2505.09388)."""
    head_dim = int(config["head_dim"])
    theta = _rope_theta(config, None, 10000.0)
    kinds = config.get("layer_types") or ["full_attention"] * int(config["num_hidden_layers"])
    if config.get("use_sliding_window") or set(kinds) != {"full_attention"}:
        raise UnsupportedError("runs Qwen3 models with full attention only; this one has sliding windows")
    if len(kinds) != int(config["num_hidden_layers"]):
        raise UnsupportedError(
            f"reads {len(kinds)} layer_types in config.json for {config['num_hidden_layers']} layers"
        )
    if config.get("use_bidirectional_attention") or config.get("is_causal") is False:
        raise UnsupportedError("runs causal Qwen3 models only; this one is bidirectional")
    return TextModel(
        layers=(LayerKind(head_dim, int(config["num_key_value_heads"]), theta),) * len(kinds),
        causal=True,
        attention_scale=head_dim**-0.5,
        **_shape(config, {"silu": "silu"}, "hidden_act"),
    )


def _gemma3(config: Mapping[str, Any], whole: Mapping[str, Any]) -> TextModel:
    """Gemma3 as an encoder: bidirectional, sliding windows (transformers' modeling_gemma3, arXiv 2509.20354)."""
    if not config.get("use_bidirectional_attention"):
        raise UnsupportedError("runs Gemma3 models with use_bidirectional_attention only; this one is a generator")
    if config.get("is_causal") is not None:
        raise UnsupportedError(f"does not run Gemma3 models with is_causal={config['is_causal']!r}")
    # The file has the width of the window, half of it to each side.
    window = int(config["sliding_window"]) // 2 + 1
    size = int(config["head_dim"]), int(config["num_key_value_heads"])
    known = {
        "full_attention": LayerKind(*size, _rope_theta(config, "full_attention", 1_000_000.0)),
        "sliding_attention": LayerKind(*size, _rope_theta(config, "sliding_attention", 10_000.0), window),
    }
    return TextModel(
        layers=tuple(known[kind] for kind in _layer_types(config)),
        causal=False,
        attention_scale=float(config["query_pre_attn_scalar"]) ** -0.5,
        embedding_scale=float(config["hidden_size"]) ** 0.5,
        norm_offset=1.0,
        sandwich_norms=True,
        **_shape(config, {"gelu_pytorch_tanh": "gelu_tanh"}, "hidden_activation"),
    )


def _embedding_gemma2(config: Mapping[str, Any], whole: Mapping[str, Any]) -> TextModel:
    """EmbeddingGemma 2 but for its towers (transformers' modeling_embedding_gemma2, release 5.23).

    Full-attention layers have heads of another width and another number of key heads. `with_pictures` adds what reads
    pictures: texts are served whatever that is.
    """
    if config.get("use_bidirectional_attention") is False or config.get("is_causal") is not None:
        raise UnsupportedError("runs EmbeddingGemma 2 as the bidirectional model that it is, and config.json differs")
    if (part := config.get("model_type")) not in (None, "embedding_gemma2_text"):
        raise UnsupportedError(f"does not know {part!r} as the text part of EmbeddingGemma 2")
    for key in ("rope_theta", "rope_local_base_freq"):
        if config.get(key) is not None:
            raise UnsupportedError(f"reads rotary positions for each kind of layer; this config.json has {key!r}")
    kinds = _layer_types(config)
    # transformers makes it so, whatever the file says.
    kinds[-1] = "full_attention"
    widened = config.get("per_layer_config")
    if widened is None:
        full = {
            "head_dim": config.get("global_head_dim", 512),
            "num_key_value_heads": config.get("num_global_key_value_heads", 1),
        }
        widened = {index: full for index, kind in enumerate(kinds) if kind == "full_attention"}
    # Keys as `05`, too.
    own = {int(index): dict(values) for index, values in widened.items()}
    if unknown := sorted({key for values in own.values() for key in values} - {"head_dim", "num_key_value_heads"}):
        raise UnsupportedError(f"does not know {unknown[0]!r} of single layers in config.json")
    if max(own, default=0) >= len(kinds):
        raise UnsupportedError(f"reads per_layer_config of {len(kinds)} layers; it has layer {max(own)}")
    thetas = {
        "full_attention": _rope_theta(config, "full_attention", 1_000_000.0),
        "sliding_attention": _rope_theta(config, "sliding_attention", 10_000.0),
    }
    # The file has the number of places to each side.
    window = int(config["sliding_window"]) + 1
    inputs, hidden = int(config["hidden_size_per_layer_input"]), int(config["hidden_size"])
    media = (("image_token_id", 258_880), ("video_token_id", 258_884), ("audio_token_id", 258_881))
    padding = config.get("pad_token_id")
    return TextModel(
        layers=tuple(
            LayerKind(
                int(own.get(index, {}).get("head_dim", config["head_dim"])),
                int(own.get(index, {}).get("num_key_value_heads", config["num_key_value_heads"])),
                thetas[kind],
                window if kind == "sliding_attention" else None,
            )
            for index, kind in enumerate(kinds)
        ),
        causal=False,
        attention_scale=1.0,
        embedding_scale=float(hidden) ** 0.5,
        sandwich_norms=True,
        value_norm=True,
        layer_inputs=LayerInputs(
            width=inputs,
            scale=float(hidden) ** -0.5,
            shares="ple.per_layer_model_projection.weight",
            share_norm="ple.per_layer_projection_norm.weight",
            gate="ple_block.per_layer_input_gate",
            back="ple_block.per_layer_projection",
            norm="ple_block.post_per_layer_input_norm",
        ),
        layer_scalar="layer_scalar",
        projection=Projection("embedding_projection.weight", int(config["embedding_dim"])),
        # The text model alone knows none.
        placeholders=None if whole is config else Placeholders(
            tuple(int(whole.get(key, default)) for key, default in media), 0 if padding is None else int(padding)
        ),
        other_parts=() if whole is config else ("vision_tower.", "embed_vision.", "audio_tower.", "embed_audio."),
        **_shape(config, {"gelu_pytorch_tanh": "gelu_tanh"}, "hidden_activation"),
    )  # fmt: skip


_VISION_KEYS = (
    "model_type", "depth", "hidden_size", "hidden_act", "intermediate_size", "num_heads", "in_channels", "patch_size",
    "spatial_merge_size", "temporal_patch_size", "out_hidden_size", "num_position_embeddings",
    "deepstack_visual_indexes", "rope_parameters",
)  # fmt: skip
_CHANNELS = 3
_FRAMES = 2


def _qwen3_vl(config: Mapping[str, Any], whole: Mapping[str, Any]) -> TextModel:
    """Qwen3-VL: Qwen3 with positions in time, height and width, and a tower (transformers' modeling_qwen3_vl)."""
    if (part := config.get("model_type")) not in (None, "qwen3_vl_text"):
        raise UnsupportedError(f"does not know {part!r} as the text part of Qwen3-VL")
    key = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    positions = dict(config.get(key) or {})
    # transformers knows no other order, whatever the file says.
    if positions.pop("mrope_interleaved", True) is not True:
        raise UnsupportedError("runs Qwen3-VL with mrope_interleaved only, and config.json has false")
    sections = tuple(int(count) for count in positions.pop("mrope_section", (24, 20, 20)))
    if positions.get("rope_theta", config.get("rope_theta")) is None:
        # Releases of transformers differ in what they would take.
        raise UnsupportedError("reads rope_theta of Qwen3-VL in config.json, where there is none")
    model = _qwen3({**config, key: positions}, whole)
    half = model.layers[0].head_dim // 2
    if len(sections) != 3 or sum(sections) != half:
        raise UnsupportedError(f"reads mrope_section as three numbers that make {half}; config.json has {sections}")
    time, height, width = sections
    if not isinstance(tower := whole["vision_config"], dict):
        raise UnsupportedError("reads vision_config in config.json as an object, which it is not")
    vision = _vision(tower)
    if vision.width != model.hidden_size:
        raise UnsupportedError(
            f"reads pictures as {model.hidden_size} values per token; this tower gives {vision.width}"
        )
    if len(vision.taken_after) >= len(model.layers):
        raise UnsupportedError(
            f"adds pictures after {len(model.layers) - 1} layers at most; deepstack_visual_indexes names "
            f"{len(vision.taken_after)}"
        )
    return replace(model, vision=vision, sections=(time, height, width), other_parts=("visual.",))


def _vision(config: Mapping[str, Any]) -> VisionModel:
    """The vision tower of Qwen3-VL: full attention within a picture, LayerNorm, learned and rotary positions."""
    _check_keys(config, set(_VISION_KEYS))
    for key, allowed in (
        ("model_type", ("qwen3_vl", "qwen3_vl_vision")),
        ("hidden_act", ("gelu_pytorch_tanh",)),
        ("in_channels", (_CHANNELS,)),
        ("temporal_patch_size", (_FRAMES,)),
    ):
        if config[key] not in allowed:
            raise UnsupportedError(f"does not run vision towers with {key}={config[key]!r}")
    turned = dict(config.get("rope_parameters") or {})
    theta = float(turned.pop("rope_theta", 10_000.0))
    if turned.pop("rope_type", "axial") != "axial" or turned:
        raise UnsupportedError("does not know the rope_parameters of vision_config in config.json")
    places = int(config["num_position_embeddings"])
    layers, hidden, heads = int(config["depth"]), int(config["hidden_size"]), int(config["num_heads"])
    taken = tuple(int(index) for index in config["deepstack_visual_indexes"])
    if list(taken) != sorted({index for index in taken if 0 <= index < layers}):
        raise UnsupportedError(f"reads deepstack_visual_indexes as ascending numbers of layers, not {list(taken)}")
    # Half of a head turns with the row, half with the column, each in pairs.
    if hidden % heads or hidden // heads % 4:
        raise UnsupportedError(f"does not share {hidden} values of a vision tower among {heads} heads")
    if math.isqrt(places) ** 2 != places:
        raise UnsupportedError(f"reads num_position_embeddings as a square of positions, not {places}")
    return VisionModel(
        layers=layers,
        hidden_size=hidden,
        intermediate_size=int(config["intermediate_size"]),
        heads=heads,
        patch=int(config["patch_size"]),
        frames=_FRAMES,
        merge=int(config["spatial_merge_size"]),
        side=math.isqrt(places),
        rope_theta=theta,
        width=int(config["out_hidden_size"]),
        taken_after=taken,
    )


def with_pictures(model: TextModel, config: JsonObject) -> TextModel:
    """Return the description of a model together with what reads its pictures.

    Args:
        model: As of `describe`.
        config: The content of config.json.

    Raises:
        UnsupportedError: There is nothing that does, or the engine does not run it with these settings.
    """
    if model.vision is not None:
        return model
    if architecture(config) != "embedding_gemma2" or (tower := config.object("vision_config")) is None:
        raise UnsupportedError("finds no vision_config in config.json, so this model reads texts only")
    try:
        return replace(model, vision=_pooled_vision(tower))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UnsupportedError(f"cannot read vision_config in config.json: {error!r}") from error


_POOLED_KEYS = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_activation", "rms_norm_eps", "rope_parameters", "pooling_kernel_size", "patch_size",
    "position_embedding_size", "use_clipped_linears", "standardize", "max_position_embeddings", "attention_bias",
)  # fmt: skip


def _pooled_vision(config: Mapping[str, Any]) -> PooledVisionModel:
    """The vision tower of Gemma 4, which EmbeddingGemma 2 has, too (transformers' modeling_gemma4, release 5.23)."""
    _check_keys(config, set(_POOLED_KEYS))
    for key, due in (("model_type", "gemma4_vision"), ("hidden_activation", "gelu_pytorch_tanh")):
        if config.get(key, due) != due:
            raise UnsupportedError(f"does not run vision towers with {key}={config[key]!r}")
    turned = dict(config.get("rope_parameters") or {})
    theta = float(turned.pop("rope_theta", 100.0))
    if turned.pop("rope_type", "axial") != "axial" or turned:
        raise UnsupportedError("does not know the rope_parameters of vision_config in config.json")
    heads, kv_heads, dim = (int(config[key]) for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    # Half of a head turns with the column, half with the row, each in pairs.
    if heads % kv_heads or dim % 4:
        raise UnsupportedError(f"does not run vision towers with {heads} heads of {dim} values on {kv_heads} of keys")
    return PooledVisionModel(
        layers=int(config["num_hidden_layers"]),
        hidden_size=int(config["hidden_size"]),
        intermediate_size=int(config["intermediate_size"]),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        epsilon=float(config["rms_norm_eps"]),
        patch=int(config["patch_size"]),
        merge=int(config["pooling_kernel_size"]),
        places=int(config["position_embedding_size"]),
        rope_theta=theta,
        clipped=bool(config.get("use_clipped_linears")),
        standardised=bool(config.get("standardize")),
    )


_DESCRIBERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], TextModel]] = {
    "qwen3": _qwen3,
    "gemma3_text": _gemma3,
    "embedding_gemma2": _embedding_gemma2,
    "qwen3_vl": _qwen3_vl,
}
"""Take what config.json says of the text model, and all of it."""


def _layer_types(config: Mapping[str, Any]) -> list[str]:
    """Return the kind of each layer of a model that has full attention in every sixth one unless its file says."""
    count = int(config["num_hidden_layers"])
    # The older `_sliding_window_pattern` is written beside `layer_types`, and never read.
    pattern = int(config.get("sliding_window_pattern") or 6)
    kinds = config.get("layer_types") or [
        "sliding_attention" if (index + 1) % pattern else "full_attention" for index in range(count)
    ]
    if len(kinds) != count:
        raise UnsupportedError(f"reads a kind for each layer; config.json has {len(kinds)} layer_types")
    return list(kinds)


def _shape(config: Mapping[str, Any], activations: Mapping[str, Any], key: str) -> dict[str, Any]:
    if config[key] not in activations:
        raise UnsupportedError(f"does not know the activation {config[key]!r}")
    return {
        "hidden_size": int(config["hidden_size"]),
        "intermediate_size": int(config["intermediate_size"]),
        "vocabulary": int(config["vocab_size"]),
        "heads": int(config["num_attention_heads"]),
        "epsilon": float(config["rms_norm_eps"]),
        "activation": activations[config[key]],
    }


def _rope_theta(config: Mapping[str, Any], kind: str | None, default: float) -> float:
    """Return the base of the rotary positions, from transformers 5's `rope_parameters` or the older keys."""
    parameters, scaling = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    if kind is not None and (parameters or scaling):
        if scaling or set(parameters) - {"full_attention", "sliding_attention"}:
            raise UnsupportedError("reads rotary positions for each kind of layer; this config.json has them for all")
        parameters = parameters.get(kind) or {}
    parameters = parameters or scaling
    if (turned := parameters.get("partial_rotary_factor", config.get("partial_rotary_factor"))) not in (None, 1):
        raise UnsupportedError(f"turns all of a head; this model asks for partial_rotary_factor={turned!r}")
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    if rope_type != "default":
        raise UnsupportedError(f"does not stretch rotary positions; this model asks for {rope_type!r}")
    if unknown := sorted(set(parameters) - {"rope_type", "type", "rope_theta", "partial_rotary_factor"}):
        raise UnsupportedError(f"does not know {unknown[0]!r} of rotary positions in config.json")
    old_key = "rope_local_base_freq" if kind == "sliding_attention" else "rope_theta"
    return float(parameters.get("rope_theta") or config.get(old_key) or default)


def dense_activation(config: Mapping[str, Any]) -> str:
    """Return the class name of a Dense module's activation."""
    return str(config.get("activation_function", "Tanh")).rpartition(".")[2]
