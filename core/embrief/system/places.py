"""Where a user's files belong on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def data_folder() -> Path:
    """Return the folder for what is kept of this user's work, which need not exist yet."""
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Application Support"
    else:
        given = os.environ.get("XDG_DATA_HOME", "")
        # A relative path is to be ignored, says the specification of these variables.
        root = given if Path(given).is_absolute() else Path.home() / ".local" / "share"
    return Path(root) / "embrief"
