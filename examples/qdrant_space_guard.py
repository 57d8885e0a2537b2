# What happens when another model of the same width meets a collection. pip install -e ".[qdrant]"
from qdrant_client import QdrantClient

from embrief import Embedder
from embrief.errors import SpaceMismatchError
from qdrant_embrief import create_collection, upsert_texts


def main() -> None:
    # Lexical only. For meaning: Embedder("Qwen/Qwen3-Embedding-0.6B")
    embedder = Embedder("embrief/hash", dim=512)
    other = Embedder("embrief/hash", dim=512, normalize=False)
    client = QdrantClient(":memory:")
    create_collection(client, "notes", embedder)
    upsert_texts(client, "notes", embedder, ["A note."])
    try:
        upsert_texts(client, "notes", other, ["Another note."])
    except SpaceMismatchError as error:
        print("refused:", "stored: normalize=True" in str(error))
    print("stored:", client.count("notes").count)
    client.close()


if __name__ == "__main__":
    main()

# Output:
# refused: True
# stored: 1
