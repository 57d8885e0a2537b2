"""LlamaIndex embeddings and reranker with the prompts the models were trained with.

Example:
    >>> from llama_index.core import Settings
    >>> from llama_index_embrief import Qwen3Embedding
    >>> Settings.embed_model = Qwen3Embedding("embrief/hash", dim=64)
    >>> len(Settings.embed_model.get_query_embedding("red planet"))
    64
"""

from llama_index_embrief.base import EmbriefEmbedding
from llama_index_embrief.embedding import GemmaEmbedding, Qwen3Embedding
from llama_index_embrief.rerank import Qwen3Rerank, RerankedNode

__all__ = ["EmbriefEmbedding", "GemmaEmbedding", "Qwen3Embedding", "Qwen3Rerank", "RerankedNode"]
