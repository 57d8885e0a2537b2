# pip install "embrief[torch,langchain]" langchain-classic
"""Retrieve with one model and rerank with another, in LangChain."""

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from embrief.testing import FakeRuntime
from langchain_embrief import Qwen3Embeddings, Qwen3Reranker

TEXTS = ["Mars is the red planet.", "Venus is a bright planet.", "Saturn has rings of ice.", "A red dress."]


def main() -> None:
    with FakeRuntime() as fake:  # counts shared words; without it the lines below use the real models
        store = InMemoryVectorStore(Qwen3Embeddings("embrief/hash"))  # Qwen3Embeddings()
        store.add_documents([Document(text) for text in TEXTS])
        pipeline = ContextualCompressionRetriever(
            base_compressor=Qwen3Reranker(fake.reranker, top_n=2),  # Qwen3Reranker(top_n=2)
            base_retriever=store.as_retriever(search_kwargs={"k": 4}),
        )
        for document in pipeline.invoke("what is the red planet"):
            print(f"{document.metadata['relevance_score']:.3f} {document.page_content}")


if __name__ == "__main__":
    main()

# Output:
# 0.881 Mars is the red planet.
# 0.500 Venus is a bright planet.
