"""Make an environment with Infinity in the user's cache folder, for the tests that ask it.

    python .ci/make_infinity.py            make it, unless it is there already (1.2 GB)
    python .ci/make_infinity.py --where    print its program; the exit code is 1 if it is not there

An environment of its own, and without constraints.txt: Infinity needs numpy 1 and the sentence-transformers of 2024.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from typing import TYPE_CHECKING

from install_torch import CPU_INDEX, reachable
from make_llama import cache_folder

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "0.0.78"
PINS = ["torch==2.13.0", f"infinity-emb[server,torch]=={VERSION}"]
STAMP = "made.json"


def target_folder() -> Path:
    """Where the environment goes: one per version, machine and Python."""
    machine = f"{platform.system()}-{platform.machine()}".lower()
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return cache_folder() / "embrief" / "infinity" / f"{VERSION}-{machine}-{python}"


def program(folder: Path) -> Path:
    """The command in an environment, as the variable EMBRIEF_INFINITY names it."""
    return folder / "bin" / "infinity_emb"


def is_made(folder: Path) -> bool:
    """Was it made of these packages, to the end?"""
    try:
        return bool(json.loads((folder / STAMP).read_text("utf-8")) == PINS) and program(folder).is_file()
    except (OSError, ValueError):
        return False


def starts(folder: Path) -> bool:
    """Does the command find all that it imports?"""
    environment = {**os.environ, "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    command = [program(folder), "v2", "--help"]
    return subprocess.run(command, capture_output=True, timeout=600, env=environment, check=False).returncode == 0


def make(folder: Path) -> None:
    """Make the environment anew; the stamp comes last, so that an interrupted one is not taken for whole."""
    import fcntl  # not on Windows, which `main` has refused

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock").open("w")  # let go of when this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"infinity: another process is making {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    command = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-input",
    ]
    if platform.system() == "Linux" and platform.machine() in {"x86_64", "AMD64"} and reachable(f"{CPU_INDEX}/torch/"):
        command += ["--extra-index-url", CPU_INDEX]
    print(f"infinity: installing infinity-emb {VERSION} with torch (1.2 GB)", flush=True)
    if subprocess.run([*command, *PINS], check=False).returncode != 0:
        sys.exit("infinity: pip could not install it, see above")
    if not starts(folder):
        sys.exit(f"infinity: what was installed does not start: {program(folder)} v2 --help says why")
    (folder / STAMP).write_text(json.dumps(PINS) + "\n", "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--where", action="store_true", help="print the program; exit code 1 if it is not there")
    options = parser.parse_args()
    folder = target_folder()
    if options.where:
        print(program(folder))
        return 0 if is_made(folder) else 1
    if sys.platform == "win32":
        print("infinity: Windows is not handled here; use WSL")
        return 1
    if not is_made(folder):
        # A small part of the machine: others work on it meanwhile.
        os.nice(10)
        make(folder)
    print(f"infinity: made. The tests that ask it: EMBRIEF_INFINITY={program(folder)} make test ARGS=tests/servers")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # do not wait for a name lookup that is still pending
