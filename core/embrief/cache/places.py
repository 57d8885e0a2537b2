"""Where a cache's file is: the user's cache folder, and no folder that other machines see."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from embrief.errors import ArgumentError
from embrief.files.foreign import path_of, shown
from embrief.system.places import user_folder

_NAME = "embeddings-1.sqlite3"
"""With the version of its layout: releases with another one have another file."""
_NETWORK = frozenset(
    {
        *("afp", "afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
        *("ocfs2", "orangefs", "panfs", "pvfs2", "smb", "smb2", "smb3", "smbfs", "fuse.beegfs", "fuse.ceph"),
        *("fuse.cephfs", "fuse.davfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs"),
        *("fuse.smbnetfs", "fuse.sshfs"),
    }
)
"""File systems on which processes of several machines may meet. SQLite's write-ahead log needs memory that all of its
processes share, and their locks do not hold there (https://www.sqlite.org/wal.html)."""
_REMOTE_DRIVE = 4
"""DRIVE_REMOTE, what Windows' GetDriveType says of a network drive."""


def cache_folder() -> Path:
    """Return where embrief keeps what it can make again."""
    return user_folder("cache")


def cache_file(path: str | None) -> Path:
    """Return the file of a cache, absolute; by default that in the user's cache folder.

    Raises:
        ArgumentError: It cannot be one: it is a folder, or on a network file system.
    """
    if path is None:
        try:
            file = cache_folder() / _NAME
        except RuntimeError as error:
            raise ArgumentError(f"there is no home folder for the cache ({error}); name a file: path=") from error
    else:
        file = path_of(path, "path").absolute()
    if file.is_dir():
        raise ArgumentError(f"the cache {file} is a folder; name a file in it: path={str(file / _NAME)!r}")
    try:
        # Where a link leads decides; the file may not be there yet.
        real = Path(os.path.realpath(file))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"path={shown(str(path))} cannot be a path: {error}") from error
    if (kind := _network(real)) is not None:
        raise ArgumentError(
            f"the cache {file} is on a network file system ({kind}), where processes cannot share it safely; name a "
            "file on a disk of this machine: SqliteCache(path=...), or use cache='memory'"
        )
    return real


def _network(file: Path) -> str | None:
    """Return the kind of network file system that a file would be on; `None` if it is none, or that is not told."""
    if sys.platform == "win32":
        return _network_of_windows(file)
    try:
        mounts = Path("/proc/self/mounts").read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    kind = mounted(file, mounts)
    return kind if kind in _NETWORK else None


def mounted(file: Path, mounts: str) -> str | None:
    """Return the type of the file system that a file is on.

    Args:
        file: An absolute path without links; it need not exist.
        mounts: What Linux has in /proc/self/mounts: device, place, type and more per line, a later one over an earlier.
    """
    best, found = -1, None
    for line in mounts.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        place = Path(_unescaped(parts[1]))
        depth = len(place.parts)
        if depth >= best and file.is_relative_to(place):
            best, found = depth, parts[2]
    return found


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _network_of_windows(file: Path) -> str | None:
    drive = file.drive
    if drive.startswith("\\\\"):
        return "UNC"
    import ctypes

    kernel = getattr(ctypes, "windll", None)
    if kernel is not None and kernel.kernel32.GetDriveTypeW(drive + "\\") == _REMOTE_DRIVE:
        return "network drive"
    return None
