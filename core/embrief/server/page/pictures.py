"""Pictures that searches found, drawn small: from the files of a collection alone, and in one format."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from embrief.indexing.picture_files import picture_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embrief.indexing.searching import Hit

KIND = "image/jpeg"
"""Whatever the file is: what is sent was made here."""
SIDE = 512
"""Pixels of the longer side at most."""
_KEPT = 2000
_QUALITY = 85


class FoundPictures:
    """Which pictures searches have found, lately: nobody is shown another file."""

    def __init__(self) -> None:
        """Know none."""
        self._lock = threading.Lock()
        self._hits: OrderedDict[tuple[str, str], Hit] = OrderedDict()

    def note(self, collection: str, hits: Iterable[Hit]) -> None:
        """Note the pictures among hits of a collection, given by its id."""
        with self._lock:
            for hit in hits:
                if hit.is_picture:
                    self._hits[collection, hit.id] = hit
                    self._hits.move_to_end((collection, hit.id))
            while len(self._hits) > _KEPT:
                self._hits.popitem(last=False)

    def find(self, collection: str, passage: str) -> Hit | None:
        """Return the hit of a passage's id, `None` where no search found it lately."""
        with self._lock:
            return self._hits.get((collection, passage))


def thumbnail(hit: Hit) -> bytes | None:
    """Return a picture that was found as a small JPEG, `None` where its file is no longer what was indexed. Blocks.

    Raises:
        MissingDependencyError: A package that reads such files is not installed.
    """
    image = picture_of(hit)
    if image is None:
        return None
    from PIL import Image

    small = Image.fromarray(image.pixels)
    small.thumbnail((SIDE, SIDE))
    made = io.BytesIO()
    small.save(made, "JPEG", quality=_QUALITY)
    return made.getvalue()
