"""From the many ways in which Pillow holds pixels to the one that models see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CONVERTED = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"}
"""What Pillow turns into red, green and blue without a loss that anybody would see."""
_GREY_16 = {"I;16", "I;16B", "I;16L", "I;16N"}
_STEP = 257
"""Of 65,536 levels make one of 256."""


def pixels(image: Any, orientation: int) -> NDArray[np.uint8]:
    """Return the pixels of a loaded image of Pillow, uint8 (height, width, 3), not to be written to.

    What is transparent lies on white. 16 bits of grey become 8. Colours are left as they are, also where a profile of
    them is there.

    Args:
        image: An image whose pixels are loaded.
        orientation: How the camera was held, as EXIF counts it; what is not known means upright.

    Raises:
        ArgumentError: The pixels have no range that is known, such as those of a depth map.
    """
    # A 16-bit PNG was a picture of whole numbers for some releases of Pillow; otherwise their range is anybody's guess.
    if image.mode in _GREY_16 or (image.mode == "I" and image.format == "PNG"):
        found = _of_grey_16(image)
    elif image.mode in _CONVERTED:
        found = np.asarray(_in_colour(image))
    else:
        raise ArgumentError(
            f"the picture is of mode {image.mode!r}, in which Pillow holds values of no fixed range or of another "
            "colour space; scale them, and convert it to 'L' or 'RGB'"
        )
    found = np.ascontiguousarray(_upright(found, orientation))
    found.flags.writeable = False
    return found


def _in_colour(image: Any) -> Any:
    from PIL import Image

    if image.has_transparency_data:
        # The premultiplied grey has no way of its own to colours.
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _of_grey_16(image: Any) -> NDArray[np.uint8]:
    """Return 16-bit grey, as three equal colours of 8 bits; Pillow itself would make all but the darkest white."""
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > np.iinfo(np.uint16).max:
        raise ArgumentError("the picture has values beyond 16 bits; scale them, and convert it to 'L'")
    scaled = ((np.arange(1 << 16) + _STEP // 2) // _STEP).astype(np.uint8)[levels]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[levels == transparent] = 255
    return np.repeat(scaled[:, :, None], 3, axis=2)


def _upright(found: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return a view of pixels, turned as EXIF wants it: 5 to 8 swap the sides, and then lines or columns run back."""
    if orientation in (5, 6, 7, 8):
        found = found.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        found = found[::-1]
    if orientation in (2, 3, 6, 7):
        found = found[:, ::-1]
    return found
