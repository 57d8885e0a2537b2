"""The guard that every store integration calls: stamp a store with a space, compare, refuse, explain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeGuard

from embrief.discovery.plugins import plugins
from embrief.errors import (
    ArgumentError,
    EmbriefError,
    NewerFormatError,
    PrecisionWarning,
    SpaceMismatchError,
    warn,
)
from embrief.facts.formats import bits, is_coarse
from embrief.facts.space import VectorSpace
from embrief.files.foreign import is_hub_id
from embrief.files.weights import COMMIT
from embrief.runtimes.base import Offer, RuntimeOptions
from embrief.servers.options import ServerOptions
from embrief.serving.choosing import ask_all, named

if TYPE_CHECKING:
    from embrief.facades.embedder import Embedder
    from embrief.runtimes.base import Runtime

KEY = "embrief_space"
"""The metadata key under which a store keeps its space."""
NOTE = "embrief_made_by"
"""The metadata key under which a store keeps a note on what made its vectors: information that decides nothing."""
_RUNTIME = "runtime"
"""The key of the runtime's name, beside its options."""


def stamp(space: VectorSpace) -> dict[str, str]:
    """Return store metadata that names the space. The value is a JSON string: some stores take only scalars."""
    return {KEY: json.dumps(space.to_json(), sort_keys=True)}


def read_stamp(metadata: object, *, where: str) -> VectorSpace | None:
    """Return the space a store is stamped with, `None` for a store without a stamp.

    Args:
        metadata: The store's metadata, a mapping or `None`. Whoever can write to the store can put anything there.
        where: Name of the store, for messages.

    Raises:
        SpaceMismatchError: There is a stamp and it cannot be read.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise unreadable(where, f"it is in metadata of type {type(metadata).__name__}")
    if KEY not in metadata:
        return None
    value = metadata[KEY]
    if not isinstance(value, str):
        raise unreadable(where, f"it is a JSON string, not {type(value).__name__}")
    try:
        return VectorSpace.from_json(json.loads(value))
    except NewerFormatError as error:
        raise SpaceMismatchError(f"{where} has a vector space stamp that this release cannot read: {error}") from error
    except RecursionError as error:
        raise unreadable(where, "it is nested too deeply") from error
    # A number of too many digits is a ValueError, as all that is not JSON.
    except (ValueError, EmbriefError) as error:
        raise unreadable(where, str(error)) from error


@dataclass(frozen=True, slots=True)
class MadeBy:
    """What a note says of the embedder that a store was stamped for."""

    fingerprint: str
    """Its `Embedder.fingerprint`: in one space, vectors of two fingerprints differ by rounding, or by the limit."""
    runtime: str
    dtype: str
    """Its number format, in the runtime's words."""


def note(embedder: Embedder) -> dict[str, str]:
    """Return store metadata that says how an embedder makes document vectors: a JSON string, beside the stamp.

    Chooses the device and number format, and loads nothing. Empty where these cannot be chosen: whoever embeds will
    hear of that, and no store is refused for the lack of a note.
    """
    try:
        info = embedder.info()
        made_by = MadeBy(embedder.fingerprint, info["backend"], info["dtype"])
    except EmbriefError:
        return {}
    return {NOTE: json.dumps(asdict(made_by), sort_keys=True)}


def read_note(metadata: object) -> MadeBy | None:
    """Return the note of a store, `None` where there is none, or none that can be read. It never raises.

    Args:
        metadata: The store's metadata. Whoever can write to the store can put anything there: for people to read, and
            nothing may depend on it.
    """
    value = metadata.get(NOTE) if isinstance(metadata, Mapping) else None
    try:
        found = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    # A newer release may say more.
    said = [text for item in fields(MadeBy) if isinstance(text := found.get(item.name), str)]
    return MadeBy(*said) if len(said) == len(fields(MadeBy)) else None


_told: set[tuple[str, str, str]] = set()
"""Models with runtime and number format that were spoken of in this process."""


def tell_precision(embedder: Embedder) -> None:
    """Warn, once per model, runtime and number format, where a store is used with less than 8 bits of a weight.

    A server's format is not known, and nothing is said of it.
    """
    try:
        info = embedder.info()
    except EmbriefError:
        return
    model, runtime, dtype = key = info["model"], info["backend"], info["dtype"]
    if not is_coarse(dtype) or key in _told:
        return
    _told.add(key)
    warn(
        f"{model} runs with {runtime!r} in {dtype}, which keeps {bits(dtype)} bits of a weight. Its vectors are of the "
        "same space, and differ from those of 8 bits or more so far that another order of results is likely; measure "
        "on your own texts what it still finds (`embrief eval run`), or use a format of at least 8 bits",
        PrecisionWarning,
    )


def unreadable(where: str, why: str) -> SpaceMismatchError:
    """Return the error for a stamp that is there and cannot be read: it never counts as absent.

    Args:
        where: Name of the store.
        why: What is wrong with it.
    """
    return SpaceMismatchError(
        f"{where} has a vector space stamp that cannot be read: {why}. Nothing is known about its vectors: put the "
        "stamp back from a copy or, if you are sure which embedder made them, write that embedder's stamp over it; "
        "otherwise embed the documents again into a new collection"
    )


def stored_model(model: object, revision: object, *, where: str) -> str:
    """Return a model's name as it came back from a store, if it may be used.

    Whoever can write to a store can put anything there. A name may decide nothing but which published weights are used:
    the id of a record, or `owner/name` at a commit. Never a path, an address, an alias, a branch, or options of a
    runtime: where and how a model runs is for this program, and not for the store, to say.

    Args:
        model: What the store says.
        revision: The commit that it says.
        where: Name of the store, for the message.

    Raises:
        ArgumentError: It is something else.
    """
    if isinstance(model, str):
        pinned = isinstance(revision, str) and COMMIT.fullmatch(revision) is not None
        record = plugins().catalog.models.get(model)
        if record is not None and (pinned or revision in (None, record.revision)):
            return model
        if record is None and pinned and is_hub_id(model):
            return model
    raise ArgumentError(
        f"{where} names the model {str(model)[:200]!r} (revision {str(revision)[:80]!r}), and what comes from a store "
        "may only be the id of a recorded model, or 'owner/name' with a full commit id; pass the model yourself"
    )


def refuse_code(trust_remote_code: object, *, where: str) -> None:
    """Refuse what a store says of code that comes with a model: only the program itself may let it run.

    Raises:
        ArgumentError: The store asks for it.
    """
    if trust_remote_code:
        raise ArgumentError(f"{where} asks to run code that comes with the model; pass trust_remote_code=True yourself")


def kept_backend(backend: str | RuntimeOptions | None) -> dict[str, Any] | None:
    """Return what a store keeps of `backend=`: the runtime with the options that decide the vector space.

    `None` where none of them does: where and how a model runs is for each machine to say.
    """
    if not isinstance(backend, RuntimeOptions) or not (kept := backend.kept()):
        return None
    return {_RUNTIME: named(plugins().catalog, backend).name, **kept}


def is_kept_backend(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether a value has the form of `kept_backend`; what it says is for `stored_backend` to judge."""
    return isinstance(value, Mapping) and _RUNTIME in value


def stored_backend(kept: Mapping[str, Any], *, where: str) -> RuntimeOptions:
    """Return the options that `kept_backend` has written down, as they came back from a store.

    Whoever can write to a store can put anything there, so an option decides nothing but the vector space.

    Args:
        kept: What the store says.
        where: Name of the store, for the message.

    Raises:
        ArgumentError: There is no such runtime here, or it keeps no such option, or an option has no such value.
    """
    name = kept.get(_RUNTIME)
    runtime = plugins().catalog.backends.get(name) if isinstance(name, str) else None
    values = {key: value for key, value in kept.items() if key != _RUNTIME}
    if runtime is None or not values or not values.keys() <= {*runtime.Options.OF_THE_SPACE}:
        raise ArgumentError(
            f"{where} names the runtime {str(name)[:80]!r} with {', '.join(str(key)[:80] for key in values) or 'none'} "
            "of its options, and what comes from a store may only be options that decide the vector space, of a "
            "runtime that is installed; pass backend= yourself"
        )
    # What the fields are is for the runtime to say.
    made: Callable[..., RuntimeOptions] = runtime.Options
    return made(**values)


def refuse_server(backend: object, *, where: str) -> None:
    """Refuse what a store says of a runtime that hands texts to a server: only the program itself may name one.

    Args:
        backend: A runtime's name, or what `kept_backend` gave.
        where: Name of the store, for the message.

    Raises:
        ArgumentError: The store names one.
    """
    name = backend.get(_RUNTIME) if isinstance(backend, Mapping) else backend
    runtime = plugins().catalog.backends.get(name) if isinstance(name, str) else None
    if runtime is not None and _asks_a_server(runtime):
        raise ArgumentError(
            f"{where} names the runtime {name!r}, which hands texts to a server, and only this program may say so; "
            "pass backend= yourself"
        )


def _asks_a_server(runtime: Runtime) -> bool:
    if issubclass(runtime.Options, ServerOptions):
        return True
    answers = (ask_all(plugins().catalog, spec).get(runtime) for spec in plugins().catalog.models.values())
    return any(isinstance(answer, Offer) and answer.leaves_machine for answer in answers)


def refuse_cache(cache: object, *, where: str) -> None:
    """Refuse what a store says of a cache: which file of this machine is written is for the program to say.

    Raises:
        ArgumentError: The store names one.
    """
    if cache is not None:
        raise ArgumentError(f"{where} names a cache, which no store decides; pass cache= yourself")


def require_same(stored: VectorSpace | None, space: VectorSpace, *, where: str) -> None:
    """Refuse to mix vectors of two spaces. A store without a stamp is let through: nothing is known about it.

    Raises:
        SpaceMismatchError: The spaces differ; the message lists how, and what to do.
    """
    if stored is None or stored == space:
        return
    raise SpaceMismatchError(
        f"{where} holds vectors of the space {stored.id}, but this embedder makes vectors of {space.id}: "
        f"{'; '.join(stored.differences(space))}. Use an embedder for the stored space, or embed the documents again "
        "into a new collection"
    )


def require_width(width: int, space: VectorSpace, *, where: str) -> None:
    """Refuse a vector of another width than the space's.

    Raises:
        SpaceMismatchError: The widths differ.
    """
    if width != space.dim:
        raise SpaceMismatchError(
            f"{where} holds vectors of the space {space.id}, which have {space.dim} values, and this one has {width}; "
            "embed with the embedder of that space"
        )


def require_each(vectors: Iterable[tuple[object, int]], space: VectorSpace, *, where: str, adopt: bool = False) -> None:
    """Refuse a store that keeps a stamp beside each vector, unless all of them are of one space.

    Args:
        vectors: The metadata and the width of each vector that is there.
        space: The space of those to come.
        where: Name of the store, for messages.
        adopt: Let vectors without a stamp pass: somebody says that they are of this space.

    Raises:
        SpaceMismatchError: A vector is of another space or width, has no stamp, or one that cannot be read.
    """
    own, unknown = stamp(space)[KEY], 0
    for metadata, width in vectors:
        if not isinstance(metadata, Mapping) or metadata.get(KEY) != own:
            stored = read_stamp(metadata, where=where)
            require_same(stored, space, where=where)
            unknown += stored is None
        require_width(width, space, where=where)
    if unknown and not adopt:
        raise SpaceMismatchError(
            f"{where} holds vectors ({unknown} of them) and nothing says which model made them. If you are sure that "
            "it was this embedder, pass adopt=True once, which stamps them; otherwise embed the documents again"
        )
