"""Every Python block of README, CONTRIBUTING and documentation runs as it stands, offline, top to bottom per page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
# Clients of other people that a page shows: make test installs them, the lowest versions go without.
CLIENTS = {"server.md": ("cohere", "ollama", "openai")}
# A comment before a block that does not run: a word on the fence would keep the page from being rendered.
BLOCK = re.compile(r"(<!-- notest -->\n)?^( *)```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def code_of(page: Path) -> str:
    """Return the page's code, each line at its own line number, so that a traceback points into the page."""
    text = page.read_text("utf-8")
    lines = [""] * text.count("\n")
    for match in BLOCK.finditer(text):
        if match[1]:
            continue
        first = text[: match.start(3)].count("\n")
        for offset, line in enumerate(match[3].splitlines()):
            lines[first + offset] = line.removeprefix(match[2])
    return "\n".join(lines)


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page).strip()], ids=lambda page: page.name)
def test_page(page: Path, tmp_path: Path) -> None:
    for name in CLIENTS.get(page.name, ()):
        pytest.importorskip(name, reason=f"{name}, which the page shows, is not installed")
    script = tmp_path / (page.stem + ".py")
    script.write_text(code_of(page), "utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "PluginWarning" not in done.stderr


def test_blocks_that_do_not_run_say_so() -> None:
    """A fence with another label would silently be left out, here and by the page's renderer."""
    for page in PAGES:
        labels = re.findall(r"^ *```(py\S*[^\n]*)$", page.read_text("utf-8"), re.MULTILINE)
        assert set(labels) <= {"python"}, page.name


def test_docstring_examples_run() -> None:
    import doctest
    import importlib

    for name in ("embrief", "embrief.facades.embedder", "embrief.registry", "embrief.testing"):
        module = importlib.import_module(name)
        failed, attempted = doctest.testmod(module)
        assert attempted > 0, name
        assert failed == 0, name


@pytest.mark.parametrize("table", ["models", "servers", "config"])
def test_the_tables_come_from_the_code(table: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "make_tables.py"), table, "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_every_kind_of_server_has_its_row() -> None:
    from embrief.servers import RUNTIMES
    from embrief.servers.habits import HABITS

    assert [runtime.name for runtime in RUNTIMES if not HABITS.get(runtime.name)] == []


def test_every_public_name_is_in_the_reference() -> None:
    import importlib

    api = {page.name: set(re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)) for page in PAGES}
    for framework in ("llama-index", "langchain", "chroma", "qdrant"):
        module = importlib.import_module(f"{framework.replace('-', '_')}_embrief")
        # All that __all__ names is rendered, except a function in a module of its name: the renderer sees the module.
        hidden = {
            f"{module.__name__}.{name}.{name}" for name in module.__all__ if f"{module.__name__}.{name}" in sys.modules
        }
        assert api[f"api-{framework}.md"] == {module.__name__} | hidden
    core = importlib.import_module("embrief")
    for name in core.__all__:
        places = {f"embrief.{name}", getattr(getattr(core, name), "__module__", "")}
        assert places & api["api.md"] or name in ("__version__", "hookimpl"), name


def test_every_page_can_be_reached() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in menu, page.name


def test_what_the_readme_and_contributing_name_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text("utf-8")
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (ROOT / link).exists(), f"{name}: {link}"
        for path in re.findall(r"`((?:core|docs|tests|examples|integrations|\.ci)/[^`<*]+)`", text):
            assert (ROOT / path).exists(), f"{name}: {path}"
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            for commands in re.findall(r"^make ([a-z ]+?) *(?:[A-Z#].*)?$", block, re.MULTILINE):
                assert set(commands.split()) <= targets, f"{name}: make {commands}"


def test_examples_in_docstrings_are_rendered_as_code() -> None:
    """A section `Example:` would be prose to the reference's renderer."""
    for folder in ("core", "integrations"):
        for file in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"^ *Example:\n", file.read_text("utf-8"), re.MULTILINE), file.name


def test_nobody_is_told_to_install_from_an_index_that_lacks_the_package() -> None:
    for file in (*PAGES, *(ROOT / "examples").glob("*.py")):
        assert not re.search(r"pip install \"?embrief", file.read_text("utf-8")), file.name
