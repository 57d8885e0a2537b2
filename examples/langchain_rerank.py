# pip install -e ".[torch,langchain]" langchain-classic
"""Retrieve with one model and rerank with another, in LangChain."""

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_embrief import Qwen3Embeddings, Qwen3Reranker

TEXTS = ["Mars is the red planet.", "Venus is a bright planet.", "Saturn has rings of ice.", "A red dress."]


def main() -> None:
    # Small models that come with embrief. The real ones: Qwen3Embeddings() and Qwen3Reranker(top_n=2)
    store = InMemoryVectorStore(Qwen3Embeddings("embrief/tiny-embedding"))
    store.add_documents([Document(text) for text in TEXTS])
    pipeline = ContextualCompressionRetriever(
        base_compressor=Qwen3Reranker("embrief/tiny-reranker", top_n=2),
        base_retriever=store.as_retriever(search_kwargs={"k": 4}),
    )
    for document in pipeline.invoke("what is the red planet"):
        likely = document.metadata["relevance_score"] > 0.5
        print("answers it:" if likely else "does not:  ", document.page_content)


if __name__ == "__main__":
    main()

# Output:
# answers it: Mars is the red planet.
# answers it: Venus is a bright planet.
