"""Every Python block of the README and the documentation runs as it stands, offline, top to bottom per page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^( *)```python( notest)?[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def code_of(page: Path) -> str:
    """Return the page's code, each line at its own line number, so that a traceback points into the page."""
    text = page.read_text("utf-8")
    lines = [""] * text.count("\n")
    for match in BLOCK.finditer(text):
        if match[2]:
            continue
        first = text[: match.start(3)].count("\n")
        for offset, line in enumerate(match[3].splitlines()):
            lines[first + offset] = line.removeprefix(match[1])
    return "\n".join(lines)


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page).strip()], ids=lambda page: page.name)
def test_page(page: Path, tmp_path: Path) -> None:
    script = tmp_path / (page.stem + ".py")
    script.write_text(code_of(page), "utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "PluginWarning" not in done.stderr


def test_blocks_that_do_not_run_say_so() -> None:
    """A fence with another label would silently be left out."""
    for page in PAGES:
        labels = re.findall(r"^ *```(py\S*[^\n]*)$", page.read_text("utf-8"), re.MULTILINE)
        assert set(labels) <= {"python", "python notest"}, page.name


def test_docstring_examples_run() -> None:
    import doctest
    import importlib

    for name in ("embrief", "embrief.embedder", "embrief.testing"):
        module = importlib.import_module(name)
        failed, attempted = doctest.testmod(module)
        assert attempted > 0, name
        assert failed == 0, name


def test_the_model_table_comes_from_the_records() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "make_tables.py"), "models", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
