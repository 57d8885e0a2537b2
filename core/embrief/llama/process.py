"""The parent's side: starts the process that runs llama.cpp, asks it, and says what happened when it ends."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from contextlib import suppress
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any, Protocol

from embrief.errors import BackendError, MissingDependencyError, ModelMismatchError, RuntimeMemoryError
from embrief.llama.library import Llama, LlamaError
from embrief.llama.protocol import EndedError, receive, send
from embrief.system import exiting

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Sequence

    from embrief.llama.library import Wanted

# -P: what lies in the working directory is none of its modules.
_COMMAND = (sys.executable, "-P", "-m", "embrief.llama.child")
_STARTS = 4
"""Processes that may end one after the other without an answer between them, before no more is started."""
_TAIL = 2000
_PATIENCE = 2.0
"""Seconds that a process gets to end by itself, once nobody can ask it any more."""


class Runner(Protocol):
    """What runs a loaded model, here or in another process."""

    def run(self, rows: Sequence[array[int]]) -> bytes:
        """Return float32 values, `Wanted.width` per row."""

    def close(self) -> None:
        """Free the model."""


class Child:
    """One process, from its start to its end. Not for several threads at once."""

    def __init__(self) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        # Settings of ggml's: with a backtrace it would start a debugger.
        environment = {**os.environ, "GGML_NO_BACKTRACE": "1", "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment
        )

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        return self._process.pid

    def ask(self, words: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Send one request and return the answer.

        Raises:
            EndedError: The process ended; the message says how, with the end of what it wrote.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, words, payload)  # type: ignore[arg-type]
            return receive(self._process.stdout)  # type: ignore[arg-type]
        except (OSError, ValueError, EndedError):
            raise EndedError(self._how_it_ended()) from None

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"with {code}"
        if code < 0:
            with suppress(ValueError):
                how = f"by {signal.Signals(-code).name}"
        hint = "; perhaps the system was short of memory" if code == -9 else ""
        return f"ended {how}{hint}{self.said()}"

    def said(self) -> str:
        """Return the end of what the process wrote, as the end of a message."""
        with suppress(OSError, ValueError):
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(size - _TAIL, 0))
            found = self._log.read().decode("utf-8", "replace").strip()
            return f":\n{found}" if found else ""
        return ""

    def close(self) -> None:
        """End the process: by closing its pipe, and if that does not help, by force."""
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._log.close()

    def leave(self) -> None:
        """Let go of a process that belongs to the parent of this one, after a fork."""
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with suppress(OSError):
                # Not flushed: half a frame may wait in the parent's copy.
                os.close(stream.fileno())  # type: ignore[union-attr]
        # It is no child of this process, so nobody here may wait for it.
        self._process.returncode = 0


class InChild:
    """A model in a process of its own, which is started again after it ended."""

    def __init__(self, wanted: Wanted, label: str, check: Callable[[], None] = lambda: None) -> None:
        """Start the process and load the model.

        Args:
            wanted: What to load.
            label: The model's name, for messages.
            check: Called after every load: raises if the file is not the one that was described.

        Raises:
            ModelMismatchError: llama.cpp does not load the file, or ends over it.
            MissingDependencyError: llama.cpp is not there.
            RuntimeMemoryError: There is not enough memory for it.
        """
        self._wanted = wanted
        self._label = label
        self._check = check
        self._child: Child | None = None
        self._ended = 0
        self._lock = threading.Lock()
        _all.add(self)
        self._start()

    @property
    def pid(self) -> int | None:
        """Return the number of the process, `None` while there is none."""
        return None if self._child is None else self._child.pid

    def _start(self) -> None:
        child = self._child = Child()
        try:
            told, _ = child.ask({"ask": "load", "wanted": asdict(self._wanted)})
            _raise(told, self._label)
            # Also after an abort, hours later: another file of that name would make vectors of another space.
            self._check()
        except EndedError as error:
            self._ended += 1
            self._drop()
            raise ModelMismatchError(
                f"llama.cpp {error}\n(while it loaded {self._label}); fetch or convert the file again"
            ) from None
        except LlamaError as error:
            self._drop()
            raise ModelMismatchError(f"{self._label}: {error}") from None
        except BaseException:
            self._drop()
            raise

    def run(self, rows: Sequence[array[int]]) -> bytes:
        """Return float32 values, `width` per row.

        Raises:
            BackendError: The process ended, or llama.cpp failed. The next call starts another.
            RuntimeMemoryError: There was not enough memory.
        """
        words = {"ask": "run", "lengths": list(map(len, rows))}
        payload = b"".join(row.tobytes() for row in rows)
        with self._lock:
            exiting.stop_between()
            if self._child is None:
                if self._ended >= _STARTS:
                    raise BackendError(
                        f"llama.cpp ended {self._ended} times in a row over {self._label}; nothing more is started. "
                        "Make a new embedder or reranker to try again"
                    )
                self._start()
            assert self._child is not None
            try:
                told, values = self._child.ask(words, payload)
            except EndedError as error:
                self._ended += 1
                self._drop()
                raise BackendError(f"the process that runs {self._label} in llama.cpp {error}") from None
            except BaseException:
                # Between question and answer: the next answer would be this one's.
                self._drop()
                raise
        try:
            _raise(told, self._label)
        except LlamaError as error:
            raise BackendError(f"{self._label}: {error}") from None
        if len(values) != 4 * self._wanted.width * len(rows):
            raise BackendError(
                f"llama.cpp gave {len(values)} bytes for {len(rows)} rows of {self._wanted.width} values"
            )
        self._ended = 0
        return values

    def modules(self) -> list[str]:
        """Return the names of the modules that are imported in the process."""
        assert self._child is not None
        found: list[str] = self._child.ask({"ask": "modules"})[0]["modules"]
        return found

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._drop()

    def after_fork(self) -> None:
        """Forget the parent's process: this one starts its own with its next call."""
        self._lock = threading.Lock()
        child, self._child = self._child, None
        if child is not None:
            child.leave()


class InThisProcess:
    """A model in this process: faster to start, and an abort of llama.cpp ends the program."""

    def __init__(self, wanted: Wanted, label: str, check: Callable[[], None] = lambda: None) -> None:
        """Load the model. Arguments and errors as of `InChild`."""
        self._label = label
        self._lock = threading.Lock()
        try:
            self._llama = Llama(wanted)
        except (LlamaError, ImportError, MemoryError) as error:
            raise _typed(error, label) from error
        try:
            check()
        except BaseException:
            self._llama.close()
            raise

    def run(self, rows: Sequence[array[int]]) -> bytes:
        """Return float32 values. Errors as of `InChild`."""
        with self._lock, exiting.native():
            try:
                return self._llama.run(rows)
            except LlamaError as error:
                raise BackendError(f"{self._label}: {error}") from error

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            self._llama.close()


def can_offload() -> bool:
    """Return whether llama.cpp was built for a GPU here, asked in a process of its own.

    Raises:
        MissingDependencyError: It is not there, or cannot be loaded.
    """
    child = Child()
    try:
        told, _ = child.ask({"ask": "can_offload"})
        _raise(told, "llama.cpp")
        return bool(told["can"])
    except EndedError as error:
        raise MissingDependencyError(f"llama.cpp's library {error}") from None
    except LlamaError as error:
        raise MissingDependencyError(f"llama.cpp's library cannot be loaded: {error}") from None
    finally:
        child.close()


def _raise(told: dict[str, Any], label: str) -> None:
    """Raise what went wrong on the other side, if something did."""
    kind, message = told.get("failed"), str(told.get("message", ""))
    if kind == "llama":
        raise LlamaError(message)
    if kind is not None:
        raise _typed(MemoryError(message) if kind == "memory" else ImportError(message), label)


def _typed(error: BaseException, label: str) -> Exception:
    if isinstance(error, MemoryError):
        return RuntimeMemoryError(f"there is not enough memory for {label}: {error}")
    if isinstance(error, ImportError):
        return MissingDependencyError(f"{label} runs in llama.cpp: {error}")
    return ModelMismatchError(f"{label}: {error}")


_all: weakref.WeakSet[InChild] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End all processes: at the latest, each ends when its pipe is closed with this process."""
    for runner in list(_all):
        with suppress(Exception):
            if runner._lock.acquire(blocking=False):
                runner._drop()


def _after_fork() -> None:
    for runner in list(_all):
        runner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
