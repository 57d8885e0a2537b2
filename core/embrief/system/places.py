"""Where a user's files belong on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

_PLACES = {
    "cache": ("XDG_CACHE_HOME", ".cache", "Library/Caches", "LOCALAPPDATA", "AppData/Local"),
    "config": ("XDG_CONFIG_HOME", ".config", "Library/Application Support", "APPDATA", "AppData/Roaming"),
    "data": ("XDG_DATA_HOME", ".local/share", "Library/Application Support", "LOCALAPPDATA", "AppData/Local"),
}


def user_folder(kind: Literal["cache", "config", "data"]) -> Path:
    """Return embrief's own folder for what can be made again, what the user says, or what is kept of their work.

    It need not exist yet.

    Raises:
        RuntimeError: There is no home folder.
    """
    variable, usual, mac, windows, roaming = _PLACES[kind]
    if sys.platform == "darwin":
        base = Path.home() / mac
    else:
        name, place = (windows, roaming) if sys.platform == "win32" else (variable, usual)
        # A relative path would mean the working directory, and is to be ignored, says the specification of XDG.
        given = Path(os.environ.get(name, ""))
        base = given if given.is_absolute() else Path.home() / place
    return base / "embrief"
