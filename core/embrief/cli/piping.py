"""Lines in, answers out, block by block: the part that `embrief embed` and `embrief rerank` have in common."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from embrief.cli.items import FORMS, STDIN, Item, Keys, all_files, check_all, read_items
from embrief.cli.rows import FORMATS, Row, ended_in_order, writer
from embrief.errors import ArgumentError, EmbriefError, IndexedError
from embrief.facades.progress import Progress, progress_bar

BLOCK_BYTES = 64 << 20
"""Of the lines of a block; a picture counts as no less than a sixty-fourth of it, since its pixels are needed too."""
GONE = 141
"""What a shell says of a program whose reader went: 128 and the number of SIGPIPE."""

Files = Annotated[
    list[Path] | None, typer.Argument(metavar="[FILE]...", help="Files, one after the other; none or -: stdin.")
]
Input = Annotated[
    str,
    typer.Option("--input", help="What a line is: text, jsonl, or auto: by the file's name, else by its first line."),
]
Format = Annotated[str, typer.Option("--format", help="jsonl, or npy, which needs a file.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to write; stdout unless given.")]
OnError = Annotated[
    str, typer.Option("--on-error", help="stop at a line that cannot be used, or skip it and end with 1.")
]
Batch = Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Lines that are read before any is answered.")]
Answer = Callable[[Sequence[Item]], list[Row]]


def one_of(option: str, value: str, known: Sequence[str]) -> str:
    """Return the value of an option that has a few.

    Raises:
        ArgumentError: It is none of them.
    """
    if value not in known:
        raise ArgumentError(f"{option} {value!r} is not known; use one of {', '.join(known)}")
    return value


class Pipe:
    """What is read and where answers go, checked before a model is loaded.

    Args:
        files: The inputs; none: stdin.
        form: What a line is.
        format: What is written.
        out: Where, if not to stdout.
        on_error: What to do about a line that cannot be used.
        batch: Lines per block.
        keys: Which keys of a JSON object count.

    Raises:
        ArgumentError: An option or, where everything can be read beforehand, a line cannot be used.
    """

    def __init__(
        self,
        files: list[Path] | None,
        form: str,
        format: str,
        out: Path | None,
        on_error: str,
        batch: int,
        keys: Keys,
    ) -> None:
        self._sources = [path if path == STDIN else path.expanduser() for path in files or [STDIN]]
        if self._sources.count(STDIN) > 1:
            raise ArgumentError("stdin (-) is named twice; it can be read once")
        self._form = one_of("--input", form, FORMS)
        self._format = one_of("--format", format, FORMATS)
        self._stops = one_of("--on-error", on_error, ("stop", "skip")) == "stop"
        self._out = None if out is None else out.expanduser()
        self._batch = batch
        self._keys = keys
        if self._out is not None and any(_same(self._out, source) for source in self._sources):
            raise ArgumentError(f"--out {self._out} is one of the files that are read; name another")
        self._total: int | None = None
        if self._stops and all_files(self._sources):
            self._total = check_all(self._sources, form, keys)

    def run(self, answer: Answer, key: str, width: int | None) -> None:
        """Answer all lines.

        Args:
            answer: Returns a row per item, or raises an `IndexedError` for one of them.
            key: What the numbers are called in JSON.
            width: Numbers per row; `None`: one, not a list.

        Raises:
            ArgumentError, IndexedError: A line cannot be used, and `on_error` is `"stop"`. What stands before it has
                been written.
            typer.Exit: Lines were skipped (1), or nobody reads any more (141).
            KeyboardInterrupt: Somebody interrupted it; typer makes 130 of that.
        """
        skipped = count = 0
        try:
            with ended_in_order(), writer(self._format, self._out, key, width) as rows, self._progress() as bar:
                items = read_items(self._sources, self._form, self._keys)
                while block := _block(items, self._batch):
                    for found in self._answered(block, answer):
                        rows.write(found)
                        skipped += sum(row.error is not None for row in found)
                    count += len(block)
                    bar.advance(len(block))
        except OSError as error:
            if isinstance(error, EmbriefError):
                raise
            # Windows has another word for a pipe that nobody reads.
            if self._out is None and error.errno in (errno.EPIPE, errno.EINVAL):
                raise typer.Exit(GONE) from None
            raise ArgumentError(f"{self._out or 'stdout'}: cannot be written ({error.strerror})") from error
        if skipped:
            typer.echo(f"{skipped:,} of {count:,} lines could not be used", err=True)
            raise typer.Exit(1)

    def _answered(self, block: Sequence[Item], answer: Answer) -> Iterator[list[Row]]:
        """Yield the rows of a block, in order; those before a line that ends everything too."""
        start = 0
        for place, item in enumerate(block):
            if item.error is not None:
                yield from self._without_faults(block[start:place], answer)
                yield [self._failed(item, item.error)]
                start = place + 1
        yield from self._without_faults(block[start:], answer)

    def _without_faults(self, items: Sequence[Item], answer: Answer) -> Iterator[list[Row]]:
        while items:
            try:
                found = answer(items)
            except IndexedError as error:
                if error.index is None or not 0 <= error.index < len(items):
                    raise
                place = error.index
                item = items[place]
                error.index = item.index
                # Whatever stands before it may hold another one, which was not come to.
                yield from self._without_faults(items[:place], answer)
                yield [self._failed(item, str(error))]
                items = items[place + 1 :]
            else:
                yield found
                return

    def _failed(self, item: Item, error: str) -> Row:
        message = f"{item.place}: {error}"
        if self._stops:
            raise ArgumentError(message)
        return Row(item, None, error=message)

    def _progress(self) -> AbstractContextManager[Progress]:
        # Beside lines on the same terminal a bar would only be in the way.
        shown = sys.stderr.isatty() and (self._out is not None or not sys.stdout.isatty())
        return progress_bar(self._total, "Lines") if shown else nullcontext(Progress())


def _block(items: Iterator[Item], most: int) -> list[Item]:
    """Return the next items: so many at most, and not too many bytes of pictures."""
    block: list[Item] = []
    held = 0
    for item in islice(items, most):
        block.append(item)
        held += item.size + item.pictures * (BLOCK_BYTES // 64)
        if held >= BLOCK_BYTES:
            break
    return block


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
