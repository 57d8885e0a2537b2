# Search Qdrant from async code; the event loop never waits for the model. pip install -e ".[torch,qdrant]"
import asyncio

from qdrant_client import AsyncQdrantClient

from embrief import Embedder
from qdrant_embrief import acreate_collection, aquery_texts, aupsert_texts

TEXTS = ["Mars is called the Red Planet.", "Venus is the brightest planet.", "Saturn is the planet with rings."]


async def main() -> None:
    # A small model that comes with embrief. The real one: Embedder("Qwen/Qwen3-Embedding-0.6B")
    embedder = Embedder("embrief/tiny-embedding")
    client = AsyncQdrantClient(":memory:")
    await acreate_collection(client, "planets", embedder)
    await aupsert_texts(client, "planets", embedder, TEXTS)

    queries = ["the red planet", "a planet with rings"]
    answers = await asyncio.gather(*(aquery_texts(client, "planets", embedder, query, limit=1) for query in queries))
    for query, hits in zip(queries, answers, strict=True):
        print(query, "->", hits[0].text)
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())

# Output:
# the red planet -> Mars is called the Red Planet.
# a planet with rings -> Saturn is the planet with rings.
