"""Whether the configuration file is still the one that this process has read."""

from __future__ import annotations

import os
from pathlib import Path

from embrief.config import environment
from embrief.config.process import user_file


def stamp() -> tuple[int, int, int] | None:
    """Return when the configuration file was written, its size and which file it is; `None` if there is none."""
    named = os.environ.get(environment.CONFIG)
    path = user_file() if named is None else Path(named.strip()).expanduser() if named.strip() else None
    try:
        found = path.stat() if path is not None else None
    except (OSError, RuntimeError):
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found is not None else None
