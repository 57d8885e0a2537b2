"""The embedding classes, one per model family. They differ in their default model only."""

from __future__ import annotations

from langchain_embrief.base import EmbriefEmbeddings


class Qwen3Embeddings(EmbriefEmbeddings):
    """Qwen3-Embedding in LangChain: queries get an instruction, documents stay as they are.

    Examples:
        >>> from langchain_embrief import Qwen3Embeddings
        >>> embeddings = Qwen3Embeddings("embrief/hash", dim=64)  # without a name: Qwen/Qwen3-Embedding-0.6B
        >>> len(embeddings.embed_query("red planet"))
        64
    """

    model: str = "Qwen/Qwen3-Embedding-0.6B"


class GemmaEmbeddings(EmbriefEmbeddings):
    """EmbeddingGemma in LangChain: a prompt for each side and task, titles for documents.

    Examples:
        >>> from langchain_embrief import GemmaEmbeddings
        >>> embeddings = GemmaEmbeddings("embrief/hash", dim=64)  # without a name: google/embeddinggemma-300m
        >>> len(embeddings.embed_documents(["Mars is red.", "Venus is bright."]))
        2
    """

    model: str = "google/embeddinggemma-300m"
