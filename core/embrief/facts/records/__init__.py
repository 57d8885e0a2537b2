"""The records of the built-in models, one file per family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from embrief.facts.records import e5, gemma, hashing, hosted, jina, nomic, others, qwen3, qwen3_vl, tiny

if TYPE_CHECKING:
    from embrief.facts.specs import ModelSpec

TINY_EMBEDDING = "embrief/tiny-embedding"
TINY_VL_EMBEDDING = "embrief/tiny-vl-embedding"
TINY_RERANKER = "embrief/tiny-reranker"
LEXICAL_MODEL = "embrief/hash"


def built_in_models() -> Iterator[ModelSpec]:
    """Yield every built-in record, in the order in which lists show them."""
    for family in (qwen3, qwen3_vl, gemma, others, e5, nomic, jina, hosted, tiny, hashing):
        yield from family.MODELS
