"""Where collections are, who may open them, and what they refuse."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from embrief import Embedder
from embrief.errors import (
    ArgumentError,
    ClosedError,
    NewerFormatError,
    SpaceMismatchError,
    StoreError,
    StoreInUseError,
)
from embrief.indexing import table
from embrief.indexing.collection import Place, open_collection
from embrief.indexing.lock import FolderLock
from embrief.indexing.stored import LAYOUT_KEY
from embrief.indexing.table import CollectionInfo
from embrief.indexing.workspace import Workspace, shared_workspace
from embrief.stores import stamp
from embrief.testing import FakeRuntime

HOLD = """
import sys
from pathlib import Path
from embrief.indexing.lock import FolderLock
sys.argv = ["/somewhere/embrief", "index", "a question of the user's", "--watch"]
lock = FolderLock(Path({folder!r}), patience=0)
print("held", flush=True)
sys.stdin.read()
"""


def index(workspace: Workspace, project: Path, store: str, **options):
    """Bring a project up to date with the model that is fastest."""
    return workspace.update([project], store=store, **{"model": "embrief/hash", **options})


def hold(folder: Path) -> subprocess.Popen:
    """Start a process that has a folder's lock, and wait until it has it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(folder=str(folder))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def place(tmp_path: Path, store: str, name: str = "things") -> Place:
    return Place(store, str(tmp_path / "store"), name)


def test_what_is_indexed_is_found_after_reopening(project, store):
    with Workspace() as first:
        index(first, project, store)
    with Workspace() as second:
        hits = second.search("the red planet", cwd=project)
        assert hits[0].path == "docs/planets.md"
        assert index(second, project, store).embedded == 0


def test_another_space_of_the_same_width_is_refused_before_anything_is_embedded(workspace, project, store):
    with FakeRuntime() as fake:
        workspace.update([project], store=store, model=fake.qwen3)
        before = workspace.collections()
        fake.texts.clear()
        with pytest.raises(SpaceMismatchError):
            workspace.update([project], store=store, model=fake.gemma)
        with pytest.raises(SpaceMismatchError):
            workspace.search("planets", cwd=project, model=fake.gemma)
        assert fake.texts == []
        # Nor does the table say so.
        assert workspace.collections() == before
        workspace.close()
        with Workspace() as fresh, pytest.raises(SpaceMismatchError):
            fresh.update([project], store=store, model=fake.gemma)
        assert fake.texts == []


def test_a_later_update_keeps_the_model(workspace, project, store):
    index(workspace, project, store)
    assert workspace.update([project]).unchanged == 3
    assert [(info.model, info.store) for info in workspace.collections()] == [("embrief/hash", store)]


def test_a_collection_that_index_did_not_make_is_refused(tmp_path, store):
    embedder = Embedder("embrief/hash", dim=64)
    if store == "chroma":
        import chromadb

        client = chromadb.PersistentClient(str(tmp_path / "store"))
        client.create_collection("things", metadata=stamp(embedder.space), embedding_function=None)
        client.create_collection("unstamped", metadata={LAYOUT_KEY: 1}, embedding_function=None)
        client.create_collection("newer", metadata={**stamp(embedder.space), LAYOUT_KEY: 2}, embedding_function=None)
    else:
        from qdrant_client import QdrantClient, models

        from qdrant_embrief import create_collection

        client = QdrantClient(path=str(tmp_path / "store"))
        create_collection(client, "things", embedder)
        config = models.VectorParams(size=64, distance=models.Distance.COSINE)
        client.create_collection("unstamped", config, metadata={LAYOUT_KEY: 1})
        create_collection(client, "newer", embedder, metadata={LAYOUT_KEY: 2})
    # Chroma before 1.5 has no way to close.
    getattr(client, "close", lambda: None)()
    with pytest.raises(ArgumentError, match="was not made by `embrief index`"):
        open_collection(place(tmp_path, store), embedder)
    with pytest.raises(SpaceMismatchError, match="does not say which model"):
        open_collection(place(tmp_path, store, "unstamped"), embedder)
    with pytest.raises(NewerFormatError, match="upgrade"):
        open_collection(place(tmp_path, store, "newer"), embedder)
    # Nothing of it stays open or locked.
    FolderLock(tmp_path / "store", patience=0).release()


def test_a_collection_that_is_not_there(tmp_path, store):
    with pytest.raises(ArgumentError, match="index first"):
        open_collection(place(tmp_path, store), None)
    assert not (tmp_path / "store").exists()
    open_collection(place(tmp_path, store, "others"), Embedder("embrief/hash", dim=64)).close()
    with pytest.raises(ArgumentError, match="index first"):
        open_collection(place(tmp_path, store), None)


def test_a_file_where_the_store_would_be(tmp_path, store):
    (tmp_path / "store").write_text("", "utf-8")
    with pytest.raises(ArgumentError, match="is a file"):
        open_collection(place(tmp_path, store), Embedder("embrief/hash", dim=64))


def test_what_a_store_says_itself_is_one_error_of_ours(tmp_path, store):
    (tmp_path / "store").mkdir()
    for name in ("chroma.sqlite3", "meta.json"):
        (tmp_path / "store" / name).write_text("no database", "utf-8")
    with pytest.raises(StoreError):
        open_collection(place(tmp_path, store), Embedder("embrief/hash", dim=64))


def test_a_store_of_another_process_is_refused_until_that_ends(tmp_path, store):
    embedder, where = Embedder("embrief/hash", dim=64), place(tmp_path, store)
    open_collection(where, embedder).close()
    process = hold(tmp_path / "store")
    try:
        with pytest.raises(StoreInUseError) as refused:
            open_collection(where, embedder, patience=0)
        assert f"process {process.pid} (embrief index --watch)" in str(refused.value)
        assert "question" not in str(refused.value)
    finally:
        process.kill()
        process.communicate(timeout=60)
    # It had no time to let go.
    open_collection(where, embedder).close()


def test_whoever_waits_gets_the_store_when_it_is_free(tmp_path):
    held = FolderLock(tmp_path, patience=0)
    threading.Timer(0.2, held.release).start()
    FolderLock(tmp_path, patience=30).release()


def test_two_workspaces_of_one_process_do_not_open_one_store_either(workspace, project, store, monkeypatch):
    monkeypatch.setattr("embrief.indexing.workspace.open_collection", quick)
    index(workspace, project, store)
    with Workspace() as other:
        with pytest.raises(StoreInUseError, match=str(os.getpid())):
            other.search("planet", cwd=project)
        workspace.close()
        assert other.search("planet", cwd=project)


def quick(where, embedder):
    return open_collection(where, embedder, patience=0)


def test_a_full_disk_takes_no_lock_away(tmp_path, monkeypatch):
    def full(file, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        held = FolderLock(tmp_path, patience=0)
    # Who holds it could not be written down.
    with pytest.raises(StoreInUseError, match="in use by another process"):
        FolderLock(tmp_path, patience=0)
    held.release()
    FolderLock(tmp_path, patience=0).release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_neither_holds_the_lock_nor_opens_it(tmp_path):
    held = FolderLock(tmp_path, patience=0)
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            FolderLock(tmp_path, patience=0)
            os.write(writes, b"opened")
        except StoreInUseError:
            os.write(writes, b"refused")
        signal.pause()
    try:
        assert os.read(reads, 20) == b"refused"
        held.release()
        # The child lives, and has a copy of the file.
        FolderLock(tmp_path, patience=0).release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_leaves_the_parents_collections_alone(workspace, project, store, tmp_path):
    index(workspace, project, store)
    info = workspace.choose(cwd=project)
    child = os.fork()
    if not child:
        # No more than is needed: other threads may hold what it wants. It ends where it waits for that.
        signal.alarm(60)
        try:
            assert "in use" in refusal(lambda: workspace.opened(info).__enter__())
            gc.collect()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert workspace.search("the red planet", cwd=project)[0].path == "docs/planets.md"


def refusal(call) -> str:
    try:
        call()
    except StoreInUseError as error:
        return str(error)
    return ""


def test_a_cold_process_closes_the_store_after_each_use(project, store, monkeypatch):
    monkeypatch.setattr("embrief.indexing.workspace.open_collection", quick)
    cold = shared_workspace()
    index(cold, project, store)
    folder = Path(cold.choose(cwd=project).to)
    FolderLock(folder, patience=0).release()
    cold.search("planet", cwd=project)
    FolderLock(folder, patience=0).release()
    cold.keep_open()
    try:
        cold.search("planet", cwd=project)
        with pytest.raises(StoreInUseError):
            FolderLock(folder, patience=0)
    finally:
        cold.keep_open(0.0)
    cold.search("planet", cwd=project)
    FolderLock(folder, patience=0).release()


def test_an_idle_store_is_closed_and_one_in_use_is_not(project, store):
    with Workspace(idle_seconds=0.05) as workspace:
        index(workspace, project, store)
        info = workspace.choose(cwd=project)
        FolderLock(Path(info.to), patience=30).release()
        with workspace.opened(info) as held:
            workspace.search("planet", cwd=project)
            with pytest.raises(StoreInUseError):
                FolderLock(Path(info.to), patience=0.3)
            assert held.count()


def test_closing_waits_for_nobody_and_ends_what_comes_later(workspace, project, store):
    index(workspace, project, store)
    info = workspace.choose(cwd=project)
    with workspace.opened(info) as held:
        workspace.close()
        assert held.count() > 0
        with pytest.raises(ClosedError):
            workspace.search("planet", cwd=project)
    FolderLock(Path(info.to), patience=0).release()


def test_threads_share_one_collection(workspace, project, store):
    index(workspace, project, store)
    found: list[str] = []

    def ask():
        for _ in range(5):
            found.append(workspace.search("the red planet", cwd=project)[0].path)

    def change():
        for number in range(3):
            (project / "more.md").write_text(f"Venus, edition {number}\n", "utf-8")
            index(workspace, project, store)

    threads = [threading.Thread(target=call) for call in (ask, ask, ask, change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == ["docs/planets.md"] * 15


# The table.


def test_the_deepest_folder_around_whoever_asks_is_meant(workspace, project):
    index(workspace, project, "chroma", collection="outer")
    index(workspace, project / "docs", "chroma", collection="inner")
    assert workspace.choose(cwd=project).name == "outer"
    assert workspace.choose(cwd=project / "docs").name == "inner"
    with pytest.raises(ArgumentError, match=r"several.*inner.*outer"):
        workspace.choose(cwd=project.parent)
    assert workspace.choose("outer", cwd=project.parent).name == "outer"
    with pytest.raises(ArgumentError, match=r"'others'.*inner.*outer"):
        workspace.choose("others")


def test_the_only_collection_is_meant_from_anywhere(workspace, project, tmp_path):
    with pytest.raises(ArgumentError, match="embrief index"):
        workspace.choose(cwd=tmp_path)
    index(workspace, project, "chroma")
    assert workspace.choose(cwd=tmp_path).roots[0][1] == str(project)


def test_one_name_in_two_places(workspace, project, tmp_path):
    for name in ("a", "b"):
        index(workspace, project, "chroma", collection="things", to=str(tmp_path / name))
    with pytest.raises(ArgumentError, match="several"):
        workspace.choose("things")
    assert workspace.choose("things", to="b", cwd=tmp_path).to == str(tmp_path / "b")
    with pytest.raises(ArgumentError, match="several"):
        index(workspace, project, "chroma", collection="things")


def test_a_damaged_entry_counts_as_absent(workspace, project, user_data):
    index(workspace, project, "chroma")
    (entry,) = (user_data / "collections").glob("*.json")
    good = json.loads(entry.read_text("utf-8"))
    for bad in ("", "[]", "[" * 100_000, json.dumps({**good, "name": 3}), json.dumps({**good, "store": "other"}),
                json.dumps({**good, "name": "../up"}), json.dumps({**good, "roots": None})):  # fmt: skip
        entry.write_text(bad, "utf-8")
        assert workspace.collections() == []
    # The store is the truth: nothing is embedded again.
    assert index(workspace, project, "chroma").embedded == 0
    assert len(workspace.collections()) == 1


@pytest.mark.parametrize(
    "name", ["", "a", "../up", "a/b", "a\\b", ".hidden", "end.", "con", "NUL.txt", "a..b", "ä" * 5]
)
def test_names_that_no_store_or_file_system_takes(name, workspace, project):
    with pytest.raises(ArgumentError, match="cannot be called"):
        index(workspace, project, "chroma", collection=name)


def test_names_made_of_folders(tmp_path):
    for name in ("My Project!", "..", "日本", "x" * 300, "con", "-"):
        table.checked_name(table.default_name([tmp_path / "one" / name]))
    one, other = (table.default_name([tmp_path / where / "docs"]) for where in ("one", "other"))
    assert one != other
    assert one.startswith("docs-")


def test_a_password_in_an_address_is_refused_and_not_repeated(workspace, project):
    with pytest.raises(ArgumentError) as refused:
        index(workspace, project, "qdrant", to="https://me:secret@example.org")
    assert "secret" not in str(refused.value)
    with pytest.raises(ArgumentError, match="no address"):
        index(workspace, project, "qdrant", to="ftp://example.org")
    with pytest.raises(ArgumentError) as refused:
        table.place_text("https://me:secret@example.org", project)
    assert "secret" not in str(refused.value)
    assert table.place_text("https://example.org:6333/", project) == "https://example.org:6333"


def test_opening_for_another_space_leaves_nothing_open(tmp_path, store):
    where = place(tmp_path, store)
    with FakeRuntime() as fake:
        open_collection(where, Embedder(fake.qwen3)).close()
        with pytest.raises(SpaceMismatchError):
            open_collection(where, Embedder(fake.gemma))
        open_collection(where, Embedder(fake.qwen3), patience=0).close()


def test_a_model_in_a_folder_is_remembered_with_its_whole_path(tmp_path):
    from embrief.indexing.workspace import named_here

    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert named_here("models/mine", tmp_path) == str(tmp_path / "models" / "mine")
    assert named_here("./models/mine", tmp_path) == str(tmp_path / "models" / "mine")
    (tmp_path / "embrief" / "hash").mkdir(parents=True)
    assert named_here("embrief/hash", tmp_path) == "embrief/hash"
    assert named_here("owner/other", tmp_path) == "owner/other"


def test_a_store_that_the_table_does_not_know_may_name_recorded_models_only(project, store, tmp_path, user_data):
    to = str(tmp_path / "store")
    with Workspace() as workspace:
        index(workspace, project, store, to=to, collection="things")
    for entry in (user_data / "collections").glob("*.json"):
        entry.unlink()
    with Workspace() as workspace:
        (hit, *_) = workspace.search("the red planet", "things", to=to)
        assert (hit.path, hit.file, hit.state) == ("docs/planets.md", None, "unknown")
    change_stamp(tmp_path / "store", store)
    with Workspace() as workspace:
        with pytest.raises(ArgumentError, match="pass the model yourself"):
            workspace.search("the red planet", "things", to=to)
        with pytest.raises(SpaceMismatchError):
            workspace.search("the red planet", "things", to=to, model="embrief/hash")


def change_stamp(folder: Path, store: str) -> None:
    """Let a store name a folder as its model."""
    from dataclasses import replace

    evil = stamp(replace(Embedder("embrief/hash").space, model="/tmp/evil"))
    if store == "chroma":
        import chromadb

        client = chromadb.PersistentClient(str(folder))
        found = client.get_collection("things", embedding_function=None)
        found.modify(metadata={**found.metadata, **evil})
    else:
        from qdrant_client import QdrantClient

        client = QdrantClient(path=str(folder))
        client.update_collection("things", metadata=evil)
    # Chroma before 1.5 has no way to close.
    getattr(client, "close", lambda: None)()


def test_an_entry_is_written_whole_or_not_at_all(user_data, monkeypatch):
    info = CollectionInfo("things", "chroma", "https://example.org:443", "embrief/hash")
    table.remember(info, user_data)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(ArgumentError, match="cannot be written"):
        table.remember(CollectionInfo("things", "chroma", "https://example.org:443", "another"), user_data)
    assert table.known(user_data) == [info]
    assert len(list(user_data.iterdir())) == 1


def test_a_collection_whose_folder_was_deleted_is_gone(workspace, project, store, tmp_path):
    index(workspace, project, store, to=str(tmp_path / "store"), model="embrief/hash")
    workspace.close()
    shutil.rmtree(tmp_path / "store")
    with Workspace() as fresh:
        assert fresh.collections() == []
        assert index(fresh, project, store).added == 3


def test_a_table_of_its_own(project, tmp_path, user_data):
    with Workspace(data=tmp_path / "own") as workspace:
        index(workspace, project, "chroma")
        assert workspace.search("planet", cwd=project)
        assert Path(workspace.choose(cwd=project).to).is_relative_to(tmp_path / "own")
    assert not user_data.exists()


def test_nothing_of_a_store_is_imported_before_one_is_opened():
    code = """
        import sys
        from embrief.indexing.workspace import shared_workspace
        shared_workspace().collections()
        print(sorted({"chromadb", "qdrant_client", "torch", "watchfiles", "rich"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
