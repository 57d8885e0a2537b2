"""Where the process of a user's is found: a folder that nobody else can change, and a name for each environment."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import embrief
from embrief.errors import LocalProcessError
from embrief.system.places import user_folder

WINDOWS = os.name == "nt"
IDLE = "EMBRIEF_DAEMON_IDLE"
_LONGEST = 103
"""Bytes that the path of a unix socket may have: macOS keeps 104, and one of them ends it."""
_PREFIXES = ("EMBRIEF_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "CUDA_", "PYTORCH_", "OMP_")
_SUFFIXES = ("_KEY", "_TOKEN", "_PROXY")
"""Keys of servers may be in any variable that ends like this (see `servers/keys.py`)."""
_NAMES = (
    "HOME", "OLLAMA_HOST", "PYTHONPATH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA",
    "LOCALAPPDATA", "USERPROFILE",
)  # fmt: skip
_NOT = (IDLE, "VSCODE_")
"""What begins like this changes no answer, and some of it differs between two terminals of one window."""


def environment_name(environment: Mapping[str, str]) -> str:
    """Return a name for all that decides which answer a command gives, but for its arguments and its folder.

    Another version, another installation or another variable has another name, so that nobody is answered by a
    process that would do something else.

    Returns:
        16 hexadecimal digits.
    """
    told = sorted(
        f"{name}={value}"
        for name, value in environment.items()
        if (name.startswith(_PREFIXES) or name.upper().endswith(_SUFFIXES) or name in _NAMES)
        and not name.startswith(_NOT)
    )
    place = str(Path(embrief.__file__).parent)
    parts = [embrief.__version__, sys.prefix, place, ".".join(map(str, sys.version_info[:3])), *told]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Place(NamedTuple):
    """The files of one process, all in one folder."""

    folder: Path
    name: str

    @property
    def socket(self) -> Path:
        """The socket that is listened on."""
        return self.folder / f"{self.name}.sock"

    @property
    def door(self) -> Path:
        """The port and the token, where there are no unix sockets."""
        return self.folder / f"{self.name}.door"

    @property
    def lock(self) -> Path:
        """Locked as long as the process lives."""
        return self.folder / f"{self.name}.lock"

    @property
    def log(self) -> Path:
        """What the process writes when nobody listens."""
        return self.folder / f"{self.name}.log"


def own_place() -> Place:
    """Return the place of the process that this environment would use. Makes and checks nothing.

    Raises:
        LocalProcessError: There is no folder for it.
    """
    return Place(_folder(), environment_name(os.environ))


def _folder() -> Path:
    given = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    try:
        # A relative path is to be ignored, says the specification of XDG.
        folder = given / "embrief" if given.is_absolute() and not WINDOWS else user_folder("cache") / "run"
    except RuntimeError as error:
        raise LocalProcessError("there is no home folder to keep a socket in; set XDG_RUNTIME_DIR") from error
    if WINDOWS or len(os.fsencode(folder / f"{'0' * 16}.sock")) <= _LONGEST:
        return folder
    # Not the folder for temporary files that the environment names: that may be as long.
    return Path(f"/tmp/embrief-{os.geteuid()}")  # noqa: S108 - checked like the others


def make(folder: Path) -> None:
    """Make the folder where it is not there, and check it.

    Raises:
        LocalProcessError: It cannot be made, or others may change it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LocalProcessError(f"{folder}: this folder cannot be made ({error.strerror})") from error
    check(folder)


def exists(folder: Path) -> bool:
    """Return whether something is there, whatever it is."""
    try:
        folder.lstat()
    except OSError:
        return False
    return True


def check(folder: Path) -> None:
    """Make sure that nobody but the user can put anything into the folder.

    Raises:
        LocalProcessError: Somebody could.
    """
    try:
        found = folder.lstat()
    except OSError as error:
        raise LocalProcessError(f"{folder}: this folder cannot be looked at ({error.strerror})") from error
    if not stat.S_ISDIR(found.st_mode) or _is_junction(found):
        raise LocalProcessError(f"{folder}: this is a link or a file where embrief keeps its sockets; remove it")
    if WINDOWS:
        return  # The folder for local data of a Windows user is closed to others.
    if found.st_uid != os.geteuid():
        raise LocalProcessError(
            f"{folder}: this folder belongs to another user ({found.st_uid}), so no socket in it is used"
        )
    if found.st_mode & 0o077:
        raise LocalProcessError(
            f"{folder}: others may use this folder (mode {stat.S_IMODE(found.st_mode):04o}), so no socket in it is "
            f"used; run: chmod 700 {folder}"
        )


def _is_junction(found: os.stat_result) -> bool:
    return bool(getattr(found, "st_reparse_tag", 0))
