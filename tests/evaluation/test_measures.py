"""The figures mean what they say: measures against their definitions, intervals and chances against known cases."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from embrief.errors import ArgumentError
from embrief.evaluation import NAMES, difference, mean, score

pytest.importorskip("ir_measures")


def by_definition(ranking, grades):
    """Järvelin and Kekäläinen 2002 with linear gains; the reciprocal rank of the first hit; found of all relevant."""
    relevant = {name for name, grade in grades.items() if grade > 0}
    gains = [max(0, grades.get(name, 0)) for name in ranking[:10]]
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:10]
    dcg, ideal = (sum(gain / math.log2(place + 2) for place, gain in enumerate(row)) for row in (gains, best))
    hits = [place for place, name in enumerate(ranking[:10], 1) if name in relevant]
    return {
        "nDCG@10": dcg / ideal,
        "MRR@10": 1 / hits[0] if hits else 0.0,
        "R@10": len(relevant & set(ranking[:10])) / len(relevant),
        "R@100": len(relevant & set(ranking[:100])) / len(relevant),
    }


def test_measures_agree_with_their_definitions():
    chance = random.Random(0)
    names = [f"d{place}" for place in range(300)]
    judgements, rankings = {}, {}
    for place in range(60):
        query = f"q{place}"
        judged = chance.sample(names, chance.randint(1, 30))
        judgements[query] = {name: chance.choice((-1, 0, 1, 2, 3)) for name in judged} | {judged[0]: 1}
        rankings[query] = chance.sample(names, chance.choice((3, 10, 11, 100, 250)))
    found = score(rankings, judgements)
    assert set(found) == set(NAMES)
    for query, ranking in rankings.items():
        for measure, expected in by_definition(ranking, judgements[query]).items():
            assert found[measure][query] == pytest.approx(expected, abs=1e-6), (measure, query)


def test_a_hit_at_place_11_counts_for_recall_at_100_only():
    ranking = {"q": [f"d{place}" for place in range(10)] + ["hit"]}
    found = score(ranking, {"q": {"hit": 1}})
    assert {name: values["q"] for name, values in found.items()} == {"nDCG@10": 0, "MRR@10": 0, "R@10": 0, "R@100": 1}


def test_names_do_not_decide_the_order():
    for ranking in (["a", "z"], ["z", "a"]):
        found = score({"q": ranking}, {"q": {ranking[0]: 1}})
        assert found["MRR@10"]["q"] == 1


def test_a_question_without_a_ranking_counts_as_nothing():
    found = score({"q1": ["a"]}, {"q1": {"a": 1}, "q2": {"a": 1}})
    assert found["nDCG@10"] == {"q1": 1, "q2": 0}


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        found = mean(rng.random(60).tolist())
        assert found.low <= found.mean <= found.high
        covered += found.low <= 0.5 <= found.high
    assert 88 <= covered <= 100


def test_more_questions_give_a_narrower_interval():
    rng = np.random.default_rng(2)
    few, many = (mean(rng.random(count).tolist()) for count in (30, 1000))
    assert many.high - many.low < (few.high - few.low) / 3


def test_intervals_and_chances_are_the_same_every_time():
    rng = np.random.default_rng(3)
    first, second = ({str(place): float(value) for place, value in enumerate(rng.random(50))} for _ in range(2))
    assert difference(first, second) == difference(first, second)
    assert mean(list(first.values())) == mean(list(first.values()))


def test_a_clear_gain_is_significant_and_noise_is_not():
    rng = np.random.default_rng(4)
    base = {str(place): float(value) for place, value in enumerate(rng.random(80))}
    better = {query: value + 0.1 + 0.05 * float(rng.standard_normal()) for query, value in base.items()}
    gained = difference(base, better)
    assert gained.p < 0.001
    assert 0.05 < gained.low < gained.mean < gained.high < 0.15
    assert difference(better, base).mean == pytest.approx(-gained.mean)
    same = difference(base, base)
    assert (same.mean, same.p) == (0, 1)


def test_chances_of_noise_are_evenly_spread():
    rng = np.random.default_rng(5)
    chances = []
    for _ in range(60):
        first, second = ({str(place): float(value) for place, value in enumerate(rng.random(40))} for _ in range(2))
        chances.append(difference(first, second).p)
    assert 0.35 < np.mean(chances) < 0.65
    assert np.mean(np.array(chances) < 0.05) <= 0.15


def test_the_chance_of_few_questions_is_exact():
    # Of the 8 patterns of 3 signs, those with all equal reach the observed mean: 2 of 8.
    found = difference({"a": 0, "b": 0, "c": 0}, {"a": 1, "b": 1, "c": 1})
    assert found.p == pytest.approx(0.25, abs=0.02)


def test_other_questions_cannot_be_paired():
    with pytest.raises(ArgumentError, match="not the same ones"):
        difference({"a": 1.0}, {"b": 1.0})
