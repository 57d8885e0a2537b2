"""Which pictures hold their pixels: those used last, so that each is decoded once and memory does not fill."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embrief.images.image import Image

MAX_BYTES = 256 * 1024 * 1024
"""Of the pixels that are held."""

_used: OrderedDict[int, tuple[weakref.ref[Image], int]] = OrderedDict()
_lock = threading.Lock()


def note(image: Image, size: int) -> None:
    """Note that an image is used and holds `size` bytes; let go of the pixels of those used longest ago."""
    with _lock:
        _used[id(image)] = weakref.ref(image), size
        _used.move_to_end(id(image))
        for key in [key for key, (known, _) in _used.items() if known() is None]:
            del _used[key]
        held = sum(size for _, size in _used.values())
        while held > MAX_BYTES and len(_used) > 1:
            known, bytes_held = _used.popitem(last=False)[1]
            held -= bytes_held
            if (oldest := known()) is not None:
                oldest.let_go()
