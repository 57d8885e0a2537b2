"""The page's own files, which come with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "static"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it is served."""

    data: bytes
    kind: str
    """Its media type."""


def _files() -> dict[str, File]:
    found = {
        f"/{path.name}": File(path.read_bytes(), _KINDS[path.suffix])
        for path in sorted(_FOLDER.iterdir())
        if path.suffix in _KINDS
    }
    return {"/": found.pop("/index.html"), **found}


FILES = _files()
"""All of them, by path."""
