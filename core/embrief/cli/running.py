"""A command of another terminal's, run on a thread of this process."""

from __future__ import annotations

import warnings
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


def warn_each_time() -> None:
    """Show a warning of the library to everybody whom it concerns, not to the first of many callers only."""
    from embrief import cli, errors

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, UserWarning) and kind.__module__ == errors.__name__:
            warnings.simplefilter("always", kind)
    cli.show_warnings()
