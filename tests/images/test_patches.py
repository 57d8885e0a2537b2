"""What a vision tower is given equals what transformers' own processor makes, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from embrief.errors import ArgumentError
from embrief.facts.records.gemma import EMBEDDING_2_IMAGES
from embrief.facts.records.qwen3_vl import IMAGES
from embrief.images.patches import fit, patches, plain_patches

SIZES = [
    (1, 1), (1, 3), (7, 5), (31, 33), (32, 32), (33, 31), (64, 64), (64, 96), (97, 211), (224, 224), (480, 640),
    (200, 1), (20, 3000), (3000, 20), (640, 481), (1000, 10), (1754, 1240), (1080, 1920), (2999, 1333), (3000, 4000),
]  # fmt: skip


@pytest.fixture(scope="module")
def processor():
    found = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    return found.Qwen2VLImageProcessorPil


def made(size, seed=0):
    """Smooth and sharp parts, so that an interpolation that differs shows."""
    rng = np.random.default_rng([seed, *size])
    noise = rng.integers(0, 256, (*size, 3), np.uint8)
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(*size, 3).astype(np.uint8)
    return np.where(rng.random(size)[..., None] < 0.5, noise, ramp).astype(np.uint8)


def ours(pixels, spec=IMAGES, max_pixels=None):
    fitted = fit(pixels, spec.fitted(*pixels.shape[:2], max_pixels))
    return patches(fitted, patch=spec.patch, merge=spec.merge, mean=spec.mean, std=spec.std), fitted.shape[:2]


def theirs(processor, pixels, *, mean=IMAGES.mean, std=IMAGES.std, max_pixels=IMAGES.max_pixels):
    found = processor(
        patch_size=IMAGES.patch, merge_size=IMAGES.merge, image_mean=list(mean), image_std=list(std),
        size={"shortest_edge": IMAGES.min_pixels, "longest_edge": max_pixels},
    )([pixels], input_data_format="channels_last", return_tensors="np")  # fmt: skip
    return found["pixel_values"], tuple(found["image_grid_thw"][0].tolist())


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_patches_are_those_of_transformers(processor, size):
    rows, (height, width) = ours(made(size))
    expected, grid = theirs(processor, made(size))
    assert grid == (1, height // 16, width // 16)
    assert rows.dtype == np.float32
    assert rows.shape == expected.shape
    assert np.abs(rows - expected).max() == 0.0


def test_other_limits_means_and_deviations_are_those_of_transformers_too(processor):
    from dataclasses import replace

    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = made((333, 517))
    rows, _ = ours(pixels, replace(IMAGES, mean=mean, std=std), max_pixels=100_000)
    expected, _ = theirs(processor, pixels, mean=mean, std=std, max_pixels=100_000)
    assert np.abs(rows - expected).max() == 0.0


def test_rows_come_by_tokens_channels_frames_and_lines():
    """Said once without transformers: which pixel is where."""
    pixels = made((64, 96))
    rows = patches(pixels, patch=16, merge=2, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).reshape(-1, 3, 2, 16, 16)
    assert len(rows) == 4 * 6
    # The 4th row is the last patch of the first token, the 5th the first one of the token to its right.
    for row, (top, left) in {0: (0, 0), 1: (0, 16), 2: (16, 0), 3: (16, 16), 4: (0, 32), 12: (32, 0)}.items():
        shown = pixels[top : top + 16, left : left + 16].transpose(2, 0, 1) / 255
        assert np.allclose(rows[row, :, 0], shown, atol=1e-6)
        assert np.array_equal(rows[row, :, 0], rows[row, :, 1])


def test_a_picture_that_fits_is_left_as_it_is():
    pixels = made((64, 96))
    assert fit(pixels, (64, 96)) is pixels


def test_what_holds_no_whole_tokens_is_refused():
    with pytest.raises(ArgumentError, match="100 x 64 pixels has no whole tokens of 32"):
        patches(made((64, 100)), patch=16, merge=2, mean=IMAGES.mean, std=IMAGES.std)


GEMMA_SIZES = [*SIZES, (48, 48), (95, 97), (10, 960), (960, 10), (13, 2500), (2, 399), (399, 2), (768, 840), (800, 800)]


def filled(pixels, max_pixels=None):
    spec = EMBEDDING_2_IMAGES
    fitted = fit(pixels, spec.fitted(*pixels.shape[:2], max_pixels))
    return plain_patches(fitted, patch=spec.patch, merge=spec.merge), fitted.shape[:2]


def check_filled(size, budget=None):
    gemma = pytest.importorskip("transformers.models.gemma4.image_processing_pil_gemma4")
    pixels = made(size)
    rows, (height, width) = filled(pixels, None if budget is None else budget * 48 * 48)
    settings = {} if budget is None else {"max_soft_tokens": budget}
    found = gemma.Gemma4ImageProcessorPil(**settings)([pixels], input_data_format="channels_last", return_tensors="np")
    # Rows and places are filled up to the budget there.
    places = found["image_position_ids"][0]
    own = places[:, 0] >= 0
    assert own.sum() == len(rows)
    assert rows.dtype == np.float32
    assert np.abs(rows - found["pixel_values"][0][own]).max() == 0.0
    column, row = places[own].T
    assert np.array_equal(column, np.tile(np.arange(width // 16), height // 16))
    assert np.array_equal(row, np.repeat(np.arange(height // 16), width // 16))
    most = None if budget is None else budget * 48 * 48
    assert found["num_soft_tokens_per_image"][0] == EMBEDDING_2_IMAGES.tokens(*size, most) <= (budget or 280)


@pytest.mark.parametrize("size", GEMMA_SIZES, ids=str)
def test_patches_of_the_gemma_family_are_those_of_transformers(size):
    check_filled(size)


@pytest.mark.parametrize("budget", EMBEDDING_2_IMAGES.budgets)
def test_every_budget_of_the_gemma_family_is_that_of_transformers(budget):
    for size in ((333, 517), (1, 150), (640, 480)):
        check_filled(size, budget)


def test_pixels_of_the_gemma_family_come_line_by_line():
    """Said once without transformers: which pixel is where."""
    pixels = made((48, 96))
    rows = plain_patches(pixels, patch=16, merge=3).reshape(-1, 16, 16, 3)
    assert len(rows) == 3 * 6
    for row, (top, left) in {0: (0, 0), 1: (0, 16), 5: (0, 80), 6: (16, 0), 17: (32, 80)}.items():
        assert np.allclose(rows[row], pixels[top : top + 16, left : left + 16] / 255, atol=1e-6)
    with pytest.raises(ArgumentError, match="64 x 48 pixels has no whole tokens of 48"):
        plain_patches(made((48, 64)), patch=16, merge=3)
