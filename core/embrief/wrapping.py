"""For authors of wrappers: the constructor keywords that every wrapper takes, the facade behind them, plain floats."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from embrief.discovery.plugins import plugins
from embrief.errors import (
    ArgumentError,
    ArgumentTypeError,
    IndexedError,
    MissingDependencyError,
    PartlyStoredError,
    WrongKindError,
)
from embrief.facades import arguments, synonyms
from embrief.facades.arguments import content, count, inputs, listed, no_images, positive, texts, titles, unicode
from embrief.facades.embedder import Embedder
from embrief.facades.facade import VIEWED
from embrief.facades.reranker import Reranker
from embrief.facts.prompts import Input
from embrief.images.given import as_image
from embrief.images.pictured import PicturedText, carried
from embrief.runtimes.base import RuntimeOptions
from embrief.serving.choosing import named
from embrief.serving.jobs import in_short
from embrief.stores import is_kept_backend, kept_backend, stored_backend
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.cache.options import CacheOptions
    from embrief.facts.specs import SpecialTokens, Truncate
    from embrief.facts.vectors import Matrix

__all__ = [
    "EmbedderOptions",
    "Input",
    "PicturedText",
    "RerankerOptions",
    "as_image",
    "ato_lists",
    "carried",
    "changed",
    "choose_facade",
    "content",
    "count",
    "inputs",
    "is_configured_only",
    "listed",
    "meant",
    "missing_framework",
    "no_images",
    "plain_number",
    "positive",
    "recorded_id",
    "storing",
    "text_of",
    "texts",
    "titles",
    "to_lists",
    "unicode",
    "written_backend",
]

F = TypeVar("F", Embedder, Reranker)
_BLOCK = 256


class RerankerOptions(TypedDict, total=False):
    """Keywords of a reranker's constructor, without the model; `Reranker` says what they mean."""

    backend: str | RuntimeOptions | None
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
    max_pixels: int | None
    special_tokens: SpecialTokens | None


class EmbedderOptions(RerankerOptions, total=False):
    """Keywords of an embedder's constructor, without the model; `Embedder` says what they mean."""

    dim: int | None
    task: str | None
    normalize: bool
    cache: str | CacheOptions | Literal[False] | None


def choose_facade(
    kind: type[F],
    given: F | None,
    model: str | Path | None,
    options: Mapping[str, Any],
    *,
    default: Any,
    owner: str,
    other: str | None = None,
    field: str = "model",
    also: Iterable[str] = (),
) -> F:
    """Return the facade that a wrapper was given, or make one of its options. Loads nothing.

    Args:
        kind: `Embedder` or `Reranker`.
        given: A facade that exists, if the caller passed one.
        model: The model, if the caller named one.
        options: The other keywords the caller gave, with no others among them; `backend` may be as `written_backend`
            gives it.
        default: The model of a wrapper that was given none; anything but a name if it stands for none.
        owner: Name of the wrapper's class, for messages.
        other: What takes a model of the other kind in this framework, with `{model}` in the place of the model; for
            the message about such a model. By default it names the class of embrief's own.
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
        takes = [keyword, field, *known, *also]
        raise ArgumentTypeError(
            f"{owner} has no option {', '.join(unknown)}; it takes {', '.join(takes)}"
            f"{meant(unknown, takes, called={'model': field})}"
        )
    if given is None:
        name = default if model is None else model
        if model is None and (not isinstance(default, str) or not default):
            raise ArgumentError(
                f"{owner} stands for no model of its own; name one with {field}=, or use a class that has a default"
            )
        if is_kept_backend(written := options.get("backend")):
            options = {**options, "backend": stored_backend(written, where=owner)}
        try:
            return kind(name, **options)
        except WrongKindError as error:
            if other is None:
                raise
            raise error.using(other.replace("{model}", repr(str(name)))) from None
    if not isinstance(given, kind):
        raise ArgumentTypeError(
            f"{keyword} is an embrief.{kind.__name__}, not {type(given).__name__}; a name or folder goes to {field}="
        )
    if extra := [*([field] if model is not None else []), *options]:
        raise ArgumentError(
            f"{keyword}= has its own options; leave out {', '.join(extra)}, or give them to the {kind.__name__}"
        )
    return given


def changed(
    facade: Embedder | Reranker, changes: Mapping[str, Any]
) -> tuple[Embedder | Reranker | None, dict[str, Any]]:
    """Apply changed options of a wrapper to its facade, as far as the loaded model stays as it is.

    Args:
        facade: What is behind the wrapper.
        changes: Options of the wrapper by their names, its own among them.

    Returns:
        The facade, and the options that are left for the constructor: the wrapper's own, beside the facade. `None` for
        the facade if it has to be made anew of all options: another model, runtime or device is asked for, and it was
        made by name. One that was not, such as a fallback or a model that a configuration declares, is never `None`;
        the constructor refuses what it cannot change.

    Raises:
        ArgumentError: A value cannot work with this model.
        ArgumentTypeError: A value has the wrong type.
    """
    names: set[str] = {*facade.settings.values()}
    here = {name: value for name, value in changes.items() if name in VIEWED and name in names}
    left = {name: value for name, value in changes.items() if name not in here}
    by_name = type(facade) in (Embedder, Reranker) and facade._shared.choice.declared is None
    if by_name and left.keys() & {*names, "model_name"}:
        return None, left
    return facade.with_settings(**here), left


def meant(unknown: Iterable[str], takes: Collection[str], *, called: Mapping[str, str]) -> str:
    """Return the end of a message about unknown keywords: what those of other libraries are called here.

    Args:
        unknown: The keywords.
        takes: The keywords there are.
        called: Those of the facades that have another name in this wrapper.
    """
    return "".join(f". {hint}" for hint in synonyms.hints(unknown, takes, called=called))


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


def written_backend(backend: str | RuntimeOptions | None) -> str | dict[str, Any] | None:
    """Return what a wrapper writes down of `backend=`; `choose_facade` takes it back.

    It is the runtime's name, and where options decide the vector space, these beside it. Where the model runs is for
    each machine to say.
    """
    if not isinstance(backend, RuntimeOptions):
        return backend
    return kept_backend(backend) or named(plugins().catalog, backend).name


def is_configured_only(embedder: Embedder) -> bool:
    """Return whether nothing but this process's configuration says what a model is, so that no store can keep it."""
    return embedder._shared.choice.declared is not None


def recorded_id(model: str) -> str:
    """Return the id of a recorded model that is called by an alias, and every other name as it is."""
    spec = plugins().catalog.find_model(model)
    return model if spec is None else spec.id


def plain_number(value: object) -> object:
    """Return numpy's whole numbers as `int`, and everything else as it is: for pydantic, which judges it."""
    return value if isinstance(value, bool) or not isinstance(value, Integral) else int(value)


def text_of(value: Input) -> str | None:
    """Return what a store keeps as the text of an input: its texts, one to a line; `None` if it has pictures only."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        value = value.get("text") or ()
        if isinstance(value, str):
            return value
    parts = value if isinstance(value, (list, tuple)) else ()
    return "\n".join(part for part in parts if isinstance(part, str)) or None


def to_lists(vectors: Matrix) -> list[list[float]]:
    """Return vectors as lists of Python floats, for frameworks that take no arrays.

    Block by block: numpy lets no other thread run, an event loop's neither, while it converts an array.
    """
    return [row for start in range(0, len(vectors), _BLOCK) for row in vectors[start : start + _BLOCK].tolist()]


async def ato_lists(embedder: Embedder, vectors: Matrix) -> list[list[float]]:
    """`to_lists` on a thread of the embedder's."""
    return await embedder.off_loop(partial(to_lists, vectors))


@contextmanager
def storing(ids: Sequence[Any], start: int, *, where: str) -> Iterator[None]:
    """Say of a batch that fails what has been stored before it. For whoever embeds and stores a list in batches.

    Args:
        ids: The ids of all texts of the call, as stored.
        start: Index of the batch's first text.
        where: Name of the store, for the message.

    Raises:
        PartlyStoredError: The batch failed and batches before it are stored. An error in the first one passes as it is.
    """
    try:
        yield
    except Exception as error:
        index = None
        if isinstance(error, IndexedError):
            error.place(range(start, len(ids)))
            index = error.index
        if not start:
            raise
        raise PartlyStoredError(
            f"{_so_far(ids, start, where)}, and the batch from text {start} on failed: {in_short(error)}. Put that "
            f"right and go on with the texts from {start} on, and what belongs to them; or store all again with the "
            "same ids, which replaces what is there",
            index=index,
            ids=ids[:start],
        ) from error
    except BaseException as error:
        # Interrupted or cancelled, which must stay what it is.
        if start:
            error.add_note(f"({_so_far(ids, start, where)}; go on with the texts from {start} on)")
        raise


def _so_far(ids: Sequence[Any], start: int, where: str) -> str:
    return f"{start} of {len(ids)} texts are stored in {where} (ids {ids[0]!r} to {ids[start - 1]!r})"
