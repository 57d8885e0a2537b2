"""Matrix products with fixed weights, in the fastest form that the device offers.

On the CPU oneDNN wants the weights in its own layout; done once, products run at twice the speed in float32 and some
ten percent faster in bfloat16. The operators behind that are private to torch, so each is tried once against the plain
product, and left alone where it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F

_BLOCK = 512
_LEVELS = 127
_MIDDLE = 128


class Linear(Protocol):
    """x @ weight.T, and `add` on top if it is given."""

    def __call__(self, x: torch.Tensor, add: torch.Tensor | None = None) -> torch.Tensor:
        """Take (rows, inputs), return (rows, outputs)."""


class PlainLinear:
    """torch's own product."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight

    def __call__(self, x: torch.Tensor, add: torch.Tensor | None = None) -> torch.Tensor:
        """Multiply."""
        y = F.linear(x, self._weight)
        return y if add is None else y.add_(add)


class PackedLinear:
    """Weights in oneDNN's layout. The sum is added before the result is rounded."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _BLOCK)

    def __call__(self, x: torch.Tensor, add: torch.Tensor | None = None) -> torch.Tensor:
        """Multiply."""
        product: Any = torch.ops.mkldnn._linear_pointwise
        if add is None:
            y: torch.Tensor = product(x, self._weight, None, "none", [], "")
        else:
            y = product.binary(x, add, self._weight, None, "add")
        return y


class Int8Linear:
    """Weights as int8 with one scale per output, inputs as int8 with one scale per row (token), measured as it runs."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._scale = weight.float().abs().amax(1).div_(_LEVELS).clamp_(min=torch.finfo(torch.float32).tiny)
        whole = weight.float().div_(self._scale[:, None]).round_().to(torch.int8)
        self._zero = torch.zeros(len(whole), dtype=torch.int64)
        self._weight = torch.ops.onednn.qlinear_prepack(whole, [_BLOCK, whole.shape[1]])

    def __call__(self, x: torch.Tensor, add: torch.Tensor | None = None) -> torch.Tensor:
        """Quantise, multiply, scale back."""
        # A scale that bfloat16 holds exactly costs no accuracy when the product is scaled back.
        scale = (_largest(x).float() / _LEVELS).to(x.dtype).clamp_(min=torch.finfo(x.dtype).tiny)
        signed = (x * (1 / scale.float())).round_().to(torch.int8)
        # Unsigned with a zero in the middle: the fast path of oneDNN takes nothing else.
        whole = signed.view(torch.uint8).bitwise_xor_(_MIDDLE)
        y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, _MIDDLE, self._weight, self._scale, self._zero, None, 1.0, 0, x.dtype, "none", [], ""
        )
        return y.mul_(scale) if add is None else torch.addcmul(add, y, scale)


def _largest(x: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude of each row, (rows, 1).

    Without their sign bit floats are ordered like the integers of the same bits, whose maximum is thirty times as fast.
    """
    bits = torch.int16 if x.dtype.itemsize == 2 else torch.int32
    return (x.view(bits) & torch.iinfo(bits).max).amax(1, keepdim=True).view(x.dtype)


def make_linear(weight: torch.Tensor, *, int8: bool) -> Linear:
    """Return the product with a weight (outputs, inputs), in the form that suits its device and number format."""
    if int8:
        return Int8Linear(weight)
    if weight.device.type == "cpu" and _agrees(PackedLinear, weight.dtype):
        return PackedLinear(weight)
    return PlainLinear(weight)


def int8_works(dtype: torch.dtype) -> bool:
    """Return whether this build of torch has the int8 product."""
    return _agrees(Int8Linear, dtype)


@lru_cache
def _agrees(kind: Callable[[torch.Tensor], Linear], dtype: torch.dtype) -> bool:
    """Return whether a private product is there and gives what the plain one gives."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 128, generator=generator).to(dtype)
    x = torch.randn(8, 128, generator=generator).to(dtype)
    add = torch.randn(8, 64, generator=generator).to(dtype)
    expected = F.linear(x, weight).add(add)
    try:
        found = kind(weight)(x, add)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool((found - expected).float().norm() < 0.03 * expected.float().norm())
