# pip install "embrief[chroma]"
"""Order what a Chroma query returns by relevance."""

import chromadb

from chroma_embrief import Qwen3EmbeddingFunction, open_collection, rerank_results
from embrief import Reranker
from embrief.testing import FakeRuntime


def main() -> None:
    client = chromadb.EphemeralClient()
    # Compares spelling, offline. The real model: Qwen3EmbeddingFunction()
    collection = open_collection(client, "rerank-notes", Qwen3EmbeddingFunction("embrief/hash", dim=256))
    collection.add(ids=["a", "b", "c"], documents=["planet red dwarf", "the red planet is mars", "blue whale"])
    question = "which planet is the red planet"
    found = collection.query(query_texts=[question], n_results=3)
    # A stand-in that counts common words. The real model: reranker = Reranker()
    with FakeRuntime() as fake:
        best = rerank_results(found, question, Reranker(fake.reranker), top_n=2)
    for name, score in zip(best["ids"][0], best["rerank_scores"][0], strict=True):
        print(f"{name} {score:.2f}")


if __name__ == "__main__":
    main()

# Output:
# b 0.95
# a 0.73
