"""Images as inputs: known by what a model sees of them, decoded when they are first needed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.images.limits import LIMITS, ImageLimits, check_limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Fetch = Callable[[str], bytes]
"""Gets the bytes behind an address, or raises."""


class Image:
    """One picture, wherever it is. A string is always a text: pass a `Path` for a file.

    Nothing is read or decoded before it is needed. Equal pixels make equal images, whatever file they came from.
    Decoding needs Pillow; only the first picture of an animation counts, the orientation of a camera is applied, what
    is transparent lies on white. Colours are as the file has them: profiles change none. It never changes, and may be
    used by several threads at once.
    """

    __slots__ = (
        "__weakref__",
        "_data",
        "_decoded",
        "_digest",
        "_expected",
        "_limits",
        "_lock",
        "_path",
        "_pixels",
        "_size",
    )

    def __init__(self, source: bytes | Path | NDArray[np.uint8] | Any, *, limits: ImageLimits = LIMITS) -> None:
        """Look at what it is.

        Args:
            source: The bytes of an image file, the path of one, pixels as a uint8 array, or an image of Pillow. The
                last two are copied at once, since they may change. An array is (height, width, 3); (height, width, 4)
                with transparency as its last, from 0 for none of the picture; (height, width) or (height, width, 1)
                for grey.
            limits: What it may be.

        Raises:
            ArgumentTypeError: It is something else, or `limits` are none.
            ArgumentError: There are too many bytes; the array has another shape or type, or is over a limit; or the
                image of Pillow cannot be decoded.
            MissingDependencyError: The array has transparency, and Pillow is not installed.
        """
        check_limits(limits)
        self._limits = limits
        self._lock = threading.Lock()
        self._data: bytes | None = None
        self._path: Path | None = None
        self._pixels: NDArray[np.uint8] | None = None
        self._decoded: NDArray[np.uint8] | None = None
        self._digest: bytes | None = None
        self._expected: bytes | None = None
        self._size: tuple[int, int] | None = None
        if isinstance(source, (bytes, bytearray, memoryview)):
            from embrief.images.decoding import check_bytes

            check_bytes(memoryview(source).nbytes, limits)
            self._data = bytes(source)
        elif isinstance(source, Path):
            self._path = source
        elif isinstance(source, str):
            raise ArgumentTypeError(
                "a string is always a text; for a file pass Image(Path(...)), for base64 Image.from_base64(text)"
            )
        elif hasattr(source, "tobytes") and hasattr(source, "convert"):
            # Pillow's, known by what it can do: it need not be installed.
            from embrief.images.decoding import from_pillow

            self._pixels = from_pillow(source, limits)
        elif hasattr(source, "dtype") and hasattr(source, "shape"):
            from embrief.images.arrays import from_array

            self._pixels = from_array(source, limits)
        else:
            kind = type(source).__name__
            raise ArgumentTypeError(f"an image is bytes, a Path, a uint8 array or an image of Pillow, not {kind}")

    @classmethod
    def from_base64(cls, text: str, *, limits: ImageLimits = LIMITS) -> Image:
        """Return the picture of a base64 text, or of an address `data:image/...;base64,...`.

        Line breaks, as mail has them, are passed over; the form for addresses, with - and _, is refused.

        Raises:
            ArgumentTypeError: It is no string, or `limits` are none.
            ArgumentError: It is no base64, or too large; nothing was decoded then.
        """
        if not isinstance(text, str):
            raise ArgumentTypeError(f"a base64 text is a string, not {type(text).__name__}")
        check_limits(limits)
        from embrief.images.reading import from_base64

        return cls(from_base64(text, limits), limits=limits)

    @classmethod
    def from_url(cls, url: str, *, fetch: Fetch, limits: ImageLimits = LIMITS) -> Image:
        """Return the picture behind an address. There is no fetcher unless you pass one; `ImageFetcher` is guarded."""
        check_limits(limits)
        return cls(fetch(url), limits=limits)

    @property
    def digest(self) -> bytes:
        """Return 32 bytes that name what a model sees: the pixels. Decodes, once.

        Raises:
            ArgumentError: The file cannot be read, or is no picture that is taken.
            MissingDependencyError: Pillow is not installed.
        """
        if self._digest is None:
            _ = self.pixels
        assert self._digest is not None
        return self._digest

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width in pixels, as a model sees it. Decodes, once; raises as `digest`."""
        if self._size is None:
            _ = self.pixels
        assert self._size is not None
        return self._size

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """Return the pixels, uint8 (height, width, 3), not to be written to. Raises as `digest`.

        They are kept while memory for pictures in use is not full, and decoded again otherwise.
        """
        with self._lock:
            found = self._pixels if self._pixels is not None else self._decoded
            if found is None:
                found = self._decoded = self._decode()
            if self._digest is None:
                self._size = found.shape[0], found.shape[1]
                self._digest = _named(found)
        if self._pixels is None:
            from embrief.images import recent

            recent.note(self, found.nbytes)
        return found

    def let_go(self) -> None:
        """Give up the decoded pixels; they are decoded again when they are needed."""
        self._decoded = None

    def to_png(self) -> bytes:
        """Return a file with exactly the pixels that a model sees, for whoever sends them elsewhere."""
        from embrief.images.decoding import to_png

        return to_png(self.pixels)

    def _decode(self) -> NDArray[np.uint8]:
        from embrief.images.decoding import decode

        found = decode(self._read(), self._limits)
        known = self._digest if self._digest is not None else self._expected
        if known is not None and _named(found) != known:
            raise ArgumentError(f"the image {self._path} changed since it was first read; make a new Image of it")
        return found

    def _read(self) -> bytes:
        if self._data is not None:
            return self._data
        from embrief.images.reading import from_file

        assert self._path is not None
        return from_file(self._path, self._limits)

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Image) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        source = self._data if self._data is not None else self._path if self._path is not None else self._pixels
        # A file may have changed before the copy reads it; bytes and pixels cannot.
        known = None if self._path is None else self._digest if self._digest is not None else self._expected
        return _rebuilt, (source, self._limits, known)

    def __repr__(self) -> str:
        if self._path is not None:
            return f"Image({str(self._path)!r})"
        if self._data is not None:
            return f"Image({len(self._data)} bytes)"
        assert self._pixels is not None
        return f"Image(pixels {self._pixels.shape})"


def _rebuilt(source: Any, limits: ImageLimits, expected: bytes | None) -> Image:
    made = Image(source, limits=limits)
    made._expected = expected
    return made


def _named(pixels: NDArray[np.uint8]) -> bytes:
    made = hashlib.sha256(f"pixels {pixels.shape}".encode())
    made.update(pixels.data)
    return made.digest()
