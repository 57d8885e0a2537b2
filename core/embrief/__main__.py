"""The `embrief` command: a process that has everything open answers if there is one, else the command runs here."""

from __future__ import annotations

import sys

from embrief.local import COMMANDS


def main() -> None:
    """Run the command line: the entry point of the `embrief` script and of `python -m embrief`."""
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
