"""`embrief demo --images`, end to end."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from embrief import Embedder
from embrief.cli import app
from embrief.cli.demo_images import ASKED, QUESTIONS, pictures, show
from embrief.facts.records import TINY_VL_EMBEDDING

pytest.importorskip("PIL")
pytest.importorskip("torch")


def run(*arguments):
    return CliRunner().invoke(app, ["demo", "--images", *arguments], env={"COLUMNS": "100"})


def test_finds_pictures_by_words_and_words_by_pictures():
    result = run("--ask", "a strawberry", "--top", "5")
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert f"Model     {TINY_VL_EMBEDDING}, 256 values per vector" in text
    assert "Embedded  150 pictures in " in text
    assert "50 of them, marked *," in text
    blocks = text.split("\n\n")
    for question in QUESTIONS:
        assert sum(block.startswith(f"{question}\n") for block in blocks) == 1
    (asked,) = (block for block in blocks if block.startswith("a strawberry\n"))
    rows = asked.splitlines()[3:]
    assert len(rows) == 5
    assert "strawberry" in asked.split("\n", 1)[1]
    scores = [float(row.split()[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    for name in ASKED:
        (named,) = (block for block in blocks if block.startswith(f"the picture of {name}"))
        assert name in named.split("\n", 1)[1]
    assert "embrief demo --images --model Qwen/Qwen3-VL-Embedding-2B" in text


def test_the_sheet_has_every_picture_once():
    found = pictures()
    assert len({picture.name for picture in found}) == len({picture.image for picture in found}) == len(found) == 150
    assert all(picture.image.size == (64, 64) for picture in found)


@pytest.mark.parametrize("option", [("--limit", "3"), ("--folder", "x"), ("--reranker", "none")])
def test_what_is_for_docstrings_is_refused(option):
    result = run(*option)
    assert result.exit_code == 1
    assert f"{option[0]} does nothing for pictures" in result.output


def test_a_model_of_texts_is_refused():
    result = run("--model", "embrief/tiny-embedding")
    assert result.exit_code == 1
    assert "Qwen/Qwen3-VL-Embedding-2B" in result.output


def test_a_terminal_of_many_colours_shows_the_pictures():
    shown = {}
    for colours in ("truecolor", None):
        out = Console(
            file=io.StringIO(), width=80, force_terminal=colours is not None, color_system=colours, legacy_windows=False
        )
        show(out, Embedder(TINY_VL_EMBEDDING, device="cpu"), (), 2)
        shown[colours] = out.file.getvalue()
    drawn = shown["truecolor"].count("\N{UPPER HALF BLOCK}")
    # Of each picture, 12 columns and 6 rows of two.
    assert drawn > 50 * (2 * len(QUESTIONS) + len(ASKED))
    assert "\N{UPPER HALF BLOCK}" not in shown[None]
    assert "\x1b" not in shown[None]


def test_an_instruction_is_for_words_alone():
    result = run("--instruction", "Find a drawing.", "--top", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("the picture of ") == len(ASKED)
