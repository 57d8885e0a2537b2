# Let a Qdrant client embed models.Document itself, with two vectors per point. pip install -e ".[torch,qdrant]"
from qdrant_client import QdrantClient
from qdrant_client.models import Document, PointStruct, Prefetch

from embrief import Embedder
from qdrant_embrief import attach, create_collection

MODEL = "embrief/tiny-embedding"  # comes with embrief; the real one: "Qwen/Qwen3-Embedding-0.6B"
TEXTS = ["Mars is called the Red Planet.", "Venus is the brightest planet.", "Saturn is the planet with rings."]


def vectors(text: str) -> dict[str, Document]:
    return {
        "full": Document(text=text, model=MODEL),
        "small": Document(text=text, model=MODEL, options={"mrl": 64}),
    }


def main() -> None:
    embedder = Embedder(MODEL)
    client = attach(QdrantClient(":memory:"), embedder)
    create_collection(client, "planets", {"full": embedder, "small": embedder.with_dim(64)})
    client.upsert("planets", [PointStruct(id=i, vector=vectors(text)) for i, text in enumerate(TEXTS)])

    query = vectors("a planet with rings")
    candidates = Prefetch(query=query["small"], using="small", limit=3)
    found = client.query_points("planets", prefetch=candidates, query=query["full"], using="full", limit=1)
    print(TEXTS[found.points[0].id])
    client.close()


if __name__ == "__main__":
    main()

# Output:
# Saturn is the planet with rings.
