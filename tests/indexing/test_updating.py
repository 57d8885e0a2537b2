"""What an update does, and what it leaves after whatever ended it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from embrief import Embedder
from embrief.errors import ArgumentError, ItemFailedError, UnreadableFileError, WeightsUnavailableError
from embrief.indexing import making, reading, updating
from embrief.indexing.searching import search
from embrief.indexing.workspace import Workspace
from embrief.testing import FakeRuntime

LONG = "".join(f"Paragraph {number} says something about the number {number}.\n\n" for number in range(400))


def index(workspace: Workspace, project: Path, store: str = "chroma", **options):
    """Bring a project up to date with the model that is fastest."""
    return workspace.update([project], store=store, **{"model": "embrief/hash", **options})


def content(workspace: Workspace, project: Path) -> list[tuple[str, str, int, int]]:
    """Return all that is stored: the path, digest, part and number of parts of each passage."""
    with workspace.opened(workspace.choose(cwd=project)) as collection:
        rows = [metadata for _, metadata in collection._metadata()]
    return sorted((row["path"], row["digest"], row["part"], row["parts"]) for row in rows)


def paths(workspace: Workspace, project: Path) -> set[str]:
    return {row[0] for row in content(workspace, project)}


def test_the_first_update_takes_all_and_the_second_nothing(workspace, project, store):
    first = index(workspace, project, store)
    assert (first.files, first.added, first.embedded, first.passages) == (3, 3, 3, 3)
    second = index(workspace, project, store)
    assert (second.files, second.unchanged, second.embedded, second.did_something) == (3, 3, 0, False)


def test_only_what_changed_is_embedded(project, store):
    with FakeRuntime() as fake, Workspace() as workspace:
        index(workspace, project, store, model=fake.qwen3)
        fake.texts.clear()
        (project / "docs" / "oceans.md").write_text("# Oceans\n\nThe Arctic is the smallest ocean.\n", "utf-8")
        (project / "docs" / "new.md").write_text("# New\n\nSaturn has rings.\n", "utf-8")
        (project / "docs" / "planets.md").unlink()
        done = index(workspace, project, store, model=fake.qwen3)
        assert (done.added, done.changed, done.removed, done.unchanged) == (1, 1, 1, 1)
        assert len(fake.texts) == 2
        assert paths(workspace, project) == {"docs/oceans.md", "docs/new.md", "copying.py"}
        assert "Arctic" in workspace.search("smallest ocean", cwd=project)[0].text
        assert not [hit for hit in workspace.search("Pacific", cwd=project) if "Pacific" in hit.text]


def test_a_renamed_file_goes_and_comes(workspace, project, store):
    index(workspace, project, store)
    (project / "docs").rename(project / "pages")
    done = index(workspace, project, store)
    assert (done.added, done.removed) == (2, 2)
    assert paths(workspace, project) == {"pages/planets.md", "pages/oceans.md", "copying.py"}


def test_the_same_bytes_with_another_time_are_no_change(workspace, project):
    index(workspace, project)
    (project / "copying.py").touch()
    assert index(workspace, project).unchanged == 3


def test_a_change_that_keeps_size_and_time_is_seen(workspace, project):
    file = project / "copying.py"
    index(workspace, project)
    before = file.stat()
    file.write_text(file.read_text("utf-8").replace("Copy", "Move"), "utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index(workspace, project).changed == 1


def test_shorter_files_leave_nothing_of_the_longer(workspace, project, store):
    (project / "long.md").write_text(LONG, "utf-8")
    first = index(workspace, project, store)
    assert first.passages > 10
    (project / "long.md").write_text("short", "utf-8")
    assert index(workspace, project, store).passages == 4
    assert next(row for row in content(workspace, project) if row[0] == "long.md")[2:] == (0, 1)


def test_passages_have_no_more_tokens_than_are_asked_for(project):
    (project / "long.md").write_text(LONG, "utf-8")
    with FakeRuntime(batch_tokens=1024) as fake, Workspace() as workspace:
        done = index(workspace, project, model=fake.qwen3)
        assert not done.estimated
        assert max(len(text.split()) for text in fake.texts) <= making.MAX_TOKENS


def test_other_settings_index_everything_again(workspace, project, monkeypatch):
    index(workspace, project)
    before = content(workspace, project)
    monkeypatch.setattr(making, "CUTTING", 2)
    assert index(workspace, project).changed == 3
    assert content(workspace, project) == before


def test_a_file_with_a_passage_missing_is_done_again(workspace, project, store):
    (project / "long.md").write_text(LONG, "utf-8")
    index(workspace, project, store)
    before = content(workspace, project)
    with workspace.opened(workspace.choose(cwd=project)) as collection:
        ids = [passage_id for passage_id, metadata in collection._metadata() if metadata["path"] == "long.md"]
        collection.drop(ids[3:4])
        collection.drop(["3f333df6-90a4-4fda-8dd3-9485d27cee36"])
    done = index(workspace, project, store)
    assert (done.changed, done.unchanged, done.embedded) == (1, 3, len(ids))
    assert content(workspace, project) == before


def test_what_cannot_be_read_in_the_store_is_removed(workspace, project):
    index(workspace, project)
    info = workspace.choose(cwd=project)
    workspace.close()
    import chromadb

    client = chromadb.PersistentClient(info.to)
    client.get_collection(info.name, embedding_function=None).add(
        ids=["odd"], embeddings=[[0.1] * 1024], documents=["odd"], metadatas=[{"path": 3}]
    )
    # Chroma before 1.5 has no way to close.
    getattr(client, "close", lambda: None)()
    with Workspace() as fresh:
        assert [hit.text for hit in fresh.search("odd", cwd=project) if hit.text == "odd"] == []
        assert index(fresh, project).removed == 1
        assert len(content(fresh, project)) == 3


def test_what_a_limit_leaves_out_stays_while_its_file_is_there(workspace, project):
    index(workspace, project)
    done = index(workspace, project, limit=1)
    assert (done.files, done.removed, done.passages) == (1, 0, 3)
    for name in ("planets.md", "oceans.md"):
        (project / "docs" / name).unlink()
    assert index(workspace, project, limit=1).removed == 2


def test_a_file_that_was_given_itself_stays_beyond_a_limit(workspace, project):
    files = [project / "copying.py", project / "docs" / "planets.md"]
    assert workspace.update(files, "files", store="chroma", model="embrief/hash").passages == 2
    done = workspace.update(files, "files", limit=1)
    assert (done.removed, done.passages) == (0, 2)


def test_what_may_not_be_read_for_a_while_is_told_and_stays(workspace, project, monkeypatch):
    index(workspace, project)
    real_open, real_scan = Path.open, os.scandir

    def opened(path, *arguments, **named):
        if path.name == "copying.py":
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments, **named)

    def scanned(path):
        if str(path).endswith("docs/"):
            raise PermissionError(13, "Permission denied")
        return real_scan(path)

    with monkeypatch.context() as closed:
        closed.setattr(Path, "open", opened)
        closed.setattr(os, "scandir", scanned)
        done = index(workspace, project)
    assert (done.removed, done.passages) == (0, 3)
    assert {(failure.path, failure.reason) for failure in done.failed} == {
        (project / "copying.py", "Permission denied"),
        (project / "docs", "Permission denied"),
    }
    assert "unreadable" not in done.left_out
    (project / "docs" / "oceans.md").unlink()
    assert index(workspace, project).removed == 1


def test_a_limit_counts_files(workspace, project):
    assert index(workspace, project, limit=2).added == 2
    assert index(workspace, project).added == 1


def test_what_is_excluded_later_is_removed(workspace, project):
    index(workspace, project)
    assert index(workspace, project, exclude=["docs/"]).removed == 2
    (project / ".gitignore").write_text("copying.py\n", "utf-8")
    done = index(workspace, project)
    assert (done.added, done.removed) == (2, 1)


def test_other_folders_in_the_collection_stay(workspace, project, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "copying.py").write_text("# the same name in another folder\n", "utf-8")
    index(workspace, project, collection="both")
    done = workspace.update([other], "both")
    assert (done.added, done.removed, done.passages) == (1, 0, 4)
    assert workspace.update([project, other], "both").unchanged == 4
    files = {hit.file for hit in workspace.search("the same name in another folder", "both")}
    assert {project / "copying.py", other / "copying.py"} <= files
    (info,) = workspace.collections()
    assert [root for _, root in info.roots] == [str(project), str(other.resolve())]


def test_a_single_file(workspace, project):
    done = workspace.update([project / "copying.py"], model="embrief/hash")
    assert done.added == 1
    (hit,) = workspace.search("copy")
    assert (hit.path, hit.file, hit.state) == ("copying.py", project / "copying.py", "current")


def test_relative_paths_are_seen_from_the_terminal(workspace, project):
    assert workspace.update([Path("docs")], cwd=project, model="embrief/hash").added == 2
    assert workspace.update(cwd=project, model="embrief/hash").added == 3


def test_a_folder_that_is_not_there_removes_nothing(workspace, project):
    index(workspace, project)
    project.rename(project.with_name("moved"))
    with pytest.raises(ArgumentError, match="no such folder"):
        index(workspace, project)
    project.with_name("moved").rename(project)
    assert index(workspace, project).unchanged == 3


def test_the_store_is_not_indexed_into_itself(workspace, project, store):
    to = str(project / "index")
    assert index(workspace, project, store, to=to).files == 3
    (project / "index" / "notes.md").write_text("# left by somebody\n", "utf-8")
    assert index(workspace, project, store, to=to).files == 3


def test_a_file_that_cannot_be_read_stops_no_other_and_keeps_what_was_there(workspace, project, monkeypatch):
    index(workspace, project)
    for name in ("planets.md", "oceans.md"):
        (project / "docs" / name).write_text("# Another\n\ntext\n", "utf-8")
    real = reading.read

    def read(file):
        if file.path.name == "planets.md":
            raise UnreadableFileError("'planets.md' cannot be read: it is damaged")
        if file.path.name == "copying.py":
            raise AssertionError("it is as it was")
        return real(file)

    monkeypatch.setattr(reading, "read", read)
    done = index(workspace, project)
    assert [(failure.path.name, failure.reason) for failure in done.failed] == [
        ("planets.md", "'planets.md' cannot be read: it is damaged")
    ]
    assert (done.changed, done.unchanged, done.passages) == (1, 1, 3)
    monkeypatch.undo()


def test_a_file_without_text_is_counted_and_what_it_said_before_is_removed(workspace, project, store):
    index(workspace, project, store)
    (project / "docs" / "planets.md").write_text(" \n\n", "utf-8")
    notebook = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
    (project / "empty.ipynb").write_text(notebook, "utf-8")
    done = index(workspace, project, store)
    assert (done.failed, done.removed, done.passages, done.left_out["without text"]) == ([], 1, 2, 2)
    assert index(workspace, project, store).removed == 0


def test_an_unexpected_error_of_a_parser_says_nothing_of_the_file(workspace, project, monkeypatch):
    monkeypatch.setattr(reading, "read", lambda file: int(file.path.read_text("utf-8")))
    done = index(workspace, project)
    assert len(done.failed) == 3
    assert {failure.reason for failure in done.failed} == {"it cannot be read (ValueError)"}


def test_a_text_that_the_model_cannot_take_costs_its_file_only(project, store):
    (project / "docs" / "bad.md").write_text(LONG + "poison\n\n" + LONG, "utf-8")

    def fault(texts):
        if any("poison" in text for text in texts):
            raise RuntimeError("it does not go in")

    with FakeRuntime(fault=fault, batch_tokens=512) as fake, Workspace() as workspace:
        done = index(workspace, project, store, model=fake.qwen3)
        assert [failure.path.name for failure in done.failed] == ["bad.md"]
        assert "poison" not in done.failed[0].reason
        assert (done.added, done.files) == (3, 4)
        assert {"docs/planets.md", "docs/oceans.md", "copying.py"} <= paths(workspace, project)
        fake.fault = None
        done = index(workspace, project, store, model=fake.qwen3)
        assert (done.added + done.changed, done.failed) == (1, [])


def test_a_model_that_fails_altogether_ends_the_update(project):
    def fault(texts):
        raise MemoryError

    with FakeRuntime(fault=fault) as fake, Workspace() as workspace:
        with pytest.raises(Exception, match=r".") as failed:
            index(workspace, project, model=fake.qwen3)
        assert not isinstance(failed.value, ItemFailedError) or failed.value.index is None


def test_a_model_that_cannot_be_loaded_leaves_no_collection(workspace, project, monkeypatch, user_data):
    def load(self):
        raise WeightsUnavailableError("the weights are not here")

    monkeypatch.setattr(Embedder, "load", load)
    with pytest.raises(WeightsUnavailableError):
        index(workspace, project)
    assert not user_data.exists()


def test_a_model_that_cannot_be_loaded_is_no_files_fault(workspace, project, monkeypatch):
    index(workspace, project)

    def load(self):
        raise WeightsUnavailableError("the weights are not here")

    monkeypatch.setattr(Embedder, "load", load)
    # Nothing is loaded where nothing is to be done.
    assert index(workspace, project).unchanged == 3
    (project / "new.md").write_text("Saturn has rings.\n", "utf-8")
    with pytest.raises(WeightsUnavailableError):
        index(workspace, project)


def test_titles_reach_models_with_a_place_for_them_only(project):
    with FakeRuntime() as fake, Workspace() as workspace:
        index(workspace, project, collection="titled", model=fake.gemma)
        assert any(text.startswith("title: Planets | text: ") for text in fake.texts)
        fake.texts.clear()
        index(workspace, project, collection="plain", model=fake.qwen3)
        assert not any("title:" in text for text in fake.texts)
        assert {hit.title for hit in workspace.search("planet", "plain")} >= {"Planets", "Oceans"}


def test_stopping_in_the_middle_and_going_on(workspace, project, store, monkeypatch):
    monkeypatch.setattr(updating, "BLOCK", 1)
    stop = threading.Event()
    done = index(workspace, project, store, stop=stop, on_progress=lambda progress: progress.passages and stop.set())
    assert done.stopped
    assert 0 < done.passages < 3
    done = index(workspace, project, store)
    assert (done.stopped, done.passages, done.failed) == (False, 3, [])


def test_two_updates_of_one_collection_take_turns(workspace, project):
    index(workspace, project)
    with workspace.opened(workspace.choose(cwd=project)) as collection, collection.updating:
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        assert index(workspace, project, stop=stop).stopped


def test_progress_counts_all_files(workspace, project):
    seen = []
    index(workspace, project, on_progress=seen.append)
    assert (seen[-1].files, seen[-1].of, seen[-1].passages) == (3, 3, 3)
    assert [progress.files for progress in seen] == sorted(progress.files for progress in seen)


KILLED = """
import os, signal, sys
from pathlib import Path
from embrief.indexing import table, updating
from embrief.indexing.{store}_store import {kind}Collection as Store
from embrief.indexing.workspace import Workspace

table.user_folder = lambda kind: Path(sys.argv[2])
updating.BLOCK = 4
calls = 0

def deadly(method, at, after):
    real = getattr(Store, method)
    def call(self, *arguments):
        global calls
        calls += 1
        if calls == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, *arguments)
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(Store, method, call)

deadly(*{point!r})
Workspace().update([Path(sys.argv[1])], store={store!r}, model="embrief/hash")
raise SystemExit("it was to be killed")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    "point",
    [("put", 2, True), ("drop", 1, True)],
    ids=["between two blocks of a file", "between removing and storing"],
)
def test_a_killed_update_is_finished_by_the_next_one(project, store, point, user_data, tmp_path):
    (project / "long.md").write_text(LONG, "utf-8")
    if point[0] == "drop":
        with Workspace() as workspace:
            index(workspace, project, store)
        for file in (project / "long.md", project / "docs" / "planets.md"):
            file.write_text(file.read_text("utf-8").replace("a", "e"), "utf-8")
    script = KILLED.format(store=store, kind=store.capitalize(), point=point)
    killed = subprocess.run(
        [sys.executable, "-c", script, str(project), str(user_data)], capture_output=True, text=True, timeout=120
    )
    assert killed.returncode == -9, killed.stderr
    with Workspace() as workspace:
        before = content(workspace, project)
        index(workspace, project, store)
        after = content(workspace, project)
        assert before != after
        assert index(workspace, project, store).embedded == 0
        found = workspace.search("Paragraph 250 says something", cwd=project)
    with Workspace() as fresh:
        index(fresh, project, store, collection="fresh")
        with fresh.opened(fresh.choose("fresh")) as collection:
            rows = [metadata for _, metadata in collection._metadata()]
            again = search(collection, hashed(), "Paragraph 250 says something")
    assert after == sorted((row["path"], row["digest"], row["part"], row["parts"]) for row in rows)
    assert [(hit.path, hit.start_line, round(hit.score, 5)) for hit in found] == [
        (hit.path, hit.start_line, round(hit.score, 5)) for hit in again
    ]


def hashed():
    return Embedder("embrief/hash")
