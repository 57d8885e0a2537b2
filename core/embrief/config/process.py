"""The configuration of this process: found once, when a name is first looked up, or set by the program."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from embrief.config import environment
from embrief.config.schema import Config, read_config
from embrief.config.tree import read_tree
from embrief.errors import ArgumentError, ArgumentTypeError, ConfigError
from embrief.files import foreign
from embrief.system.places import user_folder

FILE = "embrief.yaml"


def load_config(path: str | Path) -> Config:
    """Return what a configuration file says, checked. Loads no model and asks no network.

    Args:
        path: The file; `~` is the user's home.

    Raises:
        ConfigError: The file is not there, or holds what cannot be; everything that is wrong is told at once.
        MissingDependencyError: PyYAML is not installed.
    """
    if not isinstance(path, (str, Path)):
        raise ArgumentTypeError(f"path is a string or a path, not {type(path).__name__}")
    try:
        file = foreign.path_of(path, "path").absolute()
    except ArgumentError as error:
        raise ConfigError(str(error)) from error
    if file.is_dir():
        raise ConfigError(f"{file}: this is a folder; a configuration is a file, such as {FILE} in it")
    return read_config(read_tree(file), str(file), str(file.parent))


def user_file() -> Path | None:
    """Return where the user's own configuration is, whether it is there or not; never in the working directory."""
    try:
        return user_folder("config") / FILE
    except RuntimeError:
        # No home folder, and so no file of the user's.
        return None


def find_config() -> Config:
    """Return the configuration that the environment or the user's folder has; an empty one if there is none.

    Raises:
        ConfigError, MissingDependencyError: As of `load_config`.
    """
    named = os.environ.get(environment.CONFIG)
    if named is not None:
        return _named_file(named.strip()) if named.strip() else Config()
    try:
        own = user_file()
        there = own is not None and own.is_file()
    except (OSError, RuntimeError):
        there = False
    return load_config(own) if own is not None and there else Config()


def _named_file(path: str) -> Config:
    try:
        return load_config(path)
    except ConfigError as error:
        if error.file:
            raise
        # Nobody who calls has named this file, so the message says who did.
        raise ConfigError(f"the variable {environment.CONFIG} names a file that cannot be used: {error}") from error


_lock = threading.RLock()
_current: Config | None = None


def current_config() -> Config:
    """Return the configuration of this process.

    Raises:
        ConfigError, MissingDependencyError: As of `load_config`, each time until it can be read.
    """
    global _current
    with _lock:
        if _current is None:
            _current = find_config()
        return _current


def use_config(config: str | Path | Config | None) -> None:
    """Set the configuration of this process.

    Facades that exist stay as they are.

    Args:
        config: A file, or what `load_config` returned; `None`: what the environment or the user's folder has, looked
            for again at the next use.

    Raises:
        ConfigError, MissingDependencyError: As of `load_config`; the one before stays then.
    """
    global _current
    found = config if config is None or isinstance(config, Config) else load_config(config)
    with _lock:
        _current = found


def _after_fork() -> None:
    """Give a child process a lock of its own: the parent's may be held by a thread that the child does not have."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
