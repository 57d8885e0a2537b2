# pip install -e ".[torch,langchain]" langchain-classic
"""Keep vectors in a cache that never mixes two models, dims or prompts."""

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.stores import InMemoryByteStore

from langchain_embrief import Qwen3Embeddings


def main() -> None:
    embeddings = Qwen3Embeddings("embrief/hash", dim=256)  # the real model: Qwen3Embeddings(dim=256)
    store = InMemoryByteStore()
    for variant in (embeddings, embeddings, embeddings.with_dim(64)):
        cached = CacheBackedEmbeddings.from_bytes_store(
            variant, store, namespace=variant.cache_namespace(), key_encoder="sha256"
        )
        (vector,) = cached.embed_documents(["Mars is the Red Planet."])
        print(len(vector), "values,", len(list(store.yield_keys())), "in the cache")


if __name__ == "__main__":
    main()

# Output:
# 256 values, 1 in the cache
# 256 values, 1 in the cache
# 64 values, 2 in the cache
