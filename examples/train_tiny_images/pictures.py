"""The pictures as pixels, and which of them are learnt from."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import resvg_py
import sources
from numpy.typing import NDArray
from PIL import Image
from sources import Named

SIDE = 64
HELD_OUT = 200
"""Emoji of each of two kinds that are not learnt from: to be watched, and to be measured in the end."""
_PEOPLE = {
    "a", "and", "boy", "claus", "facing", "girl", "in", "man", "men", "mr", "mrs", "mx", "of", "people", "person",
    "right", "the", "with", "woman", "women",
}  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """All pictures, and what they show."""

    emoji: Sequence[Named]
    icons: Sequence[Named]
    styles: dict[str, NDArray[np.uint8]]
    """Of each style the emoji: (emoji, SIDE, SIDE, 4), with alpha; without any where a style has no such one."""
    shapes: NDArray[np.uint8]
    """The icons: (icons, SIDE, SIDE), alpha alone, since they have one colour."""

    def has(self, style: str, place: int) -> bool:
        """Return whether a style has an emoji."""
        return bool(self.styles[style][place, ..., 3].any())


@dataclass(frozen=True)
class Split:
    """Places of emoji and icons."""

    emoji: list[int]
    icons: list[int]
    watched: list[int]
    measured: list[int]


def read(archives: Path, kept: Path) -> Pictures:
    """Return all pictures, drawn once."""
    if not kept.exists():
        _draw(archives, kept)
    with np.load(kept) as found:
        names = json.loads(str(found["names"]))
        emoji, icons = ([Named(**{**item, "keywords": tuple(item["keywords"])}) for item in part] for part in names)
        return Pictures(emoji, icons, {style: found[style] for style in sources.STYLES}, found["shapes"])


def split(pictures: Pictures) -> Split:
    """Return what is learnt from and what is not: what differs in a man or a woman alone is on one side."""
    groups: dict[str, list[int]] = {}
    for place, named in enumerate(pictures.emoji):
        groups.setdefault(_kind(named.label), []).append(place)
    kinds = sorted(groups)
    random.Random(99).shuffle(kinds)
    order = [place for kind in kinds for place in groups[kind]]
    measured, watched = order[:HELD_OUT], order[HELD_OUT : 2 * HELD_OUT]
    held = {_kind(pictures.emoji[place].label) for place in (*measured, *watched)}
    return Split(
        [place for place, named in enumerate(pictures.emoji) if _kind(named.label) not in held],
        [place for place, named in enumerate(pictures.icons) if _kind(named.label) not in held],
        watched,
        measured,
    )


def _kind(label: str) -> str:
    words = sorted(word for word in re.findall(r"[a-z0-9]+", label.lower()) if word not in _PEOPLE)
    return " ".join(words) or label


def _draw(archives: Path, kept: Path) -> None:
    drawn = {style: sources.drawings(archives, style) for style in sources.STYLES}
    needed = ("noto", *sources.HELD_OUT)
    emoji = [named for named in sources.emoji(archives) if all(named.key in drawn[style] for style in needed)]
    emoji.sort(key=lambda named: named.key)
    styles = {style: np.stack([_pixels(found.get(named.key)) for named in emoji]) for style, found in drawn.items()}
    icons = list(sources.icons(archives))
    shapes = np.stack([_pixels(svg)[..., 3] for _, svg in icons])
    names = json.dumps([[asdict(named) for named in emoji], [asdict(named) for named, _ in icons]])
    part = kept.with_name(f"part-{kept.name}")
    np.savez_compressed(part, names=names, shapes=shapes, **styles)
    part.replace(kept)


def _pixels(svg: str | None) -> NDArray[np.uint8]:
    square = Image.new("RGBA", (SIDE, SIDE))
    if svg is not None:
        file = io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE)))
        image = Image.open(file).convert("RGBA")
        square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return np.asarray(square)
