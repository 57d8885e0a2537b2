"""What is around a run of an embedder: its progress, and errors in the caller's words."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np

from embrief.errors import BackendError, IndexedError
from embrief.facades.progress import Progress, progress_bar

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray


class Run:
    """Around a run: the progress bar, and errors with the caller's index instead of the index among distinct texts."""

    def __init__(self, progress: bool, order: NDArray[np.int64], start: int) -> None:
        self._order, self._start = order, start
        self._bar = progress_bar(int(order.max(initial=-1)) + 1) if progress else nullcontext(Progress())
        self._shown = Progress()

    def advance(self, count: int) -> None:
        """Note that texts are done."""
        self._shown.advance(count)

    def __enter__(self) -> None:
        self._shown = self._bar.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)
        first = np.unique(self._order, return_index=True)[1] + self._start
        if isinstance(error, IndexedError):
            error.place(first.tolist())
        if isinstance(error, BackendError) and error.answered is not None:
            end = self._start + len(self._order)
            error.tell(int(first[error.answered]) if error.answered < len(first) else end, end)
