"""The command line: the commands, and how their errors are shown.

A command's module is imported when the command runs and not before: `embrief --help` must come at once.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_group

import embrief
from embrief.cli import terminal
from embrief.errors import EmbriefError


class Later(NamedTuple):
    """A command that is imported when it is wanted."""

    module: str
    attribute: str
    """A function, or a `typer.Typer` with commands of its own."""
    help: str
    """The first line of the function's docstring, or the help of the `typer.Typer`."""


COMMANDS = {
    "demo": Later("embrief.cli.demo", "demo", "Ask the Python standard library, or pictures."),
    "index": Later("embrief.cli.index", "index", "Index files for `embrief search`."),
    "search": Later("embrief.cli.search", "search", "Search what `embrief index` has indexed, by meaning."),
    "embed": Later("embrief.cli.embed", "embed", "Embed lines, each as it comes."),
    "rerank": Later("embrief.cli.rerank", "rerank", "Score pairs of query and document, each as it comes."),
    "serve": Later("embrief.cli.serve", "serve", "Serve models over HTTP."),
    "mcp": Later("embrief.cli.mcp", "mcp", "Offer search to a coding assistant, over MCP."),
    "models": Later("embrief.cli.models", "models", "List known models, and which are on this machine."),
    "plugins": Later("embrief.cli.plugins", "plugins", "List plugins, integrations and runtimes."),
    "pull": Later("embrief.cli.pull", "pull", "Download a model: safetensors, or one GGUF file."),
    "export": Later("embrief.cli.export", "export", "Write a model as a folder that runs without torch."),
    "doctor": Later("embrief.cli.doctor", "doctor", "Show versions, devices, memory and disk."),
    "parity": Later("embrief.cli.parity", "parity", "Compare a model with the same one elsewhere."),
    "bench": Later("embrief.cli.bench", "bench", "Compare with sentence-transformers."),
    "eval": Later("embrief.cli.evaluate", "app", "Measure retrieval on your data or on published sets."),
    "cache": Later("embrief.cli.cache", "app", "Look after the file of cached embeddings."),
    "daemon": Later("embrief.cli.daemon", "app", "Keep models open for the next search."),
}
"""The commands by name, in the order of the help."""


@cache
def _load(name: str) -> Any:
    """Import a command and return what typer makes of it. Once: a process may run it for many."""
    later = COMMANDS[name]
    found = getattr(import_module(later.module), later.attribute)
    # In a group of its own, whose markup mode the command takes.
    alone = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name)(found)
    return get_group(alone).commands[name]


class _Commands(TyperGroup):
    """The commands. An error that the library raises on purpose is one message, never a traceback."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Put the command itself in the place of its name and help."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else _load(name), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EmbriefError as error:
            typer.echo(f"error: {error}", file=terminal.terminal().err)
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


def _stand_in() -> None:
    """Be what typer lists a command by until it is wanted."""


for _name, _later in COMMANDS.items():
    app.command(_name, help=_later.help)(_stand_in)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    typer.echo(f"warning: {message}", file=terminal.terminal().err)


def show_warnings() -> None:
    """Show warnings as one line each, where the command that they are about prints."""
    warnings.showwarning = _show_warning


def main() -> None:
    """Run the command line in this process."""
    for stream in (sys.stdout, sys.stderr):
        # A docstring may hold what an old terminal's encoding lacks; a question mark is better than a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    show_warnings()
    app()
