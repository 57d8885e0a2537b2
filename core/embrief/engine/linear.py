"""Matrix products with fixed weights, in the fastest form that the device offers.

On the CPU oneDNN wants the weights in its own layout; done once, products run at twice the speed in float32 and some
ten percent faster in bfloat16. The operators behind that are private to torch, so each is tried once against the plain
product, and left alone where it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from embrief.errors import ArgumentError
from embrief.system.machine import processor

_BLOCK = 512
_INPUT_LEVELS = 127
_MIDDLE = 128
INT8_LEVELS = {"int8": 127, "int7": 64}
"""The largest number that stands for a weight, by number format.

Without VNNI instructions oneDNN adds the products of two neighbours in 16 bits: 2 x 255 x 127 is cut off there, and
2 x 255 x 64 is not.
"""


class Linear(Protocol):
    """x @ weight.T with the bias that it was made with, and `add` on top if it is given."""

    def __call__(self, x: torch.Tensor, add: torch.Tensor | None = None) -> torch.Tensor:
        """Take (rows, inputs), return (rows, outputs)."""


class _Steady:
    """Runs few different numbers of rows on CPUs, others are filled up with zeros: oneDNN keeps a megabyte for each."""

    def __call__(self, x: torch.Tensor, add: torch.Tensor | None = None) -> torch.Tensor:
        """Multiply."""
        rows = len(x)
        more = steady_rows(rows) - rows if x.device.type == "cpu" else 0
        if not more:
            return self._product(x, add)
        filling = (0, 0, 0, more)
        return self._product(F.pad(x, filling), add if add is None else F.pad(add, filling))[:rows]

    def _product(self, x: torch.Tensor, add: torch.Tensor | None) -> torch.Tensor:
        raise NotImplementedError


def steady_rows(rows: int) -> int:
    """Return the next of four numbers per doubling: 5, 6, 7, 8, 10, 12, 14, 16, 20, ..."""
    step = 1 << max(0, (rows - 1).bit_length() - 3)
    return -(-rows // step) * step


class PlainLinear(_Steady):
    """torch's own product."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._weight, self._bias = weight, bias

    def _product(self, x: torch.Tensor, add: torch.Tensor | None) -> torch.Tensor:
        y = F.linear(x, self._weight, self._bias)
        return y if add is None else y.add_(add)


class PackedLinear(_Steady):
    """Weights in oneDNN's layout. The sum is added before the result is rounded."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _BLOCK)
        self._bias = bias

    def _product(self, x: torch.Tensor, add: torch.Tensor | None) -> torch.Tensor:
        product: Any = torch.ops.mkldnn._linear_pointwise
        if add is None:
            y: torch.Tensor = product(x, self._weight, self._bias, "none", [], "")
        else:
            y = product.binary(x, add, self._weight, self._bias, "add")
        return y


class Int8Linear(_Steady):
    """Weights as int8 with one scale per output, inputs as int8 with one scale per row (token), measured as it runs."""

    def __init__(self, weight: torch.Tensor, levels: int | None = None) -> None:
        """Quantise a weight (outputs, inputs), which stays as it is.

        Args:
            weight: Its number format is that of inputs and results.
            levels: The largest number that stands for a weight; `None`: as many as this processor adds up right.

        Raises:
            ArgumentError: There is no such number.
        """
        levels = INT8_LEVELS[int8_format(weight.dtype)] if levels is None else levels
        self._scale = weight.float().abs().amax(1).div_(levels).clamp_(min=torch.finfo(torch.float32).tiny)
        whole = (weight.float() / self._scale[:, None]).round_().to(torch.int8)
        self._zero = torch.zeros(len(whole), dtype=torch.int64)
        self._weight = torch.ops.onednn.qlinear_prepack(whole, [_BLOCK, whole.shape[1]])

    def _product(self, x: torch.Tensor, add: torch.Tensor | None) -> torch.Tensor:
        """Quantise, multiply, scale back."""
        # A scale that bfloat16 holds exactly costs no accuracy when the product is scaled back.
        scale = (_largest(x).float() / _INPUT_LEVELS).to(x.dtype).clamp_(min=torch.finfo(x.dtype).tiny)
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
    return Int8Linear(weight) if int8 else make_biased(weight, None)


def make_biased(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """Return the product with a weight (outputs, inputs) and what is added to it, (outputs,) of the same format."""
    works = _packed_works if bias is None else _packed_works_with_bias
    if weight.device.type == "cpu" and works(weight.dtype):
        return PackedLinear(weight, bias)
    return PlainLinear(weight, bias)


def int8_format(dtype: torch.dtype) -> str:
    """Return the first of `INT8_LEVELS` that this processor adds up right; tried once per process.

    Args:
        dtype: Number format of inputs and results.

    Raises:
        ArgumentError: It does none, or this build of torch has no such product.
    """
    if (found := _int8_that_adds_up(dtype)) is not None:
        return found
    raise ArgumentError(
        f"dtype='int8' does not run on this processor ({processor()}): torch {torch.__version__} has no product of "
        "whole numbers that adds up right there; use dtype='auto'"
    )


@lru_cache
def _int8_that_adds_up(dtype: torch.dtype) -> str | None:
    return next(
        (name for name, levels in INT8_LEVELS.items() if _agrees(partial(Int8Linear, levels=levels), dtype)), None
    )


@lru_cache
def _packed_works(dtype: torch.dtype) -> bool:
    return _agrees(PackedLinear, dtype)


@lru_cache
def _packed_works_with_bias(dtype: torch.dtype) -> bool:
    bias = torch.linspace(-8, 8, 64).to(dtype)
    return _agrees(partial(PackedLinear, bias=bias), dtype, bias)


def _agrees(kind: Callable[[torch.Tensor], Linear], dtype: torch.dtype, bias: torch.Tensor | None = None) -> bool:
    """Return whether a private product is there and gives what the plain one gives."""
    generator = torch.Generator().manual_seed(0)
    ones = torch.ones(64, 128)
    mixed = torch.randn(64, 128, generator=generator)
    # Large equal values of one sign are far off where sums are cut off, while others hardly show it.
    for weight, inputs in ((mixed, mixed.flip(0)), (ones, ones), (-ones, ones)):
        for rows in (1, 40):
            x, add = inputs[:rows].to(dtype), torch.randn(rows, 64, generator=generator).to(dtype)
            expected = F.linear(x, weight.to(dtype), bias).add(add)
            try:
                found = kind(weight.to(dtype))(x, add)
            except (RuntimeError, AttributeError, NotImplementedError):
                return False
            if not (found - expected).float().norm() < 0.03 * expected.float().norm():
                return False
    return True
