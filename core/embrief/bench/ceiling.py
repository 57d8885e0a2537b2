"""What this machine can do at most: the rate of a bare matrix product at the model's own sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROWS = {"cpu": 512, "cuda": 16384, "mps": 4096}
_TRIES, _CALLS = 12, 4


def measure_ceiling(config: dict[str, Any], device: str, dtype: str) -> float:
    """Return the best rate in operations per second, over products and ways of computing them.

    Args:
        config: config.json, which gives the sizes of the products.
        device: Where to compute.
        dtype: Number format of the products.
    """
    import torch

    form: torch.dtype = getattr(torch, dtype)

    hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    rows = ROWS[device.partition(":")[0]]
    best = 0.0
    for inputs, outputs in ((hidden, 2 * inner), (inner, hidden)):
        x = torch.randn(rows, inputs, device=device).to(form)
        weight = torch.randn(outputs, inputs, device=device).to(form)
        with torch.inference_mode():
            for product in _products(x, weight):
                best = max(best, 2 * rows * inputs * outputs / _seconds(product, device))
    return best


def _products(x: torch.Tensor, weight: torch.Tensor) -> Iterator[Callable[[], Any]]:
    import torch
    from torch.nn import functional

    yield lambda: functional.linear(x, weight)
    transposed = weight.t()
    yield lambda: torch.mm(x, transposed)
    if x.device.type == "cpu":
        packed = _packed(x, weight)
        if packed is not None:
            yield packed


def _packed(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], Any] | None:
    """Return the product with weights in oneDNN's own order, where this build of torch has it."""
    import torch

    try:
        ops: Any = torch.ops.mkldnn
        ordered = ops._reorder_linear_weight(weight, len(x))
        ops._linear_pointwise(x, ordered, None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):
        # Private functions: another build may lack them, and then nobody gains by them.
        return None
    return lambda: ops._linear_pointwise(x, ordered, None, "none", [], "")


def _seconds(product: Callable[[], Any], device: str) -> float:
    """Return the shortest time of one product: a limit is what was possible at least once."""
    import torch

    cuda = device.startswith("cuda")
    product()
    shortest = float("inf")
    for _ in range(_TRIES):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(_CALLS):
            product()
        if cuda:
            torch.cuda.synchronize()
        shortest = min(shortest, (time.perf_counter() - start) / _CALLS)
    return shortest
