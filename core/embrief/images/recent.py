"""Which pictures hold their pixels: those used last, so that each is decoded once and memory does not fill."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embrief.images.image import Image

MAX_BYTES = 256 * 1024 * 1024
"""Of the pixels that are held."""


class Recent:
    """Pictures in the order of their use."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self.reset()

    def reset(self) -> None:
        """Start afresh, in a child process too: a thread of the parent may hold the lock there for ever."""
        self._used: OrderedDict[int, tuple[weakref.ref[Image], int]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        # A picture may end while this thread has the lock, so its end is only written down.
        self._ended: deque[tuple[int, weakref.ref[Image]]] = deque()

    def note(self, image: Image, size: int) -> None:
        """Note that an image is used and holds `size` bytes; let go of the pixels of those used longest ago."""
        with self._lock:
            self._forget_ended()
            key = id(image)
            known, held = self._used.pop(key, (None, 0))
            self._held += size - held
            if known is None or known() is not image:
                known = weakref.ref(image, lambda ref: self._ended.append((key, ref)))
            self._used[key] = known, size
            while self._held > self._max_bytes and len(self._used) > 1:
                _, (oldest, held) = self._used.popitem(last=False)
                self._held -= held
                if (found := oldest()) is not None:
                    found.let_go()

    def _forget_ended(self) -> None:
        while self._ended:
            key, ended = self._ended.popleft()
            # The place in memory may be another picture's by now.
            if key in self._used and self._used[key][0] is ended:
                self._held -= self._used.pop(key)[1]


_recent = Recent()
note = _recent.note
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_recent.reset)
