"""`embrief search`, and `embrief eval collection`."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from embrief.cli import app
from embrief.cli.terminal import Terminal, _given
from embrief.indexing import table
from embrief.indexing.workspace import shared_workspace
from embrief.testing import FakeRuntime

pytest.importorskip("chromadb")
STEERING = "\x1b[31mred\x1b]0;title\x07 \x9b2J\r\N{RIGHT-TO-LEFT OVERRIDE}planet"


@pytest.fixture(autouse=True)
def user_data(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "user_folder", lambda kind: tmp_path / "data")


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "planets.md").write_text("# Planets\n\nMars is called the red planet.\n", "utf-8")
    (folder / "copying.py").write_text("def copy_tree(source, target):\n    return target\n", "utf-8")
    monkeypatch.chdir(folder)
    shared_workspace().update([folder], model="embrief/hash")
    return folder.resolve()


def run(*arguments, code=0, command="search"):
    done = CliRunner().invoke(app, [command, *arguments], env={"COLUMNS": "100"})
    assert done.exit_code == code, (done.output, done.exception)
    return done


def search_in(there, *arguments):
    token = _given.set(there)
    try:
        app(["search", *arguments], standalone_mode=False)
    finally:
        _given.reset(token)
    return there.out.getvalue()


def test_what_is_shown(project):
    lines = run("the red planet", "--top-k", "1").output.splitlines()
    assert lines[0].startswith("docs/planets.md:1  ".replace("/", os.sep))
    assert lines[0].endswith("Planets")
    score = next(word for word in lines[0].split() if word.startswith("0."))
    assert lines[0].count("\N{FULL BLOCK}") == round(float(score) * 10)
    assert lines[1:] == [
        "  1 \N{BOX DRAWINGS LIGHT VERTICAL} # Planets",
        "  2 \N{BOX DRAWINGS LIGHT VERTICAL} ",
        "  3 \N{BOX DRAWINGS LIGHT VERTICAL} Mars is called the red planet.",
    ]


def test_json(project):
    data = json.loads(run("the red planet", "--top-k", "1", "--json", "--context", "1").stdout)
    (hit,) = data["hits"]
    assert (data["question"], data["collection"]) == ("the red planet", table.default_name([project]))
    text = "# Planets\n\nMars is called the red planet."
    assert {name: value for name, value in hit.items() if name not in ("score", "id")} == {
        "path": "docs/planets.md", "file": str(project / "docs" / "planets.md"), "start_line": 1, "end_line": 3,
        "page": None, "title": "Planets", "kind": "markdown", "filetype": "md", "rerank_score": None,
        "state": "current", "text": text, "context": {"start_line": 1, "lines": text.splitlines()},
    }  # fmt: skip


def test_exit_codes_are_those_of_grep(project):
    run("planet")
    assert "answers that" in run("planet", "--threshold", "1", code=1).stderr
    assert json.loads(run("planet", "--threshold", "1", "--json", code=1).stdout)["hits"] == []
    for arguments in (["planet", "--collection", "missing"], ["  "], ["planet", "--instruction", "Find"],
                      ["planet", "--to", "ftp://x"], ["planet", "--model", "embrief/tiny-embedding"],
                      ["planet", "--top-k", "0"]):  # fmt: skip
        assert "rror" in run(*arguments, code=2).stderr


def test_without_a_collection_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "embrief index" in run("planet", code=2).stderr


def test_options_reach_the_search(project):
    assert "copying.py" not in run("anything", "--filetype", "md").output
    assert len(json.loads(run("anything", "--json", "--top-k", "1").stdout)["hits"]) == 1
    with FakeRuntime() as fake:
        shared_workspace().update([project], "faked", model=fake.qwen3)
        out = run(
            "planet", "--collection", "faked", "--reranker", fake.reranker, "--instruction", "Find planets"
        ).output
        assert "(similarity " in out
        assert fake.pairs
        assert "Find planets" in fake.texts[-1]


def test_words_are_marked_where_colours_are_shown(project):
    there = Terminal(io.StringIO(), io.StringIO(), 100, True, project)
    assert "called the \x1b[1;33mred\x1b[0m \x1b[1;33mplanet\x1b[0m." in search_in(there, "red planet")
    there = Terminal(io.StringIO(), io.StringIO(), 100, False, project)
    assert "\x1b" not in search_in(there, "red planet")


def test_paths_are_seen_from_the_terminal(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = Terminal(io.StringIO(), io.StringIO(), 100, False, project / "docs")
    assert search_in(there, "red planet", "--top-k", "1").startswith("planets.md:1 ")
    there = Terminal(io.StringIO(), io.StringIO(), 100, False, tmp_path / "elsewhere")
    assert search_in(there, "red planet", "--top-k", "1").startswith(str(project / "docs" / "planets.md"))


def test_lines_are_cut_to_the_terminal(project):
    (project / "docs" / "long.md").write_text("planet " * 60, "utf-8")
    (project / "docs" / "wide.md").write_text("planet \N{CJK UNIFIED IDEOGRAPH-661F}" + "\u661f" * 60, "utf-8")
    shared_workspace().update([project])
    there = Terminal(io.StringIO(), io.StringIO(), 40, False, project)
    shown = [line for line in search_in(there, "planet").splitlines() if "\N{BOX DRAWINGS LIGHT VERTICAL}" in line]
    assert any(line.endswith("\N{HORIZONTAL ELLIPSIS}") for line in shown)
    assert max(map(cell_len, shown)) <= 40


def test_a_terminal_of_ascii(project):
    class Old(io.StringIO):
        encoding = "ascii"

    there = Terminal(Old(), io.StringIO(), 100, False, project)
    assert search_in(there, "red planet").isascii()


def test_nothing_that_a_text_says_steers_the_terminal(project):
    (project / "docs" / "steering.md").write_text(f"# {STEERING}\n\n{STEERING}\n", "utf-8")
    if sys.platform != "win32":
        (project / "docs" / "<img src=x onerror=alert(1)>.md").write_text("the red planet again\n", "utf-8")
        (project / "docs" / "\x1b[31m.md").write_text("one more red planet\n", "utf-8")
    shared_workspace().update([project])
    for colour in (False, True):
        there = Terminal(io.StringIO(), io.StringIO(), 100, colour, project)
        out = search_in(there, "red planet")
        assert "<img src=x onerror=alert(1)>.md:1" in out or sys.platform == "win32"
        for ours in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[32m", "\x1b[1;33m") if colour else ():
            out = out.replace(ours, "")
        assert all(character.isprintable() for character in out.replace("\n", ""))


def test_a_file_that_changed_is_told(project):
    (project / "docs" / "planets.md").write_text("# Planets\n\nThe red planet is gone.\n", "utf-8")
    (project / "copying.py").unlink()
    out = run("the red planet").output
    assert "changed since it was indexed" in out
    assert "no longer there" in out
    assert "Mars" in out


def test_a_cold_search_ends_when_it_is_done(project, tmp_path):
    """It is a process of its own: nothing may hold it up, and nothing is printed on the way out."""
    code = (
        "import sys; from pathlib import Path; from embrief.indexing import table;"
        "data = Path(sys.argv[1]); table.user_folder = lambda kind: data;"
        "from embrief.cli import main; sys.argv[1:] = ['search', 'the red planet', '--top-k', '1']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "data")], capture_output=True, encoding="utf-8", timeout=120,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("docs")


# Golden questions.


def evaluate(*arguments, code=0):
    pytest.importorskip("ir_measures")
    return run("collection", *arguments, code=code, command="eval")


def test_golden_questions(project):
    (project / "golden.jsonl").write_text(
        '{"query": "the red planet", "expected": ["docs/planets.md:3"]}\n\n'
        '{"_id": "two", "query": "copy a tree", "expected": {"copying.py": 2, "docs/missing.md:4": 1}}\n', "utf-8"
    )  # fmt: skip
    name = table.default_name([project])
    data = json.loads(evaluate(name, "--golden", "golden.jsonl", "--json").stdout)
    assert data["missing"] == ["docs/missing.md:4"]
    assert [item["MRR@10"] for item in data["questions"]] == [1.0, 1.0]
    assert [item["R@10"] for item in data["questions"]] == [1.0, 0.5]
    assert data["measures"]["R@10"]["mean"] == 0.75
    done = evaluate(name, "--golden", "golden.jsonl")
    assert "2 questions to" in done.stdout
    assert "R@10      0.750" in done.stdout
    assert "docs/missing.md:4" in done.stderr


def test_golden_questions_in_a_table_and_by_id(project):
    (hit, *_) = shared_workspace().search("the red planet", cwd=project)
    (project / "golden.tsv").write_text(
        f"query\texpected\nthe red planet\t{hit.id}\nplanet\tcopying.py:9\t1\n", "utf-8"
    )
    data = json.loads(evaluate(table.default_name([project]), "--golden", "golden.tsv", "--json").stdout)
    assert data["missing"] == []
    # No passage has line 9.
    assert [item["R@100"] for item in data["questions"]] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", ""),
        ("a.jsonl", "{"),
        ("a.jsonl", '{"query": "x"}'),
        ("a.jsonl", '{"query": "x", "expected": []}'),
        ("a.jsonl", '{"query": "x", "expected": {"a": 0}}'),
        ("a.jsonl", '{"query": 3, "expected": "a"}'),
        ("a.jsonl", '{"_id": "1", "query": "x", "expected": "a"}\n{"_id": "1", "query": "y", "expected": "a"}'),
        ("a.tsv", "only one cell"),
        ("a.tsv", "question of mine\tplace\tmany"),
        ("missing.jsonl", None),
    ],
)
def test_golden_files_that_are_none(project, name, text):
    if text is not None:
        (project / name).write_text(text, "utf-8")
    assert run("collection", "things", "--golden", name, code=1, command="eval").stderr.startswith("error: ")
