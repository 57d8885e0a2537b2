# pip install "embrief[torch,llama-index]"
"""Retrieve with one model, then order what was found by relevance."""

from llama_index.core import Document, VectorStoreIndex

from embrief.testing import FakeRuntime
from llama_index_embrief import Qwen3Embedding, Qwen3Rerank


def main() -> None:
    query = "how do I copy a directory tree"
    texts = [
        "shutil.copyfile copies one file",
        "shutil.copytree can copy a directory tree",
        "os.walk visits a directory",
    ]
    # Compares spelling, offline. The real model: Qwen3Embedding()
    embed_model = Qwen3Embedding("embrief/hash")
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=embed_model)
    found = index.as_retriever(similarity_top_k=3).retrieve(query)
    # A stand-in that counts shared words, offline. The real model: Qwen3Rerank(top_n=2), without the `with`
    with FakeRuntime() as fake:
        rerank = Qwen3Rerank(fake.reranker, top_n=2)
        for node in rerank.postprocess_nodes(found, query_str=query):
            print(f"{node.score:.2f} {node.text}")


if __name__ == "__main__":
    main()

# Output:
# 0.95 shutil.copytree can copy a directory tree
# 0.73 os.walk visits a directory
