# Search in Qdrant and rerank what it finds. pip install "embrief[qdrant]"
from qdrant_client import QdrantClient

from embrief import Embedder, Reranker
from embrief.testing import FakeRuntime
from qdrant_embrief import create_collection, query_texts, upsert_texts


def main() -> None:
    # Lexical only. For meaning: Embedder("Qwen/Qwen3-Embedding-0.6B")
    embedder = Embedder("embrief/hash", dim=512)
    client = QdrantClient(":memory:")
    create_collection(client, "notes", embedder)
    texts = ["planet red dwarf", "the red planet is mars", "blue whale"]
    upsert_texts(client, "notes", embedder, texts, ids=["a", "b", "c"])
    # A stand-in that counts common words. The real model: reranker = Reranker()
    with FakeRuntime() as fake:
        question = "which planet is the red planet"
        hits = query_texts(client, "notes", embedder, question, limit=2, reranker=Reranker(fake.reranker))
    for hit in hits:
        print(f"{hit.rerank_score:.2f} {hit.text}")
    client.close()


if __name__ == "__main__":
    main()

# Output:
# 0.95 the red planet is mars
# 0.73 planet red dwarf
