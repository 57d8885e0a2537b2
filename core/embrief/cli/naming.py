"""What people name on a command line: the configuration file, and models by the names in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from embrief.config.meaning import Meant


def _use(path: Path | None) -> Path | None:
    if path is not None:
        # Inside the function: a command's help needs no configuration.
        from embrief.config.process import use_config

        use_config(path)
    return path


ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", callback=_use, metavar="FILE", help="A configuration file, for the names of models."),
]
"""The option of every command that takes the names of models. It is in force before the command begins."""


MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        min=1,
        metavar="N",
        help="Largest area in which a model that takes pictures sees one; larger ones are made smaller.",
    ),
]
"""The option of commands that embed or judge pictures."""

InBackground = Annotated[
    bool,
    typer.Option(
        "--daemon", help="Start a process in the background that keeps models and collections open for the next time."
    ),
]
"""The option of commands that the user's own process runs. It is taken out before that; here it is for the help."""


def given(**options: str) -> dict[str, Any]:
    """Return options of a command as keywords, without those left at `auto`, which the configuration may say."""
    return {name: value for name, value in options.items() if value != "auto"}


def meant_here(name: str, *, also_on_servers: bool = False) -> Meant:
    """Return what a name means, whatever kind of model it is, for commands about models in this process.

    Args:
        name: What a user wrote.
        also_on_servers: Let models on servers pass: something of them may be here too.

    Raises:
        ArgumentError: The model is on a server.
        EmbriefError: As of `Embedder`.
    """
    from embrief.config.names import is_server, meaning, told
    from embrief.errors import ArgumentError, WrongKindError
    from embrief.facts.specs import EmbeddingSpec, RerankerSpec

    try:
        meant = meaning(name, EmbeddingSpec)
    except WrongKindError:
        meant = meaning(name, RerankerSpec)
    if not also_on_servers and is_server(meant.backend):
        raise ArgumentError(
            f"{name!r} is {meant.model} on a server ({told(meant.backend)}); this command is about models in this "
            "process"
        )
    return meant
