"""A progress bar on stderr, with nothing shown where none is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext


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
