"""What the tests of servers share: payloads, vectors to answer with, and comparisons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embrief.testing import Asked, LoopbackServer, Reply

PAYLOADS = Path(__file__).parent / "payloads"


def payload(file: str, case: str) -> Reply:
    """What a server answers, as its source says; for llama-server, as it was recorded."""
    stored = json.loads((PAYLOADS / f"{file}.json").read_text("utf-8"))["cases"][case]
    response = stored.get("response", stored)
    return Reply(response["body"], response["status"])


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The cosine of each row with its partner."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    found: np.ndarray = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    return found


def words(count: int, first: int = 0) -> str:
    """A text of about `count` tokens; another one for each `first`."""
    return " ".join(str(number % 10) for number in range(first, first + count // 2))


def posted(server: LoopbackServer, path: str) -> list[Any]:
    """The bodies of the requests to a path, in order of arrival."""
    return [asked.body for asked in server.seen if asked.path == path]


def rows(texts: Sequence[str], width: int) -> list[list[float]]:
    """A vector for each text, which says how long it is."""
    return [[1.0, len(text) / 100, *[0.0] * (width - 2)] for text in texts]


def asks(asked: Asked, path: str) -> bool:
    """Whether a request is to a path."""
    return asked.path == path
