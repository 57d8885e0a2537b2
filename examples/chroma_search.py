# pip install -e ".[torch,chroma]"
"""Store documents in a Chroma collection, reopen it, and ask."""

import tempfile

import chromadb

from chroma_embrief import Qwen3EmbeddingFunction, add_documents, open_collection

PLANETS = {
    "mars": "Mars is called the Red Planet because of its iron oxide.",
    "venus": "Venus is the brightest planet in the night sky.",
    "jupiter": "Jupiter is the largest planet of the solar system.",
}


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        client = chromadb.PersistentClient(folder)
        # A small model that comes with embrief. The real one: Qwen3EmbeddingFunction()
        ef = Qwen3EmbeddingFunction("embrief/tiny-embedding")
        collection = open_collection(client, "planets", ef)
        add_documents(client, collection, list(PLANETS.values()), ids=list(PLANETS))

        # The collection knows its model, instruction and prompts: no function is needed to reopen it.
        reopened = client.get_collection("planets")
        found = reopened.query(query_texts=["Which is the largest planet?"], n_results=2)
        for name, text in zip(found["ids"][0], found["documents"][0], strict=True):
            print(f"{name}: {text}")


if __name__ == "__main__":
    main()

# Output:
# jupiter: Jupiter is the largest planet of the solar system.
# venus: Venus is the brightest planet in the night sky.
