"""Model names that circulate and are wrong: why, and what was probably meant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MistakenName:
    """A name that looks like a model and is none, or is one of another kind."""

    reason: str
    use: str


_GEMMA = "google/embeddinggemma-300m"

MISTAKEN_NAMES = {
    "google/embedding-gemma-300m": MistakenName("the id on the hub has no hyphen inside 'embeddinggemma'", _GEMMA),
    "google/gemma-embedding-base": MistakenName("no such model was ever published", _GEMMA),
    "qwen3-embedding": MistakenName("the name needs a size; there are 0.6B, 4B and 8B", "Qwen/Qwen3-Embedding-0.6B"),
    "qwen3-reranker": MistakenName("the name needs a size; there are 0.6B, 4B and 8B", "Qwen/Qwen3-Reranker-0.6B"),
    "qwen/qwen3-embedding": MistakenName("the id needs a size; there are 0.6B, 4B and 8B", "Qwen/Qwen3-Embedding-0.6B"),
    "qwen/qwen3-reranker": MistakenName("the id needs a size; there are 0.6B, 4B and 8B", "Qwen/Qwen3-Reranker-0.6B"),
    "qwen/qwen3-reranking-0.6b": MistakenName(
        "it is a misprint in the Qwen3-Embedding README", "Qwen/Qwen3-Reranker-0.6B"
    ),
    "qwen/qwen3-reranking-4b": MistakenName("it is a misprint in the Qwen3-Embedding README", "Qwen/Qwen3-Reranker-4B"),
    "qwen3-next": MistakenName(
        "it is a text generator (mixture of experts) and has no embedding form", "Qwen/Qwen3-Embedding-4B"
    ),
    "qwen2.5-embed": MistakenName("there is no Qwen2.5 embedding model", "Qwen/Qwen3-Embedding-0.6B"),
    "nomic-ai/nomic-embed-text-v2": MistakenName("the published id ends in '-moe'", "nomic-ai/nomic-embed-text-v2-moe"),
    "microsoft/codebert-base": MistakenName(
        "it was never trained for similarity: unrelated texts get cosines above 0.9",
        "Qwen/Qwen3-Embedding-0.6B with task='code_retrieval'",
    ),
}
"""Keys are lower-case; look up with `name.lower()`."""

OPEN_SERVED_NAMES = {
    # Its tag `latest` is said to be the 8B, which nobody has checked here, and what it means can change any day.
    ("ollama", "qwen3-embedding"): MistakenName(
        "which size it is, is for Ollama's library to say",
        "qwen3-embedding:0.6b, qwen3-embedding:4b or qwen3-embedding:8b",
    ),
}
"""Names on servers that leave open which model they mean. A key is a runtime and a lower-case name without its tag."""
