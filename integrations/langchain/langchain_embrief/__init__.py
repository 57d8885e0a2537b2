"""LangChain embeddings and reranker with the prompts the models were trained with.

Example:
    >>> from langchain_core.vectorstores import InMemoryVectorStore
    >>> from langchain_embrief import Qwen3Embeddings
    >>> store = InMemoryVectorStore(Qwen3Embeddings("embrief/hash"))
    >>> ids = store.add_texts(["Mars is the Red Planet.", "Venus is bright."])
    >>> store.similarity_search("Which planet is red?", k=1)[0].page_content
    'Mars is the Red Planet.'
"""

from langchain_embrief.base import EmbriefEmbeddings
from langchain_embrief.embeddings import GemmaEmbeddings, Qwen3Embeddings
from langchain_embrief.reranker import Qwen3Reranker

__all__ = ["EmbriefEmbeddings", "GemmaEmbeddings", "Qwen3Embeddings", "Qwen3Reranker"]
