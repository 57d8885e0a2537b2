"""Answers as lines of JSON or as a NumPy file, written so that an end at any moment leaves what can be read."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from embrief.errors import ArgumentError

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from numpy.typing import NDArray

    from embrief.cli.items import Item

FORMATS = ("jsonl", "npy")
TERMINATED = 143
_HEADER = 128
"""Bytes before the numbers: the header of format 1.0 with room for any number of rows."""


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one item."""

    item: Item
    values: NDArray[Any] | None
    """float32, (dim,) or (); `None`: it failed."""
    more: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


class Writer(Protocol):
    """Where rows go."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows, whole."""


@contextmanager
def writer(format: str, out: Path | None, key: str, width: int | None) -> Iterator[Writer]:
    """Open what rows are written to.

    Args:
        format: `"jsonl"` or `"npy"`.
        out: The file; `None`: stdout.
        key: What the numbers are called in JSON.
        width: Numbers per row; `None`: one, not a list.

    Raises:
        ArgumentError: The file cannot be written, or is a pipe and has to be gone back in.
    """
    try:
        file: BinaryIO = sys.stdout.buffer if out is None else out.open("wb")
    except OSError as error:
        raise ArgumentError(f"--out {out}: cannot be written ({error.strerror})") from error
    try:
        if format == "jsonl":
            yield _Lines(file, key, width)
        else:
            if not _is_regular(file):
                raise ArgumentError(
                    "--format npy needs a file, since the number of rows stands at its beginning; give --out FILE"
                )
            yield _Npy(file, width)
    finally:
        if out is not None:
            file.close()


def _is_regular(file: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _write(file: BinaryIO, data: bytes) -> None:
    # Stdout without a buffer (PYTHONUNBUFFERED) takes a part when a signal comes.
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    file.flush()


class _Lines:
    def __init__(self, file: BinaryIO, key: str, width: int | None) -> None:
        self._file = file
        self._key = key
        # Nine digits give back the same float32. This is many times faster than a call per number.
        self._form = "%.9g" if width is None else f"[{','.join(['%.9g'] * width)}]"

    def write(self, rows: Sequence[Row]) -> None:
        lines = []
        for row in rows:
            item = row.item
            head: dict[str, Any] = {"index": item.index}
            if item.id is not None:
                head["id"] = item.id
            if row.values is None:
                lines.append(json.dumps({**head, "error": row.error}))
                continue
            numbers = row.values.tolist()
            shown = self._form % (tuple(numbers) if isinstance(numbers, list) else numbers)
            more = f", {json.dumps(row.more)[1:-1]}" if row.more else ""
            lines.append(f'{json.dumps(head)[:-1]}, "{self._key}": {shown}{more}}}')
        with whole():
            _write(self._file, "".join(f"{line}\n" for line in lines).encode("ascii"))


class _Npy:
    """An array whose header is right after each block: what was written is there, however this ends."""

    def __init__(self, file: BinaryIO, width: int | None) -> None:
        import numpy as np

        self._file = file
        # A file that is appended to begins where it was.
        self._start = file.tell()
        self._width = width
        self._count = 0
        self._missing = np.full(() if width is None else width, np.nan, np.float32)
        self._header()

    def _header(self) -> None:
        shape = f"({self._count},)" if self._width is None else f"({self._count}, {self._width})"
        said = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        head = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
        self._file.seek(self._start)
        _write(self._file, head + said.ljust(_HEADER - 11).encode("ascii") + b"\n")

    def write(self, rows: Sequence[Row]) -> None:
        import numpy as np

        values = [self._missing if row.values is None else row.values for row in rows]
        with whole():
            if values:
                size = 4 * (self._width or 1)
                self._file.seek(self._start + _HEADER + size * self._count)
                _write(self._file, np.stack(values).astype("<f4").tobytes())
                self._count += len(values)
                self._header()
        for row in rows:
            if row.error is not None:
                print(json.dumps({"index": row.item.index, "error": row.error}), file=sys.stderr)


@contextmanager
def whole() -> Iterator[None]:
    """Let signals that end the process wait until the block is done; a second one does not wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            _end(number, frame)
        came.append(number)

    # What is ignored, as behind `nohup`, stays ignored.
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        _end(came[0], None)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, so that what was written is finished."""
    ignored = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGTERM:
        sys.exit(TERMINATED)
    raise KeyboardInterrupt
