# pip install -e ".[torch,llama-index]"
"""Titles from metadata reach EmbeddingGemma where it was trained to read them."""

from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline

from embrief.testing import FakeRuntime
from llama_index_embrief import GemmaEmbedding


def main() -> None:
    # A stand-in with the real prompts, offline. The real model: GemmaEmbedding(title_metadata_key="title")
    with FakeRuntime() as fake:
        embed_model = GemmaEmbedding(fake.gemma, title_metadata_key="title")
        documents = [Document(text="The red planet.", metadata={"title": "Mars"}), Document(text="No title here.")]
        nodes = IngestionPipeline(transformations=[embed_model]).run(documents=documents)
        print(*fake.texts, sep="\n")
        print(len(nodes[0].embedding), "values")


if __name__ == "__main__":
    main()

# Output:
# title: Mars | text: The red planet.
# title: none | text: No title here.
# 64 values
