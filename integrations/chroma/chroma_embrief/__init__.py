"""embrief for Chroma: embedding functions with the models' prompts, and a guard against mixed vector spaces.

Importing this package registers the functions, which is what a reopened collection needs.
"""

from embrief.wrapping import missing_framework

try:
    import chromadb as _chromadb  # noqa: F401 - only asks whether it is there
    import jsonschema as _jsonschema  # noqa: F401 - the same
except ImportError as error:
    raise missing_framework("chroma_embrief", "chromadb and jsonschema", extra="chroma", error=error) from error

from chroma_embrief.config import release_models
from chroma_embrief.documents import add_documents
from chroma_embrief.functions import GemmaEmbeddingFunction, Qwen3EmbeddingFunction, Qwen3VLEmbeddingFunction
from chroma_embrief.guard import require_same_space, restore_configuration
from chroma_embrief.opening import open_collection
from chroma_embrief.pictures import ImageLoader
from chroma_embrief.reranking import RerankedResult, arerank_results, rerank_results

__all__ = [
    "GemmaEmbeddingFunction",
    "ImageLoader",
    "Qwen3EmbeddingFunction",
    "Qwen3VLEmbeddingFunction",
    "RerankedResult",
    "add_documents",
    "arerank_results",
    "open_collection",
    "release_models",
    "require_same_space",
    "rerank_results",
    "restore_configuration",
]
