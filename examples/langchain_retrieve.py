# pip install -e ".[torch,langchain]"
"""Search a vector store through LangChain."""

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_embrief import Qwen3Embeddings


def main() -> None:
    embeddings = Qwen3Embeddings("embrief/tiny-embedding")  # comes with embrief; the real one: Qwen3Embeddings()
    store = InMemoryVectorStore(embeddings)
    store.add_documents(
        [
            Document("Mars is often called the Red Planet.", metadata={"source": "mars"}),
            Document("Venus is the brightest planet in the sky.", metadata={"source": "venus"}),
            Document("Saturn has rings of ice.", metadata={"source": "saturn"}),
        ]
    )
    retriever = store.as_retriever(search_kwargs={"k": 2})
    for document in retriever.invoke("Which planet is red?"):
        print(document.metadata["source"], "-", document.page_content)


if __name__ == "__main__":
    main()

# Output:
# mars - Mars is often called the Red Planet.
# venus - Venus is the brightest planet in the sky.
