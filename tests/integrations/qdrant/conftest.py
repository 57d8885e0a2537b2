from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from embrief.testing import FakeRuntime


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
async def aclient() -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(":memory:")
    yield client
    await client.close()
