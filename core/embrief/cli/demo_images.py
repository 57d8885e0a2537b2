"""`embrief demo --images`: pictures found by words, and words by pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embrief.cli.output import print_line, print_table, table
from embrief.images.image import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.text import Text

    from embrief import Embedder

_FOLDER = Path(__file__).parent / "demo_pictures"
_SIDE = 64
_COLUMNS = 14
"""Of the terminal, per picture."""
QUESTIONS = ("a smiling cat", "snow and clouds", "hammer and nails", "a flower")
ASKED = ("strawberry", "beating heart", "guide dog")
"""Pictures that are asked for words."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the demo."""

    name: str
    learnt: bool
    """Whether the tiny model was trained on it."""
    image: Image


def pictures() -> list[Picture]:
    """Return the pictures that come with the package: emoji of Noto (Apache-2.0), read from one sheet."""
    names = json.loads((_FOLDER / "names.json").read_text("utf-8"))
    sheet = Image(_FOLDER / "sheet.png").pixels
    across = sheet.shape[1] // _SIDE
    found = []
    for place, (name, learnt) in enumerate(names):
        row, column = divmod(place, across)
        cell = sheet[row * _SIDE : (row + 1) * _SIDE, column * _SIDE : (column + 1) * _SIDE]
        found.append(Picture(name, learnt, Image(cell)))
    return found


def show(out: Console, embedder: Embedder, ask: Sequence[str], top: int) -> None:
    """Print what is found among the pictures, and among their names."""
    shown = pictures()
    embedder.load()
    start = time.perf_counter()
    vectors = embedder.embed_documents([picture.image for picture in shown])
    taken = time.perf_counter() - start
    new = sum(not picture.learnt for picture in shown)
    print_line(out, f"Embedded  {len(shown)} pictures in {taken:.1f} s")
    print_line(out, f"          {new} of them, marked *, are of things that the tiny model never saw a picture of")
    for question in (*QUESTIONS, *ask):
        scores = vectors @ embedder.embed_query(question)
        best = np.argsort(-scores, kind="stable")[:top]
        _found(out, question, [(float(scores[place]), shown[place]) for place in best])
    names = sorted({picture.name for picture in shown})
    words = embedder.embed_documents(names)
    images = embedder.spec.images
    # A picture has no place for an instruction in some models.
    seeing = embedder.with_instruction(None) if images is not None and images.prompt == "none" else embedder
    for asked in ASKED:
        picture = next(picture for picture in shown if picture.name == asked)
        scores = words @ seeing.embed_query(picture.image)
        best = np.argsort(-scores, kind="stable")[:top]
        _named(out, picture, [(float(scores[place]), names[place]) for place in best])


def _head(out: Console, text: str) -> None:
    # As a table's title it would be broken at the width of its columns.
    out.print()
    print_line(out, text, "bold")


def _found(out: Console, question: str, best: Sequence[tuple[float, Picture]]) -> None:
    drawn = _draws(out)
    heads = ("score", "picture", "name") if drawn else ("score", "name")
    rows = table(*heads)
    for score, picture in best:
        name = picture.name if picture.learnt else f"{picture.name} *"
        rows.add_row(f"{score:.3f}", *([_drawing(picture.image.pixels)] if drawn else []), name)
    _head(out, question)
    if drawn:
        out.print(rows)
    else:
        print_table(out, rows)


def _named(out: Console, picture: Picture, best: Sequence[tuple[float, str]]) -> None:
    rows = table("score", "name")
    for score, name in best:
        rows.add_row(f"{score:.3f}", name)
    _head(out, f"the picture of {picture.name}{'' if picture.learnt else ' *'}, among names")
    if _draws(out):
        out.print(_drawing(picture.image.pixels))
    print_table(out, rows)


def _draws(out: Console) -> bool:
    """Return whether the terminal shows enough colours for pictures."""
    return out.is_terminal and out.color_system == "truecolor"


def _drawing(pixels: NDArray[np.uint8]) -> Text:
    """Return a picture in characters whose upper half has one colour and the lower half another."""
    from rich.text import Text

    step = -(-len(pixels) // _COLUMNS)
    whole = len(pixels) // step // 2 * 2 * step
    blocks = pixels[:whole, :whole].reshape(whole // step, step, whole // step, step, 3).mean((1, 3)).astype(int)
    drawn = Text(no_wrap=True)
    for upper, lower in zip(blocks[::2], blocks[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            drawn.append(
                "\N{UPPER HALF BLOCK}", f"rgb({','.join(map(str, above))}) on rgb({','.join(map(str, below))})"
            )
        drawn.append("\n")
    drawn.right_crop()
    return drawn
