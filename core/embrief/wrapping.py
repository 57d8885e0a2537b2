"""For authors of wrappers: the constructor keywords that every wrapper takes, the facade behind them, plain floats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from embrief import arguments
from embrief.embedder import Embedder
from embrief.errors import ArgumentError, ArgumentTypeError, MissingDependencyError
from embrief.installed import install_command
from embrief.reranker import Reranker

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.specs import Truncate
    from embrief.vectors import Matrix

F = TypeVar("F", Embedder, Reranker)
_BLOCK = 256


class RerankerOptions(TypedDict, total=False):
    """Keywords of a reranker's constructor, without the model; `Reranker` says what they mean."""

    backend: str | None
    revision: str | None
    instruction: str | None
    device: str
    dtype: str
    max_tokens: int | None
    truncate: Truncate
    batch_tokens: int | None
    cache_dir: str | Path | None
    local_files_only: bool
    trust_remote_code: bool
    like: str | None


class EmbedderOptions(RerankerOptions, total=False):
    """Keywords of an embedder's constructor, without the model; `Embedder` says what they mean."""

    dim: int | None
    task: str | None
    normalize: bool


def choose_facade(
    kind: type[F],
    given: F | None,
    model: str | Path | None,
    options: Mapping[str, Any],
    *,
    default: str,
    owner: str,
    field: str = "model",
    also: Iterable[str] = (),
) -> F:
    """Return the facade that a wrapper was given, or make one of its options. Loads nothing.

    Args:
        kind: `Embedder` or `Reranker`.
        given: A facade that exists, if the caller passed one.
        model: The model, if the caller named one.
        options: The other keywords the caller gave, with no others among them.
        default: The model of a wrapper that was given none.
        owner: Name of the wrapper's class, for messages.
        field: The wrapper's keyword for the model.
        also: The wrapper's own keywords, for the message that lists what it takes.

    Raises:
        ArgumentTypeError: There is no such option, or `given` is something else.
        ArgumentError: A facade and options that it would ignore were both given; or a value cannot work.
        UnknownModelError: No model has this name.
    """
    keyword = kind.__name__.lower()
    known: list[str] = arguments.keywords(kind)
    if unknown := sorted(options.keys() - set(known)):
        takes = ", ".join([keyword, field, *known, *also])
        hint = f". The model is {field}= here" if {"model", "model_name"} & set(unknown) else ""
        raise ArgumentTypeError(f"{owner} has no option {', '.join(unknown)}; it takes {takes}{hint}")
    if given is None:
        return kind(default if model is None else model, **options)
    if not isinstance(given, kind):
        raise ArgumentTypeError(
            f"{keyword} is an embrief.{kind.__name__}, not {type(given).__name__}; a name or folder goes to {field}="
        )
    if extra := [*([field] if model is not None else []), *options]:
        raise ArgumentError(
            f"{keyword}= has its own options; leave out {', '.join(extra)}, or give them to the {kind.__name__}"
        )
    return given


def missing_framework(package: str, framework: str, *, extra: str, error: ImportError) -> MissingDependencyError:
    """Return the error for a wrapper whose framework cannot be imported.

    Args:
        package: Import name of the wrapper.
        framework: What it needs, by the name that pip knows.
        extra: The extra of this distribution that brings it.
        error: What importing it raised.
    """
    return MissingDependencyError(
        f"{package} needs {framework}, which cannot be imported ({error}): {install_command(extra)}"
    )


def to_lists(vectors: Matrix) -> list[list[float]]:
    """Return vectors as lists of Python floats, for frameworks that take no arrays.

    Block by block: numpy lets no other thread run, an event loop's neither, while it converts an array.
    """
    return [row for start in range(0, len(vectors), _BLOCK) for row in vectors[start : start + _BLOCK].tolist()]


async def ato_lists(embedder: Embedder, vectors: Matrix) -> list[list[float]]:
    """`to_lists` on a thread of the embedder's."""
    return await embedder.off_loop(partial(to_lists, vectors))
