"""The cache in a file: reopened, shared, damaged, full, locked, forked. Whatever happens, vectors are right."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embrief import ArgumentError, CacheWarning, Embedder, MemoryCache, SqliteCache
from embrief.cache import opening, places, sqlite, store, upkeep
from embrief.cache.entries import Entry
from embrief.cache.memory import MemoryStore
from embrief.testing import FakeRuntime

WAIT = 60
SECRET = "a text that nobody may find in the file"


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "cache.sqlite3"


def embed(fake: FakeRuntime, file: Path, texts: list[str]) -> np.ndarray:
    """Embed with the cache, and see that it is what the model gives."""
    found = Embedder(fake.qwen3, cache=SqliteCache(path=file)).embed_documents(texts)
    runs = list(fake.runs)
    assert found.tobytes() == Embedder(fake.qwen3).embed_documents(texts).tobytes()
    fake.runs[:] = runs
    return found


def embed_each(fake: FakeRuntime, file: Path, *calls: list[str]) -> None:
    for texts in calls:
        embed(fake, file, texts)


def forget(file: Path) -> None:
    """Let this process open the file anew, as another one would."""
    there = opening._files.pop(file)
    for side in ("read", "write"):
        with there._locks[side]:
            there._disconnect(side)


def rows(file: Path) -> int:
    return upkeep.stats(str(file)).entries


def test_it_is_there_after_a_restart(fake: FakeRuntime, file: Path) -> None:
    embed(fake, file, ["a", "b"])
    forget(file)
    embed(fake, file, ["b", "a", "c"])
    assert fake.runs == [2, 1]


def test_what_a_call_computed_is_in_the_file_when_it_returns(fake: FakeRuntime, file: Path) -> None:
    embed(fake, file, [f"text {number}" for number in range(700)])
    assert rows(file) == 700


SCRIPT = """
import sys
from embrief import Embedder, SqliteCache
embedder = Embedder("embrief/hash", dim=64, cache=SqliteCache(path=sys.argv[1]))
embedder.embed_documents([f"text {number}" for number in range(int(sys.argv[2]), int(sys.argv[3]))])
print(embedder.info()["loaded"])
"""


def test_processes_share_it(file: Path) -> None:
    # Each has some that no other has.
    ranges = [(0, 500), (300, 800), (600, 1100)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(file), str(start), str(stop)], stdout=subprocess.PIPE, text=True
        )
        for start, stop in ranges
    ]
    assert [process.communicate(timeout=WAIT)[0] for process in running] == ["True\n"] * 3
    assert [process.returncode for process in running] == [0] * 3
    # Everything is in the file by now, also at the exit of each: the next one loads no model.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file), "0", "1100"], capture_output=True, text=True, timeout=WAIT
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
    verdict = upkeep.verify(str(file))
    assert (verdict.checked, verdict.bad, verdict.damage) == (1100, 0, "")


def test_threads_share_it(fake: FakeRuntime, file: Path) -> None:
    expected = Embedder(fake.qwen3).embed_documents([f"text {number}" for number in range(100)])
    wrong: list[int] = []

    def work(start: int) -> None:
        embedder = Embedder(fake.qwen3, cache=SqliteCache(path=file))
        for number in range(60):
            place = (start + number) % 100
            if embedder.embed_documents([f"text {place}"]).tobytes() != expected[place].tobytes():
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 80, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert wrong == []
    assert rows(file) == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_reads_and_writes_it(file: Path) -> None:
    script = """
import os, sys
from embrief import Embedder, SqliteCache
def embed(*texts):
    plain = Embedder("embrief/hash", dim=64)
    cached = Embedder("embrief/hash", dim=64, cache=SqliteCache(path=sys.argv[1]))
    assert cached.embed_documents(texts).tobytes() == plain.embed_documents(texts).tobytes()
embed("a", "b")
for number in range(5):
    child = os.fork()
    if not child:
        embed("a", f"of child {number}")
        os._exit(0)
    embed("b", f"of parent {number}")
    assert os.waitpid(child, 0)[1] == 0
embed("a", "b")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(file)], capture_output=True, text=True, timeout=WAIT
    )
    assert (done.returncode, done.stderr) == (0, "")
    verdict = upkeep.verify(str(file))
    assert (verdict.checked, verdict.bad, verdict.damage) == (12, 0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_no_connection_gets_into_a_child(fake: FakeRuntime, file: Path) -> None:
    embed(fake, file, ["a"])
    there = opening._files[file]
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(len(there._connections)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 9) == b"0"
    embed(fake, file, ["a", "b"])
    assert fake.runs == [1, 1]


def test_no_text_is_in_the_file(fake: FakeRuntime, file: Path) -> None:
    embedder = Embedder(fake.gemma, cache=SqliteCache(path=file))
    embedder.embed_documents([SECRET], titles=["a secret title"])
    embedder.embed_query(SECRET)
    forget(file)
    for place in file.parent.iterdir():
        data = place.read_bytes()
        for word in (SECRET, "nobody may find", "secret title", "search result"):
            assert word.encode() not in data
            assert word.encode("utf-16-le") not in data
    assert rows(file) == 2


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_it_is_for_its_owner_alone(fake: FakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "cache_folder", lambda: tmp_path.resolve() / "own" / "embrief")
    umask = os.umask(0)
    try:
        Embedder(fake.qwen3, cache="sqlite").embed_documents(["a"])
    finally:
        os.umask(umask)
    folder = tmp_path / "own" / "embrief"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {place.name: stat.S_IMODE(place.stat().st_mode) for place in folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "embeddings-1.sqlite3" in modes


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_file_that_others_could_read_is_closed_to_them(fake: FakeRuntime, file: Path) -> None:
    file.touch(0o666)
    file.chmod(0o666)
    embed(fake, file, ["a"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


# Damage.


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be one" * 100, b"SQLite format 3\0" + bytes(8000)], ids=len
)
def test_a_damaged_file_is_set_aside(fake: FakeRuntime, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.warns(CacheWarning, match=r"is damaged.*was moved to .*cache\.sqlite3\.aside-.*new one is begun"):
        embed(fake, file, ["a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed(fake, file, ["a", "b"])
    assert fake.runs == [1, 1]
    (aside,) = file.parent.glob("*.aside-*")
    assert aside.read_bytes() == content


def test_damage_in_the_middle_is_found_while_it_is_used(fake: FakeRuntime, file: Path) -> None:
    texts = [f"text {number}" for number in range(2000)]
    embed(fake, file, texts)
    forget(file)
    data = bytearray(file.read_bytes())
    data[4096:] = bytes(byte ^ 0x5A for byte in data[4096:])
    file.write_bytes(data)
    with pytest.warns(CacheWarning, match=r"was moved to"):
        embed(fake, file, texts)
    embed(fake, file, texts)
    assert fake.runs == [2000, 2000]


def test_another_programs_database_is_set_aside_whole(fake: FakeRuntime, file: Path) -> None:
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE notes (text)")
        other.execute("INSERT INTO notes VALUES ('mine')")
    other.close()
    with pytest.warns(CacheWarning, match=r"is no cache of embrief \(another program's database\)"):
        embed(fake, file, ["a"])
    (aside,) = file.parent.glob("*.aside-*")
    kept = sqlite3.connect(aside)
    assert kept.execute("SELECT text FROM notes").fetchall() == [("mine",)]
    kept.close()
    assert rows(file) == 1


def test_a_file_with_more_in_it_than_ours_is_not_ours(fake: FakeRuntime, file: Path) -> None:
    embed(fake, file, ["a"])
    forget(file)
    with sqlite3.connect(file) as other:
        other.execute("CREATE TRIGGER watch AFTER INSERT ON entries BEGIN DELETE FROM entries; END")
    other.close()
    with pytest.warns(CacheWarning, match="its tables are others"):
        embed(fake, file, ["a"])


def test_a_file_of_a_newer_release_is_left_alone(fake: FakeRuntime, file: Path) -> None:
    embed(fake, file, ["a"])
    forget(file)
    with sqlite3.connect(file) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.warns(CacheWarning, match=r"newer release of embrief.*Upgrade"):
        embed(fake, file, ["a"])
    assert not list(file.parent.glob("*.aside-*"))
    assert fake.runs == [1, 1]


def test_a_file_that_is_removed_while_it_is_used_is_begun_anew(fake: FakeRuntime, file: Path) -> None:
    embed(fake, file, ["a"])
    for name in (file, file.with_name(file.name + "-wal"), file.with_name(file.name + "-shm")):
        name.unlink(missing_ok=True)
    with pytest.warns(CacheWarning, match="removed or replaced"):
        embed(fake, file, ["a", "b"])
    assert rows(file) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed(fake, file, ["a", "b"])


def test_a_file_of_an_older_release_goes_on(file: Path) -> None:
    key, value = b"k" * 32, Entry(np.zeros(4, np.float32), None, None).to_bytes()
    first = sqlite.SqliteStore(file, 10**9)
    first.put({key: value}, None)
    first.settle()
    for side in ("read", "write"):
        first._disconnect(side)  # type: ignore[arg-type] # one of both
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("ALTER TABLE entries DROP COLUMN made")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    again = sqlite.SqliteStore(file, 10**9)
    assert again.get([key]) == {key: value}
    assert again.get([key], 1e6) == {}, "nobody knows how old it is"
    again.put({key: value}, None)
    again.settle()
    assert again.get([key], 1e6) == {key: value}


def test_a_second_process_does_not_set_the_new_file_aside(fake: FakeRuntime, file: Path) -> None:
    """Two find the same damage: the later one must not move what the earlier one began."""
    file.write_bytes(b"damaged" * 1000)
    late = sqlite.SqliteStore(file, 10**6)
    with late._locks["read"]:
        late._seen["read"] = sqlite._identity(file)
        with pytest.warns(CacheWarning, match="was moved to"):
            embed(fake, file, ["a"])
        late._trouble(sqlite.NotOursError("damaged"), "read")
    assert rows(file) == 1
    assert len(list(file.parent.glob("*.aside-*"))) == 1


@pytest.mark.parametrize("column", ["crc", "value", "size", "expires"])
def test_a_damaged_row_is_a_miss_and_goes(fake: FakeRuntime, file: Path, column: str) -> None:
    embed(fake, file, ["a", "b"])
    forget(file)
    change = {
        "crc": "crc = crc + 1",
        "value": "value = x'00112233'",
        "size": "size = 5",
        "expires": "expires = 'never'",
    }[column]
    with sqlite3.connect(file) as other:
        other.execute(f"UPDATE entries SET {change} WHERE rowid = 1")
    other.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed(fake, file, ["a", "b"])
    assert fake.runs == [2, 1]
    embed(fake, file, ["a", "b"])
    assert fake.runs == [2, 1]
    assert upkeep.verify(str(file)).bad == 0


def test_a_row_that_is_whole_and_says_nonsense_is_a_miss(fake: FakeRuntime, file: Path) -> None:
    embed(fake, file, ["a"])
    forget(file)
    with sqlite3.connect(file) as other:
        for key, value in other.execute("SELECT key, value FROM entries").fetchall():
            bad = b"\xff" + value[1:]
            other.execute("UPDATE entries SET value = ?, crc = ?", (bad, sqlite._crc(key, bad)))
    other.close()
    embed(fake, file, ["a"])
    assert fake.runs == [1, 1]


@pytest.mark.parametrize("change", ["flip", "narrow"])
def test_a_flipped_bit_never_reaches_a_caller(fake: FakeRuntime, file: Path, change: str) -> None:
    embed(fake, file, ["a"])
    forget(file)
    with sqlite3.connect(file) as other:
        ((key, value),) = other.execute("SELECT key, value FROM entries").fetchall()
        if change == "flip":
            other.execute("UPDATE entries SET value = ?", (value[:-1] + bytes([value[-1] ^ 1]),))
        else:
            narrow = Entry(np.ones(8, np.float32), 1, False).to_bytes()
            other.execute(
                "UPDATE entries SET value = ?, crc = ?, size = ?", (narrow, sqlite._crc(key, narrow), len(narrow))
            )
    other.close()
    embed(fake, file, ["a"])
    assert fake.runs == [1, 1]


# Trouble.


def test_a_place_where_nothing_can_be_made(fake: FakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PAUSE_SECONDS", 0.0)
    (tmp_path / "file").touch()
    with pytest.warns(CacheWarning, match=r"cannot be opened.*computed without it.*another file") as said:
        embed_each(fake, tmp_path / "file" / "cache.sqlite3", ["a"], ["a"], ["a"])
    assert len(said) == 1
    assert fake.runs == [1, 1, 1]


READ_ONLY = """
import os, sys, warnings
from embrief import CacheWarning, Embedder, SqliteCache
# What is imported late is imported now: the user below may not read this program.
import sqlite3
Embedder("embrief/hash", dim=64, cache="memory").embed_documents(["a"])
if not os.geteuid():
    os.setuid(65534)  # root may write anywhere
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for text in "aba":
        embedder = Embedder("embrief/hash", dim=64, cache=SqliteCache(path=sys.argv[1]))
        assert embedder.embed_documents([text]).shape == (1, 64)
assert [item.category for item in said] == [CacheWarning], said
print(said[0].message)
"""


@pytest.mark.skipif(os.name != "posix", reason="rights are those of POSIX")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(folder / "cache.sqlite3")],
            capture_output=True,
            text=True,
            timeout=WAIT,
        )
        assert done.returncode == 0, done.stderr
        assert "cannot be opened (Permission denied); texts are computed without it" in done.stdout
        assert not list(folder.iterdir())
    finally:
        folder.chmod(0o700)
        folder.rmdir()


class Limited:
    """Makes connections on which something is set first."""

    def __init__(self, statement: str) -> None:
        self._statement, self._real = statement, sqlite3.connect

    def __call__(self, *args: object, **options: object) -> sqlite3.Connection:
        connection = self._real(*args, **options)
        connection.execute(self._statement)
        return connection


def test_a_file_that_can_only_be_read_still_hits(
    fake: FakeRuntime, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(fake, file, ["a"])
    forget(file)
    monkeypatch.setattr(sqlite3, "connect", Limited("PRAGMA query_only = ON"))
    with pytest.warns(CacheWarning, match="cannot be opened or written") as said:
        embed_each(fake, file, ["a", "b"], ["c"])
    assert len(said) == 1
    embed(fake, file, ["a"])
    assert fake.runs == [1, 1, 1]


def test_a_full_disk_is_one_warning(fake: FakeRuntime, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(fake, file, ["a"])
    forget(file)
    monkeypatch.setattr(sqlite3, "connect", Limited("PRAGMA max_page_count = 8"))
    texts = [f"text {number}" for number in range(500)]
    with pytest.warns(CacheWarning, match=r"has no room on its disk.*Make room") as said:
        embed_each(fake, file, texts, texts)
    assert len(said) == 1
    embed(fake, file, ["a"])
    assert fake.runs == [1, 500, 500]


def test_a_file_that_is_locked_for_long(fake: FakeRuntime, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(fake, file, ["a"])
    forget(file)
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.warns(CacheWarning, match="is locked by another process") as said:
        embed_each(fake, file, ["a", "b"], ["a", "b"])
    assert len(said) == 1
    assert fake.runs == [1, 1, 1], "what is there can be read meanwhile"
    other.execute("ROLLBACK")
    monkeypatch.setattr(sqlite, "PAUSE_SECONDS", 0.0)
    opening._files[file]._paused.update(read=0.0, write=0.0)
    embed(fake, file, ["b"])
    embed(fake, file, ["b"])
    assert fake.runs == [1, 1, 1, 1]


def test_the_trouble_of_another_file_is_told_too(fake: FakeRuntime, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("one", "two"):
        with pytest.warns(CacheWarning, match=name):
            embed(fake, tmp_path / "file" / name, ["a"])


# Size and age.


def test_what_was_used_least_recently_goes_first(
    fake: FakeRuntime, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr(store, "now", lambda: clock[0])
    limit = 300_000
    embedder = Embedder(fake.qwen3, cache=SqliteCache(path=file, max_bytes=limit, ttl=10**9))
    for number in range(30):
        clock[0] += 100
        embedder.embed_documents([f"{number} {place}" for place in range(50)])
        embedder.embed_documents([f"0 {place}" for place in range(50)])
    assert fake.runs == [50] * 30, "what was used again is still there"
    fake.runs.clear()
    found = upkeep.stats(str(file))
    assert found.bytes <= limit
    assert found.entries > 300
    embedder.embed_documents([f"0 {place}" for place in range(50)])
    embedder.embed_documents([f"29 {place}" for place in range(50)])
    assert fake.runs == []
    embedder.embed_documents([f"1 {place}" for place in range(50)])
    assert fake.runs == [50]


def test_a_file_shrinks_to_a_smaller_size(fake: FakeRuntime, file: Path) -> None:
    texts = [f"text {number}" for number in range(3000)]
    embed(fake, file, texts)
    before = upkeep.stats(str(file)).file_bytes
    forget(file)
    Embedder(fake.qwen3, cache=SqliteCache(path=file, max_bytes=100_000)).embed_documents(["one more"])
    forget(file)
    assert upkeep.stats(str(file)).bytes <= 100_000
    assert file.stat().st_size < before / 5


def test_one_file_has_the_largest_size_that_is_asked_for(fake: FakeRuntime, file: Path) -> None:
    for size in (10**6, 10**7, 10**5):
        Embedder(fake.qwen3, cache=SqliteCache(path=file, max_bytes=size))
    assert opening._files[file].max_bytes == 10**7


def test_what_is_too_old_goes_first(fake: FakeRuntime, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr(store, "now", lambda: clock[0])
    short = Embedder(fake.qwen3, cache=SqliteCache(path=file, max_bytes=300_000, ttl=10))
    long = Embedder(fake.qwen3, cache=SqliteCache(path=file, max_bytes=300_000, ttl=10**9))
    long.embed_documents([f"long {place}" for place in range(50)])
    clock[0] += 100
    short.embed_documents([f"short {place}" for place in range(500)])
    assert upkeep.stats(str(file)).expired == 0
    clock[0] += 100
    assert upkeep.stats(str(file)).expired == 500
    long.embed_documents([f"more {place}" for place in range(300)])
    fake.runs.clear()
    long.embed_documents([f"long {place}" for place in range(50)])
    assert fake.runs == [], "used less recently than the short ones, and still of use"


def test_reading_writes_nothing_much(fake: FakeRuntime, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr(store, "now", lambda: clock[0])
    written: list[int] = []
    real = sqlite.SqliteStore._write

    def watched(self: sqlite.SqliteStore, *args: object) -> None:
        written.append(1)
        real(self, *args)

    embedder = Embedder(fake.qwen3, cache=SqliteCache(path=file))
    # So many that noting each use would be written at once.
    texts = [f"text {number}" for number in range(300)]
    embedder.embed_documents(texts)
    monkeypatch.setattr(sqlite.SqliteStore, "_write", watched)
    for _ in range(8):
        clock[0] += 7
        embedder.embed_documents(texts)
    assert written == []


def test_memory_holds_what_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(store, "now", lambda: clock[0])
    memory = MemoryStore(10_000)
    for number in range(100):
        memory.put({bytes([number]) * 32: bytes(1000)}, None)
        memory.get([bytes([0]) * 32])
    assert set(memory.get([bytes([number]) * 32 for number in range(100)])) == {
        bytes([number]) * 32 for number in (0, 94, 95, 96, 97, 98, 99)
    }
    memory.put({b"x" * 32: bytes(20_000)}, None)
    assert memory.get([b"x" * 32, bytes([99]) * 32]) == {bytes([99]) * 32: bytes(1000)}
    memory.put({b"y" * 32: b"value"}, 5)
    clock[0] = 5
    assert memory.get([b"y" * 32]) == {}


# Places.


def test_equal_options_are_one_cache(file: Path) -> None:
    assert opening.store_of(MemoryCache()) is opening.store_of(MemoryCache())
    assert opening.store_of(MemoryCache(ttl=5)) is not opening.store_of(MemoryCache())
    one = opening.store_of(SqliteCache(path=file))
    assert opening.store_of(SqliteCache(path=file.parent / ".." / file.parent.name / file.name, ttl=5)) is one


MOUNTS = """
/dev/root / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb /home/local ext4 rw 0 0
//server/share /mnt/with\\040blank cifs rw 0 0
user@host:/ /mnt/ssh fuse.sshfs rw 0 0
/dev/sdc /mnt/ssh/over xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/cache", "ext4"),
        ("/home/me/.cache/embrief/x", "nfs4"),
        ("/home/local/x", "ext4"),
        ("/home/localx", "nfs4"),
        ("/mnt/with blank/x", "cifs"),
        ("/mnt/ssh/x", "fuse.sshfs"),
        ("/mnt/ssh/over/x", "xfs"),
    ],
)
def test_which_file_system_a_file_is_on(path: str, kind: str) -> None:
    assert places.mounted(Path(path), MOUNTS) == kind


@pytest.mark.skipif(sys.platform != "linux", reason="where Linux lists its file systems")
def test_a_network_file_system_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = Path.read_text
    listed = f"/dev/root / ext4 rw 0 0\nserver:/x {tmp_path.resolve()} nfs4 rw 0 0\n"
    monkeypatch.setattr(
        Path, "read_text", lambda self, *args: listed if str(self) == "/proc/self/mounts" else real(self, *args)
    )
    with pytest.raises(ArgumentError, match=r"network file system \(nfs4\).*SqliteCache\(path=\.\.\.\).*'memory'"):
        Embedder("embrief/hash", cache=SqliteCache(path=tmp_path / "cache.sqlite3"))
    link = Path("/tmp") / f"embrief-link-{os.getpid()}"
    link.symlink_to(tmp_path)
    try:
        with pytest.raises(ArgumentError, match="network"):
            Embedder("embrief/hash", cache=SqliteCache(path=link / "cache.sqlite3"))
    finally:
        link.unlink()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"is a folder; name a file in it"):
        Embedder("embrief/hash", cache=SqliteCache(path=tmp_path))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the folders of Linux")
def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert places.cache_folder() == tmp_path / "xdg" / "embrief"
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert places.cache_folder() == tmp_path / ".cache" / "embrief"
