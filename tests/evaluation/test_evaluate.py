"""What `evaluate` measures, for whom, and that it measures nothing twice."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embrief import Embedder, Reranker
from embrief.errors import ArgumentError
from embrief.evaluation import (
    Bm25,
    EmbeddingSystem,
    Ranked,
    Results,
    RetrievalSet,
    Variant,
    compare,
    evaluate,
    rerank,
)
from embrief.evaluation.search import search
from embrief.testing import FakeRuntime

pytest.importorskip("ir_measures")

TEXTS = {
    "mars": "Mars is often called the Red Planet because of iron on its surface.",
    "venus": "Venus is the hottest planet, and very bright.",
    "copy": "Copy a directory tree to another place.",
    "zip": "Pack the members of an archive and compress them.",
}


@pytest.fixture
def planets():
    return RetrievalSet(
        "planets",
        TEXTS,
        {"q1": "the red planet", "q2": "copy a directory"},
        {"q1": {"mars": 1}, "q2": {"copy": 1}},
        "Find the planet or the function",
    )


class Fixed:
    """A system that finds what it is told to, and notes each time it is asked."""

    def __init__(self, name, *rankings, version="1"):
        self.name, self.rankings, self.version = name, rankings, version
        self.asked = []

    def variants(self, found):
        return [
            Variant(f"{self.name}{place}", {"version": self.version}, None if place == 0 else f"{self.name}0")
            for place in range(len(self.rankings))
        ]

    def rank(self, found, wanted):
        for variant, ranking in zip(self.variants(found), self.rankings, strict=True):
            if variant.label in wanted:
                self.asked.append(variant.label)
                if ranking is None:
                    raise KeyboardInterrupt
                yield Ranked(variant, ranking, {"queries": 0.5})


GOOD = {"q1": ["mars", "zip"], "q2": ["copy", "zip"]}
HALF = {"q1": ["mars", "zip"], "q2": ["zip", "venus"]}


def means(results, measure="nDCG@10"):
    return {row["system"]: row["measures"][measure]["mean"] for row in results.rows}


def test_every_system_has_a_line_with_its_own_figures(planets):
    results = evaluate([planets], [Fixed("a", GOOD, HALF), Fixed("b", HALF)])
    assert means(results) == {"a0": 1.0, "a1": 0.5, "b0": 0.5}
    row = results.rows[1]
    assert (row["documents"], row["queries"], row["against"], row["seconds"]) == (4, 2, "a0", {"queries": 0.5})
    assert row["per_query"]["nDCG@10"] == {"q1": 1.0, "q2": 0.0}


def test_what_was_measured_is_kept_and_the_rest_goes_on(planets, tmp_path):
    out = tmp_path / "results.json"
    broken = Fixed("a", GOOD, None)
    with pytest.raises(KeyboardInterrupt):
        evaluate([planets], [Fixed("z", HALF), broken], out=out)
    assert list(means(Results.load(out))) == ["z0", "a0"]
    first, second = Fixed("z", HALF), Fixed("a", GOOD, HALF)
    results = evaluate([planets], [first, second], out=out)
    assert (first.asked, second.asked) == ([], ["a1"])
    assert means(results) == {"z0": 0.5, "a0": 1.0, "a1": 0.5}
    assert Results.load(out).rows == results.rows


def test_a_second_run_with_other_systems_keeps_the_first_ones(planets, tmp_path):
    out = tmp_path / "results.json"
    evaluate([planets], [Fixed("a", GOOD)], out=out)
    assert means(evaluate([planets], [Fixed("b", HALF)], out=out, fresh=True)) == {"b0": 0.5}
    assert means(Results.load(out)) == {"b0": 0.5, "a0": 1.0}


def test_two_lines_of_one_name_are_refused_before_anything_runs(planets):
    system = Fixed("a", GOOD)
    with pytest.raises(ArgumentError, match="two lines would be called 'a0'"):
        evaluate([planets], [system, Fixed("a", HALF)])
    assert system.asked == []


def test_a_line_that_is_kept_has_the_sets_new_name(planets, tmp_path):
    out = tmp_path / "results.json"
    evaluate([planets], [Fixed("a", GOOD)], out=out)
    other = RetrievalSet("worlds", planets.corpus, planets.queries, planets.judgements)
    results = evaluate([other], [Fixed("a", GOOD, HALF)], out=out)
    assert list(results.sets()) == ["worlds"]


@pytest.mark.parametrize("change", ["model", "set", "fresh"])
def test_what_has_changed_is_measured_again(planets, tmp_path, change):
    out = tmp_path / "results.json"
    evaluate([planets], [Fixed("a", GOOD)], out=out)
    system = Fixed("a", HALF, version="2" if change == "model" else "1")
    found = RetrievalSet("planets", TEXTS, {"q1": "red"}, {"q1": {"mars": 1}}) if change == "set" else planets
    evaluate([found], [system], out=out, fresh=change == "fresh")
    assert system.asked == ["a0"]


def test_an_interrupted_run_keeps_lines_of_systems_that_were_still_to_come(planets, tmp_path):
    out = tmp_path / "results.json"
    evaluate([planets], [Fixed("a", GOOD), Fixed("b", GOOD)], out=out)
    with pytest.raises(KeyboardInterrupt):
        evaluate([planets], [Fixed("a", HALF, None, version="2"), Fixed("b", GOOD)], out=out)
    assert means(Results.load(out)) == {"a0": 0.5, "b0": 1.0}


def test_a_file_of_something_else_is_refused(tmp_path, planets):
    out = tmp_path / "results.json"
    out.write_text(json.dumps({"format": 1, "rows": []}))
    with pytest.raises(ArgumentError, match="holds no results of embrief eval"):
        evaluate([planets], [Fixed("a", GOOD)], out=out)


def test_exact_search_orders_all_and_breaks_ties_by_place():
    documents = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], np.float32)
    queries = np.array([[1, 0], [0, 1]] * 200, np.float32)
    found = search(queries, documents, 3)
    assert found.shape == (400, 3)
    assert found[::2].tolist() == [[0, 2, 3]] * 200
    assert found[1::2].tolist() == [[1, 3, 0]] * 200
    assert search(queries, documents, 99).shape == (400, 4)


def test_bm25_finds_words(planets):
    pytest.importorskip("bm25s")
    results = evaluate([planets], [Bm25()])
    assert means(results) == {"BM25": 1.0}
    # What shares no word with a question is not found by it.
    none = RetrievalSet("s", TEXTS, {"q": "unheard of"}, {"q": {"mars": 1}})
    assert means(evaluate([none], [Bm25()]), "R@100") == {"BM25": 0.0}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("corpus", "queries"),
    [
        ({"a": "x", "b": "y"}, {"q": "x", "other": "mars"}),
        ({"a": "the", "b": ""}, {"q": "the"}),
        ({"a": "mars", "b": "x"}, {"q": "x", "other": ""}),
    ],
)
def test_bm25_finds_nothing_where_no_word_counts(corpus, queries):
    """Words of one letter and stop words do not count."""
    found = RetrievalSet("s", corpus, queries, {name: {"a": 1} for name in queries})
    ((_, ranked),) = _ranked(Bm25(), found)
    assert ranked.ranking == {name: [] for name in queries}
    assert means(evaluate([found], [Bm25()])) == {"BM25": 0.0}


def test_an_embedding_model_is_a_line_per_width_and_documents_run_once(planets, monkeypatch):
    calls = []
    original = Embedder.encode

    def noted(self, texts, *, role, **options):
        calls.append((role, len(texts), options.get("instruction")))
        return original(self, texts, role=role, **options)

    monkeypatch.setattr(Embedder, "encode", noted)
    system = EmbeddingSystem(Embedder("embrief/hash"), "hash", dims=(64,))
    results = evaluate([planets], [system])
    assert list(means(results)) == ["hash", "hash, 64 values"]
    assert results.rows[1]["against"] == "hash"
    assert results.rows[0]["identity"] != results.rows[1]["identity"]
    assert means(results)["hash"] == 1.0
    documents = [call for call in calls if call[0] == "document"]
    assert sum(count for _, count, _ in documents) in (4, 8)  # hash computes its widths natively


def test_instructions_that_a_model_cannot_follow_are_left_out(planets):
    system = EmbeddingSystem(Embedder("embrief/hash"), "hash", instructions=("default", "own", "none", "a sentence"))
    assert [variant.label for variant in system.variants(planets)] == ["hash"]
    system = EmbeddingSystem(Embedder("embrief/hash"), "hash", instructions=("none",))
    assert [variant.label for variant in system.variants(planets)] == ["hash"]


def test_a_model_that_always_has_an_instruction_has_no_line_without(planets):
    with FakeRuntime() as fake:
        system = EmbeddingSystem(Embedder(fake.vision), "vision", instructions=("none", "default", " ", "Find it"))
        assert [variant.label for variant in system.variants(planets)] == ["vision", "vision, instruction 'Find it'"]
        assert len(_ranked(system, planets)) == 2
        system = EmbeddingSystem(Embedder(fake.vision), "vision", instructions=("none",))
        assert [variant.label for variant in system.variants(planets)] == ["vision"]


@pytest.fixture
def qwen3(qwen3_folder):
    return Embedder(qwen3_folder, like="Qwen/Qwen3-Embedding-0.6B", dtype="float32", device="cpu")


def test_each_instruction_reaches_the_queries_and_no_document(planets, qwen3):
    system = EmbeddingSystem(qwen3, "tiny", instructions=("default", "own", "none", "Find it"))
    found = {variant.label: ranked for variant, ranked in _ranked(system, planets)}
    assert list(found) == ["tiny", "tiny, the set's instruction", "tiny, no instruction", "tiny, instruction 'Find it'"]
    documents = qwen3.embed_documents(list(TEXTS.values()))
    for ranked, instruction in zip(found.values(), (None, planets.instruction, "", "Find it"), strict=True):
        queries = qwen3.embed_queries(list(planets.queries.values()), instruction=instruction)
        names = list(TEXTS)
        expected = [[names[place] for place in row] for row in search(queries, documents, 100)]
        assert list(ranked.ranking.values()) == expected
    identities = [json.dumps(variant.identity) for variant in system.variants(planets)]
    assert len(set(identities)) == 4


def _ranked(system, found):
    labels = [variant.label for variant in system.variants(found)]
    ranked = list(system.rank(found, labels))
    assert [item.variant.label for item in ranked] == labels
    return [(item.variant, item) for item in ranked]


def test_a_set_without_an_instruction_has_no_line_for_its_own(planets, qwen3):
    bare = RetrievalSet("bare", planets.corpus, planets.queries, planets.judgements)
    system = EmbeddingSystem(qwen3, "tiny", instructions=("own", "none"))
    assert [variant.label for variant in system.variants(bare)] == ["tiny, no instruction"]


def test_a_reranker_reorders_its_candidates_and_leaves_the_rest(planets, reranker_folder):
    judge = Reranker(reranker_folder, like="Qwen/Qwen3-Reranker-0.6B", dtype="float32", device="cpu")
    ranking = {query: list(TEXTS) for query in planets.queries}
    found = rerank(judge, planets, ranking, 3)
    for query, names in found.items():
        scores = dict(zip(TEXTS, judge.score(planets.queries[query], list(TEXTS.values())), strict=True))
        assert names == [*sorted(list(TEXTS)[:3], key=lambda name: -scores[name]), "zip"]
    other = rerank(judge, planets, ranking, 3, "Judge the colour")
    for query, names in other.items():
        texts = list(TEXTS.values())
        scores = judge.score(planets.queries[query], texts, instruction="Judge the colour")
        found_scores = dict(zip(TEXTS, scores, strict=True))
        assert names == [*sorted(list(TEXTS)[:3], key=lambda name: -found_scores[name]), "zip"]


def test_lines_with_a_reranker_are_compared_with_those_without(planets, qwen3, reranker_folder):
    judge = Reranker(reranker_folder, like="Qwen/Qwen3-Reranker-0.6B", dtype="float32", device="cpu")
    system = EmbeddingSystem(qwen3, "tiny", instructions=("default", "none"), rerankers={"judge": judge}, top=2)
    lines = {variant.label: variant for variant in system.variants(planets)}
    assert [variant.against for variant in lines.values()] == [None, "tiny", "tiny", "tiny, no instruction"]
    results = evaluate([planets], [system])
    assert "rerank" in results.rows[1]["seconds"]
    assert results.rows[1]["measures"]["R@100"] == results.rows[0]["measures"]["R@100"]


def test_what_was_measured_is_kept_only_while_everything_that_moves_it_is_the_same(planets, qwen3, reranker_folder):
    judge = Reranker(reranker_folder, like="Qwen/Qwen3-Reranker-0.6B", dtype="float32", device="cpu")
    own = RetrievalSet("own", planets.corpus, planets.queries, planets.judgements, "Another sentence")

    def identities(embedder, found=planets, judge=judge, **options):
        system = EmbeddingSystem(embedder, "tiny", rerankers={"judge": judge}, **options)
        return {variant.label: variant.identity for variant in system.variants(found)}

    first = identities(qwen3, dims=(32, 40))
    assert first == identities(qwen3, dims=(32, 40))
    assert len({json.dumps(identity) for identity in first.values()}) == 4
    # A line is the same whatever stands beside it.
    alone = identities(qwen3)
    assert alone == {label: first[label] for label in alone}
    for label, identity in identities(qwen3.with_instruction("Find it"), dims=(32, 40)).items():
        assert identity != first[label], label
    asked = {"instructions": ("own",), "dims": (32,)}
    for label, identity in identities(qwen3, own, **asked).items():
        assert identity != identities(qwen3, planets, **asked)[label], label
    other = identities(qwen3, judge=judge.with_instruction("Judge it"))
    assert [label for label in other if other[label] != alone[label]] == ["tiny + judge on 50"]


def test_choices_that_cannot_work_are_refused_at_once():
    with pytest.raises(ArgumentError, match="100"):
        EmbeddingSystem(Embedder("embrief/hash"), "hash", top=101)
    with pytest.raises(ArgumentError, match="dim"):
        EmbeddingSystem(Embedder("embrief/hash"), "hash", dims=(100_000,))


def test_a_reranker_knows_what_moves_its_scores(reranker_folder):
    def make(**options):
        return Reranker(reranker_folder, like="Qwen/Qwen3-Reranker-0.6B", **{"dtype": "float32"} | options)

    first = make().fingerprint
    assert make().fingerprint == first
    for change in ({"dtype": "bfloat16"}, {"max_tokens": 99}, {"truncate": "error"}, {"instruction": "other"}):
        assert make(**change).fingerprint != first


def test_two_runs_are_compared_question_by_question(planets):
    first, second = evaluate([planets], [Fixed("a", HALF)]), evaluate([planets], [Fixed("a", GOOD)])
    found = {item["measure"]: item for item in compare(first, second)}
    assert (found["nDCG@10"]["gain"], found["nDCG@10"]["first_mean"]) == (0.5, 0.5)
    assert found["R@10"]["p"] == pytest.approx(1, abs=0.05)  # one question of two: chance does as well
    both = evaluate([planets], [Fixed("a", HALF, GOOD)])
    (item, *_) = compare(both, both, "a0", "a1")
    assert (item["first"], item["second"], item["gain"]) == ("a0", "a1", 0.5)


def test_runs_that_have_nothing_in_common_are_not_compared(planets):
    first = evaluate([planets], [Fixed("a", HALF, GOOD)])
    second = evaluate([planets], [Fixed("b", GOOD, HALF)])
    with pytest.raises(ArgumentError, match="there are 'a0', 'a1' and 'b0', 'b1'"):
        compare(first, second)
    other = RetrievalSet("planets", TEXTS, {"q1": "red"}, {"q1": {"mars": 1}})
    with pytest.raises(ArgumentError, match="not the same set"):
        compare(first, evaluate([other], [Fixed("a", HALF, GOOD)]))
