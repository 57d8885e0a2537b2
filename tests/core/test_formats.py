"""How many bits a number format keeps, by its name."""

from __future__ import annotations

import pytest

from embrief.discovery.plugins import plugins
from embrief.facts.formats import bits, is_coarse


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        ("float32", 32), ("bfloat16", 16), ("float16", 16), ("int8", 8), ("int7", 8), ("int4", 4), ("uint8", 8),
        ("f32", 32), ("bf16", 16), ("f16", 16), ("q8_0", 8), ("q6_k", 6), ("q5_0", 5), ("q4_k_m", 4), ("Q4_K_M", 4),
        ("q2_k", 2), ("iq3_xs", 3), ("iq1_s", 1), ("tq2_0", 2), ("mxfp4", 4), ("nvfp4", 4), ("nf4", 4), ("w4a16", 4),
        ("hqq8", 8), ("hqq4", 4), ("afq6", 6), ("afq2", 2),
        ("float8_e4m3", 8), ("q4f16", 4),
        ("", None), ("auto", None), ("server", None), ("unknown", None), ("quick3", None), ("int128", None),
    ],
)  # fmt: skip
def test_the_bits_are_in_the_name(dtype: str, kept: int | None) -> None:
    assert bits(dtype) == kept
    assert is_coarse(dtype) is (kept is not None and kept < 8)


def test_every_format_of_a_runtime_here_is_known() -> None:
    """Else nobody is told of one below 8 bits."""
    backends = plugins().catalog.backends.values()
    assert [(item.name, dtype) for item in backends for dtype in item.dtypes if bits(dtype) is None] == []
