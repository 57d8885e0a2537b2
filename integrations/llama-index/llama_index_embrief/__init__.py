"""LlamaIndex embeddings and reranker with the prompts the models were trained with.

Examples:
    >>> from llama_index.core import Settings
    >>> from llama_index_embrief import Qwen3Embedding
    >>> Settings.embed_model = Qwen3Embedding("embrief/hash", dim=64)
    >>> len(Settings.embed_model.get_query_embedding("red planet"))
    64
"""

from embrief.wrapping import missing_framework

try:
    import llama_index.core as _llama_index  # noqa: F401 - only asks whether it is there
except ImportError as error:
    raise missing_framework("llama_index_embrief", "llama-index-core", extra="llama-index", error=error) from error

from llama_index_embrief.base import EmbriefEmbedding
from llama_index_embrief.embedding import GemmaEmbedding, Qwen3Embedding
from llama_index_embrief.guarding import guard
from llama_index_embrief.pictures import image_query
from llama_index_embrief.rerank import Qwen3Rerank, RerankedNode
from llama_index_embrief.vision import Qwen3VLEmbedding, Qwen3VLRerank

__all__ = [
    "EmbriefEmbedding",
    "GemmaEmbedding",
    "Qwen3Embedding",
    "Qwen3Rerank",
    "Qwen3VLEmbedding",
    "Qwen3VLRerank",
    "RerankedNode",
    "guard",
    "image_query",
]
