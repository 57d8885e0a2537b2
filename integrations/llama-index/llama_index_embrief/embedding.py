"""The embedding classes by family."""

from __future__ import annotations

from llama_index.core.bridge.pydantic import Field

from llama_index_embrief.base import EmbriefEmbedding


class Qwen3Embedding(EmbriefEmbedding):
    """Qwen3-Embedding in LlamaIndex: queries get an instruction, documents stay as they are.

    Examples:
        >>> from llama_index_embrief import Qwen3Embedding
        >>> embed_model = Qwen3Embedding("embrief/hash", dim=64)  # without a name: Qwen/Qwen3-Embedding-0.6B
        >>> len(embed_model.get_query_embedding("red planet"))
        64
    """

    model_name: str = Field(default="Qwen/Qwen3-Embedding-0.6B", frozen=True)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "Qwen3Embedding"


class GemmaEmbedding(EmbriefEmbedding):
    """EmbeddingGemma in LlamaIndex: a prompt for each side and task, titles for documents.

    With `title_metadata_key`, embedding nodes (in an `IngestionPipeline`, as one of an index's `transformations`, or by
    calling `embed_model(nodes)`) puts that metadata value where the model expects a title, and not into the text.

    Examples:
        >>> from llama_index_embrief import GemmaEmbedding
        >>> embed_model = GemmaEmbedding("embrief/hash", dim=64)  # without a name: google/embeddinggemma-300m
        >>> len(embed_model.get_text_embedding_batch(["Mars is red.", "Venus is bright."]))
        2
    """

    model_name: str = Field(default="google/embeddinggemma-300m", frozen=True)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "GemmaEmbedding"
