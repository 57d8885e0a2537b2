# pip install -e ".[torch,llama-index]"
"""Index documents and search them."""

from llama_index.core import Document, Settings, VectorStoreIndex

from llama_index_embrief import Qwen3Embedding


def main() -> None:
    # A small model that comes with embrief. The real one: Qwen3Embedding()
    Settings.embed_model = Qwen3Embedding("embrief/tiny-embedding")
    index = VectorStoreIndex.from_documents(
        [
            Document(text="shutil.copytree copies a whole directory tree."),
            Document(text="gzip.compress compresses bytes."),
            Document(text="textwrap.fill wraps a paragraph into lines."),
        ]
    )
    for node in index.as_retriever(similarity_top_k=2).retrieve("copy a folder"):
        print(node.text)


if __name__ == "__main__":
    main()

# Output:
# shutil.copytree copies a whole directory tree.
# gzip.compress compresses bytes.
