"""Install torch, as a step of its own, into the environment whose Python runs this file.

On Linux x86-64 the default build on PyPI brings gigabytes of CUDA libraries. The CPU build has the same
version and sits on another index, which is used only if it answers within a few seconds. TORCH=cuda in the
environment (or as the first argument) skips the question and takes pip's default build.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 5.0


def reachable(url: str, timeout: float = TIMEOUT) -> bool:
    """Ask once. The thread bounds what urllib's timeout does not: name resolution."""
    answer: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=timeout) as response:
                answer.append(response.status == 200)
        except Exception:  # any failure means: do without it
            answer.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout + 1)
    return bool(answer and answer[0])


def pip_install(*extra: str) -> int:
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
    command += ["-c", str(ROOT / "constraints.txt"), *extra, "torch"]
    return subprocess.run(command, check=False).returncode


def main(argv: list[str]) -> int:
    choice = (argv[0] if argv else "") or os.environ.get("TORCH", "") or "auto"
    if choice not in {"auto", "cpu", "cuda"}:
        print(f"TORCH={choice} is not known: use TORCH=auto, TORCH=cpu or TORCH=cuda")
        return 2
    wants_cpu = platform.system() == "Linux" and platform.machine() in {"x86_64", "AMD64"}
    if choice == "cuda" or (choice == "auto" and not wants_cpu):
        return pip_install()
    if reachable(f"{CPU_INDEX}/torch/"):
        if pip_install("--extra-index-url", CPU_INDEX) == 0:
            return 0
        print("torch: the CPU index answered, but the installation failed; trying without it")
    else:
        print("torch: the CPU index does not answer; using the package index that pip is set up with")
    return pip_install()


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # do not wait for a name lookup that is still pending
