"""Every error of the library: one tree, and each also derives from the builtin a caller would catch.

A message says what is wrong, the offending value, and the remedy. Texts that users embed never appear in a message:
only their index, so that logs stay free of content.
"""

from __future__ import annotations

import sys
import warnings

_OWN_PACKAGES = ("embrief.", "llama_index_embrief", "langchain_embrief", "chroma_embrief", "qdrant_embrief")


class EmbriefError(Exception):
    """Base of all errors that this library raises on purpose."""


class ArgumentError(EmbriefError, ValueError):
    """An argument has a value that cannot work. Raised before any work starts.

    Attributes:
        index: Position of the offending item, where the argument was a list.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class ArgumentTypeError(EmbriefError, TypeError):
    """An argument has the wrong type, for example one string where a list of strings belongs.

    Attributes:
        index: Position of the offending item, where the argument was a list.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


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


class WeightsUnavailableError(EmbriefError, FileNotFoundError):
    """The weights are not on this machine and could not be fetched."""


class GatedModelError(EmbriefError, PermissionError):
    """The model needs an accepted licence and a token (HTTP 401 or 403)."""


class NotEnoughSpaceError(EmbriefError, OSError):
    """The disk that holds the cache has less room than the download needs."""


class MissingDependencyError(EmbriefError, ImportError):
    """An optional package is needed and not installed; the message holds the command that installs it."""


class UnsupportedVersionError(EmbriefError, ImportError):
    """An optional package is installed in a version this library cannot work with."""


class BackendError(EmbriefError, RuntimeError):
    """A runtime failed, or no runtime can serve the model."""


class NonFiniteVectorError(BackendError, ArithmeticError):
    """The model returned NaN or infinity.

    Attributes:
        index: Position of the first text whose vector or score is not finite.
    """

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


class ItemFailedError(BackendError):
    """The runtime failed on one text or pair; its own error is the cause.

    Attributes:
        index: Position of the text in the call.
    """

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


class OutOfMemoryError(ItemFailedError, MemoryError):
    """There is not enough memory for one text or pair, even alone.

    Attributes:
        index: Position of the text in the call.
        tokens: Its length in tokens.
    """

    def __init__(self, message: str, *, index: int, tokens: int) -> None:
        super().__init__(message, index=index)
        self.tokens = tokens


class ClosedError(EmbriefError, RuntimeError):
    """The facade was closed and then used."""


class SpaceMismatchError(EmbriefError, ValueError):
    """Vectors of one space meet vectors of another; comparing them would be meaningless."""


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


class PluginError(EmbriefError, RuntimeError):
    """A plugin used the library while plugins were being loaded, which cannot work."""


class PluginWarning(UserWarning):
    """A plugin could not be loaded; everything else works."""
