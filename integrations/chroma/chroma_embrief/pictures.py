"""Pictures as Chroma has them: arrays in a call, and addresses in a collection that a loader makes arrays of."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from chromadb.api.types import DataLoader

from embrief import ArgumentError, ArgumentTypeError, Image, ImageLimits
from embrief.wrapping import as_image, carried, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A drive letter is one letter, so `C:\\a.png` is no address.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)

Fetch = Callable[[str], bytes]
"""Gets the bytes behind an address, or raises."""


def as_inputs(values: object, what: str = "texts") -> list[Any]:
    """Return what Chroma hands to an embedding function as an embedder takes it: an array is a picture.

    Strings that carry pictures, which the wrappers of other frameworks make, are these pictures and their text.

    Args:
        values: The list.
        what: Name of the argument, for errors.

    Raises:
        ArgumentTypeError: It is no list.
        ArgumentError: An array is no picture, with its index.
    """
    return [
        as_image(value, f"images[{index}]", index) if isinstance(value, np.ndarray) else carried(value)
        for index, value in enumerate(listed(values, what, "strings"))
    ]


class ImageLoader(DataLoader[list[Any]]):
    """Loads the pictures of `uris=` as a model sees them: within limits, turned as the camera says, on white.

    Chroma's own loader opens whatever file a collection names, of any size and format, and whoever can write to the
    database can write names there. This one reads regular files, on request of one folder only, and opens no address.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from chroma_embrief import ImageLoader
        >>> from embrief import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "dot.png").write_bytes(Image(np.zeros((32, 32, 3), np.uint8)).to_png())
        >>> ImageLoader(folder=folder)(["dot.png", None])[0].shape
        (32, 32, 3)
    """

    def __init__(
        self, *, folder: Path | None = None, fetch: Fetch | None = None, limits: ImageLimits | None = None
    ) -> None:
        """Keep what may be loaded. Reads nothing.

        Args:
            folder: The only files that are loaded lie in it, and paths may be relative to it. `None`: any file. Give
                one wherever others can write to the database.
            fetch: Gets the bytes of an address such as `https://...`, or raises. `None`: addresses are refused.
            limits: What a picture may be; by default as of `Image`.

        Raises:
            ArgumentTypeError: The folder is no `Path`, or `fetch` cannot be called.
        """
        if folder is not None and not isinstance(folder, Path):
            raise ArgumentTypeError(f"folder is a Path or None, not {type(folder).__name__}; write Path(...)")
        if fetch is not None and not callable(fetch):
            raise ArgumentTypeError(f"fetch is called with an address and returns bytes; it is {type(fetch).__name__}")
        self._folder = folder.expanduser().resolve() if folder is not None else None
        self._fetch = fetch
        self._limits = limits if limits is not None else ImageLimits()

    def __call__(self, uris: Sequence[str | None]) -> list[NDArray[np.uint8] | None]:
        """Load pictures.

        Args:
            uris: Paths of files or, with a fetcher, addresses; `None` stands for a record without a picture.

        Returns:
            Per uri the pixels, uint8 (height, width, 3), or `None`.

        Raises:
            ArgumentError: A picture cannot be loaded, with its index. There is never anything in its place.
            ArgumentTypeError: A uri is no string, with its index.
        """
        return [None if uri is None else self._load(uri, index) for index, uri in enumerate(listed(uris, "uris"))]

    def _load(self, uri: object, index: int) -> NDArray[np.uint8]:
        if not isinstance(uri, str):
            raise ArgumentTypeError(f"uris[{index}] is {type(uri).__name__}; it must be a string or None", index=index)
        try:
            return Image(self._source(uri), limits=self._limits).pixels
        except ArgumentError as error:
            raise ArgumentError(f"uris[{index}]: {error}", index=index) from error

    def _source(self, uri: str) -> bytes | Path:
        if (address := _ADDRESS.match(uri)) is not None:
            if self._fetch is None:
                # Without the rest: addresses may hold a password or a signature.
                raise ArgumentError(
                    f"an address ({address[1].lower()}:...) is not fetched; save the picture and give its path, or "
                    "make the loader with fetch="
                )
            return self._fetch(uri)
        if uri.replace("\\", "/").startswith("//"):
            # Windows would ask another machine for it, with the user's name.
            raise ArgumentError(f"{uri[:200]!r} is on another machine; copy the picture and give its path here")
        try:
            path = (self._folder or Path()) / uri
            found = path.resolve(strict=True)
            regular = stat.S_ISREG(found.stat().st_mode)
        except (OSError, ValueError, RuntimeError) as error:
            raise ArgumentError(f"{uri[:200]!r} is no file that can be read ({type(error).__name__})") from error
        if self._folder is not None and not found.is_relative_to(self._folder):
            raise ArgumentError(f"{uri[:200]!r} is not in the folder of this loader; copy the picture there")
        if not regular:
            raise ArgumentError(f"{uri[:200]!r} is no regular file; give the path of a picture")
        return found
