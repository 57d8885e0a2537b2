"""Start and end llama-server, where `make llama` has built it."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path

from .process import ServerProcess

ROOT = Path(__file__).parents[2]
# Settings of these programs and libraries would change what a test asks for.
FOREIGN = re.compile(r"(LLAMA|GGML|AIP|HF|OMP)_")
LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")


def build_folder() -> Path | None:
    """Where llama.cpp was built: bin/llama-server, bin/llama-quantize, and lib/. None if it was not."""
    script = runpy.run_path(str(ROOT / ".ci" / "make_llama.py"))
    folder: Path = script["target_folder"]()
    return folder if script["is_built"](folder) else None


class LlamaServer(ServerProcess):
    """One llama-server, which answers 503 until it has loaded its file; see `wait`.

    Args:
        build: what `build_folder` gave.
        file: the GGUF file that it serves.
        flags: its further options, as on a command line.
        log: where it writes what it says.
        port: by default the system chooses one, which is known when `wait` has returned.
    """

    def __init__(self, build: Path, file: Path, flags: tuple[str, ...], log: Path, *, port: int = 0) -> None:
        command = [str(build / "bin" / "llama-server"), "--model", str(file), "--host", "127.0.0.1"]
        # One thread: the machine is shared, and these models are tiny.
        command += ["--port", str(port), "--threads", "1", "--offline", *flags]
        environment = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        super().__init__(command, environment, log, port)

    def ready(self, said: str) -> bool:
        """Whether it has loaded its file."""
        found = LISTENING.search(said)
        if found is None:
            return False
        self._port = int(found[1])
        return self.ask("/health").status == 200
