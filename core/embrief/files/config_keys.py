"""The keys of config.json that decide what a text model computes, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable

from embrief.files.json_files import JsonObject

ARCHITECTURES = ("qwen3", "gemma3_text", "embedding_gemma2", "qwen3_vl")
"""Those all of whose keys are known, which are those that the engine runs."""
WITH_PICTURES = ("qwen3_vl",)
"""Those that always read pictures, and of which a folder must say how."""
SEEING = (*WITH_PICTURES, "embedding_gemma2")
"""Those of which the engine runs what reads pictures, too."""
_PARTS = {"embedding_gemma2_text": "embedding_gemma2"}
"""Model types of a text model that is stored alone, by that of the model it is a part of."""
_NESTED = {"embedding_gemma2": "text_config", "qwen3_vl": "text_config"}
"""Where config.json of a model with further parts keeps what it says of the text model."""
_WIDTHS = {"embedding_gemma2": "embedding_dim"}
"""The key with the width of token states, where the model itself projects its hidden states."""
DECISIVE: dict[str, Callable[[JsonObject, str], object]] = {
    **dict.fromkeys(
        ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window", "sliding_window_pattern"),
        JsonObject.count,
    ),
    **dict.fromkeys(
        ("rms_norm_eps", "rope_theta", "rope_local_base_freq", "query_pre_attn_scalar", "partial_rotary_factor",
         "attn_logit_softcapping", "final_logit_softcapping"),
        JsonObject.number,
    ),
    **dict.fromkeys(
        ("tie_word_embeddings", "use_sliding_window", "use_bidirectional_attention", "is_causal", "attention_bias"),
        JsonObject.flag,
    ),
    **dict.fromkeys(("model_type", "hidden_act", "hidden_activation"), JsonObject.text),
    **dict.fromkeys(("architectures", "layer_types"), JsonObject.texts),
    **dict.fromkeys(("rope_parameters", "rope_scaling", "quantization_config", "auto_map"), JsonObject.object),
}  # fmt: skip
"""What reads each key, and refuses a value of another type."""
OWN: dict[str, dict[str, Callable[[JsonObject, str], object]]] = {
    "embedding_gemma2": {
        **dict.fromkeys(
            ("embedding_dim", "hidden_size_per_layer_input", "global_head_dim", "num_global_key_value_heads"),
            JsonObject.count,
        ),
        "per_layer_config": JsonObject.object,
    },
}
"""Further keys, of one architecture alone."""


def architecture(config: JsonObject) -> str:
    """Return `model_type` of config.json; of a text model that is stored alone that of the whole it is a part of."""
    found = config.text("model_type") or ""
    return _PARTS.get(found, found)


def text_part(config: JsonObject) -> JsonObject:
    """Return what config.json says of the text model: a part of it where the model reads pictures and sound as well."""
    nested = _NESTED.get(config.text("model_type") or "")
    return config.within(nested) if nested is not None else config


def token_width(config: JsonObject) -> int:
    """Return the values per token that the pooling gets, 0 where config.json does not say."""
    part = text_part(config)
    return part.count(_WIDTHS.get(architecture(config), "hidden_size")) or 0


def check_types(config: JsonObject) -> None:
    """Refuse a config.json of an architecture that is known here if a value in it has the wrong type.

    Raises:
        ModelMismatchError: The message has the key, the value and the file.
    """
    known = architecture(config)
    if known in ARCHITECTURES:
        for part in (config, text_part(config)):
            for key, read in (DECISIVE | OWN.get(known, {})).items():
                read(part, key)
