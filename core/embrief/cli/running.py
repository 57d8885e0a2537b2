"""A command of another terminal's, run on a thread of this process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.main import get_command

from embrief.cli.terminal import Terminal, belonging_to

if TYPE_CHECKING:
    from embrief.local.request import Request

_NAME = "embrief"


# What typer makes of the functions takes longer than many a search.
_command = cache(get_command)


def run_command(request: Request, app: typer.Typer | None = None) -> int:
    """Run what somebody typed and return the exit code. For `embrief.local.service.Service`.

    Args:
        request: The words, the streams and the folder.
        app: The commands, if not those of embrief.
    """
    if app is None:
        from embrief.cli import app as own

        app = own
    given = Terminal(request.out, request.err, request.width, request.colour, Path(request.folder), request.stop)
    with belonging_to(given):
        try:
            ended: Any = _command(app).main(list(request.arguments), prog_name=_NAME, standalone_mode=False)
        except typer.Abort:
            typer.echo("Aborted!", file=request.err)
            return 1
        except Exception as error:
            # Wrong usage, told by whichever click typer brings; its base class has a name in only some versions.
            show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
            if not callable(show) or not isinstance(code, int):
                raise
            show(file=request.err)
            return code
    return ended if isinstance(ended, int) else 0


@contextmanager
def answering_others(kind: str, idle_seconds: float | None = None) -> Iterator[bool]:
    """Answer the user's other terminals from this process, unless another one does already.

    Only one process can have a local store open, so whoever has one open for long runs their searches.

    Args:
        kind: What this process is, for whoever asks.
        idle_seconds: For how long collections stay open after their last use; `None`: as the workspace has it.

    Yields:
        Whether this process answers.
    """
    from embrief.errors import LocalProcessError
    from embrief.indexing.workspace import IDLE_SECONDS, shared_workspace
    from embrief.local.service import Service

    service = Service(run_command, kind=kind, stops_for_others=False)
    try:
        service.start()
    except LocalProcessError:
        yield False
        return
    warn_each_time()
    shared_workspace().keep_open(IDLE_SECONDS if idle_seconds is None else idle_seconds)
    try:
        yield True
    finally:
        service.stop()
        shared_workspace().keep_open(0.0)


def warn_each_time() -> None:
    """Show a warning of the library to everybody whom it concerns, not to the first of many callers only."""
    from embrief import cli, errors

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, UserWarning) and kind.__module__ == errors.__name__:
            warnings.simplefilter("always", kind)
    cli.show_warnings()
