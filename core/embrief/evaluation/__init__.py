"""Measuring retrieval: `embrief eval`, and its parts for programs of one's own.

Examples:
    >>> from embrief import Embedder
    >>> from embrief.evaluation import Bm25, EmbeddingSystem, RetrievalSet, evaluate
    >>> found = RetrievalSet(
    ...     "planets",
    ...     corpus={"mars": "Mars is the Red Planet.", "venus": "Venus is the brightest planet."},
    ...     queries={"q1": "Which planet is red?"},
    ...     judgements={"q1": {"mars": 1}},
    ... )
    >>> results = evaluate([found], [EmbeddingSystem(Embedder("embrief/hash"), "hash")])
    >>> results.rows[0]["measures"]["nDCG@10"]["mean"]
    1.0
"""

from embrief.evaluation.execute import evaluate
from embrief.evaluation.formats import load
from embrief.evaluation.measures import NAMES, Difference, Mean, difference, mean, score
from embrief.evaluation.report import compare
from embrief.evaluation.results import Results
from embrief.evaluation.retrieval_set import RetrievalSet, make_set, read_beir, write_beir
from embrief.evaluation.systems import Bm25, EmbeddingSystem, Ranked, System, UnfitError, Variant, rerank

__all__ = [
    "NAMES",
    "Bm25",
    "Difference",
    "EmbeddingSystem",
    "Mean",
    "Ranked",
    "Results",
    "RetrievalSet",
    "System",
    "UnfitError",
    "Variant",
    "compare",
    "difference",
    "evaluate",
    "load",
    "make_set",
    "mean",
    "read_beir",
    "rerank",
    "score",
    "write_beir",
]
