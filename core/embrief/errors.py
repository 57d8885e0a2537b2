"""Every error of the library: one tree, and each also derives from the builtin a caller would catch.

A message says what is wrong, the offending value, and the remedy. Texts that users embed never appear in a message:
only their index, so that logs stay free of content.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_OWN_PACKAGES = ("embrief.", "llama_index_embrief", "langchain_embrief", "chroma_embrief", "qdrant_embrief")


class EmbriefError(Exception):
    """Base of all errors that come out of this library."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own calls the constructor with the message alone; a pool of processes would hang on the rest.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[EmbriefError], args: tuple[Any, ...], state: dict[str, Any]) -> EmbriefError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class IndexedError(EmbriefError):
    """An error that may be about one item of a list.

    Whoever counts from elsewhere, such as the caller of a batch, sets `index`, and the sentence says the new number:
    it is built from what stands before and behind the number in the message. Nothing else in it is ever changed, so
    that the words of a runtime, which may hold equal numbers, stay as they are.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        self._index = index
        # "index 3" or "texts[3]"; without either the sentence does not depend on the index.
        found = None if index is None else re.search(rf"(?:\bindex |\[)({index})\b", message)
        self._around = (message[: found.start(1)], message[found.end(1) :]) if found else None
        super().__init__(message)

    @property
    def index(self) -> int | None:
        """Position of the offending item, where the argument was a list."""
        return self._index

    @index.setter
    def index(self, index: int) -> None:
        self._index = index
        if self._around is not None:
            self.args = (f"{self._around[0]}{index}{self._around[1]}",)

    def place(self, places: Sequence[int]) -> None:
        """Take the index that the item has for the caller, for whom item `i` is at `places[i]`."""
        if self.index is not None and self.index < len(places):
            self.index = places[self.index]


@contextmanager
def placed(places: Sequence[int]) -> Iterator[None]:
    """Give an error about one item the caller's index: item `i` is at `places[i]` in the caller's list."""
    try:
        yield
    except IndexedError as error:
        error.place(places)
        raise


class ArgumentError(IndexedError, ValueError):
    """An argument has a value that cannot work. Raised before any work starts."""


class ArgumentTypeError(IndexedError, TypeError):
    """An argument has the wrong type, for example one string where a list of strings belongs."""


class ConfigError(ArgumentError):
    """A configuration cannot be used; what is wrong is said with file, line and column.

    Attributes:
        problems: One sentence for each thing that is wrong, in the order of the file.
        file: The file that was read; empty where it could not be, or where none was.
    """

    def __init__(self, *problems: str, file: str = "") -> None:
        self.problems, self.file = problems, file
        if len(problems) == 1:
            super().__init__(problems[0])
        else:
            where = f"the configuration {file}" if file else "the configuration"
            super().__init__("\n  ".join([f"{where} has {len(problems)} problems:", *problems]))


class InputTooLongError(ArgumentError):
    """A text has more tokens than the model may see, and truncation is not allowed for it.

    Attributes:
        index: Position of the text in the call.
        tokens: Its length in tokens, special tokens included.
        limit: The number of tokens allowed.
    """

    def __init__(self, message: str, *, index: int, tokens: int, limit: int) -> None:
        super().__init__(message, index=index)
        self.tokens = tokens
        self.limit = limit


class UnknownModelError(EmbriefError, LookupError):
    """No record has this name, and it is not a folder either."""

    def __str__(self) -> str:
        # LookupError's subclasses print a repr in some tools; keep the plain sentence.
        return str(self.args[0]) if self.args else ""


class AmbiguousModelError(EmbriefError, ValueError):
    """The files of a model fit more than one kind of model; the message names the keyword that settles it."""


class ModelMismatchError(EmbriefError, ValueError):
    """The files of a model contradict its record, or the model is of another kind than the one asked for."""


class WrongKindError(ModelMismatchError, ArgumentError):
    """The model is a reranker where an embedding model belongs, or the other way round."""

    def __init__(self, problem: str, *, use: str | None = None) -> None:
        self._problem = problem
        super().__init__(problem if use is None else f"{problem}; use {use}")

    def using(self, use: str) -> WrongKindError:
        """Return the error with the remedy in the words of a framework."""
        return type(self)(self._problem, use=use)


class WeightsUnavailableError(EmbriefError, FileNotFoundError):
    """The weights are not on this machine and could not be fetched."""


class GatedModelError(EmbriefError, PermissionError):
    """The model needs an accepted licence and a token (HTTP 401 or 403)."""


class NotEnoughSpaceError(EmbriefError, OSError):
    """The disk that holds the cache has less room than the download needs."""


class UnreadableFileError(EmbriefError, OSError):
    """A file that was to be indexed says nothing that can be read; the message has its name and the remedy.

    Attributes:
        reason: Why, in a few words that many such files can be counted by: "damaged", "encrypted", "no text".
    """

    reason = "unreadable"

    def because(self, reason: str) -> UnreadableFileError:
        """Return the error with a reason."""
        # Not the constructor's: an OSError that has one of its own is pickled without its message.
        self.reason = reason
        return self


class MissingDependencyError(EmbriefError, ImportError):
    """An optional package is needed and not installed; the message holds the command that installs it."""


class UnsupportedVersionError(EmbriefError, ImportError):
    """An optional package is installed in a version this library cannot work with."""


class BackendError(EmbriefError, RuntimeError):
    """A runtime failed, or no runtime can serve the model.

    Attributes:
        answered: Of a call to a server: how many texts had been answered, counted from the first one on without a gap;
            `None` where that was not counted.
    """

    answered: int | None = None
    _plain: str | None = None

    def tell(self, answered: int, count: int) -> None:
        """Say how much of a call had been answered when it failed. Who calls again may go on from there.

        Args:
            answered: The number of texts from the first one on.
            count: The number of all texts.
        """
        self.answered = answered
        if isinstance(self, IndexedError):
            # Its sentence is built around the index, which says as much.
            return
        if self._plain is None:
            self._plain = str(self.args[0])
        self.args = (f"{self._plain}; the first {answered} of {count} texts had been answered",)


class ServerError(BackendError):
    """A server does not answer a call, or not all of it."""


class EndpointError(ServerError):
    """A server has no such route, or refuses whatever is sent there: an address or an option is wrong."""


class UnavailableError(ConnectionError, ServerError):
    """A server cannot be reached, or does not answer in time."""


class RateLimitedError(ServerError):
    """A server takes no more for now.

    Attributes:
        retry_after: Seconds after which it says that it will, `None` if it does not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnauthorizedError(PermissionError, ServerError):
    """A server refuses the key, or none was given."""


class BadAnswerError(BackendError):
    """A server's answer is none to what was asked: too few vectors, one twice, another width than it had before."""


class RuntimeFileError(OSError, BackendError):
    """A runtime could not read or write a file; its own error is the cause."""

    # OSError first: of two builtin bases, Python makes and restores the one with fields of its own.


class RuntimeMemoryError(BackendError, MemoryError):
    """There is not enough memory to load a model or to run it whole; the runtime's own error is the cause."""


class NonFiniteVectorError(IndexedError, BackendError, ArithmeticError):
    """The model returned NaN or infinity; `index` is the first text whose vector or score is not finite."""


class ItemFailedError(IndexedError, BackendError):
    """The runtime failed on one text or pair; its own error is the cause."""


class OutOfMemoryError(ItemFailedError, MemoryError):
    """There is not enough memory for one text or pair, even alone.

    Attributes:
        index: Position of the text in the call.
        tokens: Its length in tokens.
    """

    def __init__(self, message: str, *, index: int, tokens: int) -> None:
        super().__init__(message, index=index)
        self.tokens = tokens


class PartlyStoredError(IndexedError, RuntimeError):
    """Storing a list of texts failed half-way: the first of them are stored. The failure itself is the cause.

    Attributes:
        index: Position of the text at fault, where the cause names one.
        stored: How many texts are stored for certain, from the first on. The batch that failed may be there too.
        ids: Their ids, as stored.
    """

    def __init__(self, message: str, *, index: int | None = None, ids: Sequence[Any] = ()) -> None:
        super().__init__(message, index=index)
        self.ids = list(ids)

    @property
    def stored(self) -> int:
        """Return how many texts are stored for certain."""
        return len(self.ids)


class ClosedError(EmbriefError, RuntimeError):
    """The facade was closed and then used."""


class LocalProcessError(EmbriefError, RuntimeError):
    """The process that holds models open cannot be started, or what is in its place must not be trusted."""


class SpaceMismatchError(EmbriefError, ValueError):
    """Vectors of one space meet vectors of another; comparing them would be meaningless."""


class StoreError(EmbriefError, RuntimeError):
    """A store could not be opened, read or written; its own error is the cause."""


class StoreInUseError(StoreError):
    """A store in a folder is open in another process."""


class NewerFormatError(ArgumentError):
    """Something stored was written by a newer release of embrief and holds what this one does not know: upgrade."""


class DuplicateNameError(EmbriefError, ValueError):
    """A plugin registered a name that is already taken."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line of the caller's code that led here, however many of this library's frames lie between."""
    level, frame = 2, sys._getframe(1)
    while (outer := frame.f_back) is not None and frame.f_globals.get("__name__", "").startswith(_OWN_PACKAGES):
        level, frame = level + 1, outer
    warnings.warn(message, category, stacklevel=level)


class TruncationWarning(UserWarning):
    """A text was longer than the model's limit and its end was cut off."""


class ServerModelWarning(UserWarning):
    """A server serves something that may be another model than the one asked for."""


class DegradedAnswerError(BackendError):
    """Only a member of another vector space could answer, and its vectors must not get among those of this one."""


class UnprobedWarning(UserWarning):
    """A member of a fallback answers that was compared with nothing."""


class LicenseWarning(UserWarning):
    """The licence of a model forbids commercial use. Once per model and process."""


class PrecisionWarning(UserWarning):
    """A store is used with a runtime that keeps less than 8 bits of a weight. Once per model, runtime and format."""


class CacheWarning(UserWarning):
    """The cache of embeddings cannot be read or written; everything is computed instead."""


class PluginError(EmbriefError, RuntimeError):
    """A plugin used the library while plugins were being loaded, which cannot work."""


class PluginWarning(UserWarning):
    """A plugin could not be loaded; everything else works."""
