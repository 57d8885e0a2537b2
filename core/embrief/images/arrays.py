"""Pixels that callers hold themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError
from embrief.images.decoding import check_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.images.limits import ImageLimits


def from_array(array: Any, limits: ImageLimits) -> NDArray[np.uint8]:
    """Return a copy of pixels, uint8 (height, width, 3), not to be written to.

    Raises:
        ArgumentError: They are no uint8 array (height, width, 3), or over a limit. The message has the remedy.
    """
    import numpy as np

    shape, dtype = tuple(array.shape), str(array.dtype)
    if not isinstance(array, np.ndarray) or dtype != "uint8" or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ArgumentError(
            f"pixels are a uint8 array (height, width, 3) of numpy, not {dtype} {shape} of "
            f"{type(array).__module__.partition('.')[0]}; {_remedy(array, shape, dtype)}"
        )
    check_size(shape[0], shape[1], limits)
    copied = np.array(array, order="C", subok=False)
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
    if len(shape) == 3 and shape[2] != 3 and shape[0] in (1, 3, 4):
        return "its colours come first: pass array.transpose(1, 2, 0)"
    if dtype == "bool":
        return "pass array.astype('uint8') * 255, with its grey three times"
    if dtype.startswith("float"):
        return "where white is 1.0, pass (array * 255).round().astype('uint8')"
    if dtype != "uint8":
        return "scale it to 0..255 and pass array.astype('uint8')"
    if len(shape) == 2 or shape[2:] == (1,):
        return "for grey, pass PIL.Image.fromarray(array.squeeze()), or the same grey three times"
    if shape[2:] == (4,):
        return "with transparency, pass PIL.Image.fromarray(array), which lies on white then"
    return "reorder it, or pass the file"
