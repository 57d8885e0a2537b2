"""Whether Pillow is there, which decodes and resizes pictures."""

from __future__ import annotations

from embrief.errors import MissingDependencyError
from embrief.system.installed import install_command, is_installed


def needed() -> None:
    """Refuse to go on without Pillow.

    Raises:
        MissingDependencyError: It is not installed.
    """
    if not is_installed("PIL"):
        raise MissingDependencyError(
            f"pictures are decoded with Pillow, which is not installed: {install_command('images')}"
        )
