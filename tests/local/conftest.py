"""A service with toy commands, in a folder whose path is short enough for a socket."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embrief.local import client, frames, places
from embrief.local.service import Service

WAIT = 20
"""Seconds against hangs."""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="em", dir=None if sys.platform == "win32" else "/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
    yield made / "embrief"
    shutil.rmtree(made)


@pytest.fixture
def serving(folder: Path) -> Iterator[Callable[..., Any]]:
    """Make services that are stopped at the end."""
    made: list[Service] = []

    @contextmanager
    def make(run: Any, **options: Any) -> Iterator[Service]:
        service = Service(run, **options)
        made.append(service)
        service.start()
        yield service
        service.stop()

    yield make
    for service in made:
        service.stop()


class Caller:
    """A client whose frames are looked at one by one."""

    def __init__(self, port: bool | None = None, **changed: Any) -> None:
        connection = client.reach(places.own_place(), port=port)
        assert connection is not None
        self.connection = connection
        self.connection.settimeout(WAIT)
        self.connection.sendall(frames.pack({**client._request(["toy"]), **changed}))

    def next(self) -> dict[str, Any] | None:
        return frames.receive(self.connection)

    def rest(self) -> list[dict[str, Any]]:
        found = []
        while (frame := self.next()) is not None:
            found.append(frame)
        return found

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def call() -> Iterator[Callable[..., Caller]]:
    made: list[Caller] = []

    def make(**changed: Any) -> Caller:
        made.append(Caller(**changed))
        return made[-1]

    yield make
    for caller in made:
        caller.close()
