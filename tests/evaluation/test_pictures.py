"""Sets whose documents and questions hold pictures: what is read, what is refused, and what is measured."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embrief import Embedder, Image, Reranker
from embrief.cli import app
from embrief.errors import ArgumentError
from embrief.evaluation import (
    Bm25,
    EmbeddingSystem,
    RetrievalSet,
    UnfitError,
    evaluate,
    read_beir,
    rerank,
    write_beir,
)
from embrief.runtimes.engine_options import EngineOptions
from embrief.testing import FakeRuntime
from embrief.wrapping import PicturedText

pytest.importorskip("PIL")


def plain(*colour):
    return Image(np.full((32, 48, 3), colour, np.uint8))


RED, BLUE = plain(255, 0, 0), plain(0, 0, 255)


@pytest.fixture
def fake():
    with FakeRuntime() as runtime:
        yield runtime


@pytest.fixture
def colours():
    return RetrievalSet(
        "colours",
        {"red": RED, "both": {"text": "blue sky", "image": BLUE}, "words": "a copied tree"},
        {"q1": RED, "q2": "a copied tree", "q3": ("blue sky", BLUE)},
        {"q1": {"red": 1}, "q2": {"words": 1}, "q3": {"both": 1}},
        "Find the same",
    )


def write(folder, corpus, queries=({"_id": "q", "text": "red?"},)):
    (folder / "qrels").mkdir(parents=True)
    for name, items in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    (folder / "qrels" / "test.tsv").write_text("q\ta\t1\n", "utf-8")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "red.png").write_bytes(RED.to_png())
    (folder / "blue.png").write_bytes(BLUE.to_png())
    return folder


def test_documents_and_questions_may_be_pictures(tmp_path):
    found = read_beir(
        write(
            tmp_path / "set",
            [
                {"_id": "a", "image": "pictures/red.png"},
                {"_id": "b", "title": "Sky", "text": "blue", "image": "blue.png"},
                {"_id": "c", "title": "Two", "image": ["blue.png", "pictures/red.png"], "text": ""},
                {"_id": "d", "text": "words", "image": None},
            ],
            [{"_id": "q", "image": "blue.png"}],
        )
    )
    assert found.corpus == {"a": (RED,), "b": (BLUE, "Sky blue"), "c": (BLUE, RED, "Two"), "d": "words"}
    assert found.queries == {"q": (BLUE,)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": "../outside.png"}, "is no file in the set's folder"),
        ({"image": "pictures/../../outside.png"}, "is no file in the set's folder"),
        ({"image": "nowhere.png"}, "is no file in the set's folder"),
        ({"image": "pictures"}, "is no file in the set's folder"),
        ({"image": ""}, "is no file in the set's folder"),
        ({"image": "x" * 5000}, "is no file in the set's folder"),
        ({"image": "red\0.png"}, "is no file in the set's folder"),
        ({"image": "https://example.org/red.png"}, "is no file in the set's folder"),
        ({"image": 3}, "has an image that is no path"),
        ({"image": []}, "has an image that is no path"),
        ({"image": ["blue.png", None]}, "has an image that is no path"),
        ({"image": "corpus.jsonl"}, "corpus.jsonl"),
        ({"image": "blue.png", "text": 3}, "has no text that is a string"),
        ({}, "has no text that is a string"),
    ],
)
def test_a_picture_that_is_none_or_lies_elsewhere_is_refused_with_its_line(tmp_path, fields, message):
    (tmp_path / "outside.png").write_bytes(RED.to_png())
    folder = write(tmp_path / "set", [{"_id": "a", "image": "blue.png"}, {"_id": "b", **fields}])
    with pytest.raises(ArgumentError, match=message) as caught:
        read_beir(folder)
    assert "corpus.jsonl, line 2" in str(caught.value)


def test_a_whole_path_is_refused_also_of_a_picture_that_is_there(tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(RED.to_png())
    with pytest.raises(ArgumentError, match="is no file in the set's folder"):
        read_beir(write(tmp_path / "set", [{"_id": "a", "image": str(outside)}]))


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_leads_nowhere_else(tmp_path):
    (tmp_path / "outside.png").write_bytes(RED.to_png())
    folder = write(tmp_path / "set", [{"_id": "a", "image": "link.png"}])
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(ArgumentError, match="is no file in the set's folder"):
        read_beir(folder)
    (folder / "link.png").unlink()
    os.mkfifo(folder / "link.png")  # reading it would wait for ever
    with pytest.raises(ArgumentError, match="is no file in the set's folder"):
        read_beir(folder)


def test_a_set_with_pictures_survives_being_written(colours, tmp_path):
    write_beir(colours, tmp_path / "colours")
    again = read_beir(tmp_path / "colours")
    assert (again.corpus, again.queries, again.judgements) == (colours.corpus, colours.queries, colours.judgements)
    assert again.digest == colours.digest
    several = RetrievalSet("s", {"a": ("one", RED, "two")}, {"q": "x"}, {"q": {"a": 1}})
    with pytest.raises(ArgumentError, match="document 'a' has 2 texts"):
        write_beir(several, tmp_path / "several")


def test_the_digest_follows_the_pixels_and_the_words():
    def digest(item):
        return RetrievalSet("s", {"a": item, "b": "words"}, {"q": "x"}, {"q": {"a": 1}}).digest

    first = digest(RED)
    assert digest(Image(RED.to_png())) == digest((RED,)) == digest({"image": RED}) == first
    others = [digest(BLUE), digest({"image": RED, "text": "red"}), digest((RED, BLUE)), digest(RED.digest.hex())]
    # Words that are called like a picture are none.
    others.append(digest((RED, BLUE.digest.hex())))
    assert len({first, *others}) == 6
    assert digest({"text": "red", "image": RED}) == digest((RED, "red")) == digest(PicturedText("red", [RED]))
    assert digest({"text": "red", "image": None}) == digest({"text": "red"}) == digest(["re", "d"]) == digest("red")


@pytest.mark.parametrize(
    "item", [3, (), {"text": None}, {"image": RED, "video": "x"}, {"image": "a.png"}, [RED, None], None]
)
def test_what_is_neither_text_nor_picture_is_refused(item):
    with pytest.raises(ArgumentError, match="s: document 'a' is "):
        RetrievalSet("s", {"a": item, "b": RED}, {"q": "x"}, {"q": {"b": 1}})
    with pytest.raises(ArgumentError, match="s: question 'q' is "):
        RetrievalSet("s", {"b": "text"}, {"q": item}, {"q": {"b": 1}})


def test_what_reads_texts_only_is_left_out_and_says_why(colours, fake):
    pytest.importorskip("ir_measures")
    said = []
    words = RetrievalSet("words", {"a": "red sky", "b": "tree"}, {"q": "red sky"}, {"q": {"a": 1}})
    systems = [
        Bm25(),
        EmbeddingSystem(Embedder("embrief/hash"), "hash"),
        EmbeddingSystem(Embedder(fake.vision), "vision"),
    ]
    results = evaluate([words, colours], systems, say=said.append)
    assert [(row["set"], row["system"]) for row in results.rows] == [
        ("words", "BM25"), ("words", "hash"), ("words", "vision"), ("colours", "vision"),
    ]  # fmt: skip
    held = "2 of 3 documents and 2 of 3 questions of colours hold a picture"
    assert f"left out: BM25 reads words, and {held}" in said
    (hashed,) = [line for line in said if "embrief/hash" in line]
    assert hashed.startswith(f"left out: embrief/hash takes texts only, and {held}; one that takes images is ")
    asked = len(fake.texts)
    with pytest.raises(ArgumentError, match="nothing can be measured on colours: BM25 reads words"):
        evaluate([words, colours], systems[:2])
    assert len(fake.texts) == asked


def test_a_reranker_of_texts_is_refused_before_anything_is_computed(colours, fake):
    system = EmbeddingSystem(Embedder(fake.vision), "vision", rerankers={"judge": Reranker(fake.reranker)})
    with pytest.raises(ArgumentError, match="takes texts only, and 2 of 3 documents") as caught:
        evaluate([colours], [system])
    assert not isinstance(caught.value, UnfitError)
    assert fake.texts == []


def test_pictures_are_embedded_and_reranked_in_their_roles(colours, fake):
    embedder, judge = Embedder(fake.vision), Reranker(fake.vision_reranker)
    system = EmbeddingSystem(
        embedder, "vision", instructions=("default", "own"), dims=(32,), rerankers={"judge": judge}, top=2
    )
    labels = [variant.label for variant in system.variants(colours)]
    found = {item.variant.label: item.ranking for item in system.rank(colours, labels)}
    documents = embedder.embed_documents([RED, (BLUE, "blue sky"), "a copied tree"])
    for label, instruction in (("vision", None), ("vision, the set's instruction", "Find the same")):
        queries = embedder.embed_queries([RED, "a copied tree", (BLUE, "blue sky")], instruction=instruction)
        order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")
        expected = [[list(colours.corpus)[place] for place in row] for row in order]
        assert list(found[label].values()) == expected
    reranked = rerank(judge, colours, found["vision"], 2)
    assert found["vision + judge on 2"] == reranked
    for query, names in reranked.items():
        scores = dict(
            zip(colours.corpus, judge.score(colours.queries[query], list(colours.corpus.values())), strict=True)
        )
        assert names[:2] == sorted(found["vision"][query][:2], key=lambda name: -scores[name])


def test_pictures_without_a_prompt_have_no_line_for_an_instruction(colours):
    bare = Embedder("google/embeddinggemma-2", backend=EngineOptions(picture_prompt="none"))
    system = EmbeddingSystem(bare, "bare", instructions=("default", "own", "none", "Find it"))
    assert [variant.label for variant in system.variants(colours)] == ["bare", "bare, no instruction"]
    words = RetrievalSet("words", colours.corpus, {"q": "red"}, {"q": {"red": 1}}, "Find the same")
    assert len(system.variants(words)) == 4


def test_how_large_a_picture_is_seen_decides_what_was_measured(colours, fake):
    def identity(**options):
        return EmbeddingSystem(Embedder(fake.vision, **options), "vision").variants(colours)[0].identity

    assert identity() == identity()
    assert identity(max_pixels=8192) != identity()


def test_the_command_measures_a_folder_with_pictures(colours, fake, tmp_path):
    pytest.importorskip("ir_measures")
    write_beir(colours, tmp_path / "colours")
    out = tmp_path / "found.json"

    def invoke(*more):
        arguments = ["eval", str(tmp_path / "colours"), "--out", str(out), "--fresh", *more]
        return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})

    done = invoke("--model", fake.vision, "--reranker", fake.vision_reranker, "--max-pixels", "8192")
    assert done.exit_code == 0, done.output
    assert "left out: BM25 reads words" in done.output
    rows = json.loads(out.read_text("utf-8"))["rows"]
    seen = "vision, 8,192 pixels"
    assert [row["system"] for row in rows] == [seen, f"{seen} + vision-reranker on 50"]
    assert rows[0]["identity"]["documents"] == Embedder(fake.vision, max_pixels=8192, truncate="silent").fingerprint
    assert (rows[0]["documents"], rows[0]["queries"]) == (3, 3)
    refused = invoke("--model", "embrief/hash", "--baseline", "none")
    assert refused.exit_code != 0
    assert "takes texts only" in refused.output
    pointless = invoke("--model", "embrief/hash", "--max-pixels", "8192")
    assert pointless.exit_code != 0
    assert "max_pixels=8192 would do nothing" in pointless.output


def test_photographs_with_captions_are_read_embedded_and_ranked(data: Path, fake, tmp_path):
    """Plumbing alone: a model without weights knows a picture from another, not what it shows."""
    pytest.importorskip("ir_measures")
    folder = data / "retrieval" / "skimage_images"
    described = json.loads((folder / "captions_from_docstrings.json").read_text("utf-8"))
    photographs = RetrievalSet(
        "photographs",
        {name: Image(folder / item["files"][0]) for name, item in described.items()},
        {
            **{f"words of {name}": item["caption"] for name, item in described.items()},
            **{f"picture of {name}": Image(folder / item["files"][0]) for name, item in described.items()},
        },
        {f"{kind} of {name}": {name: 1} for kind in ("words", "picture") for name in described},
        "Find the photograph",
    )
    write_beir(photographs, tmp_path / "photographs")
    found = read_beir(tmp_path / "photographs")
    assert found.digest == photographs.digest
    assert len({content[0].digest for content in found.corpus.values()}) == len(found.corpus) == 16
    (row,) = evaluate([found], [EmbeddingSystem(Embedder(fake.vision), "vision")]).rows
    assert (row["documents"], row["queries"]) == (16, 32)
    # Each of them is a word of its own for this model: a picture finds itself, and every document is ranked.
    ranks = row["per_query"]["MRR@10"]
    assert {rank for query, rank in ranks.items() if query.startswith("picture")} == {1.0}
    assert set(row["per_query"]["R@100"].values()) == {1.0}
