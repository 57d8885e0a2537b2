"""Run the tests with the lowest version of every direct dependency that pyproject.toml allows.

    python .ci/lowest.py [-- pytest arguments]
    python .ci/lowest.py --update

.ci/lowest.txt holds the floors (of the base dependencies and the extras `all` and `demo`) and what goes with them, so
that the run gives the same answer tomorrow. --update resolves it anew: do so after changing a floor. Without arguments
for pytest, tests on which no version has a bearing are left out.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PINS = HERE / "lowest.txt"
# Newer ones do not say in their metadata that they need more than the floors.
BOUNDS = ("pyarrow<26",)  # 26 needs NumPy 2
# What no version of a package changes, what depends only on those whose floor is the pin of constraints.txt, and what
# is in no extra of `all`. `-- FILES` runs any of them all the same.
LEFT_OUT = {
    "tests/browser": "the page in a browser",
    "tests/cli/test_cli_bench.py::test_every_runtime_that_is_installed_stands_beside_the_engine": "exports",
    "tests/cache/test_kills.py": "processes that are killed while they write with the standard library",
    "tests/core/test_event_loop.py": "threads, loops, and the import of torch",
    "tests/core/test_exit.py": "threads, signals, and torch at the end of a process",
    "tests/engine/test_engine_memory.py": "kernels of torch, whose floor is the version of today",
    "tests/engine/test_engine_processors.py": "kernels of torch",
    "tests/engine/test_engine_threads.py": "threads of torch",
    "tests/engine/test_picture_mutants.py": "how good the tests of pictures are",
    "tests/indexing/test_watch.py": "threads and waiting",
    "tests/local": "sockets and threads of the standard library",
    "tests/parity": "the engine beside its own mistakes",
    "tests/plugins/test_import_rule.py": "the source",
    "tests/project": "scripts and the Makefile",
    "tests/runtimes/test_export.py": "torch, and extras whose floors are not tried here",
    "tests/runtimes/test_exported.py": "extras whose floors are not tried here",
    "tests/runtimes/test_mistralrs.py": "an extra whose floor is not tried here",
    "tests/runtimes/test_openvino.py": "an extra whose floor is not tried here",
    "tests/servers/test_faults.py": "httpx, whose floor is the version of today",
    "tests/servers/test_llama_parity.py": "llama.cpp",
    "tests/servers/test_llama_payloads.py": "llama.cpp",
    "tests/servers/test_llama_server.py": "llama.cpp",
    "tests/tiny/test_tiny_mutants.py": "how good the tiny models are",
}
HEADER = "# The lowest supported versions, and what goes with them (python .ci/lowest.py --update).\n"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def release(version: str) -> tuple[int, ...]:
    """Compare 0.14 and 0.14.0 as equal."""
    numbers = [int(part) for part in re.findall(r"\d+", version.partition("+")[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def floors() -> dict[str, str]:
    """Collect the floors of the base dependencies and of the extras `all` and `demo`."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    found: dict[str, str] = {}

    def add(requirements: list[str]) -> None:
        for requirement in requirements:
            own = re.fullmatch(r"embrief\[(.+)\]", requirement)
            if own:
                for extra in own.group(1).split(","):
                    add(extras[extra.strip()])
                continue
            match = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*>=\s*([\w.]+)", requirement)
            if not match:
                sys.exit(f"lowest: {requirement!r} has no floor (>=)")
            name, floor = canonical(match.group(1)), match.group(2)
            if found.setdefault(name, floor) != floor:
                sys.exit(f"lowest: {name} has two floors, {found[name]} and {floor}")

    add(project["dependencies"])
    add(extras["all"])
    add(extras["demo"])
    return found


def pip(python: Path, *arguments: str) -> None:
    subprocess.run(
        [str(python), "-m", "pip", *arguments, "-q", "--disable-pip-version-check", "--no-input"],
        cwd=ROOT,
        check=True,
    )


def make_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([str(python), str(HERE / "install_torch.py")], cwd=ROOT, check=True)
    return python


def update(folder: Path) -> None:
    constraints = folder / "floors.txt"
    lines = [*BOUNDS, *(f"{name}=={version}" for name, version in floors().items())]
    constraints.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    python = make_environment(folder / "venv")
    pip(python, "install", "-c", str(constraints), "-e", ".[all,test]")
    frozen = subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "freeze", "--all", "--exclude-editable"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pins = {}
    for line in frozen.splitlines():
        match = re.match(r"([\w.-]+)==([\w.]+)", line) or re.match(r"(torch) @ .*/torch-([\w.]+)", line)
        if match and canonical(match.group(1)) not in {"pip", "embrief"}:
            pins[canonical(match.group(1))] = match.group(2)
    PINS.write_text(HEADER + "".join(f"{n}=={pins[n]}\n" for n in sorted(pins)), encoding="utf-8")
    print(f"lowest: wrote {PINS.relative_to(ROOT)}, {len(pins)} packages")


def check_pins() -> int:
    """Say where .ci/lowest.txt and the floors of pyproject.toml differ."""
    pins = {}
    for line in PINS.read_text(encoding="utf-8").splitlines():
        name, mark, version = line.partition("==")
        if mark:
            pins[name] = version
    wrong = 0
    for name, floor in floors().items():
        if release(pins.get(name, "")) != release(floor):
            wrong += 1
            print(f"lowest: {name} has the floor {floor}, .ci/lowest.txt has {pins.get(name)}")
    if wrong:
        print("lowest: run  python .ci/lowest.py --update")
    return wrong


def run_tests(folder: Path, arguments: list[str]) -> int:
    python = make_environment(folder / "venv")
    pip(python, "install", "-c", str(PINS), "-e", ".[all,test]")
    report = folder / "report.xml"
    pytest = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "-p",
        "no:cacheprovider",
        "-o",
        "junit_family=xunit1",
    ]
    env = os.environ | {"EMBRIEF_LOWEST": "1"}
    if not arguments:
        arguments = [f"--{'deselect' if '::' in path else 'ignore'}={path}" for path in LEFT_OUT]
    done = subprocess.run(
        [*pytest, f"--junitxml={report}", *arguments],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        return done.returncode
    return subprocess.run([str(python), str(HERE / "check_skips.py"), str(report)], check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="resolve .ci/lowest.txt anew")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.update:
            update(Path(folder))
            return 0
        if check_pins():
            return 1
        return run_tests(Path(folder), options.pytest)


if __name__ == "__main__":
    sys.exit(main())
