"""Reading JSON that others wrote: whatever is wrong with a file is one typed error, with the file and the remedy."""

from __future__ import annotations

import functools
import json
import math
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

from embrief.errors import EmbriefError, ModelMismatchError, WeightsUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

P = ParamSpec("P")
T = TypeVar("T")

_REMEDY = "fetch or save the file again"
OTHERWISE = "otherwise run this model with sentence-transformers itself"
"""What else there is to do about a key that nothing here honours."""
_SMALL = 2**24
LARGE = 2**29
"""Bytes that a tokenizer.json may have; those of large vocabularies take 30 MB."""


class JsonObject(dict[str, Any]):
    """A JSON object and the file it is from. Its methods return a value of one type, or `None` for null or no value.

    All of them raise `ModelMismatchError` for a value of another type.
    """

    def __init__(self, values: dict[str, Any], file: Path) -> None:
        super().__init__(values)
        self.file = file

    def text(self, key: str) -> str | None:
        """Return a string, which can be encoded as UTF-8."""
        value = self.get(key)
        if value is not None and (not isinstance(value, str) or not _encodable(value)):
            self.refuse(key, "a string")
        return value

    def flag(self, key: str) -> bool | None:
        """Return true or false."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def count(self, key: str) -> int | None:
        """Return a whole number of at least 0."""
        value = self.get(key)
        if value is not None and (type(value) is not int or value < 0):
            self.refuse(key, "a whole number of at least 0")
        return value

    def number(self, key: str) -> float | None:
        """Return a number."""
        value = self.get(key)
        if value is None:
            return None
        if type(value) not in (int, float) or abs(value) > 1e300:
            self.refuse(key, "a number")
        return float(value)

    def object(self, key: str) -> JsonObject | None:
        """Return an object."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            self.refuse(key, "an object")
        return None if value is None else JsonObject(value, self.file)

    def within(self, key: str) -> JsonObject:
        """Return an object, an empty one for null or no value."""
        return self.object(key) or JsonObject({}, self.file)

    def texts(self, key: str) -> list[str] | None:
        """Return a list of strings."""
        value = self.get(key)
        if value is not None and (
            not isinstance(value, list) or not all(isinstance(item, str) and _encodable(item) for item in value)
        ):
            self.refuse(key, "a list of strings")
        return value

    def refuse(self, key: str, due: str) -> NoReturn:
        """Raise the error for a value that is not what it should be."""
        raise ModelMismatchError(f"{key!r} in {self.file} is {_short(self.get(key))}, not {due}; {_REMEDY}")


def reads_folder(read: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
    """Let a function that reads a folder raise our error where the system refuses: no right, no place, just removed."""

    @functools.wraps(read)
    def reading(folder: Path, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(folder, *args, **kwargs)
        except EmbriefError:
            raise
        except OSError as error:
            problem = f"{error.strerror or error}: {error.filename}" if error.filename else error
            raise WeightsUnavailableError(
                f"{folder} cannot be read ({problem}); give this user the right to read it, and let whatever writes "
                "there end first"
            ) from error

    return reading


def read_json(file: Path, *, limit: int = _SMALL) -> Any:
    """Return what a JSON file holds.

    Args:
        file: The file.
        limit: The bytes it may have.

    Raises:
        WeightsUnavailableError: It is not there, or cannot be read.
        ModelMismatchError: It is not JSON.
    """
    try:
        # Reading from a pipe would wait for ever.
        if not stat.S_ISREG(file.stat().st_mode):
            raise WeightsUnavailableError(f"{file} is not a file; {_REMEDY}")
        with file.open("rb") as stream:
            data = stream.read(limit + 1)
    except WeightsUnavailableError:
        raise
    except OSError as error:
        problem = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise WeightsUnavailableError(f"{file} {problem}; {_REMEDY}") from error
    if len(data) > limit:
        raise ModelMismatchError(f"{file} has more than {limit >> 20} MiB, too many for a file of its name; {_REMEDY}")
    return parse_json(data, str(file))


def parse_json(data: bytes, source: str) -> Any:
    """Return the value of JSON text in UTF-8; every number in it is finite.

    Raises:
        ModelMismatchError: It is something else. The message begins with `source`.
    """
    if not data.strip():
        raise ModelMismatchError(f"{source} is empty; {_REMEDY}")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_finite, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ModelMismatchError(f"{source} is not text in UTF-8 ({error.reason}); {_REMEDY}") from error
    except RecursionError as error:
        raise ModelMismatchError(f"{source} is not a file of its kind: it nests too deeply; {_REMEDY}") from error
    except ValueError as error:
        # A byte order mark is among these, and a whole number with thousands of digits.
        raise ModelMismatchError(f"{source} is not valid JSON ({error}); {_REMEDY}") from error


def read_object(file: Path, *, limit: int = _SMALL) -> JsonObject:
    """Return the object that a JSON file holds.

    Raises:
        WeightsUnavailableError: The file is not there, or cannot be read.
        ModelMismatchError: It holds something else.
    """
    data = read_json(file, limit=limit)
    if not isinstance(data, dict):
        raise ModelMismatchError(f"{file} should hold a JSON object, not {_short(data)}; {_REMEDY}")
    return JsonObject(data, file)


def read_objects(file: Path) -> list[JsonObject]:
    """Return the objects in the list that a JSON file holds.

    Raises:
        WeightsUnavailableError: The file is not there, or cannot be read.
        ModelMismatchError: It holds something else.
    """
    data = read_json(file)
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise ModelMismatchError(f"{file} should hold a list of JSON objects, not {_short(data)}; {_REMEDY}")
    return [JsonObject(item, file) for item in data]


def optional_object(file: Path, *, limit: int = _SMALL) -> JsonObject:
    """Return the object that a JSON file holds, an empty one if the file is not there.

    Raises:
        WeightsUnavailableError: The file cannot be read.
        ModelMismatchError: It holds something else.
    """
    return read_object(file, limit=limit) if file.exists() else JsonObject({}, file)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _encodable(text: str) -> bool:
    """Return whether a string has no lone surrogates, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
