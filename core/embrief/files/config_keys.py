"""The keys of config.json that decide what a text model computes, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable

from embrief.files.json_files import JsonObject

ARCHITECTURES = ("qwen3", "gemma3_text")
"""Those all of whose keys are known."""
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


def check_types(config: JsonObject) -> None:
    """Refuse a config.json of an architecture that is known here if a value in it has the wrong type.

    Raises:
        ModelMismatchError: The message has the key, the value and the file.
    """
    if config.text("model_type") in ARCHITECTURES:
        for key, read in DECISIVE.items():
            read(config, key)
