# Rerank your own objects. pip install -e ".[torch]"
from embrief import Reranker

NOTES = [
    {"id": 1, "text": "Append an item to the end of a list."},
    {"id": 2, "text": "Copy a file or a whole folder to another place."},
    {"id": 3, "text": "Sort numbers in descending order."},
]


def main() -> None:
    # A small model that comes with embrief. The real one: Reranker("Qwen/Qwen3-Reranker-0.6B")
    reranker = Reranker("embrief/tiny-reranker")
    for found in reranker.rerank_items("how do I copy a folder", NOTES, text=lambda note: note["text"], top_n=2):
        print(found.item["id"], "answers it" if found.score > 0.5 else "does not")


if __name__ == "__main__":
    main()

# Output:
# 2 answers it
# 1 does not
