"""Reading retrieval sets: what a file says is what is measured, and a broken file is refused with its line."""

from __future__ import annotations

import gzip
import json

import pytest

from embrief.errors import ArgumentError
from embrief.evaluation import RetrievalSet, load, make_set, read_beir, write_beir

CORPUS = [
    {"_id": "a", "title": "Mars", "text": "is the Red Planet."},
    {"_id": "b", "title": "", "text": "Venus is bright.\nVery."},
    {"_id": 3, "text": "Jupiter, \u201clarge\u201d"},
]
QUERIES = [
    {"_id": "q1", "text": "red?"},
    {"_id": "q2", "text": "nothing relevant"},
    {"_id": "q3", "text": "not judged"},
]
QRELS = ["query-id\tcorpus-id\tscore", "q1\ta\t2", "q1\tb\t0", "q2\tb\t0"]


def write(folder, corpus=CORPUS, queries=QUERIES, qrels=QRELS, split="test"):
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, items in (("corpus", corpus), ("queries", queries)):
        lines = [item if isinstance(item, str) else json.dumps(item) for item in items]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(qrels) + "\n", "utf-8")
    return folder


def test_a_beir_folder_is_read_as_it_is_written(tmp_path):
    found = read_beir(write(tmp_path / "planets"))
    assert found.name == "planets"
    assert found.corpus == {
        "a": "Mars is the Red Planet.",
        "b": "Venus is bright.\nVery.",
        "3": "Jupiter, \u201clarge\u201d",
    }
    # Questions without a relevant document say nothing.
    assert found.queries == {"q1": "red?"}
    assert found.judgements == {"q1": {"a": 2, "b": 0}}


def test_a_set_survives_being_written(tmp_path):
    found = read_beir(write(tmp_path / "planets"))
    write_beir(found, tmp_path / "again" / "planets")
    again = read_beir(tmp_path / "again" / "planets")
    assert again == found
    assert again.digest == found.digest


def test_the_only_split_is_taken_and_of_several_the_named_one(tmp_path):
    folder = write(tmp_path / "planets", split="dev")
    assert set(read_beir(folder).queries) == {"q1"}
    write(folder, split="train", qrels=[QRELS[0], "q3\t3\t1"])
    assert set(read_beir(folder, "train").queries) == {"q3"}
    with pytest.raises(ArgumentError, match="no judgements of the split 'test'; there are: dev, train"):
        read_beir(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": [*CORPUS, CORPUS[0]]}, r"corpus\.jsonl, line 4 repeats the _id 'a'"),
        ({"corpus": [CORPUS[0], "{nothing"]}, r"corpus\.jsonl, line 2 is no JSON"),
        ({"corpus": ["[1]"]}, r"corpus\.jsonl, line 1 is no JSON object"),
        ({"corpus": [{"_id": "a", "text": None}]}, r"corpus\.jsonl, line 1 has no text"),
        ({"corpus": [{"_id": "a", "title": 3, "text": "x"}]}, r"corpus\.jsonl, line 1 has no title"),
        ({"queries": [{"text": "x"}]}, r"queries\.jsonl, line 1 has no _id"),
        ({"qrels": [QRELS[0], "q1\tz\t1"]}, r"test\.tsv, line 2: 'q1' is no question, or 'z' no document"),
        ({"qrels": [QRELS[0], "q9\ta\t1"]}, r"test\.tsv, line 2: 'q9' is no question"),
        ({"qrels": [QRELS[0], "q1\ta\t0.5"]}, r"test\.tsv, line 2 is .*a whole number"),
        ({"qrels": [QRELS[0], "q1 a 1"]}, r"test\.tsv, line 2 is "),
        ({"qrels": [QRELS[0], "q1\ta\t0"]}, "has no questions with a relevant document"),
        ({"corpus": [], "qrels": QRELS[:1]}, "has no documents"),
    ],
)
def test_a_broken_folder_is_refused_with_the_line(tmp_path, changes, message):
    with pytest.raises(ArgumentError, match=message):
        read_beir(write(tmp_path / "planets", **changes))


def test_a_missing_file_is_named(tmp_path):
    folder = write(tmp_path / "planets")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(ArgumentError, match=r"queries\.jsonl is missing"):
        read_beir(folder)
    with pytest.raises(ArgumentError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(ArgumentError, match="holds no retrieval set"):
        load(tmp_path)


def test_judgements_without_a_head_line_lose_none(tmp_path):
    assert set(read_beir(write(tmp_path / "planets", qrels=QRELS[1:])).queries) == {"q1"}


@pytest.mark.parametrize(
    ("queries", "judgements", "message"),
    [
        ({"q": "x"}, {}, "no text or no judgement"),
        ({"q": "x"}, {"q": {"z": 1}}, "judged with 'z', no document"),
        ({"q": "x"}, {"q": {"a": 0}}, "no relevant document"),
    ],
)
def test_parts_that_do_not_fit_are_refused(queries, judgements, message):
    with pytest.raises(ArgumentError, match=message):
        RetrievalSet("s", {"a": "text"}, queries, judgements)


def test_the_digest_follows_the_content():
    parts = {"corpus": {"a": "x", "b": "y"}, "queries": {"q": "z"}, "judgements": {"q": {"a": 1}}}
    first = RetrievalSet("s", **parts)
    assert RetrievalSet("other name", **parts).digest == first.digest
    for change in (
        {"corpus": {"a": "x", "b": "Y"}},
        {"queries": {"q": "Z"}},
        {"judgements": {"q": {"b": 1}}},
        {"judgements": {"q": {"a": 2}}},
    ):
        assert RetrievalSet("s", **(parts | change)).digest != first.digest


def test_fewer_questions_are_taken_evenly():
    names = [f"q{place}" for place in range(10)]
    found = make_set("s", {"a": "x"}, dict.fromkeys(names, "?"), {name: {"a": 1} for name in names}, "find it")
    assert list(found.first(5).queries) == ["q0", "q2", "q4", "q6", "q8"]
    assert found.first(5).instruction == "find it"
    assert found.first(99) == found


def test_cranfield_numbers_questions_by_their_order(tmp_path):
    (tmp_path / "cran.all.1400").write_text(
        ".I 1\n.T\nwings .\n.A\nx\n.B\ny\n.W\nwings .\nof birds\n.I 2\n.T\n.A\n.B\n.W\n.I 3\n.W\nflow\n", "latin-1"
    )
    (tmp_path / "cran.qry").write_text(".I 001\n.W\nwhat\nflies\n.I 004\n.W\nwhat flows\n", "latin-1")
    (tmp_path / "cranqrel").write_text("1 1 2\n1 3 -1\n2 3 4\n2 2 1\n")
    (found,) = load(tmp_path)
    assert found.corpus == {"1": "wings . of birds", "3": "flow"}
    assert found.queries == {"1": "what flies", "2": "what flows"}
    # -1 is not relevant, and an empty abstract cannot be found.
    assert found.judgements == {"1": {"1": 1, "3": 0}, "2": {"3": 1}}


def test_xquad_gives_a_set_per_language(tmp_path):
    article = {"paragraphs": [{"context": "Bees fly.", "qas": [{"id": "x", "question": "Who?"}]}]}
    for language in ("de", "en"):
        (tmp_path / f"xquad.{language}.json").write_text(json.dumps({"data": [article]}))
    german, english = load(tmp_path)
    assert (german.name, english.name) == ("xquad-de", "xquad-en")
    assert english.queries == {"x": "Who?"}
    assert english.judgements == {"x": {"p0": 1}}
    assert [found.name for found in load(tmp_path / "xquad.en.json")] == ["xquad-en"]


def test_cosqa_keeps_wrong_answers_as_documents_and_equal_code_once(tmp_path):
    items = [
        {"doc": "sort a list", "code": "def f(): sort", "label": 1},
        {"doc": "sort a list", "code": "def g(): pass", "label": 0},
        {"doc": "order items", "code": "def f(): sort", "label": 1},
        {"doc": "unanswered", "code": "def g(): pass", "label": 0},
    ]
    (tmp_path / "cosqa-dev.json").write_text(json.dumps(items))
    (found,) = load(tmp_path)
    assert list(found.corpus.values()) == ["def f(): sort", "def g(): pass"]
    assert sorted(found.queries.values()) == ["order items", "sort a list"]
    assert found.judgements["q0"] == {"c0": 1, "c1": 0}


def test_humaneval_asks_with_the_docstring_and_answers_with_the_body(tmp_path):
    item = {
        "task_id": "HumanEval/0",
        "prompt": 'def help(): pass\n\ndef add(a, b):\n    """ Add two\n    numbers."""\n',
        "entry_point": "add",
        "canonical_solution": "    return a + b\n",
    }
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(item) + "\n")
    (found,) = load(tmp_path)
    assert found.queries == {"HumanEval/0": "Add two\nnumbers."}
    assert found.corpus == {"HumanEval/0": "    return a + b\n"}


@pytest.mark.parametrize(
    ("folder", "name", "documents", "queries"),
    [
        ("cranfield", "cranfield", 1398, 225),
        ("xquad/xquad.en.json", "xquad-en", 240, 1190),
        ("humaneval", "humaneval", 164, 164),
    ],
)
def test_the_published_files_have_their_known_sizes(data, folder, name, documents, queries):
    (found,) = load(data / "retrieval" / folder)
    assert (found.name, len(found.corpus), len(found.queries)) == (name, documents, queries)
    assert all(text.strip() for text in (*found.corpus.values(), *found.queries.values()))


def test_the_published_cosqa_has_its_positive_pairs(data):
    (found,) = load(data / "retrieval" / "cosqa")
    assert sum(sum(grades.values()) for grades in found.judgements.values()) == 313
