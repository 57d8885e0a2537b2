"""Whether a package is installed, without importing anything of it."""

from __future__ import annotations

import importlib.machinery
import importlib.util


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
