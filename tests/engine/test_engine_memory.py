"""Memory of a process that embeds texts of ever new lengths, in bytes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

HANGS = 600
"""Seconds after which a process counts as hanging; a busy machine may take minutes."""

SHAPES = """
import sys
import numpy as np, torch
from embrief.engine.attention import attend
from embrief.engine.linear import Int8Linear, make_linear

dtype, int8 = getattr(torch, sys.argv[1]), sys.argv[2] == "int8"
torch.set_num_threads(1)

def held():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) * 1024

# The five products of a layer, one of them with a sum on top, and attention: ten kernels for each number of rows.
widths = [(48, 128), (64, 48), (48, 192), (96, 48), (48, 64)]
linears = [(make_linear(torch.randn(out, width).to(dtype), int8=int8), width) for width, out in widths]
inputs = torch.randn(512, 96).to(dtype)
q, k = torch.randn(2, 2, 512, 4, 16).to(dtype)
k = k[:, :, :2]

def run(rows):
    for linear, width in linears:
        linear(inputs[:rows, :width].contiguous())
    linears[1][0](inputs[:rows, :64].contiguous(), torch.zeros(rows, 48, dtype=dtype))
    # In blocks of queries that see more and more keys: two products each.
    for causal in (True, False):
        attend(q[:, :rows], k[:, :rows], k[:, :rows], causal=causal, window=None, out=torch.empty_like(q[:, :rows]))

for rows in (1, 2, 512):
    run(rows)
before = held()
for rows in np.random.default_rng(0).permutation(512) + 1:
    run(int(rows))
print(held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux reports it")
@pytest.mark.parametrize(("dtype", "numbers"), [("float32", "plain"), ("bfloat16", "plain"), ("float32", "int8")])
def test_five_thousand_shapes_in_bounded_memory(dtype: str, numbers: str) -> None:
    """One kernel for each shape of rows and weights would be kept by oneDNN: a gigabyte and more."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHAPES, dtype, numbers],
        env={**os.environ, "MALLOC_ARENA_MAX": "1"}, capture_output=True, text=True, timeout=HANGS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300 * 2**20


@pytest.mark.parametrize(("dtype", "int8"), [("float32", False), ("bfloat16", False), ("float32", True)])
def test_filled_up_rows_change_no_bit(dtype: str, int8: bool) -> None:
    import torch

    from embrief.engine.linear import Int8Linear, PackedLinear, steady_rows

    weight = torch.randn(96, 64).to(getattr(torch, dtype))
    try:
        product = Int8Linear(weight) if int8 else PackedLinear(weight)
    except (RuntimeError, AttributeError, ValueError) as error:
        if not int8 and dtype == "float32":
            raise
        pytest.skip(f"this processor lacks the product: {error}")
    x, add = torch.randn(300, 64).to(weight.dtype), torch.randn(300, 96).to(weight.dtype)
    for rows in (1, 9, 17, 33, 65, 129, 257, 300):
        found = product(x[:rows], add[:rows])
        assert found.shape == (rows, 96)
        whole = steady_rows(rows)
        assert rows <= whole <= max(rows + 1, rows * 1.25)
        assert torch.equal(found, product._product(x[:rows], add[:rows]))
    assert len({steady_rows(rows) for rows in range(1, 513)}) <= 32
