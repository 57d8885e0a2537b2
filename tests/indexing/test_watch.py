"""Keeping a collection current while files change."""

import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import pytest

from embrief.errors import StoreInUseError
from embrief.indexing import watching
from embrief.indexing.watching import watch
from embrief.indexing.workspace import Workspace

pytest.importorskip("watchfiles")

LONG = 60
"""Seconds after which something hangs."""


class Watched:
    """A watch that runs on a thread."""

    def __init__(self, workspace: Workspace, project: Path, **options) -> None:
        self.updates: Queue = Queue()
        self.troubles: Queue = Queue()
        self.asked: list[object] = []
        self.stop = threading.Event()
        self._workspace, self._project, self._options = workspace, project, options
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for done in watch(
                [self._project], self.update, stop=self.stop, on_trouble=self.troubles.put, **self._options
            ):
                self.updates.put(done)
        except BaseException as error:
            self.updates.put(error)

    def update(self, changed):
        self.asked.append(changed)
        return self._workspace.update(
            [self._project], store="chroma", model="embrief/hash", changed=changed, stop=self.stop
        )

    def next(self):
        found = self.updates.get(timeout=LONG)
        if isinstance(found, BaseException):
            raise found
        return found

    def end(self) -> None:
        self.stop.set()
        self._thread.join(LONG)
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watching, "_DEBOUNCE", 50)
    monkeypatch.setattr(watching, "_LOOK_SECONDS", 0.2)


@contextmanager
def watched(workspace, project, **options):
    found = Watched(workspace, project, **options)
    try:
        yield found
    finally:
        found.end()


def found_paths(workspace, project) -> set[str]:
    return {hit.path for hit in workspace.search("anything", cwd=project, top_k=50)}


def test_what_changes_is_brought_up_to_date(workspace, project):
    with watched(workspace, project) as running:
        assert running.next().added == 3
        (project / "new.md").write_text("Saturn has rings.\n", "utf-8")
        assert running.next().added == 1
        # Others are not read again.
        assert project / "copying.py" not in running.asked[-1]
        (project / "new.md").write_text("Uranus has rings, too.\n", "utf-8")
        assert running.next().changed == 1
        assert workspace.search("Uranus has rings", cwd=project)[0].path == "new.md"
        (project / "new.md").unlink()
        assert running.next().removed == 1


def test_a_folder_goes_and_another_name_comes(workspace, project):
    with watched(workspace, project) as running:
        running.next()
        shutil.rmtree(project / "docs")
        assert running.next().removed == 2
        (project / "docs").mkdir()
        (project / "docs" / "again.md").write_text("It is back.\n", "utf-8")
        assert running.next().added == 1
        (project / "docs").rename(project / "pages")
        done = running.next()
        assert (done.added, done.removed) == (1, 1)
        assert found_paths(workspace, project) == {"copying.py", "pages/again.md"}


def test_two_folders_that_change_places(workspace, project):
    for name, text in (("now", "Saturn has rings.\n"), ("next", "Uranus has rings, too.\n")):
        (project / name).mkdir()
        (project / name / "page.md").write_text(text, "utf-8")
    with watched(workspace, project) as running:
        running.next()
        # What the system tells of are the folders alone.
        (project / "now").rename(project / "old")
        (project / "next").rename(project / "now")
        running.next()
        while "next/page.md" in found_paths(workspace, project):
            running.next()
        hits = {hit.path: hit for hit in workspace.search("rings", cwd=project, top_k=50)}
        assert hits["now/page.md"].text == "Uranus has rings, too."
        assert {hit.state for hit in hits.values()} == {"current"}


def test_what_gitignore_says_later_counts(workspace, project):
    with watched(workspace, project) as running:
        running.next()
        (project / ".gitignore").write_text("docs/\n", "utf-8")
        assert running.next().removed == 2
        (project / ".gitignore").write_text("*.py\n", "utf-8")
        done = running.next()
        assert (done.added, done.removed) == (2, 1)


def test_a_folder_that_is_gone_is_waited_for(workspace, project):
    with watched(workspace, project) as running:
        running.next()
        moved = project.with_name("moved")
        project.rename(moved)
        assert "is gone" in running.troubles.get(timeout=LONG)
        (moved / "new.md").write_text("It is back.\n", "utf-8")
        moved.rename(project)
        assert running.next().added == 1
        assert running.troubles.empty()
        (project / "more.md").write_text("And it is watched.\n", "utf-8")
        assert running.next().added == 1


def test_another_folder_in_its_place_is_seen(workspace, project, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "other.md").write_text("Another project.\n", "utf-8")
    with watched(workspace, project) as running:
        running.next()
        project.rename(project.with_name("moved"))
        other.rename(project)
        done = running.next()
        while "other.md" not in found_paths(workspace, project):
            done = running.next()
        assert done.removed + done.added
        (project / "more.md").write_text("And it is watched.\n", "utf-8")
        assert running.next().added == 1


def test_a_store_in_the_folder_wakes_nobody(workspace, project):
    (project / "index").mkdir()
    with watched(workspace, project, leave=[project / "index"]) as running:
        running.next()
        asked = len(running.asked)
        (project / "index" / "file.txt").write_text("written by the store\n", "utf-8")
        (project / ".git").mkdir()
        (project / ".git" / "index").write_text("written by git\n", "utf-8")
        (project / "new.md").write_text("Saturn has rings.\n", "utf-8")
        running.next()
        changes = [path for changed in running.asked[asked:] for path in changed or ()]
        assert not [path for path in changes if "index" in path.parts]


def test_a_store_that_others_have_open_is_waited_for(workspace, project):
    refusals = [StoreInUseError("in use by process 1"), StoreInUseError("in use")]
    stop, troubles = threading.Event(), []

    def update(changed):
        if refusals:
            raise refusals.pop()
        return workspace.update([project], store="chroma", model="embrief/hash", changed=changed)

    for done in watch([project], update, stop=stop, on_trouble=troubles.append):
        assert done.added == 3
        stop.set()
    assert troubles == ["in use"]


def test_an_error_of_the_model_ends_it(project):
    def update(changed):
        raise RuntimeError("the model is broken")

    with pytest.raises(RuntimeError, match="broken"):
        next(watch([project], update, stop=threading.Event()))
