"""Paths that people type: `~` is their home here too, where a shell leaves it as it is."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it

from embrief.files.foreign import path_of


def expanded(path: Path | None) -> Path | None:
    """Return the path of an option, `~` expanded. For typer's `callback`."""
    return None if path is None else path_of(path, "path")


def all_expanded(paths: list[Path] | None) -> list[Path]:
    """Return the paths of an argument that may be given several times, `~` expanded. For typer's `callback`."""
    return [path_of(path, "path") for path in paths or ()]
