"""The `embrief` command: a process that has everything open answers if there is one, else the command runs here."""

from __future__ import annotations

import os
import sys

from embrief.local import COMMANDS


def main() -> None:
    """Run the command line: the entry point of the `embrief` script and of `python -m embrief`."""
    for name in ("stdout", "stderr"):
        # Closed, as behind `>&-`. Whatever is opened first would get its number, and what is printed.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - until the end
    try:
        os.getcwd()  # noqa: PTH109 - no more is imported than must be
    except FileNotFoundError:
        print("error: the folder that this runs in is no longer there; go to another one", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        # Asked before anything is imported that a command needs.
        from embrief.local.client import forward

        code = forward(arguments)
        if code is not None:
            sys.exit(code)
        sys.argv[1:] = arguments
    from embrief.cli import main as run_here

    run_here()


if __name__ == "__main__":
    main()
