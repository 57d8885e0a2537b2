"""The side that asks: a command as it was typed, to the process that has everything open, and its output back.

This runs before anything else is imported, so it takes little from the standard library and nothing else.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import embrief
from embrief.errors import LocalProcessError
from embrief.local import frames, places, sockets

if TYPE_CHECKING:
    import socket

    from embrief.local.places import Place

START = "--daemon"
"""The option that starts the process if there is none."""
_COLD = ("--help", "--config")
"""Options whose command runs here: a help text, which needs no model; another configuration, which is a process's."""
PICTURE = "--image"
"""The option whose file another process can read only if it is one."""
INTERRUPTED = 130
_WIDEST = 9999
"""Columns of a terminal that a process takes for a width; `COLUMNS` may say anything."""
Show = Callable[[str, str], bool]
"""Takes a piece of `out` or `err`; returns whether anybody still reads."""


def forward(arguments: list[str]) -> int | None:
    """Run a command in the process that is there for this environment.

    Args:
        arguments: What was typed, from the command's name on. `--daemon` is taken out of it.

    Returns:
        The exit code; `None` if the command has to run here.
    """
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    start = START in words
    if start:
        arguments.remove(START)
    if cold := [name for name in _COLD if any(word.partition("=")[0] == name for word in words)]:
        if start:
            _warn(f"this command has {cold[0]}, so it runs without the process that {START} starts")
        return None
    if any(not _is_file(path) for path in _pictures(words)):
        # A pipe of this shell's, or nothing: this process says what is wrong.
        return None
    try:
        place = places.own_place()
        if start:
            from embrief.local.background import start_background

            start_background(place)
        elif not places.exists(place.folder):
            return None
        connection = reach(place)
    except LocalProcessError as error:
        _warn(str(error))
        return None
    if connection is None:
        return None
    for stream in (sys.stdout, sys.stderr):
        # A question mark is better than a crash, here as where the command runs by itself.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with connection:
        try:
            return _run(connection, _request(arguments), _print)
        except KeyboardInterrupt:
            return INTERRUPTED


def _pictures(words: list[str]) -> list[str]:
    """Return the files that a command is to read."""
    later = [word for option, word in pairwise(words) if option == PICTURE]
    return [*later, *(word.partition("=")[2] for word in words if word.startswith(f"{PICTURE}="))]


def _is_file(path: str) -> bool:
    """Return whether a path is a file for every process: a shell's `<(...)` is one for those that it starts only."""
    return os.path.isfile(os.path.expanduser(path)) and not path.startswith(("/dev/", "/proc/"))  # noqa: PTH111, PTH113


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)  # noqa: T201 - this is the command's own terminal


class Answer(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def collect(arguments: list[str], folder: str) -> Answer | None:
    """Run a command in the process that is there for this environment, for a program that reads what it prints.

    Args:
        arguments: The words, from the command's name on.
        folder: Where it is as if typed.

    Returns:
        What it printed; `None` if there is no process, or it has ended meanwhile.

    Raises:
        LocalProcessError: What is there must not be trusted.
    """
    place = places.own_place()
    if not places.exists(place.folder) or (connection := reach(place)) is None:
        return None
    request = {**_request(arguments), "folder": folder, "colour": False}
    request |= {"out": [False, "utf-8"], "err": [False, "utf-8"]}
    found: dict[str, list[str]] = {"out": [], "err": []}

    def keep(name: str, text: str) -> bool:
        found[name].append(text)
        return True

    with connection:
        code = _run(connection, request, keep)
    return None if code is None else Answer(code, "".join(found["out"]), "".join(found["err"]))


def reach(place: Place, *, port: bool | None = None) -> socket.socket | None:
    """Return a connection to the process at a place, `None` if there is none.

    Raises:
        LocalProcessError: What is there must not be trusted.
    """
    places.check(place.folder)
    return sockets.connect(place, port=sockets.port_needed() if port is None else port)


def ask(connection: socket.socket, what: str) -> dict[str, Any] | None:
    """Ask the process itself something; `None` if no answer comes."""
    try:
        connection.sendall(frames.pack({"protocol": frames.PROTOCOL, "do": what}))
        return frames.receive(connection)
    except (OSError, frames.BadFrameError):
        return None


def _run(connection: socket.socket, request: dict[str, Any], show: Show) -> int | None:
    try:
        connection.sendall(frames.pack(request))
        first = frames.receive(connection)
    except (OSError, frames.BadFrameError):
        return None
    if first != {"accepted": True}:
        return None
    connection.settimeout(None)
    shown = False
    while True:
        try:
            frame = frames.receive(connection)
        except (OSError, frames.BadFrameError):
            frame = None
        if frame is None:
            if not shown:
                return None
            show("err", "error: the process that ran this command has ended\n")
            return 1
        if isinstance(code := frame.get("exit"), int):
            return code
        for name in ("out", "err"):
            if isinstance(text := frame.get(name), str):
                shown = True
                if not show(name, text):
                    return 1


def _request(arguments: list[str]) -> dict[str, Any]:
    terminal = sys.stdout.isatty()
    return {
        "protocol": frames.PROTOCOL,
        "version": embrief.__version__,
        "do": "run",
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109 - a text is wanted
        "width": min(_width(), _WIDEST),
        "colour": terminal and "NO_COLOR" not in os.environ,
        "out": [terminal, sys.stdout.encoding or "utf-8"],
        "err": [sys.stderr.isatty(), sys.stderr.encoding or "utf-8"],
    }


def _width() -> int:
    """Return the columns of the terminal, as `shutil.get_terminal_size` does, which takes long to import."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1).columns or 80
    except (OSError, ValueError):
        return 80


def _print(name: str, text: str) -> bool:
    """Print a piece at once; return whether anybody still reads."""
    stream = sys.stdout if name == "out" else sys.stderr
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        return False
    return True
