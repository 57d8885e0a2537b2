"""The tutorial's plugin, packaged as its page says, is found by a process that never saw the page."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text("utf-8")


def blocks(label: str) -> list[str]:
    return re.findall(rf"^```{label}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_makes_one_file_that_works(process, builder, installer, tmp_path):
    # The hooks with what they need: all that is not a trial in the page's own process.
    parts = [block for block in blocks("python") if "@hookimpl" in block or "class LettersModel" in block]
    assert len(parts) == 5
    source = "\n\n".join(parts)
    assert "catalog" not in source
    project = tmp_path / "project"
    project.mkdir()
    (project / "acme_embrief.py").write_text(source, "utf-8")
    (pyproject,) = blocks("toml")
    (project / "pyproject.toml").write_text(pyproject, "utf-8")
    site = installer(builder([project], tmp_path / "wheels"), tmp_path / "site")

    answer = process.probe(site)
    report = {name: rest for name, *rest in answer["reports"]}["acme_embrief"]
    assert report == ["acme-embrief", "1.0.0", "ok", ["acme/notes", "acme-letters", "acme-search"], []]
    assert answer["warnings"] == []
    assert answer["integrations"]["acme-search"] is False
    code = "import embrief; print(embrief.Embedder('notes').render('x', role='query'))"
    assert process.run(code, site).strip() == "question: x"


def test_the_page_names_every_hook_and_the_variable():
    import embrief.discovery.hookspecs
    from embrief.discovery.plugins import VARIABLE

    hooks = [name for name in vars(embrief.discovery.hookspecs) if name.startswith(("register_", "select_"))]
    assert len(hooks) == 4
    assert all(f"| `{name}(" in PAGE for name in hooks)
    assert f"`{VARIABLE}` restricts" in PAGE
