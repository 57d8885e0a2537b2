"""`.ci/run`: what runs, in which order, and what it says in the end. make is a stub that writes down its calls."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = ("lint", "types", "tests", "skips", "status", "docs", "examples", "load", "clients", "containers", "extras",
         "wheel", "lowest")  # fmt: skip
# The Python of the environment that it makes writes down its script.
MAKE = """#!/bin/sh
for word in "$@"; do
    case $word in
        VENV=*) venv=${word#VENV=} ;;
        ARGS=*) report=${word##*--junitxml=} ;;
        -*) ;;
        *) target=$word ;;
    esac
done
echo "make ${target##*/}" >> "$CALLS"
mkdir -p "$venv/bin"
printf '#!/bin/sh\\necho "python $1" >> "$CALLS"\\n' > "$venv/bin/python"
chmod +x "$venv/bin/python"
if [ "$target" = test ]; then
    touch "$report"
    echo "===== 3 passed, 1 skipped in 0.10s ====="
fi
if [ "${target##*/}" = "$FAIL" ]; then exit 2; fi
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="needs bash")


class Run:
    """One run in an empty project: its exit code, what it printed, and which commands it called."""

    def __init__(self, folder: Path, *arguments: str, fail: str = "") -> None:
        project, tools = folder / "project", folder / "tools"
        (project / ".ci").mkdir(parents=True)
        tools.mkdir()
        shutil.copy(ROOT / ".ci" / "run", project / ".ci" / "run")
        (tools / "make").write_text(MAKE, "utf-8")
        (tools / "make").chmod(0o755)
        calls = folder / "calls"
        calls.touch()
        path = os.pathsep.join([str(tools), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", str(project / ".ci" / "run"), *arguments],
            env={**os.environ, "PATH": path, "CALLS": str(calls), "FAIL": fail},
            capture_output=True,
            text=True,
            timeout=600,
        )
        self.code, self.output = done.returncode, done.stdout
        self.calls = calls.read_text("utf-8").splitlines()
        self.steps = re.findall(r"^=== (\w+)$", self.output, re.MULTILINE)[:-1]


def test_everything_with_lint_and_types_first(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.code == 0
    assert run.steps == list(STEPS)
    assert run.calls[:5] == ["make lint", "make types", "make chromium", "make llama", "make test"]
    assert run.calls.count("make test") == 1
    assert run.output.splitlines()[-2:] == ["===== 3 passed, 1 skipped in 0.10s =====", "all steps passed"]


@pytest.mark.parametrize("step", [step for step in STEPS if step not in ("tests", "skips", "status")])
def test_a_single_step_runs_no_test_and_makes_its_environment(step: str, tmp_path: Path) -> None:
    run = Run(tmp_path, step)
    assert run.code == 0, run.output
    assert run.steps == [step]
    assert "make test" not in run.calls
    assert run.calls[0].startswith("make ")


@pytest.mark.parametrize("step", ["skips", "status"])
def test_what_reads_the_report_makes_it(step: str, tmp_path: Path) -> None:
    run = Run(tmp_path, step)
    assert run.code == 0, run.output
    assert run.steps == ["tests", step]
    assert "3 passed, 1 skipped" in run.output


@pytest.mark.parametrize(("fail", "named"), [("lint", "lint"), ("test", "tests"), (".done-dev", "wheel")])
def test_a_failure_is_told_and_does_not_stop_the_others(fail: str, named: str, tmp_path: Path) -> None:
    run = Run(tmp_path, fail=fail)
    assert run.steps == list(STEPS)
    assert run.code == 1
    assert run.output.splitlines()[-2:] == ["===== 3 passed, 1 skipped in 0.10s =====", f"FAILED: {named}"]


def test_a_step_that_does_not_exist(tmp_path: Path) -> None:
    run = Run(tmp_path, "lint", "typo")
    assert run.code == 2
    assert "typo is no step; the steps are: lint" in run.output
    assert run.calls == []


def test_quick_names_tests_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    quick = re.search(r"^QUICK := (.+)$", makefile, re.MULTILINE)
    assert quick
    for path in quick[1].split():
        assert (ROOT / path).is_file(), path
