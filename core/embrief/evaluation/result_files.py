"""Results of the long commands: one JSON file, written whole or not at all, read only if it is what it should be."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def save(data: Mapping[str, Any], file: Path) -> None:
    """Write plain values as JSON. A reader never sees half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
    unfinished.replace(file)


def load(file: Path, command: str, version: int, rows: type) -> dict[str, Any]:
    """Read what a command has saved.

    Args:
        file: The file.
        command: Such as `embrief bench`.
        version: The format that the command writes.
        rows: What it keeps its rows in.

    Raises:
        ArgumentError: There is no such file, or it is something else.
    """
    try:
        data = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{file} cannot be read as results of {command}: {error}") from error
    if (
        not isinstance(data, dict)
        or (data.get("command"), data.get("format")) != (command, version)
        or not isinstance(data.get("rows"), rows)
    ):
        raise ArgumentError(f"{file} holds no results of {command} (format {version})")
    return data


def now() -> str:
    """Return date and time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
