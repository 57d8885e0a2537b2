"""LangChain embeddings and reranker with the prompts the models were trained with.

Examples:
    >>> from langchain_core.vectorstores import InMemoryVectorStore
    >>> from langchain_embrief import Qwen3Embeddings
    >>> store = InMemoryVectorStore(Qwen3Embeddings("embrief/hash"))
    >>> ids = store.add_texts(["Mars is the Red Planet.", "Venus is bright."])
    >>> store.similarity_search("Which planet is red?", k=1)[0].page_content
    'Mars is the Red Planet.'
"""

from embrief.wrapping import missing_framework

try:
    import langchain_core as _langchain_core  # noqa: F401 - only asks whether it is there
except ImportError as error:
    raise missing_framework("langchain_embrief", "langchain-core", extra="langchain", error=error) from error

from langchain_embrief.base import EmbriefEmbeddings
from langchain_embrief.embeddings import GemmaEmbeddings, Qwen3Embeddings
from langchain_embrief.guarding import guard
from langchain_embrief.pictures import image_query, with_pictures
from langchain_embrief.reranker import Qwen3Reranker
from langchain_embrief.vision import Qwen3VLEmbeddings, Qwen3VLReranker

__all__ = [
    "EmbriefEmbeddings",
    "GemmaEmbeddings",
    "Qwen3Embeddings",
    "Qwen3Reranker",
    "Qwen3VLEmbeddings",
    "Qwen3VLReranker",
    "guard",
    "image_query",
    "with_pictures",
]
