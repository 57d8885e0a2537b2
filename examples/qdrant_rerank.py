# Search in Qdrant and rerank what it finds. pip install -e ".[torch,qdrant]"
from qdrant_client import QdrantClient

from embrief import Embedder, Reranker
from qdrant_embrief import create_collection, query_texts, upsert_texts


def main() -> None:
    # Small models that come with embrief. The real ones: Embedder("Qwen/Qwen3-Embedding-0.6B") and Reranker()
    embedder = Embedder("embrief/tiny-embedding")
    reranker = Reranker("embrief/tiny-reranker")
    client = QdrantClient(":memory:")
    create_collection(client, "notes", embedder)
    texts = [
        "Append an item to the end of a list.",
        "Copy a file or a whole folder to another place.",
        "Sort numbers in descending order.",
    ]
    upsert_texts(client, "notes", embedder, texts, ids=["a", "b", "c"])
    hits = query_texts(client, "notes", embedder, "how do I copy a folder", limit=3, top_n=2, reranker=reranker)
    for hit in hits:
        print("answers it:" if hit.rerank_score > 0.5 else "does not:  ", hit.text)
    client.close()


if __name__ == "__main__":
    main()

# Output:
# answers it: Copy a file or a whole folder to another place.
# does not:   Append an item to the end of a list.
