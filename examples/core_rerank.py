# Rerank your own objects. pip install "embrief[torch]"
from embrief import Reranker
from embrief.testing import FakeRuntime

NOTES = [
    {"id": 1, "text": "blue whale"},
    {"id": 2, "text": "the red planet is mars"},
    {"id": 3, "text": "planet red dwarf"},
]


def main() -> None:
    # A stand-in that counts common words. The real model: reranker = Reranker("Qwen/Qwen3-Reranker-0.6B")
    with FakeRuntime() as fake:
        reranker = Reranker(fake.reranker, instruction="Find facts about planets")
        ranked = reranker.rerank_items("which planet is the red planet", NOTES, text=lambda note: note["text"], top_n=2)
    for found in ranked:
        print(found.item["id"], f"{found.score:.2f}")


if __name__ == "__main__":
    main()

# Output:
# 2 0.95
# 3 0.73
