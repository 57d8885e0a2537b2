"""Embedded clients without telemetry."""

from __future__ import annotations

import chromadb
import pytest
from chromadb.config import Settings

from chroma_embrief import release_models


@pytest.fixture
def open_client(tmp_path):
    """Return a function that opens the same database again, as a new process would see it."""

    def connect():
        return chromadb.PersistentClient(str(tmp_path / "db"), Settings(anonymized_telemetry=False))

    yield connect
    release_models()


@pytest.fixture
def chroma_client(open_client):
    return open_client()
