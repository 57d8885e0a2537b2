"""Start and end llama-server, where `make llama` has built it."""

from __future__ import annotations

import json
import os
import re
import runpy
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
# Only against hangs: it takes a second with a small file.
PATIENCE = 120.0
# Settings of these programs and libraries would change what a test asks for.
FOREIGN = re.compile(r"(LLAMA|GGML|AIP|HF|OMP)_")
LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")


def build_folder() -> Path | None:
    """Where llama.cpp was built: bin/llama-server, bin/llama-quantize, and lib/. None if it was not."""
    script = runpy.run_path(str(ROOT / ".ci" / "make_llama.py"))
    folder: Path = script["target_folder"]()
    return folder if script["is_built"](folder) else None


class Answer(NamedTuple):
    """What a server answered: `headers` in lower case, `body` read as JSON."""

    status: int
    headers: dict[str, str]
    body: Any


class LlamaServer:
    """One llama-server on 127.0.0.1. It has started, but answers 503 until it has loaded its file; see `wait`.

    Args:
        build: what `build_folder` gave.
        file: the GGUF file that it serves.
        flags: its further options, as on a command line.
        log: where it writes what it says.
        port: by default the system chooses one, which is known when `wait` has returned.
    """

    def __init__(self, build: Path, file: Path, flags: tuple[str, ...], log: Path, *, port: int = 0) -> None:
        self.log = log
        self._port = port
        command = [str(build / "bin" / "llama-server"), "--model", str(file), "--host", "127.0.0.1"]
        # One thread: the machine is shared, and these models are tiny.
        command += ["--port", str(port), "--threads", "1", "--offline", *flags]
        environment = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
            )

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def wait(self) -> None:
        """Return when it has loaded its file.

        Raises:
            RuntimeError: it ended, or did not get ready in time; with the end of its log.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            said = self.log.read_text("utf-8", "replace")
            if self._process.poll() is not None:
                raise RuntimeError(f"llama-server ended with {self._process.returncode}:\n{said[-2000:]}")
            # It says so after it has loaded the file.
            if found := LISTENING.search(said):
                self._port = int(found[1])
                if self.ask("/health").status == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"llama-server was not ready after {PATIENCE:.0f} s:\n{said[-2000:]}")

    def stop(self) -> None:
        """End it; nothing happens if it has ended already."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
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
