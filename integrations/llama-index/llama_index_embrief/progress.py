"""Progress bars that move."""

from __future__ import annotations

from typing import TypeVar

from llama_index.core.base.embeddings.base import BaseEmbedding

M = TypeVar("M", bound=BaseEmbedding)

_STEPS, _LEAST_STEP = 20, 16


def in_steps(model: M, count: int) -> M:
    """Return a twin for `count` texts with smaller batches: LlamaIndex's bar has a step per batch."""
    twin = model.model_copy()
    twin.embed_batch_size = min(model.embed_batch_size, max(count // _STEPS, _LEAST_STEP))
    return twin
