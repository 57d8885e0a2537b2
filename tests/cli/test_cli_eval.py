"""`embrief eval`, end to end with models that need no download."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
from typer.testing import CliRunner

from embrief.cli import app
from embrief.evaluation import RetrievalSet, write_beir
from embrief.runtimes import base
from embrief.system.installed import install_command

pytest.importorskip("ir_measures")
pytest.importorskip("bm25s")


@pytest.fixture
def planets(tmp_path):
    folder = tmp_path / "planets & moons"
    found = RetrievalSet(
        "planets",
        {"a": "Mars is the Red Planet.", "b": "Venus is bright.", "c": "Copy a tree."},
        {"q1": "red planet", "q2": "bright Venus", "q3": "what is it"},
        {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1}},
    )
    write_beir(found, folder)
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)], env={"COLUMNS": "200"})


def invoke_lexical(*arguments):
    """Run with the model that is fastest."""
    return invoke(*arguments, "--model", "embrief/hash")


def test_a_folder_gives_a_table_a_file_and_a_picture(planets, tmp_path):
    out = tmp_path / "found" / "results.json"
    done = invoke_lexical(planets, "--dim", 64, "--out", out)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line for line in lines if "BM25" in line]
    assert [line for line in lines if line.strip().startswith("hash, 64 values") and " hash" in line]
    assert "3 documents, 3 questions" in done.stdout
    rows = json.loads(out.read_text("utf-8"))["rows"]
    assert [row["system"] for row in rows] == ["BM25", "hash", "hash, 64 values"]
    picture = ElementTree.fromstring(out.with_suffix(".svg").read_text("utf-8"))
    texts = [node.text for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "planets & moons (3 documents, 3 questions)" in texts
    shown = f"{rows[1]['measures']['nDCG@10']['mean']:.3f}"
    assert texts[texts.index("hash") + 1] == shown


def test_numbers_are_whole_on_a_narrow_terminal(planets, tmp_path):
    out = tmp_path / "r.json"
    arguments = ["eval", str(planets), "--model", "embrief/hash", "--dim", "64", "--out", str(out)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    row = json.loads(out.read_text("utf-8"))["rows"][2]["measures"]["nDCG@10"]
    assert max(map(len, done.stdout.splitlines()[:6])) <= 80
    assert f"{row['mean']:.3f} {row['low']:.3f}-{row['high']:.3f}" in done.stdout


def test_run_may_be_named_and_options_may_come_first(planets, tmp_path):
    out = tmp_path / "results.json"
    first = invoke_lexical("run", planets, "--out", out, "--json")
    second = invoke_lexical("--out", out, "--json", planets)
    assert (first.exit_code, second.exit_code) == (0, 0), second.output
    assert json.loads(first.stdout)["rows"] == json.loads(second.stdout)["rows"]


def test_fewer_questions_and_no_baseline(planets, tmp_path):
    done = invoke_lexical(planets, "--queries", 2, "--baseline", "none", "--json", "--out", tmp_path / "r.json")
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["system"], row["queries"]) == ("hash", 2)


def test_a_table_for_a_page(planets, tmp_path):
    done = invoke_lexical(planets, "--markdown", "--out", tmp_path / "r.json")
    title, _, head, rule, *rows = done.stdout.splitlines()
    assert title == "planets & moons: 3 documents, 3 questions"
    assert head.startswith("| system | nDCG@10 | 95 % |")
    assert rule.count("---") == rows[0].count("|") - 1 == head.count("|") - 1
    assert rows[0].startswith("| BM25 | ")


def test_compare_says_what_the_second_gains(planets, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert invoke_lexical(planets, "--out", first).exit_code == 0
    assert invoke_lexical(planets, "--dim", 64, "--out", second).exit_code == 0
    done = invoke("compare", first, second, "--json")
    assert {item["second"] for item in json.loads(done.stdout)} == {"BM25", "hash"}
    assert all(item["gain"] == 0 and item["p"] == 1 for item in json.loads(done.stdout))
    done = invoke("compare", first, second, "--first", "hash", "--second", "hash, 64 values")
    assert "hash, 64 values" in done.stdout
    done = invoke("compare", first, planets)
    assert done.exit_code == 1
    assert "cannot be read as results of embrief eval" in done.stderr


def test_what_is_wrong_is_said_before_anything_runs(planets, tmp_path):
    for arguments, message in (
        (["--baseline", "bm26"], "--baseline 'bm26' is not known; use bm25, minilm, none"),
        (["--model", "embrief/tiny-embeding"], "did you mean 'embrief/tiny-embedding'"),
        (["--dim", 99999], "99999"),
        ([planets], "two sets are called 'planets & moons'"),
    ):
        done = invoke(planets, *arguments, "--out", tmp_path / "r.json")
        assert (done.exit_code, done.stdout) == (1, "")
        assert message in done.stderr
    assert not (tmp_path / "r.json").exists()


def test_without_a_model_it_measures_the_tiny_one(planets, tmp_path):
    done = invoke(planets, "--json", "--out", tmp_path / "r.json")
    assert done.exit_code == 0, done.output
    assert [row["system"] for row in json.loads(done.stdout)["rows"]] == ["BM25", "tiny-embedding"]
    assert "pip install" not in done.stderr


def test_without_torch_it_measures_the_lexical_one_and_says_so(planets, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "is_installed", lambda name: name != "torch")
    done = invoke(planets, "--json", "--out", tmp_path / "r.json")
    assert done.exit_code == 0, done.output
    assert [row["system"] for row in json.loads(done.stdout)["rows"]] == ["BM25", "hash"]
    (said,) = (line for line in done.stderr.splitlines() if "pip install" in line)
    assert "embrief/hash compares spelling only" in said
    assert f"{install_command('torch')} (missing: torch)" in said
    # Whoever asked for it knows.
    assert "pip install" not in invoke_lexical(planets, "--out", tmp_path / "r.json").stderr


def test_help_names_both_commands():
    done = CliRunner().invoke(app, ["eval", "--help"])
    assert done.exit_code == 0
    assert "compare" in done.stdout
    assert "run" in done.stdout


def test_help_shows_the_options_that_people_look_for():
    done = CliRunner().invoke(app, ["eval", "--help"])
    options = [word for word in CliRunner().invoke(app, ["eval", "run", "--help"]).stdout.split() if word[:2] == "--"]
    assert len(options) > 12
    for option in options:
        assert f"  {option} " in done.stdout
    # One that is missing, or spelt wrong, shows too.
    assert "  --models " not in done.stdout


def test_minilm_is_a_baseline(planets, tmp_path, minilm_folder):
    done = invoke_lexical(planets, "--baseline", "minilm", "--json", "--out", tmp_path / "r.json")
    assert [row["system"] for row in json.loads(done.stdout)["rows"]] == ["MiniLM", "hash"]
