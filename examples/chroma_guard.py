# pip install -e ".[chroma]"
"""Refuse a collection whose vectors are of another space, even of the same width."""

import chromadb

from chroma_embrief import Qwen3EmbeddingFunction, open_collection
from embrief import SpaceMismatchError


def main() -> None:
    client = chromadb.EphemeralClient()
    # Compares spelling, offline. The real model: Qwen3EmbeddingFunction()
    open_collection(client, "guarded-notes", Qwen3EmbeddingFunction("embrief/hash", dim=768))
    other = Qwen3EmbeddingFunction("embrief/hash", dim=768, normalize=False)
    try:
        # Chroma's own get_collection would take it without a word.
        open_collection(client, "guarded-notes", other)
    except SpaceMismatchError as error:
        print(str(error).partition(": ")[2].partition(". ")[0])


if __name__ == "__main__":
    main()

# Output:
# stored: normalize=True, this embedder: normalize=False
