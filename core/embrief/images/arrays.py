"""Pixels that callers hold themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError
from embrief.images.decoding import check_size, from_pillow
from embrief.images.pillow import needed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.images.limits import ImageLimits


_CHANNELS = (1, 3, 4)
"""Of the last axis: grey; red, green and blue; these with transparency."""


def from_array(array: Any, limits: ImageLimits) -> NDArray[np.uint8]:
    """Return a copy of pixels, uint8 (height, width, 3), not to be written to.

    Args:
        array: uint8: (height, width, 3) is red, green and blue; (height, width, 4) these and how much of each pixel
            there is, 0 to 255, which lies on white as that of a file does; (height, width) or (height, width, 1) grey.
        limits: What it may be.

    Raises:
        ArgumentError: They are no such array, or over a limit. The message has the remedy.
        MissingDependencyError: They have transparency, and Pillow is not installed.
    """
    import numpy as np

    shape, dtype = tuple(array.shape), str(array.dtype)
    known = len(shape) == 2 or (len(shape) == 3 and shape[2] in _CHANNELS)
    if not isinstance(array, np.ndarray) or dtype != "uint8" or not known or 0 in shape:
        raise ArgumentError(
            "pixels are a uint8 array of numpy, (height, width, 3), with transparency (height, width, 4), or of grey "
            f"(height, width), not {dtype} {shape} of {type(array).__module__.partition('.')[0]}; "
            f"{_remedy(array, shape, dtype)}"
        )
    check_size(shape[0], shape[1], limits)
    if shape[2:] == (4,):
        needed()
        from PIL import Image

        return from_pillow(Image.fromarray(np.ascontiguousarray(array)), limits)
    plain = np.asarray(array)
    colours = plain if shape[2:] == (3,) else np.broadcast_to(plain.reshape(*shape[:2], 1), (*shape[:2], 3))
    copied = np.array(colours, order="C")
    copied.flags.writeable = False
    return copied


def _remedy(array: Any, shape: tuple[int, ...], dtype: str) -> str:
    import numpy as np

    if not isinstance(array, np.ndarray):
        return "make it one of numpy, such as by array.numpy()"
    if 0 in shape:
        return "it has no pixels, so pass another one"
    if len(shape) == 4:
        return "pass its pictures one by one"
    if shape[2:] == (2,):
        return "for grey with transparency, pass PIL.Image.fromarray(array)"
    if len(shape) == 3 and shape[2] not in _CHANNELS and shape[0] in _CHANNELS:
        return "its colours come first: pass array.transpose(1, 2, 0)"
    if dtype == "bool":
        return "pass array.astype('uint8') * 255"
    if dtype.startswith("float"):
        return "where white is 1.0, pass (array * 255).round().astype('uint8')"
    if dtype != "uint8":
        return "scale it to 0..255 and pass array.astype('uint8')"
    return "reorder it, or pass the file"
