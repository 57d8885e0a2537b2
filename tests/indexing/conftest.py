"""A user's data folder of its own for every test, and a small project to index."""

from __future__ import annotations

from pathlib import Path

import pytest

from embrief.indexing import table
from embrief.indexing.workspace import Workspace


@pytest.fixture(autouse=True)
def user_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setattr(table, "user_folder", lambda kind: folder)
    return folder


@pytest.fixture(params=["chroma", "qdrant"])
def store(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"chroma": "chromadb", "qdrant": "qdrant_client"}[request.param])
    return request.param


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "planets.md").write_text("# Planets\n\nMars is called the red planet.\n", "utf-8")
    (folder / "docs" / "oceans.md").write_text("# Oceans\n\nThe Pacific is the deepest ocean.\n", "utf-8")
    (folder / "copying.py").write_text(
        "def copy_tree(source, target):\n    '''Copy a folder and all that is below it.'''\n    return target\n",
        "utf-8",
    )
    return folder.resolve()


@pytest.fixture
def workspace():
    with Workspace() as found:
        yield found
