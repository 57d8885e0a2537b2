"""Checks of what callers pass, shared by both facades. A message holds the value, its place and the remedy."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.specs import EmbeddingSpec, Truncate

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")


def keywords(kind: type) -> list[str]:
    """Return the keywords of a constructor, without the model."""
    parameters = inspect.signature(kind).parameters.values()
    return [item.name for item in parameters if item.kind is item.KEYWORD_ONLY]


def no_unknown(unknown: Mapping[str, object], kind: type) -> None:
    """Refuse keywords that a constructor does not have.

    Raises:
        ArgumentTypeError: There is one; the message names near ones.
    """
    if not unknown:
        return
    name = next(iter(unknown))
    near = difflib.get_close_matches(name, keywords(kind), n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(keywords(kind))}"
    raise ArgumentTypeError(f"{kind.__name__} has no keyword {name!r}; {hint}")


def text(value: object, what: str) -> str:
    """Return `value` if it is one string.

    Raises:
        ArgumentTypeError: It is not.
    """
    if isinstance(value, str):
        _check_unicode(value, what)
        return value
    remedy = "; for several texts there is a method of its own" if isinstance(value, (list, tuple)) else ""
    raise ArgumentTypeError(f"{what} is one string, not {type(value).__name__}{remedy}")


def texts(values: object, what: str) -> list[str]:
    """Return `values` as a list of strings.

    Raises:
        ArgumentTypeError: It is one string, not iterable, or an item is no string (named by its index).
    """
    if isinstance(values, (str, bytes)):
        raise ArgumentTypeError(f"{what} is a list of strings, not one {type(values).__name__}; write [{what[:-1]}]")
    if not isinstance(values, Iterable):
        raise ArgumentTypeError(f"{what} is a list of strings, not {type(values).__name__}")
    items = list(values)
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise ArgumentTypeError(f"{what}[{index}] is {type(item).__name__}; it must be a string", index=index)
        _check_unicode(item, f"{what}[{index}]", index)
    return items


def _check_unicode(value: str, what: str, index: int | None = None) -> None:
    """Refuse lone surrogates, which are no Unicode text and which no tokenizer takes."""
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"{what} holds half a surrogate pair at position {error.start}, so it is no Unicode text; decode it "
            "again, or with errors='replace'",
            index=index,
        ) from None


def flag(value: object, what: str) -> None:
    """Refuse what is neither `True` nor `False`: a string such as "false" would count as true."""
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{what} is True or False, not {value!r}")


def pairs(values: object, what: str) -> list[tuple[str, str]]:
    """Return `values` as a list of pairs of strings.

    Raises:
        ArgumentTypeError: It is no list, or an item is no pair of strings (named by its index).
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ArgumentTypeError(f"{what} is a list of pairs (query, document), not {type(values).__name__}")
    found: list[tuple[str, str]] = []
    for index, pair in enumerate(values):
        match pair:
            case [str(query), str(document)]:
                _check_unicode(query + document, f"{what}[{index}]", index)
                found.append((query, document))
            case _:
                raise ArgumentTypeError(f"{what}[{index}] is no pair (query, document) of strings", index=index)
    return found


def titles(values: Sequence[str | None] | None, count: int) -> list[str | None]:
    """Return one title or `None` per document.

    Raises:
        ArgumentTypeError: It is one string, or an item is neither string nor `None`.
        ArgumentError: There are more or fewer titles than documents.
    """
    if values is None:
        return [None] * count
    if isinstance(values, str):
        raise ArgumentTypeError("titles is a list with one title (or None) per document, not one string")
    items = list(values)
    if len(items) != count:
        raise ArgumentError(f"there are {len(items)} titles for {count} documents; give one each, None for no title")
    for index, item in enumerate(items):
        if item is not None and not isinstance(item, str):
            raise ArgumentTypeError(
                f"titles[{index}] is {type(item).__name__}; it must be a string or None", index=index
            )
    return items


def optional_text(value: object, what: str) -> None:
    """Refuse what is neither a string nor `None`."""
    if value is not None and not isinstance(value, str):
        raise ArgumentTypeError(f"{what} is a string or None, not {type(value).__name__}")


def positive(value: Any, what: str) -> None:
    """Refuse what is neither a positive whole number nor `None`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{what} is a whole number or None, not {value!r}")
    if value < 1:
        raise ArgumentError(f"{what}={value} must be at least 1")


def runtime(device: object, dtype: object, truncate: object) -> None:
    """Check the names of device, number format and truncation."""
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise ArgumentError(f"device={device!r} is not known; use 'auto', 'cpu', 'cuda', 'cuda:<n>' or 'mps'")
    if dtype not in _DTYPES:
        raise ArgumentError(f"dtype={dtype!r} is not known; use one of {', '.join(_DTYPES)}")
    if truncate not in get_args(Truncate):
        raise ArgumentError(f"truncate={truncate!r} is not known; use one of {', '.join(get_args(Truncate))}")


def dim(value: int | None, spec: EmbeddingSpec) -> None:
    """Check that the model's vectors can be cut to this width.

    Raises:
        ArgumentTypeError: It is no whole number.
        ArgumentError: The model was not trained for it.
    """
    positive(value, "dim")
    if value is None or value == spec.dim or value in spec.mrl:
        return
    widths = (
        f"any of {spec.mrl[0]}..{spec.mrl[-1]}"
        if isinstance(spec.mrl, range)
        else f"one of {', '.join(map(str, spec.mrl))}"
        if spec.mrl
        else f"only {spec.dim}, since its vectors cannot be shortened"
    )
    raise ArgumentError(f"dim={value} does not fit {spec.id}: it gives {widths}")
