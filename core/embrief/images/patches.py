"""From the pixels of a picture to what a vision tower reads: one row per patch, equal to transformers' bit for bit.

`patches` is for towers of the Qwen family, `plain_patches` for those of the Gemma family.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embrief.errors import ArgumentError
from embrief.images.pillow import needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FRAMES = 2
"""A patch is read over two frames of a video; a picture is the same frame twice."""
CHANNELS = 3


def fit(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the picture in the size in which a model sees it, uint8 (height, width, 3).

    Bicubic, by Pillow, as transformers' processors of Qwen2-VL and Gemma 4 without torchvision do it. A picture that
    has the size is returned as it is.

    Args:
        pixels: uint8 (height, width, 3).
        size: Height and width, of `ImageSpec.fitted`.

    Raises:
        MissingDependencyError: The size changes, and Pillow is not installed.
    """
    if pixels.shape[:2] == size:
        return pixels
    needed()
    from PIL import Image

    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def patches(
    fitted: NDArray[np.uint8], *, patch: int, merge: int, mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """Return a picture as rows of patches, float32 (rows, 3 * 2 * patch * patch).

    A row holds its patch channel by channel, each over two frames, line by line. The rows come in blocks of
    `merge` x `merge` patches, which become one token; blocks, and patches inside one, go line by line.

    Args:
        fitted: uint8 (height, width, 3), whose sides are multiples of `patch * merge`.
        patch: Pixels per side of a patch.
        merge: Patches per side of a token.
        mean: Of red, green and blue, taken from values between 0 and 1.
        std: By which each is then divided.

    Raises:
        ArgumentError: A side is no such multiple.
    """
    height, width = _whole(fitted, patch * merge)
    unit = patch * merge
    # (rows, columns, merge, merge, channel, patch, patch) of views, in which nothing is moved yet.
    blocks = fitted.reshape(height // unit, merge, patch, width // unit, merge, patch, CHANNELS)
    blocks = blocks.transpose(0, 3, 1, 4, 6, 2, 5)
    made = np.empty((height // patch * (width // patch), CHANNELS, FRAMES, patch, patch), np.float32)
    for channel, values in enumerate(_normalised(mean, std)):
        found = values[blocks[:, :, :, :, channel]].reshape(-1, 1, patch, patch)
        made[:, channel] = found
    return made.reshape(len(made), -1)


def plain_patches(fitted: NDArray[np.uint8], *, patch: int, merge: int) -> NDArray[np.float32]:
    """Return a picture as rows of patches with values from 0 to 1, float32 (rows, patch * patch * 3).

    The patches go line by line over the whole picture, and so do the pixels of each, red, green and blue together.

    Args:
        fitted: uint8 (height, width, 3), whose sides are multiples of `patch * merge`.
        patch: Pixels per side of a patch.
        merge: Patches per side of a token.

    Raises:
        ArgumentError: A side is no such multiple.
    """
    height, width = _whole(fitted, patch * merge)
    blocks = fitted.reshape(height // patch, patch, width // patch, patch, CHANNELS).transpose(0, 2, 1, 3, 4)
    return _scaled()[blocks].reshape(-1, patch * patch * CHANNELS)


def _whole(fitted: NDArray[np.uint8], unit: int) -> tuple[int, int]:
    """Return height and width of a picture of whole tokens.

    Raises:
        ArgumentError: It has none.
    """
    height, width = fitted.shape[:2]
    if height % unit or width % unit:
        raise ArgumentError(f"a picture of {width} x {height} pixels has no whole tokens of {unit}; fit it first")
    return height, width


def _scaled() -> NDArray[np.float32]:
    """Return the 256 values of a channel between 0 and 1, scaled in float64 as transformers does it."""
    return (np.arange(256).astype(np.float64) * (1 / 255)).astype(np.float32)


def _normalised(mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Return what each of the 256 values of a channel becomes, float32 (3, 256).

    In transformers' order and number formats, which decide the last bit: all behind the scaling in float32.
    """
    centred = _scaled() - np.array(mean, np.float32)[:, None]
    made: NDArray[np.float32] = centred / np.array(std, np.float32)[:, None]
    return made
