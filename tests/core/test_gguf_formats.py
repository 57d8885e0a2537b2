"""Which number format a GGUF file has: a name that says fewer bits than its largest tensor must not get lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from embrief.files.gguf_header import GgufHeader, GgufTensor

TABLE, LAYER = (1000, 256), (256, 256)


@pytest.mark.parametrize(
    ("said", "table", "layers", "dtype"),
    [
        # As llama-quantize leaves EmbeddingGemma: the table of tokens is two thirds of it.
        (15, "q6_k", "q4_k", "q4_k_m"),
        (2, "q6_k", "q4_0", "q4_0"),
        (27, "q6_k", "iq3_s", "iq3_m"),
        (7, "q8_0", "q8_0", "q8_0"),
        # Nothing of what it says is in it.
        (15, "q8_0", "q8_0", "q8_0"),
        (0, "q8_0", "float32", "q8_0"),
        (None, "q6_k", "q4_k", "q6_k"),
        (1024, "float16", "float16", "float16"),
    ],
)
def test_the_format_is_the_one_that_the_layers_have(said: int | None, table: str, layers: str, dtype: str) -> None:
    facts = {} if said is None else {"general.file_type": said}
    tensors = {"token_embd.weight": GgufTensor(TABLE, table), "blk.0.attn_q.weight": GgufTensor(LAYER, layers)}
    assert GgufHeader(Path("model.gguf"), facts, tensors).dtype == dtype
