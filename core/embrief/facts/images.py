"""Images as inputs: known by their content, decoded only by the model that takes them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Image:
    """One image, wherever its bytes are. A string is always a text: pass a `Path` for a file.

    Nothing is read before it is needed, and nothing is decoded here. Equal content makes equal images.
    """

    __slots__ = ("_data", "_digest", "_path", "_pixels")

    def __init__(self, source: bytes | Path | NDArray[np.uint8] | Any) -> None:
        """Look at what it is.

        Args:
            source: The bytes of an image file, the path of one, pixels as a uint8 array (height, width, 3), or an image
                of Pillow.

        Raises:
            ArgumentTypeError: It is something else.
            ArgumentError: The array has another shape or type.
        """
        self._data: bytes | None = None
        self._path: Path | None = None
        self._pixels: Any = None
        self._digest: bytes | None = None
        if isinstance(source, (bytes, bytearray, memoryview)):
            self._data = bytes(source)
        elif isinstance(source, Path):
            self._path = source.expanduser()
        elif isinstance(source, str):
            raise ArgumentTypeError(f"a string is always a text; for the file {source[:80]!r} pass Image(Path(...))")
        elif hasattr(source, "tobytes") and hasattr(source, "convert"):
            # Pillow's, known by what it can do: it need not be installed.
            self._pixels = _pixels(source.convert("RGB"))
        elif hasattr(source, "dtype") and hasattr(source, "shape"):
            self._pixels = _checked(source)
        else:
            kind = type(source).__name__
            raise ArgumentTypeError(f"an image is bytes, a Path, a uint8 array or an image of Pillow, not {kind}")

    @property
    def digest(self) -> bytes:
        """Return 32 bytes that name the content. Reads a file, once.

        Raises:
            ArgumentError: The file cannot be read.
        """
        if self._digest is None:
            if self._pixels is not None:
                shape = repr(self._pixels.shape).encode()
                self._digest = hashlib.sha256(b"pixels" + shape + self._pixels.tobytes()).digest()
            else:
                self._digest = hashlib.sha256(b"file" + self._read()).digest()
        return self._digest

    @property
    def data(self) -> bytes | None:
        """Return the bytes of the image file, `None` for pixels.

        Raises:
            ArgumentError: The file cannot be read, or changed since its content was named.
        """
        if self._pixels is not None:
            return None
        data = self._read()
        if self._digest is not None and hashlib.sha256(b"file" + data).digest() != self._digest:
            raise ArgumentError(f"the image {self._path} changed since it was first read; make a new Image of it")
        return data

    @property
    def pixels(self) -> NDArray[np.uint8] | None:
        """Return the pixels, (height, width, 3), where the image was given as pixels; `None` for a file."""
        pixels: NDArray[np.uint8] | None = self._pixels
        return pixels

    def _read(self) -> bytes:
        if self._data is not None:
            return self._data
        assert self._path is not None
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise ArgumentError(f"the image {self._path} cannot be read: {error}") from error

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Image) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        if self._path is not None:
            return f"Image({str(self._path)!r})"
        return f"Image({len(self._data)} bytes)" if self._data is not None else f"Image(pixels {self._pixels.shape})"


def _pixels(image: Any) -> Any:
    # Inside the function: programs without images need no numpy for the name of this class.
    import numpy as np

    return np.asarray(image).copy()


def _checked(array: Any) -> Any:
    shape = tuple(array.shape)
    if str(array.dtype) != "uint8" or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ArgumentError(
            f"pixels are a uint8 array (height, width, 3), not {array.dtype} {shape}; reorder it, or pass the file"
        )
    return array.copy()
