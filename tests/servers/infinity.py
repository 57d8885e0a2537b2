"""Start and end Infinity, where the variable EMBRIEF_INFINITY names its command."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .process import ServerProcess, free_port

# Settings of these programs and libraries would change what a test asks for.
FOREIGN = re.compile(r"(INFINITY|HF|TRANSFORMERS|OMP|PYTHON)_?")
FLAGS = "--engine torch --device cpu --dtype float32 --no-bettertransformer --no-compile --no-model-warmup"


class InfinityServer(ServerProcess):
    """One Infinity, which takes requests once it has loaded all models; see `wait`.

    Args:
        program: the command `infinity_emb` of an environment.
        models: folders of checkpoints, by the name that each is served under.
        folder: where it puts files of its own, and its log.
        flags: its further options, as on a command line.
    """

    def __init__(self, program: Path, models: dict[str, Path], folder: Path, flags: tuple[str, ...] = ()) -> None:
        port = free_port()
        command = [str(program), "v2", "--host", "127.0.0.1", "--port", str(port), *FLAGS.split(), *flags]
        for name, checkpoint in models.items():
            # Without a word it runs code that comes with a model.
            command += ["--model-id", str(checkpoint), "--served-model-name", name, "--no-trust-remote-code"]
        environment = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        environment |= {
            "DO_NOT_TRACK": "1",
            "INFINITY_ANONYMOUS_USAGE_STATS": "0",
            "HF_HUB_OFFLINE": "1",
            "INFINITY_HOME": str(folder),
            "OMP_NUM_THREADS": "1",
        }
        super().__init__(command, environment, folder / "infinity.log", port)

    def ready(self, said: str) -> bool:
        """Whether it has loaded its models."""
        try:
            return self.ask("/health").status == 200
        except OSError:
            return False
