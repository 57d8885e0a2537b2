"""Files, arrays and images of Pillow to the pixels that a model sees; what is damaged or too large is refused."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, MissingDependencyError
from embrief.images.limits import FORMATS, ImageLimits
from embrief.system.installed import install_command, is_installed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def decode(data: bytes, limits: ImageLimits) -> NDArray[np.uint8]:
    """Return the pixels of an image file, uint8 (height, width, 3).

    Raises:
        ArgumentError: It is no picture of an allowed format, is damaged, or is over a limit.
        MissingDependencyError: Pillow is not installed.
    """
    if not is_installed("PIL"):
        raise MissingDependencyError(
            f"pictures are decoded with Pillow, which is not installed: {install_command('images')}"
        )
    from PIL import Image

    if len(data) > limits.max_bytes:
        raise ArgumentError(f"the picture has more than {limits.max_bytes:,} bytes; make it smaller")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            return from_pillow(opened, limits)
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(
            f"this is no picture that can be read ({error}); send JPEG, PNG, WebP, GIF, BMP or TIFF"
        ) from error


def from_pillow(image: Any, limits: ImageLimits) -> NDArray[np.uint8]:
    """Return the pixels of an image of Pillow, as of `decode`."""
    import numpy as np
    from PIL import Image, ImageOps

    check_size(image.height, image.width, limits)
    turned = ImageOps.exif_transpose(image)
    if "A" in turned.getbands() or "transparency" in turned.info:
        layer = turned.convert("RGBA")
        turned = Image.new("RGBA", layer.size, "white")
        turned.alpha_composite(layer)
    return np.asarray(turned.convert("RGB")).copy()


def from_array(array: Any, limits: ImageLimits) -> NDArray[np.uint8]:
    """Return a copy of pixels.

    Raises:
        ArgumentError: They are no uint8 array (height, width, 3), or over a limit.
    """
    shape = tuple(array.shape)
    if str(array.dtype) != "uint8" or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ArgumentError(
            f"pixels are a uint8 array (height, width, 3), not {array.dtype} {shape}; reorder it, or pass the file"
        )
    check_size(shape[0], shape[1], limits)
    copied: NDArray[np.uint8] = array.copy()
    return copied


def to_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels as a file that loses none."""
    from PIL import Image

    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "PNG", compress_level=1)
    return made.getvalue()


def check_size(height: int, width: int, limits: ImageLimits) -> None:
    """Refuse a picture that is too large, too long, or nothing.

    Raises:
        ArgumentError: It is.
    """
    if height * width > limits.max_pixels:
        raise ArgumentError(
            f"the picture has {width} x {height} pixels, the limit is {limits.max_pixels:,}; make it smaller"
        )
    if not height or not width or max(height, width) / min(height, width) > limits.max_aspect:
        raise ArgumentError(
            f"the picture has {width} x {height} pixels, and one side may be {limits.max_aspect:g} times the other at "
            "most; cut it into parts"
        )
