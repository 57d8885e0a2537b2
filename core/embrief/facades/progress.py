"""A progress bar on stderr, with nothing shown where none is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from embrief.errors import BackendError, IndexedError

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray


class Progress:
    """Counts finished texts, and shows nothing."""

    def advance(self, count: int) -> None:
        """Note that `count` more texts are done."""


@contextmanager
def progress_bar(total: int | None, what: str = "Embedding") -> Iterator[Progress]:
    """Show a bar on stderr while the block runs; without a total it only counts."""
    # Inside the function: rich takes a while to import, and most calls show no bar.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True)) as rich_progress:
        task = rich_progress.add_task(what, total=total)

        class Shown(Progress):
            def advance(self, count: int) -> None:
                rich_progress.advance(task, count)

        yield Shown()


def bar_of(texts: object, progress: bool) -> AbstractContextManager[Progress]:
    """Return a bar for so many texts, where they can be counted; one that shows nothing unless it is wanted."""
    if not progress:
        return nullcontext(Progress())
    return progress_bar(len(texts) if isinstance(texts, Sized) else None)


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
