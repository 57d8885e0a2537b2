# pip install -e ".[torch,llama-index]"
"""Retrieve with one model, then order what was found by relevance."""

from llama_index.core import Document, VectorStoreIndex

from llama_index_embrief import Qwen3Embedding, Qwen3Rerank


def main() -> None:
    query = "how do I copy a folder"
    texts = [
        "list.append adds an item to the end of a list",
        "shutil.copytree copies a folder and all that is in it",
        "sorted gives a new list in ascending order",
    ]
    # Small models that come with embrief. The real ones: Qwen3Embedding() and Qwen3Rerank(top_n=2)
    embed_model = Qwen3Embedding("embrief/tiny-embedding")
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=embed_model)
    found = index.as_retriever(similarity_top_k=3).retrieve(query)
    rerank = Qwen3Rerank("embrief/tiny-reranker", top_n=2)
    for node in rerank.postprocess_nodes(found, query_str=query):
        print("answers it:" if node.score > 0.5 else "does not:  ", node.text)


if __name__ == "__main__":
    main()

# Output:
# answers it: shutil.copytree copies a folder and all that is in it
# does not:   sorted gives a new list in ascending order
