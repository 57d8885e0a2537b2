"""Files, arrays and images of Pillow to the pixels that a model sees; what is damaged or too large is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, EmbriefError
from embrief.images import modes
from embrief.images.containers import opening
from embrief.images.pillow import needed

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from embrief.images.limits import ImageLimits


def decode(data: bytes, limits: ImageLimits) -> NDArray[np.uint8]:
    """Return the pixels of an image file, uint8 (height, width, 3), upright, and not to be written to.

    Colours are as the file has them: a profile beside them changes none.

    Raises:
        ArgumentError: It is no picture of an allowed format, is damaged, or is over a limit. Nothing was decoded if its
            header says so. The message holds nothing of the file.
        MissingDependencyError: Pillow is not installed.
    """
    needed()
    check_bytes(len(data), limits)
    name, bare = opening.bare(data)
    check_size(bare.height, bare.width, limits)
    if not bare.whole:
        raise opening.damaged("it is cut short")
    with _guarded():
        # Not by `Image.open`, which warns of large pictures, by a limit that belongs to the whole process.
        image = _opener(name)(io.BytesIO(bare.data))
        with image:
            if image.size != (bare.width, bare.height):
                raise opening.damaged("its header says two sizes")
            image.load()
            return modes.pixels(image, bare.orientation)


def from_pillow(image: Any, limits: ImageLimits) -> NDArray[np.uint8]:
    """Return the pixels of an image of Pillow, as of `decode`: the frame at which it stands, upright."""
    from PIL import ExifTags

    with _guarded():
        check_size(image.height, image.width, limits)
        image.load()
        try:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:  # what is written beside the pixels may be damaged in any way
            orientation = 1
        return modes.pixels(image, orientation)


def check_bytes(count: int, limits: ImageLimits) -> None:
    """Refuse a file that is too large.

    Raises:
        ArgumentError: It is.
    """
    if count > limits.max_bytes:
        raise ArgumentError(f"the picture has more than {limits.max_bytes:,} bytes; make it smaller")


def check_size(height: int, width: int, limits: ImageLimits) -> None:
    """Refuse a picture that is too large, too long, or nothing.

    Raises:
        ArgumentError: It is.
    """
    if height < 1 or width < 1:
        raise ArgumentError(f"the picture has {width} x {height} pixels, which is nothing; pass another one")
    if height * width > limits.max_pixels:
        raise ArgumentError(
            f"the picture has {width} x {height} pixels, the limit is {limits.max_pixels:,}; make it smaller"
        )
    if max(height, width) / min(height, width) > limits.max_aspect:
        raise ArgumentError(
            f"the picture has {width} x {height} pixels, and one side may be {limits.max_aspect:g} times the other at "
            "most; cut it into parts"
        )


def to_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels as a file that loses none.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    needed()
    from PIL import Image

    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "PNG", compress_level=1)
    return made.getvalue()


def _opener(name: str) -> Callable[[io.BytesIO], Any]:
    """Return what opens files of one format, and looks at no other."""
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    return {
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
    }[name]


@contextmanager
def _guarded() -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into an error of ours.

    Raises:
        ArgumentError: Something was raised. What it said is left out, since it may hold parts of the file.
    """
    try:
        yield
    except EmbriefError:
        raise
    except MemoryError:
        raise ArgumentError("there is not enough memory to decode the picture; make it smaller") from None
    except Exception as error:
        raise opening.damaged(f"it is damaged or cut short ({type(error).__name__})") from None
