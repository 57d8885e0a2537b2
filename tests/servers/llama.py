"""Start and end llama-server, where `make llama` has built it."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Only against hangs: it takes a second or two with a small file.
PATIENCE = 120.0
# Settings of these programs and libraries, which would change what a test asks for.
FOREIGN = re.compile(r"(LLAMA|GGML|GGUF|AIP|HF|OMP)_")
LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")


def build_folder() -> Path | None:
    """Where llama.cpp was built: bin/llama-server, bin/llama-quantize, and lib/. None if it was not."""
    script = runpy.run_path(str(ROOT / ".ci" / "make_llama.py"))
    folder: Path = script["target_folder"]()
    return folder if script["is_built"](folder) else None


class LlamaServer:
    """One llama-server on 127.0.0.1.

    Args:
        build: what `build_folder` gave.
        file: the GGUF file that it serves.
        flags: its further options, as on a command line.
        log: where it writes what it says.

    Raises:
        RuntimeError: it ended or did not get ready in time; with the end of its log.
    """

    def __init__(self, build: Path, file: Path, flags: tuple[str, ...], log: Path) -> None:
        self.log = log
        # Port 0: the system chooses, and no other process can take it in between. One thread: the machine is shared.
        command = [str(build / "bin" / "llama-server"), "--model", str(file), "--host", "127.0.0.1", "--port", "0"]
        command += ["--threads", "1", "--offline", *flags]
        environment = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        self.url = ""
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def stop(self) -> None:
        """End it; nothing happens if it has ended already."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def ask(self, path: str, body: object = None, *, key: str | None = None) -> tuple[int, dict[str, str], object]:
        """POST `body` as JSON, or GET without one. Gives the status, headers in lower case, and what was answered."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        # A proxy of the environment is not asked for what is here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE) as response:
                status, found, content = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, found, content = error.code, error.headers, error.read()
        return status, {name.lower(): value for name, value in found.items()}, json.loads(content or "null")

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            said = self.log.read_text("utf-8", "replace")
            if self._process.poll() is not None:
                raise RuntimeError(f"llama-server ended with {self._process.returncode}:\n{said[-2000:]}")
            if not self.url and (found := LISTENING.search(said)):
                self.url = f"http://127.0.0.1:{found[1]}"
            if self.url and self.ask("/health")[0] == 200:
                return
            time.sleep(0.05)
        raise RuntimeError(f"llama-server was not ready after {PATIENCE:.0f} s:\n{said[-2000:]}")
