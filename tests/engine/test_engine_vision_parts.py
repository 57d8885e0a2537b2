"""The parts that pictures pass on the engine, each alone: positions, the tower, and what is remembered."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Image, LoadRequest, RunOptions
from embrief.engine import media
from embrief.engine.description import describe
from embrief.engine.media import Picture
from embrief.facts.prompts import PromptChoice, RenderedTexts, query_template
from embrief.facts.records.qwen3_vl import IMAGES
from embrief.files.json_files import read_object
from embrief.images.patches import patches
from embrief.runtimes.built_in import Engine

torch = pytest.importorskip("torch")
pytest.importorskip("transformers.models.qwen3_vl")

from embrief.engine import linear, seeing  # noqa: E402
from embrief.engine.checkpoint import Checkpoint  # noqa: E402
from embrief.engine.seeing import Features  # noqa: E402
from embrief.engine.seen import MAX_TOKENS, SeenPictures  # noqa: E402
from embrief.engine.vision import VisionTower  # noqa: E402

HALF = (0.5, 0.5, 0.5)
SIZES = [(64, 64), (32, 96), (224, 160), (64, 64), (800, 640), (96, 32), (32, 32)]


def picture(height: int, width: int, seed: int = 0, start: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Picture(pixels, start, (height // 32, width // 32))


@pytest.fixture(scope="module")
def tower(vision_folder: Path) -> VisionTower:
    model = describe(read_object(vision_folder / "config.json")).vision
    assert model is not None
    return VisionTower(model, Checkpoint(vision_folder, "tiny"), "cpu", torch.float32, mean=HALF, std=HALF)


@pytest.fixture(scope="module")
def theirs(vision_folder: Path) -> torch.nn.Module:
    from transformers import AutoModel

    return AutoModel.from_pretrained(vision_folder, dtype=torch.float32).eval()


def test_positions_are_those_of_transformers(theirs: torch.nn.Module) -> None:
    pad, before, other = theirs.config.image_token_id, theirs.config.vision_start_token_id, 9
    tells = "mm_token_type_ids" in inspect.signature(theirs.get_rope_index).parameters
    for sizes, gaps in (
        ([(64, 64)], [3, 0]),
        ([(32, 96)], [1, 4]),
        ([(96, 32)], [20, 1]),
        ([(224, 160), (32, 32), (64, 128)], [5, 2, 3, 7]),
        ([], [6]),
    ):
        ids, shown = [other] * gaps[0], []
        for (height, width), gap in zip(sizes, gaps[1:], strict=True):
            shown.append(picture(height, width, start=len(ids)))
            # By it older releases find the pictures.
            ids[-1] = before
            ids += [pad] * shown[-1].tokens + [other] * gap
        whole = torch.tensor([ids])
        grid = torch.tensor([(1, height // 16, width // 16) for height, width in sizes]) if sizes else None
        more = {"mm_token_type_ids": (whole == pad).int()} if tells else {}
        expected, _ = theirs.get_rope_index(whole, image_grid_thw=grid, **more)
        np.testing.assert_array_equal(media.positions(len(ids), shown), expected[:, 0].numpy())


def test_features_are_those_of_transformers_and_each_pictures_own(tower: VisionTower, theirs: torch.nn.Module) -> None:
    shown = [picture(height, width, seed).pixels for seed, (height, width) in enumerate(SIZES)]
    rows = [patches(one, patch=16, merge=2, mean=HALF, std=HALF) for one in shown]
    with torch.inference_mode():
        grid = torch.tensor([(1, height // 16, width // 16) for height, width in SIZES])
        expected = theirs.visual(torch.from_numpy(np.concatenate(rows)), grid_thw=grid)
        found = tower.run(shown)
        alone = [tower.run([one])[0] for one in shown]
    whole = Features.joined(found)
    torch.testing.assert_close(whole.tokens, expected.pooler_output, atol=1e-4, rtol=0)
    for ours, other in zip(whole.added, expected.deepstack_features, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-4, rtol=0)
    torch.testing.assert_close(Features.joined(alone).tokens, whole.tokens, atol=1e-5, rtol=0)


def test_in_small_blocks_the_features_are_the_same(
    tower: VisionTower, vision_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [picture(height, width, seed).pixels for seed, (height, width) in enumerate(SIZES)]
    monkeypatch.setattr(seeing, "_BLOCK", 20)
    monkeypatch.setattr(seeing, "_TOGETHER", 30)
    model = describe(read_object(vision_folder / "config.json")).vision
    small = VisionTower(model, Checkpoint(vision_folder, "tiny"), "cpu", torch.float32, mean=HALF, std=HALF)
    with torch.inference_mode():
        found, expected = Features.joined(small.run(shown)), Features.joined(tower.run(shown))
    for ours, other in zip((found.tokens, *found.added), (expected.tokens, *expected.added), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=0)


def test_plain_products_have_their_bias_too(
    tower: VisionTower, vision_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those run on GPUs, and on processors without oneDNN's."""
    shown = [picture(height, width, seed).pixels for seed, (height, width) in enumerate(SIZES[:3])]
    monkeypatch.setattr(linear, "_packed_works_with_bias", lambda dtype: False)
    model = describe(read_object(vision_folder / "config.json")).vision
    plain = VisionTower(model, Checkpoint(vision_folder, "tiny"), "cpu", torch.float32, mean=HALF, std=HALF)
    with torch.inference_mode():
        found, expected = Features.joined(plain.run(shown)), Features.joined(tower.run(shown))
    torch.testing.assert_close(found.tokens, expected.tokens, atol=1e-5, rtol=0)


def test_a_picture_weighs_in_a_batch_by_what_the_tower_takes_for_it(vision_folder: Path) -> None:
    """By their tokens alone, batches of pictures would take many times as long as batches of texts."""
    spec = Embedder(vision_folder, device="cpu", dtype="float32").spec
    model = Engine().load(LoadRequest(spec, vision_folder, "cpu", "float32"))
    around, source = query_template(spec.prompts, PromptChoice(None), PromptChoice(), model=spec.id)
    source = replace(source, image_mark=IMAGES.mark)
    shown = [(Image(picture(32 * side, 32 * side).pixels),) for side in (1, 4, 16)]
    items = list(RenderedTexts(["x", *shown], around, source))
    made = model.prepare(items, RunOptions(max_tokens=8192, max_pixels=IMAGES.max_pixels))
    shared = made.token_counts[0] - made.sizes[0]
    work = made.sizes - made.token_counts + shared
    assert work[0] == 0
    assert work[2] >= 4
    # Attention within a picture takes more of it the larger it is.
    assert work[3] > 20 * work[2]


def features(pixels: np.ndarray) -> Features:
    """As many tokens as the picture has, all of its own number."""
    count = pixels.shape[0] * pixels.shape[1] // 1024
    return Features(torch.full((count, 2), float(pixels[0, 0, 0])), ())


def test_equal_pictures_are_computed_once_and_remembered() -> None:
    asked: list[int] = []

    def compute(pixels: list[np.ndarray]) -> list[Features]:
        asked.append(len(pixels))
        return [features(one) for one in pixels]

    seen = SeenPictures(compute)
    one, other = picture(64, 64, 1), picture(64, 64, 2)
    # The same bytes in another shape are another picture.
    wide = Picture(one.pixels.reshape(32, 128, 3), 0, (1, 4))
    found = seen.get([one, other, picture(64, 64, 1, start=7), wide])
    assert asked == [3]
    assert [float(part.tokens[0, 0]) for part in found] == [
        float(each.pixels[0, 0, 0]) for each in (one, other, one, wide)
    ]
    seen.get([other, one])
    assert asked == [3]


def test_what_is_remembered_is_bounded_and_what_is_asked_for_again_stays() -> None:
    asked: list[int] = []

    def compute(pixels: list[np.ndarray]) -> list[Features]:
        asked.append(len(pixels))
        return [features(one) for one in pixels]

    seen = SeenPictures(compute)
    # A quarter of the room each.
    height = MAX_TOKENS // 4 // 32 * 32
    query = picture(height, 1024, 0)
    for seed in range(1, 7):
        seen.get([query, picture(height, 1024, seed), query])
    # The query once, each of the others once; of these the first have been forgotten.
    assert asked == [2, 1, 1, 1, 1, 1]
    seen.get([picture(height, 1024, 1)])
    assert asked[-1] == 1
    assert len(asked) == 7
