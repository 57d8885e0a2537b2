"""Starting the process in the background, and being it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError, LocalProcessError
from embrief.local import places
from embrief.local.client import ask, reach

if TYPE_CHECKING:
    from types import FrameType

    from embrief.local.places import Place
    from embrief.local.service import Run, Service

MINUTES = 30.0
"""Minutes without a command after which it ends by itself, unless told otherwise."""
_PATIENCE = 30.0
"""Seconds that it gets to begin to listen; it imports no model before."""
_LOG_BYTES = 1 << 20


def idle_minutes() -> float:
    """Return the minutes without a command that the environment says.

    Raises:
        ArgumentError: It says no number.
    """
    text = os.environ.get(places.IDLE, "").strip()
    if not text:
        return MINUTES
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 < minutes < 1e6:
        raise ArgumentError(f"{places.IDLE}={text[:40]!r} is no number of minutes; set it to one above 0, such as 30")
    return minutes


def start_background(place: Place, minutes: float | None = None) -> bool:
    """Start the process, detached from this terminal, and wait until it answers.

    Args:
        place: The place of this environment.
        minutes: Minutes without a command after which it ends; `None`: what the environment says.

    Returns:
        Whether it was started; `False`: there was one.

    Raises:
        LocalProcessError: It does not come up; its log says why.
    """
    places.make(place.folder)
    if _answers(place):
        return False
    more = [] if minutes is None else ["--idle", str(minutes)]
    # -P: nothing is imported from the working folder, which is one where files are made.
    command = [sys.executable, "-P", "-m", "embrief", "daemon", "run", *more]
    with os.fdopen(_open_log(place), "ab") as log:
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            process = subprocess.Popen(  # noqa: S603 - this interpreter and constant words
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=place.folder, creationflags=flags
            )
        else:
            process = subprocess.Popen(  # noqa: S603 - as above
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=place.folder, start_new_session=True
            )
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if _answers(place):
            # It outlives this process, which will not wait for it.
            process.returncode = 0
            return True
        if process.poll() is not None:
            if _answers(place):
                return False  # Two were started at once, and the other one won.
            break
        time.sleep(0.02)
    raise LocalProcessError(f"the process in the background did not start; {place.log} says why")


def _open_log(place: Place) -> int:
    """Return the log, open to append to: of two that start at once, the second must not empty the first one's."""
    file = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o600)
    if os.fstat(file).st_size > _LOG_BYTES:
        os.ftruncate(file, 0)
    return file


def _answers(place: Place) -> bool:
    connection = reach(place)
    if connection is None:
        return False
    with connection:
        return "status" in (ask(connection, "status") or {})


def run_until_idle(run_command: Run, minutes: float) -> None:
    """Be the process: answer until nobody has asked for so long, or somebody says that it shall end.

    Raises:
        LocalProcessError: There is one already.
    """
    from embrief.local.service import Service

    service = Service(run_command, idle=60 * minutes)
    _start(service)

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        # In pieces: on Windows nothing interrupts a wait without an end.
        while not service.wait(1.0):
            pass
    except KeyboardInterrupt:
        service.stop()


def _start(service: Service) -> None:
    """Start, and wait a little for one that is ending."""
    end = time.monotonic() + 10
    while True:
        try:
            return service.start()
        except LocalProcessError:
            if _answers(service.place) or time.monotonic() > end:
                raise
        time.sleep(0.1)
