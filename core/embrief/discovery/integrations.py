"""Descriptions of the framework wrappers: strings only, so that listing them imports no framework.

Each of the four below is the object behind an entry point of this distribution, as a third party would write it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pluggy

from embrief.system.installed import install_command, is_installed

# The marker is made here rather than imported: hookspecs.py needs `Integration`.
_hookimpl = pluggy.HookimplMarker("embrief")


@dataclass(frozen=True, slots=True)
class Integration:
    """A package that puts the facades into a framework."""

    name: str
    package: str
    """Import name of the wrapper package."""
    framework: str
    """Import name of the framework."""
    install: str
    """Command that installs the framework."""
    provides: tuple[str, ...]
    """Public names of the wrapper package."""

    @property
    def installed(self) -> bool:
        """Return whether the framework is there, without importing it."""
        return is_installed(self.framework)


class _IntegrationPlugin:
    """An entry point that registers one integration."""

    def __init__(self, integration: Integration) -> None:
        self.integration = integration

    @_hookimpl
    def register_integrations(self, register: Callable[[Integration], None]) -> None:
        register(self.integration)


llama_index = _IntegrationPlugin(
    Integration(
        name="llama-index",
        package="llama_index_embrief",
        framework="llama_index.core",
        install=install_command("llama-index"),
        provides=("Qwen3Embedding", "GemmaEmbedding", "Qwen3VLEmbedding", "Qwen3Rerank", "Qwen3VLRerank"),
    )
)
langchain = _IntegrationPlugin(
    Integration(
        name="langchain",
        package="langchain_embrief",
        framework="langchain_core",
        install=install_command("langchain"),
        provides=("Qwen3Embeddings", "GemmaEmbeddings", "Qwen3VLEmbeddings", "Qwen3Reranker", "Qwen3VLReranker"),
    )
)
chroma = _IntegrationPlugin(
    Integration(
        name="chroma",
        package="chroma_embrief",
        framework="chromadb",
        install=install_command("chroma"),
        provides=(
            "Qwen3EmbeddingFunction",
            "GemmaEmbeddingFunction",
            "Qwen3VLEmbeddingFunction",
            "open_collection",
            "add_documents",
            "rerank_results",
        ),
    )
)
qdrant = _IntegrationPlugin(
    Integration(
        name="qdrant",
        package="qdrant_embrief",
        framework="qdrant_client",
        install=install_command("qdrant"),
        provides=("attach", "create_collection", "upsert_texts", "query_texts"),
    )
)
