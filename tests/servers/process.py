"""A real server in a process of its own, on 127.0.0.1: asked over HTTP, and ended with the process that started it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

# Only against hangs.
PATIENCE = 120.0
LIFELINE = Path(__file__).with_name("lifeline.py")


class Answer(NamedTuple):
    """What a server answered: `headers` in lower case, `body` read as JSON."""

    status: int
    headers: dict[str, str]
    body: Any


class ServerProcess(ABC):
    """One server. It has started, but may still load; see `wait`.

    Args:
        command: the program and its arguments.
        environment: all its variables.
        log: where it writes what it says.
        port: where it listens; 0 if that is known later.
    """

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, port: int = 0) -> None:
        self.log = log
        self._port = port
        self._name = Path(command[0]).name
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                # Isolated: without what PYTHONPATH and the environment's start-up files bring.
                [sys.executable, "-I", "-S", str(LIFELINE), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @abstractmethod
    def ready(self, said: str) -> bool:
        """Whether it takes requests; `said` is its log."""

    def wait(self, patience: float = PATIENCE) -> None:
        """Return when it takes requests.

        Args:
            patience: seconds to wait for that.

        Raises:
            RuntimeError: it ended, or did not get ready in time; with the end of its log.
        """
        end = time.monotonic() + patience
        while time.monotonic() < end:
            # In this order: then its last words are there.
            ended = self._process.poll() is not None
            said = self.log.read_text("utf-8", "replace")
            if ended:
                raise RuntimeError(f"{self._name} is not there any more:\n{said[-2000:]}")
            if self.ready(said):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self._name} was not ready after {patience:.0f} s:\n{said[-2000:]}")

    def stop(self) -> None:
        """End it; nothing happens if it has ended already."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def ask(self, path: str, body: object = None, *, key: str | None = None) -> Answer:
        """POST `body`, as JSON unless it is bytes; GET without one.

        Raises:
            OSError: nothing answers there.
        """
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        # A proxy of the environment is not asked for what is here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE) as response:
                status, found, content = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, found, content = error.code, error.headers, error.read()
        return Answer(status, {name.lower(): value for name, value in found.items()}, json.loads(content or "null"))


def free_port() -> int:
    """A port that nothing listens on; another process may take it before it is used."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
