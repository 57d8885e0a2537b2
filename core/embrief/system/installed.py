"""What is installed, without importing anything of it, and the command that installs what is not."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path


def is_installed(name: str) -> bool:
    """Return whether `import name` would find something; `name` may have dots.

    `importlib.util.find_spec` imports the parents of a dotted name, and raises where a parent is missing.
    """
    root, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(root)
    except ValueError:  # a module that has no __spec__ is in memory
        return not rest
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return False
        root = f"{root}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(root, spec.submodule_search_locations)
    return spec is not None


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, `None` if it is not there."""
    # Inside the function: it imports all of `email`, and most programs never ask.
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def install_command(extra: str) -> str:
    """Return the command that installs what an extra of this package needs, in the form that works here.

    A checkout is installed as it stands: no index need have the package. Anywhere else the package itself is there.
    """
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / "core" / "embrief").is_dir() or not (checkout / "pyproject.toml").is_file():
        return f'pip install "embrief[{extra}]"'
    command = f'pip install -e ".[{extra}]"'
    return command if Path.cwd() == checkout else f"{command} (in {checkout})"
