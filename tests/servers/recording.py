"""Answers of real servers as files, for tests that cannot start one: how they are shortened, written and compared."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .process import Answer

KEPT = 4  # of the values of a vector, and of the texts of a long list
HEADERS = ("content-type", "retry-after", "server", "www-authenticate")
ANSWER_ID = re.compile(r"infinity-[0-9a-f-]{36}")


def words(count: int, first: int = 0) -> str:
    """A text of `count` tokens or a few more; another one for each `first`."""
    return " ".join(str(number % 10) for number in range(first, first + count // 2))


def shortened(value: Any, name: str = "") -> Any:
    """The same without the rest of vectors and long lists of texts, without dates and numbers of answers."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if key not in ("created", "modified_at")}
        return {
            key: shortened(part, key) for key, part in kept.items() if key != "id" or not ANSWER_ID.match(str(part))
        }
    if name == "embedding" and isinstance(value, str):
        return base64.b64encode(base64.b64decode(value)[: 4 * KEPT]).decode()
    if name == "embedding" and isinstance(value[0], float):
        return value[:KEPT]
    if name == "input" and isinstance(value, list) and len(value) > 16:
        return value[:KEPT]
    return [shortened(part, name) for part in value] if isinstance(value, list) else value


def form(value: Any, name: str = "") -> Any:
    """What is the same everywhere: the checkpoints, hence numbers, depend on the docstrings of this Python."""
    if isinstance(value, dict):
        return {key: form(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return "ids" if name == "tokens" else sorted(json.dumps(form(part, name)) for part in value)
    if name == "embedding" and isinstance(value, str):
        return len(base64.b64decode(value))
    if isinstance(value, str):
        return re.sub(r"\d+", "#", value)
    if value is None or isinstance(value, bool) or name in ("code", "n_ctx"):
        return value
    return "number"


@dataclass(frozen=True)
class Recorded:
    """One request to a server, and what it answered."""

    server: dict[str, Any]
    """Which one it was, and its flags."""
    path: str
    body: Any
    """`None` for a GET."""
    key: str | None
    answer: Answer

    @property
    def request(self) -> dict[str, Any]:
        """The request as it is written down."""
        method = "GET" if self.body is None else "POST"
        headers = {"headers": {"Authorization": f"Bearer {self.key}"}} if self.key else {}
        return {"method": method, "path": self.path, "body": shortened(self.body), **headers}

    @property
    def response(self) -> dict[str, Any]:
        """The answer as it is written down."""
        headers = {key: value for key, value in self.answer.headers.items() if key in HEADERS}
        return {"status": self.answer.status, "headers": headers, "body": shortened(self.answer.body)}


def record(file: Path, name: str, found: Recorded, about: Mapping[str, str], order: Sequence[str]) -> None:
    """Put a case into a file.

    Args:
        file: the file; it need not be there yet.
        name: the case.
        found: what was asked and answered.
        about: `software`, `source` and `shortened`, in this order.
        order: the names of all cases.
    """
    cases = json.loads(file.read_text("utf-8"))["cases"] if file.is_file() else {}
    cases[name] = {"server": found.server, "request": found.request, "response": found.response}
    # One line each for server, request and response, and none for every number of a vector.
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in about.items()]
    written = [
        f"  {json.dumps(key)}: {{\n"
        + ",\n".join(f"   {json.dumps(part)}: {json.dumps(value)}" for part, value in cases[key].items())
        + "\n  }"
        for key in order
        if key in cases
    ]
    file.write_text("{\n" + ",\n".join([*lines, ' "cases": {\n' + ",\n".join(written) + "\n }"]) + "\n}\n", "utf-8")


def check(file: Path, name: str, found: Recorded) -> None:
    """Fail unless a server still answers as it is written down."""
    stored = json.loads(file.read_text("utf-8"))["cases"][name]
    assert stored["request"] == json.loads(json.dumps(found.request))
    assert form(found.response) == form(stored["response"])
