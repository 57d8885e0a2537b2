"""Checks of what callers pass, shared by both facades. A message holds the value, its place and the remedy."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import AsyncIterable, Iterable, Iterator, KeysView, Mapping, Set
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NoReturn, cast, get_args

from embrief.discovery.plugins import plugins
from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.facades import forms, synonyms
from embrief.facts.specs import EmbeddingSpec, SpecialTokens, Truncate
from embrief.images.image import Image
from embrief.runtimes.base import Runtime, RuntimeOptions

if TYPE_CHECKING:
    from embrief.facts.prompts import Content, Input
    from embrief.facts.specs import ModelSpec

_DEVICE = re.compile(r"[a-z_]+|(?!(?:auto|cpu|mps):)[a-z_]+:\d+")
_REVISION = re.compile(r"[\w@+-][\w@+./-]{0,199}", re.ASCII)


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
    raise ArgumentTypeError(f"{kind.__name__} has no keyword {next(iter(unknown))!r}; {_meant(unknown, kind)}")


def _meant(unknown: Mapping[str, object], kind: type) -> str:
    takes = keywords(kind)
    if hints := synonyms.hints(unknown, ["model", *takes]):
        return "; ".join(hints)
    near = difflib.get_close_matches(next(iter(unknown)), takes, n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(takes)}"


def text(value: object, what: str) -> str:
    """Return `value` if it is one string.

    Raises:
        ArgumentTypeError: It is not.
        ArgumentError: It is no Unicode text.
    """
    if isinstance(value, str):
        unicode(value, what)
        return value
    several = not isinstance(value, bytes) and isinstance(value, Iterable) and getattr(value, "ndim", None) != 0
    remedy = "; for several texts there is a method of its own" if several else _string_remedy(value)
    raise ArgumentTypeError(f"{what} is one string, not {type(value).__name__}{remedy}")


def listed(values: object, what: str, of: str = "") -> list[Any]:
    """Return the items of a list, and of all else that `stream` takes."""
    return list(stream(values, what, of))


def stream(values: object, what: str, of: str = "") -> Iterator[Any]:
    """Return an iterator over what has an order of its own: a list, tuple, column, 1-d array, iterator.

    Iterating gives the keys of a mapping, the column names of a table and the lines of a file; a set has no order.

    Args:
        values: What the caller passed.
        what: Name of the argument.
        of: What the items are, in the plural.

    Raises:
        ArgumentTypeError: It is something else; the message has the remedy.
    """
    if (remedy := _not_listed(values, what)) is None:
        return iter(cast("Iterable[Any]", values))
    kind = "one string" if isinstance(values, str) else type(values).__name__
    raise ArgumentTypeError(f"{what} is a list{' of ' + of if of else ''}, not {kind}{remedy}")


def _not_listed(values: object, what: str) -> str | None:
    """Return what to do instead of passing this as a list, `None` if it can be passed."""
    dimensions = getattr(values, "ndim", 1)
    if isinstance(values, (str, bytes, bytearray, memoryview)):
        return f"; write [{what.removesuffix('s')}]"
    if isinstance(values, Mapping):
        return f"; pass list({what}.values()), or list({what}) for its keys"
    if isinstance(values, Set) and not isinstance(values, KeysView):
        return f", whose order is not fixed; pass sorted({what}), or a list"
    if hasattr(values, "readline"):
        return ", an open file; pass its texts, such as file.read().splitlines()"
    if hasattr(values, "columns") or dimensions not in (0, 1):
        return f", a table; pass one of its columns, such as {what}['text']"
    if dimensions == 0:
        return f" without items; pass [{what}.item()]"
    if isinstance(values, AsyncIterable):
        return "; aiter_documents takes an asynchronous stream"
    if isinstance(values, type) or not isinstance(values, Iterable):
        return ""
    return None


def texts(values: object, what: str, *, start: int = 0) -> list[str]:
    """Return `values` as a list of strings.

    Args:
        values: What the caller passed.
        what: Name of the argument.
        start: Index of the first in the caller's own count, for errors.

    Raises:
        ArgumentTypeError: It is no list (see `listed`), or an item is no string (named by its index).
        ArgumentError: An item is no Unicode text.
    """
    items = listed(values, what, "strings")
    for index, item in enumerate(items, start):
        _text_at(item, what, index)
    return items


def _text_at(item: object, what: str, index: int) -> None:
    if not isinstance(item, str):
        raise ArgumentTypeError(
            f"{what}[{index}] is {type(item).__name__}; it must be a string{_string_remedy(item)}", index=index
        )
    unicode(item, f"{what}[{index}]", index)


def inputs(values: object, what: str) -> list[Input]:
    """Return `values` as a list of inputs, in any of their forms. Decodes nothing.

    Whether a model takes them is for `contents` to say: this is for whoever has no model yet.

    Raises:
        ArgumentTypeError: As of `texts`, about what is no input.
        ArgumentError: As of `texts`.
    """
    items = listed(values, what, "strings")
    for index, item in enumerate(items):
        if isinstance(item, str) or forms.parts_of(item) is None:
            _text_at(item, what, index)
    return items


def contents(values: object, what: str, spec: ModelSpec, *, start: int = 0) -> list[Content]:
    """Return inputs as a model takes them: texts, and where it takes images, images and texts in its order.

    Images are decoded. What holds no image is one text: its texts, one behind the other, as a prompt has them.

    Args:
        values: What the caller passed. An item is a text or a mapping with "text" and "image", each of which may be a
            list or missing; for models that take images also an image, or a sequence of texts and images.
        what: Name of the argument.
        spec: The model.
        start: Index of the first in the caller's own count, for errors.

    Raises:
        ArgumentTypeError: As of `texts`; or an item holds an image and the model takes texts only. It has the index.
        ArgumentError: An item is no Unicode text, or an image cannot be read.
    """
    items = listed(values, what, "strings")
    return [content(item, f"{what}[{index}]", spec, index=index) for index, item in enumerate(items, start)]


def content(value: object, what: str, spec: ModelSpec, *, index: int | None = None) -> Content:
    """Return one input as of `contents`; the errors name it by `what`, and by its index if it has one."""
    if isinstance(value, str) and not forms.holds_image(value):
        unicode(value, what, index)
        return value
    parts = forms.parts_of(value)
    if parts is None:
        return _no_input(value, what, spec, index)
    for part in parts:
        if isinstance(part, str):
            unicode(part, what, index)
        elif spec.images is None:
            raise no_images(what, spec, index)
        else:
            try:
                _ = part.digest
            except ArgumentError as error:
                raise ArgumentError(f"{what}: {error}", index=index) from error
    if isinstance(parts[0], Image):
        return parts
    if spec.images is None and not isinstance(value, Mapping):
        # Nearly always a list of lists by mistake, whose vectors would be of no text that anybody has.
        return _no_input(value, what, spec, index)
    return "".join(part for part in parts if isinstance(part, str))


def _no_input(value: object, what: str, spec: ModelSpec, index: int | None) -> NoReturn:
    """Refuse what is no input of this model.

    Raises:
        ArgumentTypeError: It says what is, and what to do with this one.
    """
    told = f"{what} is {type(value).__name__}; it must be"
    if isinstance(value, Mapping) and "video" in value:
        told = f"{what} holds a video, and no model takes videos here; pass single frames of it as images"
    elif spec.images is not None:
        told += " a string, an Image, a sequence of both, or a mapping with 'text' and 'image'"
        told += forms.remedy(value) or _string_remedy(value)
    elif isinstance(value, Mapping):
        told += f" a string, or a mapping with 'text'{forms.remedy(value)}"
    elif index is None:
        text(value, what)
    elif isinstance(value, (list, tuple)) and value:
        told += " a string; give each of its texts a place of its own, or join them"
    else:
        told += f" a string{_string_remedy(value)}"
    raise ArgumentTypeError(told, index=index)


def no_images(what: str, spec: ModelSpec, index: int | None) -> ArgumentTypeError:
    """Return the error about an input with an image, for a model of texts."""
    return ArgumentTypeError(
        f"{what} holds an image, and {spec.id} takes texts only; {model_for_images(spec)}", index=index
    )


def model_for_images(spec: ModelSpec) -> str:
    """Return which model of the same kind takes images, as a part of a message."""
    known = plugins().catalog.models.values()
    able = [other.id for other in known if "image" in other.modalities and isinstance(other, type(spec))]
    remedy = f"one that takes images is {able[0]}" if able else "no registered model takes images"
    if spec.images_unverified is None:
        return remedy
    return (
        f"{remedy}. The authors of {spec.id} do not say where its prompt stands beside one; in Python you can tell an "
        "Embedder: backend=EngineOptions(picture_prompt='none') of embrief.runtimes.engine_options; in a configuration "
        "the line picture_prompt: none does"
    )


def query(value: object, what: str, spec: ModelSpec) -> Content:
    """Return one query as of `content`; a list of texts is one query only for models that take images.

    Raises:
        ArgumentTypeError: It is no input; or it holds an image, and the model takes texts only.
        ArgumentError: It is no Unicode text, or an image cannot be read.
    """
    if forms.could_be_image(value):
        kind = type(value).__name__
        raise ArgumentTypeError(f"{what} is one string, not {kind}; decode a text, and wrap a picture: Image(...)")
    input_like = isinstance(value, (Mapping, Image)) or forms.holds_image(value)
    if input_like or (spec.images is not None and isinstance(value, (list, tuple))):
        return content(value, what, spec)
    return text(value, what)


def _string_remedy(value: object) -> str:
    """Return what to do with this where a string belongs."""
    if _is_missing(value):
        return ", and this is a missing value: leave it out, or put a text there"
    if isinstance(value, (bytes, bytearray)):
        return ", so decode it: value.decode()"
    return "; pass value.item()" if getattr(value, "ndim", None) == 0 else ""


def _is_missing(value: object) -> bool:
    # pandas is not imported here; its markers are known by name, and NaN is the one number that differs from itself.
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant")
        or (isinstance(value, Real) and value != value)
    )


def unicode(value: object, what: str, index: int | None = None) -> None:
    """Refuse lone surrogates in a string, or in any string of JSON-like data: no tokenizer and no store takes them.

    Raises:
        ArgumentError: There is one, and the message has its place; or the data nest too deeply to be stored.
    """
    try:
        _unicode(value, what, index)
    except RecursionError:
        raise ArgumentError(f"{what} nests too deeply to be stored; make it flatter", index=index) from None


def _unicode(value: object, what: str, index: int | None) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _unicode(key, f"a key of {what}", index)
            _unicode(item, f"{what}[{key!r}]", index)
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            _unicode(item, f"{what}[{place}]", index)
    elif isinstance(value, str) and not value.isascii():
        try:
            str.encode(value)  # a text that carries pictures has an `encode` of its own
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


def pairs(values: object, what: str, spec: ModelSpec) -> list[tuple[Content, Content]]:
    """Return `values` as a list of pairs of inputs that the model takes.

    Raises:
        ArgumentTypeError: It is no list, or an item is no pair of them (named by its index).
        ArgumentError: An item is no Unicode text, or an image cannot be read.
    """
    found: list[tuple[Content, Content]] = []
    for index, pair in enumerate(listed(values, what, "pairs (query, document)")):
        match pair:
            case [str(query), str(document)] if not any(map(forms.holds_image, pair)):
                unicode((query, document), f"{what}[{index}]", index)
                found.append((query, document))
            case [query, document] if spec.images is not None or any(map(_has_parts, pair)):
                sides = (content(side, f"{what}[{index}]", spec, index=index) for side in (query, document))
                found.append((next(sides), next(sides)))
            case _:
                raise ArgumentTypeError(f"{what}[{index}] is no pair (query, document) of strings", index=index)
    return found


def _has_parts(side: object) -> bool:
    return isinstance(side, Mapping) or forms.holds_image(side)


def titles(values: object, count: int) -> list[str | None]:
    """Return one title or `None` per document.

    Raises:
        ArgumentTypeError: It is no list, or an item is neither string nor `None`.
        ArgumentError: There are more or fewer titles than documents, or one is no Unicode text.
    """
    if values is None:
        return [None] * count
    items = listed(values, "titles", "one title (or None) per document")
    if len(items) != count:
        raise ArgumentError(f"there are {len(items)} titles for {count} documents; give one each, None for no title")
    for index, item in enumerate(items):
        if item is not None and not isinstance(item, str):
            remedy = "; write None for no title" if _is_missing(item) else ""
            raise ArgumentTypeError(
                f"titles[{index}] is {type(item).__name__}; it must be a string or None{remedy}", index=index
            )
        unicode(item, f"titles[{index}]", index)
    return items


def special_tokens(value: object) -> None:
    """Refuse what says no way to read the names of special tokens."""
    # A string first: an array compares with every item of its own.
    if value is not None and not (isinstance(value, str) and value in get_args(SpecialTokens)):
        raise ArgumentError(
            f"special_tokens={value!r} is not known; use {' or '.join(map(repr, get_args(SpecialTokens)))}"
        )


def image_options(max_pixels: int | None, tokens: str | None, spec: ModelSpec) -> None:
    """Refuse what does not fit a model that takes images, or takes none.

    Raises:
        ArgumentError: The message has the value and the remedy.
    """
    if max_pixels is not None and spec.images is None:
        raise ArgumentError(f"{spec.id} takes texts only, so max_pixels={max_pixels} would do nothing; leave it out")
    if spec.images is None:
        return
    if max_pixels is not None and max_pixels < spec.images.min_pixels:
        raise ArgumentError(
            f"max_pixels={max_pixels} is less than the least area of {spec.id}, {spec.images.min_pixels}"
        )
    if max_pixels is not None and spec.images.areas and max_pixels not in spec.images.areas:
        counts = ", ".join(
            f"{area} ({count})" for area, count in zip(spec.images.areas, spec.images.budgets, strict=True)
        )
        raise ArgumentError(
            f"max_pixels={max_pixels} is not one of the areas that {spec.id} brings pictures to; use one of {counts}, "
            "with as many tokens as in the parentheses"
        )
    if tokens == "parsed":
        raise ArgumentError(
            f"{spec.id} takes images, and a text with the names of its special tokens could forge one; leave "
            "special_tokens='parsed' out"
        )


def optional_text(value: object, what: str) -> None:
    """Refuse what is neither a string nor `None`."""
    if value is not None and not isinstance(value, str):
        raise ArgumentTypeError(f"{what} is a string or None, not {type(value).__name__}{_string_remedy(value)}")
    unicode(value, what)


def revision(value: str | None) -> None:
    """Refuse what no commit, branch or tag is called; it becomes a part of addresses and of paths."""
    if value is not None and (not _REVISION.fullmatch(value) or ".." in value):
        raise ArgumentError(f"revision={value[:80]!r} is no commit id, branch or tag")


def positive(value: object, what: str) -> int | None:
    """Return a positive whole number, numpy's too, as an `int`; or `None`.

    Raises:
        ArgumentTypeError: It is something else; `True` is no number.
        ArgumentError: It is less than 1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ArgumentTypeError(f"{what} is a whole number or None, not {value!r}")
    if value < 1:
        raise ArgumentError(f"{what}={value} must be at least 1")
    return int(value)


def count(value: object, what: str) -> int:
    """Return a positive whole number, numpy's too, as an `int`.

    Raises:
        ArgumentTypeError: It is something else; `True` is no number.
        ArgumentError: It is less than 1.
    """
    if (found := positive(value, what)) is None:
        raise ArgumentTypeError(f"{what} is a whole number, not None")
    return found


def backend(value: object) -> None:
    """Refuse what is neither the name of a runtime nor its options."""
    if not isinstance(value, RuntimeOptions):
        if isinstance(value, type) and issubclass(value, RuntimeOptions):
            raise ArgumentTypeError(
                f"backend is {value.__name__}(...), an instance of a runtime's options, not their class"
            )
        optional_text(value, "backend")


def runtime(device: object, dtype: object, truncate: object, runtimes: Iterable[Runtime]) -> None:
    """Check the names of device, number format and truncation: some runtime must know them."""
    known = list(runtimes)
    devices = dict.fromkeys(name for item in known for name in item.devices)
    dtypes = ["auto", *dict.fromkeys(name for item in known for name in item.dtypes)]
    if isinstance(device, (list, tuple)) or (isinstance(device, str) and "," in device):
        raise ArgumentError(
            f"device={device!r} names several, and a model runs on one; start a process for each, with "
            "device='cuda:<n>', and share the texts out among them"
        )
    if not isinstance(device, str) or not _DEVICE.fullmatch(device) or _kind(device) not in ("auto", *devices):
        names = ["auto", *(form for name in devices for form in ((name, f"{name}:<n>") if name == "cuda" else (name,)))]
        raise ArgumentError(f"device={device!r} is not known; use {_either(names)}")
    # Strings first: a framework's own dtype, or an array, compares in ways of its own.
    if not isinstance(dtype, str) or dtype not in dtypes:
        raise ArgumentError(f"dtype={dtype!r} is not known; use one of {', '.join(map(repr, dtypes))}")
    if not isinstance(truncate, str) or truncate not in get_args(Truncate):
        raise ArgumentError(f"truncate={truncate!r} is not known; use one of {', '.join(get_args(Truncate))}")


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _either(names: list[str]) -> str:
    return f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"


def dim(value: int | None, spec: EmbeddingSpec) -> None:
    """Check that the model's vectors can be cut to this width.

    Raises:
        ArgumentError: The model was not trained for it.
    """
    if value is None or value in (spec.dim, spec.default_dim) or value in spec.mrl:
        return
    widths = (
        f"any of {spec.mrl[0]}..{spec.mrl[-1]}"
        if isinstance(spec.mrl, range)
        else f"one of {', '.join(map(str, spec.mrl))}"
        if spec.mrl
        else f"only {spec.dim}, since its vectors cannot be shortened"
    )
    raise ArgumentError(f"dim={value} does not fit {spec.id}: it gives {widths}")
