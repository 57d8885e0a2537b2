"""Retrieval sets in mteb's parquet files: what is read, as mteb's own loader reads it, and what is refused."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from embrief import Image
from embrief.cli import app
from embrief.errors import ArgumentError, MissingDependencyError
from embrief.evaluation import load
from embrief.testing import FakeRuntime

pa = pytest.importorskip("pyarrow")
pytest.importorskip("PIL")

from pyarrow import parquet  # noqa: E402


def plain(*colour):
    return Image(np.full((32, 48, 3), colour, np.uint8))


RED, BLUE = plain(255, 0, 0), plain(0, 0, 255)
CELLS = pa.struct({"bytes": pa.binary(), "path": pa.string()})
"""How the library of data sets keeps pictures."""


def cell(image):
    return {"bytes": image.to_png(), "path": None}


CORPUS = [{"id": "red", "image": cell(RED)}, {"id": "blue", "image": cell(BLUE)}]
QUERIES = [{"id": "q1", "text": "a red wall"}, {"id": "q2", "text": "the sky"}, {"id": "q3", "text": "not judged"}]
QRELS = [{"query-id": f"q{place + 1}", "corpus-id": row["id"], "score": 1} for place, row in enumerate(CORPUS)]


def put(folder, table, rows, file="test-00000-of-00001.parquet"):
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: [row.get(key) for row in rows] for key in keys}
    pictured = any(isinstance(value, dict) for value in columns.get("image", ()))
    found = pa.table(
        {key: pa.array(values, CELLS if key == "image" and pictured else None) for key, values in columns.items()}
    )
    place = folder / table / file
    place.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(found, place)


def write(folder, corpus=CORPUS, queries=QUERIES, qrels=QRELS, names=("corpus", "queries", "qrels")):
    for table, rows in zip(names, (corpus, queries, qrels), strict=True):
        put(folder, table, rows)
    return folder


def test_words_find_pictures(tmp_path):
    (found,) = load(write(tmp_path / "colours"))
    assert found.name == "colours"
    assert found.corpus == {"red": (RED,), "blue": (BLUE,)}
    assert found.queries == {"q1": "a red wall", "q2": "the sky"}
    assert found.judgements == {"q1": {"red": 1}, "q2": {"blue": 1}}


def test_it_is_what_mteb_reads_of_the_same_files(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    loaders = pytest.importorskip("mteb.abstasks.retrieval_dataset_loaders")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    corpus = [
        {"_id": "1", "title": "Mars", "text": "It is red. ", "image": cell(RED)},
        {"_id": "2", "title": "", "text": " the sky", "image": None},
        {"_id": "3", "title": "", "text": "", "image": cell(BLUE)},
    ]
    qrels = [{"query-id": name, "corpus-id": "1", "score": grade} for name, grade in (("q1", 2), ("q2", 1))]
    folder = write(tmp_path / "mixed", corpus, qrels=qrels)
    # Written by the library itself, which knows by its metadata that there are pictures.
    features = {**dict.fromkeys(("_id", "title", "text"), datasets.Value("string")), "image": datasets.Image()}
    written = datasets.Dataset.from_list(corpus, datasets.Features(features))
    written.to_parquet(folder / "corpus" / "test-00000-of-00001.parquet")
    tables = {"corpus": "corpus", "queries": "queries", "default": "qrels"}
    listed = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {place}/test-*\n"
        for name, place in tables.items()
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{listed}---\n", "utf-8")
    read = loaders.RetrievalDatasetLoader(str(folder), revision=None).load()
    (found,) = load(folder)
    # As its loader of batches puts title and text together.
    words = {row["id"]: f"{row['title']} {row['text']}".strip() for row in read["corpus"]}
    pictures = {row["id"]: row["image"] and Image(row["image"]) for row in read["corpus"]}
    held = {name: tuple(part for part in (pictures[name], words[name]) if part) for name in words}
    assert held == {name: item if isinstance(item, tuple) else (item,) for name, item in found.corpus.items()}
    assert {row["id"]: row["text"] for row in read["queries"]} == found.queries
    assert read["relevant_docs"] == found.judgements


def test_pages_are_called_as_in_other_sets_of_it(tmp_path):
    """Numbers as names, `query` for the words, and pictures as plain bytes."""
    (found,) = load(
        write(
            tmp_path / "pages",
            [{"corpus-id": 7, "image": RED.to_png(), "doc-id": "of no use"}],
            [{"query-id": 1, "query": " a red page "}],
            [{"query-id": 1, "corpus-id": 7, "score": 1.0, "answer": "of no use"}],
            ("corpus", "query", "data"),
        )
    )
    assert (found.corpus, found.queries, found.judgements) == (
        {"7": (RED,)}, {"1": " a red page "}, {"1": {"7": 1}},
    )  # fmt: skip


def test_the_modality_of_a_row_says_which_of_both_counts(tmp_path):
    both = {"text": "words", "image": cell(RED)}
    kinds = {"red": "image", "blue": "text", "all": "image,text", "any": None}
    corpus = [{"id": name, "modality": kind, **both} for name, kind in kinds.items()]
    (found,) = load(write(tmp_path / "set", corpus))
    assert list(found.corpus.values()) == [(RED,), "words", (RED, "words"), (RED, "words")]


def test_a_folder_may_have_several_sets_splits_and_files(tmp_path):
    folder = tmp_path / "datasets--owner--colours" / "snapshots" / "0123abc"
    for language in ("de", "en"):
        write(folder, names=[f"{language}-{table}" for table in ("corpus", "queries", "qrels")])
    put(folder, "en-corpus", [{"id": "more", "image": cell(BLUE)}], "test-00001-of-00002.parquet")
    put(folder, "de-queries", QUERIES[:1], "dev-00000-of-00001.parquet")
    put(folder, "de-qrels", QRELS[:1], "dev/0000.parquet")
    german, english = load(folder)
    assert (german.name, english.name) == ("colours-de", "colours-en")
    assert list(english.corpus) == ["red", "blue", "more"]
    assert (len(german.queries), len(english.queries)) == (2, 2)
    german, english = load(folder, split="dev")
    assert (list(german.queries), list(english.queries)) == (["q1"], ["q1", "q2"])
    with pytest.raises(ArgumentError, match=r"de-queries has no split 'train'; there are: dev, test"):
        load(folder, split="train")


WORDS = [{"id": "a", "text": "x"}]


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        ("corpus", [*CORPUS, {"id": "c"}], "row 3 has no text and no image, and nothing is embedded in a picture's"),
        ("corpus", [*CORPUS, {"id": "c", "text": " \n", "image": None}], "row 3 has no text and no image"),
        ("corpus", [*CORPUS, {"id": "c", "title": "a title alone", "image": None}], "row 3 has no text and no image"),
        ("corpus", [*CORPUS, {"id": "c", "text": "x", "modality": "audio"}], "row 3 has no text and no image"),
        ("corpus", [{"id": "c", "image": {"bytes": None, "path": "/a.png"}}], "row 1 has an image without bytes"),
        ("corpus", [{"id": "c", "image": {"bytes": b"GIF", "path": None}}], "row 1: "),
        ("corpus", [{"id": "c", "image": "red.png"}], "row 1 has an image without bytes"),
        ("corpus", [*CORPUS, {"id": "red", "image": cell(BLUE)}], "row 3 repeats the id 'red'"),
        ("corpus", [{"image": cell(RED)}], "row 1 has no id that is a string or a number"),
        ("corpus", [{"id": "c", "text": 3}], "row 1 has a text that is no string"),
        ("corpus", [{"id": "c", "text": "x", "audio": b""}], "has audio; texts and pictures are embedded here"),
        ("queries", [{"id": "q1", "image": None, "text": ""}], "row 1 has no text and no image"),
        ("qrels", [{"query-id": "q1", "corpus-id": "z", "score": 1}], "row 1: 'q1' is no question, or 'z' no document"),
        ("qrels", [{"query-id": "z", "corpus-id": "red", "score": 1}], "row 1: 'z' is no question"),
        ("qrels", [{"query-id": "q1", "corpus-id": "red", "score": 0.5}], "row 1 has the score 0.5"),
        ("qrels", [{"query-id": "q1", "corpus-id": "red", "score": float("nan")}], "row 1 has the score nan"),
        ("qrels", [{"query-id": "q1", "corpus-id": "red"}], "row 1 has the score None"),
    ],
)
def test_what_is_not_as_it_has_to_be_is_refused_with_its_row(tmp_path, table, rows, message):
    folder = write(tmp_path / "set")
    put(folder, table, rows)
    with pytest.raises(ArgumentError, match=message) as caught:
        load(folder)
    assert table in str(caught.value)


def test_tables_that_are_missing_broken_or_of_another_task_are_refused(tmp_path):
    folder = write(tmp_path / "set")
    for more in ("instruction", "top_ranked"):
        put(folder, more, WORDS)
        with pytest.raises(ArgumentError, match=f"has {more}: .* measure it with mteb itself"):
            load(folder)
        (folder / more / "test-00000-of-00001.parquet").unlink()
        (folder / more).rmdir()
    file = folder / "qrels" / "test-00000-of-00001.parquet"
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(ArgumentError, match=r"test-00000-of-00001\.parquet cannot be read as a parquet file"):
        load(folder)
    file.unlink()
    with pytest.raises(ArgumentError, match="has no parquet files in qrels or default or data"):
        load(folder)
    (tmp_path / "other" / "corpus").mkdir(parents=True)
    with pytest.raises(ArgumentError, match=r"holds no retrieval set: .* mteb's has parquet files"):
        load(tmp_path / "other")


def test_an_empty_text_among_texts_is_one(tmp_path):
    (found,) = load(write(tmp_path / "set", [*WORDS, {"id": "red", "text": ""}, {"id": "blue", "text": "y"}]))
    assert found.corpus == {"a": "x", "red": "", "blue": "y"}


def test_the_command_says_what_reads_them(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match="pip install pyarrow"):
        load(write(tmp_path / "set"))


def test_the_command_measures_them(tmp_path):
    pytest.importorskip("ir_measures")
    queries = [{"id": name, "image": cell(image)} for name, image in (("q1", RED), ("q2", BLUE))]
    write(tmp_path / "colours", queries=queries)
    out = tmp_path / "found.json"
    with FakeRuntime() as fake:
        arguments = ["eval", str(tmp_path / "colours"), "--model", fake.vision, "--out", str(out)]
        done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    (row,) = json.loads(out.read_text("utf-8"))["rows"]
    assert (row["set"], row["documents"], row["queries"]) == ("colours", 2, 2)
    # A picture is a word of its own for this model.
    assert row["measures"]["MRR@10"]["mean"] == 1.0
