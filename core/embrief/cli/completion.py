"""What a shell offers when somebody presses the tabulator key."""

from __future__ import annotations


def model_names(incomplete: str) -> list[str]:
    """Return the recorded models whose name begins so. For typer's `autocompletion`."""
    # Inside the function: a command that is only run need not know all models.
    from embrief.discovery.plugins import catalog

    return [name for name in catalog().models if name.lower().startswith(incomplete.lower())]
