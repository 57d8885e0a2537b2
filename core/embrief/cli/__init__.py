"""The command line: the commands, and how their errors are shown.

Nothing heavy is imported here or at the top of a command's file: `embrief --help` must come at once.
"""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import embrief
from embrief.cli import bench, cache, demo, doctor, evaluate, export, models, parity, plugins, pull, serve
from embrief.errors import EmbriefError


class _Commands(TyperGroup):
    """The commands. An error that the library raises on purpose is one message, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EmbriefError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="embrief",
    cls=_Commands,
    help="Embedding models and rerankers, with the prompts they were trained with.",
    no_args_is_help=True,
    # Brackets in a help text are extras of a pip command, not markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"embrief {embrief.__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Embedding models and rerankers, with the prompts they were trained with."""


for _command in (
    demo.demo,
    models.models,
    plugins.plugins,
    pull.pull,
    export.export,
    doctor.doctor,
    parity.parity,
    bench.bench,
    serve.serve,
):
    app.command()(_command)
app.add_typer(evaluate.app, name="eval")
app.add_typer(cache.app, name="cache")


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    typer.echo(f"warning: {message}", err=True)


def main() -> None:
    """Run the command line: the entry point of the `embrief` script."""
    for stream in (sys.stdout, sys.stderr):
        # A docstring may hold what an old terminal's encoding lacks; a question mark is better than a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    warnings.showwarning = _show_warning
    app()
