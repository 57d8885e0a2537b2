"""What tests of several frameworks need."""

from __future__ import annotations

import threading
from typing import Any

import pytest


@pytest.fixture
def decoding_threads(monkeypatch: pytest.MonkeyPatch) -> set[threading.Thread]:
    """The threads in which pictures are decoded from now on, of files and of images of Pillow."""
    pytest.importorskip("PIL")
    from embrief.images import decoding

    found: set[threading.Thread] = set()

    def watched(name: str) -> Any:
        decode = getattr(decoding, name)

        def call(*args: Any) -> Any:
            found.add(threading.current_thread())
            return decode(*args)

        return call

    for name in ("decode", "from_pillow"):
        monkeypatch.setattr(decoding, name, watched(name))
    return found
