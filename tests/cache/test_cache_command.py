"""`embrief cache`: stats, clear, verify."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embrief import Embedder, SqliteCache
from embrief.cache import places
from embrief.cli import app


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["cache", *arguments])
    return result.exit_code, result.output


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path.resolve() / "cache.sqlite3"
    embedder = Embedder("embrief/hash", dim=64, cache=SqliteCache(path=file))
    embedder.embed_documents([f"text {number}" for number in range(300)])
    return file


def test_stats(file: Path) -> None:
    code, output = run("stats", "--path", str(file))
    assert code == 0
    assert str(file) in output.replace("\n", "")
    assert "300 vectors; " in output
    data = json.loads(run("stats", "--json", "--path", str(file))[1])
    assert data.keys() == {"path", "entries", "expired", "bytes", "file_bytes", "oldest_use"}
    assert (data["entries"], data["expired"]) == (300, 0)


def test_clear_while_it_is_used(file: Path) -> None:
    assert run("clear", "--path", str(file)) == (0, "300 vectors removed\n")
    assert json.loads(run("clear", "--json", "--path", str(file))[1]) == {"removed": 0}
    assert file.stat().st_size < 50_000
    embedder = Embedder("embrief/hash", dim=64, cache=SqliteCache(path=file))
    embedder.embed_documents(["text 1"])
    assert json.loads(run("stats", "--json", "--path", str(file))[1])["entries"] == 1


def test_verify(file: Path) -> None:
    assert run("verify", "--path", str(file)) == (0, "300 vectors checked, 0 damaged and removed\n")
    with sqlite3.connect(file) as other:
        other.execute("UPDATE entries SET value = zeroblob(size) WHERE rowid IN (3, 7)")
    other.close()
    assert run("verify", "--path", str(file)) == (1, "300 vectors checked, 2 damaged and removed\n")
    data = json.loads(run("verify", "--json", "--path", str(file))[1])
    assert (data["checked"], data["bad"], data["damage"]) == (298, 0, "")


@pytest.mark.parametrize("command", ["stats", "clear", "verify"])
def test_what_is_no_cache_is_said_and_left_alone(command: str, tmp_path: Path) -> None:
    code, output = run(command, "--path", str(tmp_path / "nothing"))
    assert code == 1
    assert "error: there is no cache at" in output
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "text").write_text("no database " * 1000)
    code, output = run(command, "--path", str(tmp_path / "text"))
    assert code == 1
    assert "is damaged" in output
    assert len(list(tmp_path.iterdir())) == 1


def test_the_users_own_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places, "cache_folder", lambda: tmp_path.resolve() / "embrief")
    assert run("stats")[0] == 1
    Embedder("embrief/hash", dim=64, cache="sqlite").embed_documents(["a"])
    assert "1 vectors" in run("stats")[1]
