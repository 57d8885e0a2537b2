"""How good a ranking is, per question and on average, and what the difference of two systems is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embrief.errors import ArgumentError, MissingDependencyError
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ranking = Mapping[str, Sequence[str]]
"""For each question: documents, best first."""

NAMES = ("nDCG@10", "MRR@10", "R@10", "R@100")
DEPTH = 100
"""Documents per question that the measures look at."""
_CUTS = {"MRR@10": 10}
_RESAMPLES = 10_000
_BLOCK = 500
"""Resamples in memory at a time."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over questions."""

    mean: float
    low: float
    high: float
    """The 95 % interval, from resampling the questions (bootstrap percentiles)."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What a second system gains over a first one on the same questions."""

    mean: float
    low: float
    high: float
    p: float
    """How often chance alone would give a mean difference at least as large: signs flipped at random, two-sided."""


def score(rankings: Ranking, judgements: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, float]]:
    """Return each measure of each question: `{"nDCG@10": {question: value, ...}, ...}`, computed by ir-measures.

    nDCG takes grades as gains; for the other measures, grades above 0 are relevant. A question without a ranking
    counts as 0.

    Raises:
        MissingDependencyError: ir-measures is not installed.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise MissingDependencyError(f"measures of retrieval need ir-measures: {install_command('eval')}") from error
    # Documents without a relevant grade have no gain; trec_eval would take a negative one for a loss.
    grades = {query: {doc: max(0, grade) for doc, grade in found.items()} for query, found in judgements.items()}
    found: dict[str, dict[str, float]] = {name: dict.fromkeys(judgements, 0.0) for name in NAMES}
    for name in NAMES:
        # trec_eval orders by score, and equal scores by name: the place is the score, so that our order is measured.
        depth = _CUTS.get(name, DEPTH)
        run = {
            query: {document: float(-place) for place, document in enumerate(rankings.get(query, ())[:depth])}
            for query in judgements
            if rankings.get(query)
        }
        measure = ir_measures.RR if name.startswith("MRR") else ir_measures.parse_measure(name)
        for item in ir_measures.iter_calc([measure], grades, run):
            found[name][item.query_id] = float(item.value)
    return found


def mean(values: Sequence[float]) -> Mean:
    """Return the mean and its interval. The same values give the same interval every time."""
    array = np.asarray(values, np.float64)
    low, high = _interval(array)
    return Mean(float(array.mean()), low, high)


def difference(first: Mapping[str, float], second: Mapping[str, float]) -> Difference:
    """Return what the second system gains.

    Args:
        first: A measure of each question.
        second: The same of the same questions.

    Raises:
        ArgumentError: The questions are not the same.
    """
    if set(first) != set(second):
        raise ArgumentError(f"{len(first)} and {len(second)} questions are not the same ones; nothing can be paired")
    gains = np.array([second[query] - first[query] for query in first], np.float64)
    low, high = _interval(gains)
    observed = abs(gains.mean())
    rng = np.random.default_rng(0)
    reached = 0
    for _ in range(0, _RESAMPLES, _BLOCK):
        signs = rng.choice((-1.0, 1.0), (_BLOCK, len(gains)))
        # What equals the observed mean but for rounding has reached it.
        reached += int((np.abs((signs * gains).mean(1)) >= observed - 1e-12).sum())
    return Difference(float(gains.mean()), low, high, (reached + 1) / (_RESAMPLES + 1))


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), (_BLOCK, len(values)))].mean(1) for _ in range(0, _RESAMPLES, _BLOCK)]
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(low), float(high)
