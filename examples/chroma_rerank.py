# pip install -e ".[torch,chroma]"
"""Order what a Chroma query returns by relevance."""

import chromadb

from chroma_embrief import Qwen3EmbeddingFunction, open_collection, rerank_results
from embrief import Reranker


def main() -> None:
    client = chromadb.EphemeralClient()
    # Small models that come with embrief. The real ones: Qwen3EmbeddingFunction() and Reranker()
    collection = open_collection(client, "rerank-notes", Qwen3EmbeddingFunction("embrief/tiny-embedding"))
    notes = {
        "list": "Append an item to the end of a list.",
        "copy": "Copy a file or a whole folder to another place.",
        "sort": "Sort numbers in descending order.",
    }
    collection.add(ids=list(notes), documents=list(notes.values()))
    question = "how do I copy a folder"
    found = collection.query(query_texts=[question], n_results=3)
    best = rerank_results(found, question, Reranker("embrief/tiny-reranker"), top_n=2)
    for name, score in zip(best["ids"][0], best["rerank_scores"][0], strict=True):
        print(name, "answers it" if score > 0.5 else "does not")


if __name__ == "__main__":
    main()

# Output:
# copy answers it
# list does not
