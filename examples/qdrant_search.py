# Store texts in Qdrant and search them. pip install -e ".[torch,qdrant]"
from qdrant_client import QdrantClient, models

from embrief import Embedder
from qdrant_embrief import create_collection, query_texts, upsert_texts

PLANETS = {
    "mars": "Mars is called the Red Planet.",
    "venus": "Venus is the brightest planet in the sky.",
    "saturn": "Saturn is the planet with the most moons.",
}


def main() -> None:
    # A small model that comes with embrief. The real one: Embedder("Qwen/Qwen3-Embedding-0.6B")
    embedder = Embedder("embrief/tiny-embedding")
    client = QdrantClient(":memory:")
    create_collection(client, "planets", embedder)
    moons = [{"moons": 2}, {"moons": 0}, {"moons": 274}]
    upsert_texts(client, "planets", embedder, list(PLANETS.values()), ids=list(PLANETS), payloads=moons)

    for hit in query_texts(client, "planets", embedder, "the brightest planet", limit=2):
        print(hit.payload["key"], "-", hit.text)

    with_moons = models.Filter(must=[models.FieldCondition(key="moons", range=models.Range(gt=0))])
    best = query_texts(client, "planets", embedder, "the brightest planet", limit=1, query_filter=with_moons)
    print("with moons:", best[0].payload["key"])
    client.close()


if __name__ == "__main__":
    main()

# Output:
# venus - Venus is the brightest planet in the sky.
# saturn - Saturn is the planet with the most moons.
# with moons: saturn
