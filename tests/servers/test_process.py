"""The servers of these tests: none outlives the process that started it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from . import process
from .process import PATIENCE, ServerProcess

LISTENING = """
import socket, threading
with socket.create_server(("127.0.0.1", 0)) as server:
    print("port", server.getsockname()[1], flush=True)
    threading.Event().wait()
"""
STARTING = """
import os, pathlib, sys, threading
sys.path.insert(0, sys.argv[1])
from process import ServerProcess
class Listening(ServerProcess):
    def ready(self, said):
        return said.startswith("port ")
server = Listening([sys.executable, "-c", sys.argv[2]], dict(os.environ), pathlib.Path(sys.argv[3]))
server.wait()
print("started", flush=True)
threading.Event().wait()
"""


class Listening(ServerProcess):
    def ready(self, said: str) -> bool:
        return said.startswith("port ")


def listens(log: Path) -> bool:
    port = int(log.read_text("utf-8").split()[1])
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until_gone(log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while listens(log):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_server_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    folder = str(Path(process.__file__).parent)
    starting = subprocess.Popen(
        [sys.executable, "-c", STARTING, folder, LISTENING, str(log)], stdout=subprocess.PIPE, text=True
    )
    assert starting.stdout is not None
    assert starting.stdout.readline() == "started\n"
    assert listens(log)
    starting.kill()
    starting.communicate()
    wait_until_gone(log)


def test_a_server_is_stopped_and_one_that_ends_by_itself_is_told_of(tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = Listening([sys.executable, "-c", LISTENING], {}, log)
    server.wait()
    assert listens(log)
    server.stop()
    assert not listens(log)
    server.stop()
    failing = Listening([sys.executable, "-c", "print('no model'); raise SystemExit(3)"], {}, tmp_path / "other")
    with pytest.raises(RuntimeError, match=r"no model\nended with 3"):
        failing.wait()
    failing.stop()
