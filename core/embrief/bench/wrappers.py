"""The framework integrations that are installed, as plain functions from texts to vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from embrief.system.installed import is_installed

if TYPE_CHECKING:
    from pathlib import Path


def wrapped(folder: Path, device: str, dtype: str) -> dict[str, Callable[[list[str]], Any]]:
    """Return the document method of each installed wrapper, on the model that the core has loaded.

    Args:
        folder: The model.
        device: Where it runs.
        dtype: Number format.
    """
    found: dict[str, Callable[[list[str]], Any]] = {}
    if is_installed("langchain_core"):
        from langchain_embrief import EmbriefEmbeddings

        found["LangChain"] = EmbriefEmbeddings(
            str(folder), dtype=dtype, device=device, truncate="error"
        ).embed_documents
    if is_installed("llama_index.core"):
        from llama_index_embrief import EmbriefEmbedding

        found["LlamaIndex"] = EmbriefEmbedding(
            str(folder), dtype=dtype, device=device, truncate="error"
        ).get_text_embedding_batch
    return found
