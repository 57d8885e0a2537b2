"""Mistakes that pictures invite: each moves vectors or pixels further than the comparison with the oracle allows."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Image

from ..images.pictures import exif, written
from .test_engine_vision import DOCUMENTS, SQUARE, TALL, WIDE, Document, cosines, given, pixels, vectors

torch = pytest.importorskip("torch")
pytest.importorskip("transformers.models.qwen3_vl")
Pillow = pytest.importorskip("PIL.Image")

from embrief.engine import batch, media  # noqa: E402
from embrief.engine.vision import VisionTower  # noqa: E402
from embrief.facades import forms  # noqa: E402
from embrief.images import modes  # noqa: E402

LEAST = 0.99999
"""Of the cosine to transformers' vector: what `test_engine_vision` asks for."""
CASES: list[Document] = [DOCUMENTS[0], ((SQUARE,), ""), ((WIDE,), "a wide picture"), ((TALL, WIDE), "two pictures")]
TEXT, SHOWN = [0], [1, 2, 3]
"""Places of what has pictures, and of what has none."""
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def folder(vision_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of this module's own: no other holds it, so that it is loaded anew for each mistake."""
    return Path(shutil.copytree(vision_folder, tmp_path_factory.mktemp("mutants") / "tiny"))


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    return vectors(folder, CASES)


@pytest.fixture
def embedder(folder: Path) -> Iterator[Embedder]:
    with Embedder(folder, dtype="float32", device="cpu") as made:
        yield made


def text_first(patch: Patch) -> None:
    parts = forms.parts_of

    def turned(item: object) -> tuple[str | Image, ...] | None:
        found = parts(item)
        return None if found is None else tuple(sorted(found, key=lambda part: isinstance(part, Image)))

    patch.setattr(forms, "parts_of", turned)


def last_picture_first(patch: Patch) -> None:
    parts = forms.parts_of

    def turned(item: object) -> tuple[str | Image, ...] | None:
        found = parts(item)
        shown = [part for part in found or () if isinstance(part, Image)]
        return None if found is None else (*shown[::-1], *found[len(shown) :])

    patch.setattr(forms, "parts_of", turned)


def positions(change: Callable[[int, Sequence[media.Picture]], np.ndarray]) -> Callable[[Patch], None]:
    def apply(patch: Patch) -> None:
        patch.setattr(media, "positions", change)

    return apply


right = media.positions


def counted(length: int, pictures: Sequence[media.Picture]) -> np.ndarray:
    return np.tile(np.arange(length), (3, 1))


def rows_for_columns(length: int, pictures: Sequence[media.Picture]) -> np.ndarray:
    return right(length, pictures)[[0, 2, 1]]


def from_nought(length: int, pictures: Sequence[media.Picture]) -> np.ndarray:
    """Rows and columns of each picture counted from 0, not from where it stands."""
    found = right(length, pictures)
    for one in pictures:
        span = slice(one.start, one.start + one.tokens)
        found[1:, span] -= found[0, one.start]
    return found


def on_behind_all_tokens(length: int, pictures: Sequence[media.Picture]) -> np.ndarray:
    """What follows a picture goes on behind as many positions as it has tokens."""
    found = right(length, pictures)
    for one in pictures:
        found[:, one.start + one.tokens :] += one.tokens - max(one.grid)
    return found


def tower(change: Callable[[list], list]) -> Callable[[Patch], None]:
    run = VisionTower.run

    def apply(patch: Patch) -> None:
        patch.setattr(VisionTower, "run", lambda self, pictures: change(run(self, pictures)))

    return apply


def deepstack_off(found: list) -> list:
    return [replace(one, added=()) for one in found]


def deepstack_a_layer_late(found: list) -> list:
    return [replace(one, added=(torch.zeros_like(one.tokens), *one.added[:-1])) for one in found]


def upright_line_by_line(found: list) -> list:
    return [replace(one, tokens=one.tokens.flip(0)) for one in found]


def one_token_early(patch: Patch) -> None:
    pack = batch.pack
    patch.setattr(batch, "pack", lambda *given, **more: replace(found := pack(*given, **more), last=found.last - 1))


VECTORS: dict[str, tuple[Callable[[Patch], None], list[int]]] = {
    "the text before its pictures": (text_first, [2, 3]),
    "pictures in another order": (last_picture_first, [3]),
    "positions of a text": (positions(counted), SHOWN),
    "rows for columns": (positions(rows_for_columns), SHOWN),
    "rows and columns from 0": (positions(from_nought), SHOWN),
    # Of a picture of one line that is no mistake.
    "positions go on behind all tokens": (positions(on_behind_all_tokens), [1, 3]),
    "deepstack off": (tower(deepstack_off), SHOWN),
    "deepstack a layer late": (tower(deepstack_a_layer_late), SHOWN),
    "tokens of a picture backwards": (tower(upright_line_by_line), SHOWN),
    "pooled a token early": (one_token_early, [*TEXT, *SHOWN]),
}
"""What is broken, and the places in `CASES` of what must show it."""


def test_without_a_mistake_they_are_the_oracles(embedder: Embedder, expected: np.ndarray) -> None:
    assert cosines(embedder.embed_documents([given(one) for one in CASES]), expected).min() > LEAST


@pytest.mark.parametrize("mistake", VECTORS)
def test_a_mistake_moves_vectors(
    mistake: str, embedder: Embedder, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, shows = VECTORS[mistake]
    apply(monkeypatch)
    found = cosines(embedder.embed_documents([given(one) for one in CASES]), expected)
    assert found[shows].max() < 1 - 10 * (1 - LEAST), found
    others = [place for place in range(len(CASES)) if place not in shows]
    assert (found[others] > LEAST).all(), "the mistake is the one that was meant"


# Pixels


def turned_photo() -> tuple[bytes, np.ndarray]:
    """A file of a camera held sideways, and what Pillow makes of it."""
    from PIL import ImageOps

    data = written(Pillow.fromarray(pixels(64, 96, 6)), "PNG", exif=exif(6))
    return data, np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))))


def transparent_icon() -> tuple[bytes, np.ndarray]:
    """A file that is partly transparent, and what it is on white paper."""
    shades = np.dstack([pixels(64, 96, 7), np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))])
    layer = Pillow.fromarray(shades, "RGBA")
    paper = Pillow.new("RGBA", layer.size, (255, 255, 255, 255))
    paper.alpha_composite(layer)
    return written(layer), np.asarray(paper.convert("RGB"))


def exif_ignored(patch: Patch) -> None:
    patch.setattr(modes, "_upright", lambda found, orientation: found)


def on_black(patch: Patch) -> None:
    def black(image: Pillow.Image) -> Pillow.Image:
        under = Pillow.new("RGBA", image.size, "black")
        return Pillow.alpha_composite(under, image.convert("RGBA")).convert("RGB")

    patch.setattr(modes, "_in_colour", black)


def alpha_dropped(patch: Patch) -> None:
    patch.setattr(modes, "_in_colour", lambda image: image.convert("RGB"))


PIXELS: dict[str, tuple[Callable[[Patch], None], Callable[[], tuple[bytes, np.ndarray]]]] = {
    "EXIF ignored": (exif_ignored, turned_photo),
    "alpha on black": (on_black, transparent_icon),
    "alpha dropped": (alpha_dropped, transparent_icon),
}


@pytest.mark.parametrize("mistake", PIXELS)
def test_a_mistake_moves_pixels_and_their_vector(
    mistake: str, embedder: Embedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, make = PIXELS[mistake]
    data, wanted = make()
    due = vectors(folder, [((wanted,), "")])
    assert np.array_equal(Image(data).pixels, wanted)
    assert cosines(embedder.embed_documents([Image(data)]), due).min() > LEAST
    apply(monkeypatch)
    assert not np.array_equal(Image(data).pixels, wanted)
    assert cosines(embedder.embed_documents([Image(data)]), due).max() < 1 - 10 * (1 - LEAST)
