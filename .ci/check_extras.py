"""Resolve all extras against constraints.txt, in an environment of their own, without installing anything.

Each package that would be installed must be pinned there, so every extra alone gets a part of what all get: one look
at the indexes is enough, and where it fails, each is resolved alone to say which it is. torch is a step of its own
everywhere, so here it is only pretended to be present: resolving must never fetch it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH_NEEDS = ("filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path) -> dict[str, str]:
    pins = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, mark, version = line.partition("#")[0].strip().partition("==")
        if mark:
            pins[canonical(name)] = version
    return pins


def make_environment(folder: Path, torch_version: str) -> Path:
    """Create an environment in which pip believes that torch is installed; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    asked = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    info = Path(asked.stdout.strip()) / f"torch-{torch_version}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {name}\n" for name in TORCH_NEEDS)
    metadata = f"Metadata-Version: 2.1\nName: torch\nVersion: {torch_version}\n{needs}"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "INSTALLER").write_text("pip\n", encoding="utf-8")
    (info / "RECORD").write_text("", encoding="utf-8")
    return python


# Compiled when pip is only to look at them: minutes, and a compiler.
COMPILED = {"gguf": "llama-cpp-python is there as source only; `make llama` builds it"}


def check(python: Path, target: str, pins: dict[str, str]) -> list[str]:
    """Return what is wrong with one target."""
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
    command += ["--dry-run", "--report", "-", "-c", str(ROOT / "constraints.txt"), target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        return ["does not resolve:", *errors]
    problems = []
    for item in json.loads(done.stdout)["install"]:
        name, version = canonical(item["metadata"]["name"]), item["metadata"]["version"]
        if name == "torch" or name.startswith("nvidia"):
            problems.append(f"would install {name} {version}")
        elif name != "embrief" and pins.get(name) != version:
            problems.append(f"{name} {version} is not pinned in constraints.txt")
    return problems


def main() -> int:
    pins = read_pins(ROOT / "constraints.txt")
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(Path(folder) / "venv", pins["torch"])
        for extra in COMPILED:
            print(f"left .[{extra}]: {COMPILED[extra]}", flush=True)
        names = [extra for extra in extras if extra not in COMPILED]
        if good(python, f".[{','.join(names)}]", pins):
            return 0
        for target in (".", *(f".[{name}]" for name in names)):
            good(python, target, pins)
    return 1


def good(python: Path, target: str, pins: dict[str, str]) -> bool:
    """Print what is wrong with one target, or that nothing is."""
    problems = check(python, target, pins)
    print(f"{'FAIL' if problems else 'ok  '} {target}", *problems, sep="\n    ", flush=True)
    return not problems


if __name__ == "__main__":
    sys.exit(main())
