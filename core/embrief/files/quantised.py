"""Quantised checkpoints: told by their configuration or by their tensors, and refused with what can run them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from embrief.errors import ModelMismatchError

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.files.tensors import StoredTensor

_KEYS = ("quantization_config", "compression_config", "quantization")
"""Where transformers, older compressed-tensors and MLX say how weights were quantised."""
_PACKAGES = {
    "gptq": "gptqmodel", "awq": "gptqmodel", "bitsandbytes": "bitsandbytes", "compressed-tensors": "compressed-tensors",
    "torchao": "torchao", "quanto": "optimum-quanto", "hqq": "hqq", "mlx": "mlx",
}  # fmt: skip
# Scales, zero points and packed values, as the formats call them.
_PARTS = {
    "gptq": r"qweight|qzeros|g_idx|scales|q_weight|q_scale|q_scale_max|q_groups",
    "bitsandbytes": r"SCB|weight_format|absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+",
    "compressed-tensors": r"weight_(packed|scale|zero_point|shape|g_idx|global_scale)|input_(scale|zero_point|"
    r"global_scale)|output_(scale|zero_point)|[qkv]_scale",
    "fp8": r"weight_scale_inv|scale_weight|scale_input|activation_scale",
}
_SMALL = {"U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4"}
_FLOATS = {"F64", "F32", "F16", "BF16"}


def refuse_quantised(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor], where: Path) -> None:
    """Refuse a checkpoint whose tensors are not the weights but codes for them.

    Args:
        config: The content of config.json.
        tensors: What is stored.
        where: The folder or file, for the message.

    Raises:
        ModelMismatchError: It is one.
    """
    nested = config.get("text_config")
    for part in (config, nested if isinstance(nested, Mapping) else {}):
        for key in _KEYS:
            if part.get(key) is not None:
                method = part[key].get("quant_method") if isinstance(part[key], Mapping) else None
                method = str(method or ("mlx" if key == "quantization" else "compressed-tensors"))
                raise _quantised(where, method, f"config.json has {key!r}")
    for method, pattern in _PARTS.items():
        if named := sorted(name for name in tensors if re.search(rf"(^|\.)({pattern})$", name)):
            raise _quantised(where, method, f"it holds the tensor {named[0]!r}")
    for name, tensor in tensors.items():
        weight = name.rpartition(".")[2] in ("weight", "bias") and tensor.dtype not in _FLOATS
        if weight or tensor.dtype in _SMALL:
            method = "fp8" if tensor.dtype.startswith("F") else "integer"
            raise _quantised(where, method, f"its tensor {name!r} is stored as {tensor.dtype}")


def _quantised(where: Path, method: str, sign: str) -> ModelMismatchError:
    package = f", or transformers with {_PACKAGES[method]}" if method in _PACKAGES else ""
    return ModelMismatchError(
        f"{where} is quantised ({method}: {sign}), and no runtime here computes with such weights. Load the model that "
        f"it was made from (dtype='int8' makes that small on CPUs), or run this one with vLLM{package}. If its weights "
        "are whole again, delete that entry"
    )
