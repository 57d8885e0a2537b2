"""`embrief index`."""

import io
import json
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embrief.cli import app
from embrief.cli import index as command
from embrief.cli.terminal import Terminal, _given
from embrief.errors import UnreadableFileError
from embrief.indexing import reading, table
from embrief.indexing.workspace import shared_workspace

pytest.importorskip("chromadb")


@pytest.fixture(autouse=True)
def user_data(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "user_folder", lambda kind: tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "planets.md").write_text("# Planets\n\nMars is called the red planet.\n", "utf-8")
    (folder / "copying.py").write_text("def copy_tree(source, target):\n    return target\n", "utf-8")
    monkeypatch.chdir(folder)
    return folder.resolve()


def run(*arguments, code=0):
    done = CliRunner().invoke(app, ["index", *arguments], env={"COLUMNS": "100"})
    assert done.exit_code == code, (done.output, done.exception)
    return done


def run_fast(*arguments, code=0):
    return run("--model", "embrief/hash", *arguments, code=code)


def test_this_folder_is_indexed_without_any_word(project):
    out = run_fast().output
    name = table.default_name([project])
    assert f"Collection  {name} (chroma, " in out
    assert "Model       embrief/hash" in out
    assert "Files       2 new" in out
    assert "Passages    2 embedded" in out
    assert "Files       2 as they were" in run().output


@pytest.mark.parametrize("arguments", [["--repo", "."], ["."], ["docs", "copying.py"]])
def test_paths_and_repo_are_the_same(project, arguments):
    assert "Files       2 new" in run_fast(*arguments).output


def test_json(project):
    data = json.loads(run_fast("--json", "--limit", "1").stdout)
    assert data == {
        "collection": table.default_name([project]), "store": "chroma", "to": data["to"], "model": "embrief/hash",
        "files": 1, "added": 1, "changed": 0, "removed": 0, "unchanged": 0, "embedded": 1, "passages": 1, "failed": [],
        "left_out": {"over the limit": 1}, "stopped": False, "seconds": data["seconds"],
    }  # fmt: skip


def test_patterns_and_where_it_is_kept(project, tmp_path):
    run_fast("--include", "*.md", "--store", "qdrant", "--to", "../store", "--collection", "things")
    (info,) = shared_workspace().collections()
    assert (info.name, info.store, info.to) == ("things", "qdrant", str(tmp_path / "store"))
    assert (info.include, info.files, info.passages) == (("*.md",), 1, 1)
    assert "1 removed" in run("--exclude", "docs", "--collection", "things").output


def test_another_model_is_refused_with_code_1(project):
    run_fast()
    out = run("--model", "embrief/tiny-embedding", code=1)
    assert out.stderr.startswith("error: ")
    assert "vectors of the space" in out.stderr


def test_nothing_to_index_is_code_1(project, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "Nothing could be indexed." in run_fast(str(tmp_path / "empty"), code=1).stderr
    assert "no such folder" in run_fast("missing", code=1).stderr


def test_files_that_fail_are_named_and_the_others_count(project, monkeypatch):
    real = reading.read

    def read(file):
        if file.path.name == "planets.md":
            raise UnreadableFileError("'planets.md' cannot be read: it is \x1b[31mdamaged")
        return real(file)

    monkeypatch.setattr(reading, "read", read)
    done = run_fast()
    assert "Failed      1 file\n" in done.stderr
    assert "planets.md: 'planets.md' cannot be read: it is  [31mdamaged" in done.stderr
    assert "\x1b" not in done.output
    (project / "copying.py").unlink()
    run("--json", code=1)


def test_ctrl_c_is_told_and_the_next_run_goes_on(project, monkeypatch):
    from embrief.indexing.updating import _Run

    real = _Run._flush
    monkeypatch.setattr(_Run, "_flush", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    assert "Stopped. The next run goes on from here." in run_fast(code=130).stderr
    monkeypatch.setattr(_Run, "_flush", real)
    assert "Passages    2 embedded" in run().output


def given(cwd: Path, **changes) -> Terminal:
    return Terminal(io.StringIO(), io.StringIO(), 80, False, cwd, **changes)


def in_terminal(there: Terminal, *arguments) -> int:
    """Run the command for somebody else's terminal, as a process does that answers many."""
    token = _given.set(there)
    try:
        app(["index", *arguments], standalone_mode=False)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        _given.reset(token)
    return 0


def test_it_prints_and_looks_where_its_terminal_is(project, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    there = given(project)
    in_terminal(there, "docs", "--model", "embrief/hash", "--to", "store")
    assert "Files       1 new" in there.out.getvalue()
    assert (project / "store").is_dir()
    assert capsys.readouterr() == ("", "")


def test_an_update_ends_when_its_terminal_is_gone(project):
    there = given(project)
    there.stop.set()
    in_terminal(there, "--model", "embrief/hash")
    assert "Stopped" in there.err.getvalue()


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_tells_each_update_until_its_terminal_is_gone(project, as_json, monkeypatch):
    pytest.importorskip("watchfiles")
    there = given(project)
    seen = threading.Event()
    real = command._print

    def printed(*arguments, **options):
        real(*arguments, **options)
        if "Saturn" in {path.stem for path in project.glob("docs/*.md")}:
            seen.set()

    monkeypatch.setattr(command, "_print", printed)
    running = threading.Thread(
        target=in_terminal, args=(there, "--model", "embrief/hash", "--watch", *(["--json"] if as_json else []))
    )
    running.start()
    # From here on changes are looked for, or they are seen by the first look.
    (project / "docs" / "Saturn.md").write_text("Saturn has rings.\n", "utf-8")
    assert seen.wait(60)
    while not as_json and "1 new" not in there.out.getvalue() and "3 new" not in there.out.getvalue():
        assert running.is_alive()
    there.stop.set()
    running.join(60)
    assert not running.is_alive()
    lines = there.out.getvalue().splitlines()
    if as_json:
        assert sum(json.loads(line)["added"] for line in lines) == 3
    else:
        assert "Watching  until Ctrl-C" in lines


def test_what_an_update_itself_writes_wakes_no_other(project, monkeypatch):
    pytest.importorskip("watchfiles")
    # As with the user's home folder.
    monkeypatch.setattr(table, "user_folder", lambda kind: project / ".data")
    there, asked, seen = given(project), [], threading.Semaphore(0)
    real = command._update

    def updated(*arguments):
        done = real(*arguments)
        asked.extend((arguments[5:] and arguments[5]) or ())
        if done.added:
            seen.release()
        return done

    monkeypatch.setattr(command, "_update", updated)
    running = threading.Thread(target=in_terminal, args=(there, "--model", "embrief/hash", "--watch"))
    running.start()
    try:
        for name in ("first", "Saturn", "Uranus"):
            assert seen.acquire(timeout=60)
            (project / "docs" / f"{name}.md").write_text(f"{name} has rings.\n", "utf-8")
        assert seen.acquire(timeout=60)
    finally:
        there.stop.set()
        running.join(60)
    assert project / "docs" / "Uranus.md" in asked
    assert not [path for path in asked if ".data" in path.parts]


def test_the_status_line_is_shown_on_terminals_only(project):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    there = given(project)
    screen = Terminal(there.out, Screen(), 60, False, project)
    in_terminal(screen, "--model", "embrief/hash")
    shown = screen.err.getvalue()
    assert shown.startswith("\rIndexing  with embrief/hash")
    assert max(map(len, shown.split("\r"))) < 60
    in_terminal(there, "--model", "embrief/hash")
    assert there.err.getvalue() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no file can be called that there")
def test_a_name_that_is_markup_or_steers_a_terminal_does_nothing(project):
    (project / "<img src=x onerror=alert(1)>.md").write_text("# A title\n\ntext\n", "utf-8")
    (project / "a\x1b[31mred.md").write_text("other text\n", "utf-8")
    done = run_fast()
    assert "Files       4 new" in done.output
    assert "\x1b" not in done.output
