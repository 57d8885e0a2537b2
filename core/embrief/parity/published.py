"""What models' authors and other implementations have published of a model's numbers, as far as it can be compared.

Cosines of a query, with the model's own prompt, and documents.
"""

from __future__ import annotations

from dataclasses import dataclass

_CHINA, _GRAVITY = "What is the capital of China?", "Explain gravity"
_BEIJING = "The capital of China is Beijing."
_FORCE = (
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
    "responsible for the movement of planets around the sun."
)
_RED = "Which planet is known as the Red Planet?"
_PLANETS = (
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Jupiter, the largest planet in our solar system, has a prominent red spot.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
)


@dataclass(frozen=True, slots=True)
class Published:
    """Cosines that somebody has published."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    cosines: tuple[tuple[float, ...], ...]
    """One row per query."""
    tolerance: float
    """How far another number format moves them."""
    source: str


def _card(model: str, *rows: tuple[float, float]) -> Published:
    return Published(
        (_CHINA, _GRAVITY), (_BEIJING, _FORCE), rows, 0.01, f"the model card of {model}, transformers in bfloat16"
    )


def _planets(model: str, *cosines: float, tolerance: float = 0.015) -> Published:
    return Published((_RED,), _PLANETS, (cosines,), tolerance, f"sentence-transformers' own tests of {model}, bfloat16")


PUBLISHED = {
    "Qwen/Qwen3-Embedding-0.6B": _card("Qwen3-Embedding-0.6B", (0.7645568, 0.1414251), (0.1354974, 0.5999550)),
    "Qwen/Qwen3-Embedding-4B": _card("Qwen3-Embedding-4B", (0.7534, 0.1147), (0.0320, 0.6258)),
    "Qwen/Qwen3-Embedding-8B": _card("Qwen3-Embedding-8B", (0.7493, 0.0751), (0.0880, 0.6318)),
    "google/embeddinggemma-300m": Published(
        (_RED,),
        _PLANETS,
        ((0.3011, 0.6359, 0.4930, 0.4889),),
        0.01,
        "the model card of embeddinggemma-300m, float32",
    ),
    "BAAI/bge-m3": _planets("bge-m3", 0.41025, 0.71249, 0.64761, 0.65188),
    "Alibaba-NLP/gte-multilingual-base": _planets("gte-multilingual-base", 0.63415, 0.92388, 0.78641, 0.74917),
    "nomic-ai/nomic-embed-text-v2-moe": _planets("nomic-embed-text-v2-moe", 0.32802, 0.75375, 0.59861, 0.69786),
    "sentence-transformers/all-mpnet-base-v2": _planets("all-mpnet-base-v2", 0.46649, 0.77837, 0.69281, 0.70254),
    "sentence-transformers/all-MiniLM-L6-v2": _planets("all-MiniLM-L6-v2", 0.46371, 0.81205, 0.72828, 0.75051),
}
"""By the model's id. Of others nothing is known here that could be compared."""
