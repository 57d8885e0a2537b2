"""The configuration that a collection keeps: a closed storage format, checked before it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match

from embrief import (
    ArgumentError,
    Embedder,
    ModelMismatchError,
    NewerFormatError,
    VectorSpace,
    WeightsUnavailableError,
    plugins,
)
from embrief.stores import kept_backend, refuse_server, require_same, stored_backend, stored_model
from embrief.wrapping import is_configured_only

VERSION: Final = 1
LOCAL: Final = "local"
_NEWER: Final = ("max_pixels", "special_tokens")
_KEPT: Final = ("dim", "normalize", "task", "instruction", "max_tokens", *_NEWER)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Read at import: Chroma rebuilds a function up to 30 times per call.
_SCHEMA = Draft7Validator(json.loads(files(__package__).joinpath("config.schema.json").read_text("utf-8")))


def validate(config: Mapping[str, Any], name: str) -> None:
    """Refuse a persisted configuration that is not exactly of our format.

    Args:
        config: What the collection holds. Whoever can write to the database can put anything there.
        name: The function's registered name, for the message.

    Raises:
        NewerFormatError: A newer release wrote it.
        ArgumentError: A key is unknown or missing, or a value cannot be.
    """
    failed = f"Config validation failed for schema '{name}'"
    if (error := best_match(_SCHEMA.iter_errors(config))) is not None:
        path = "/".join(str(part) for part in error.absolute_path)
        message = f"{failed}: {error.message}" + (f" at path '{path}'" if path else "")
        version = config.get("version") if isinstance(config, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise NewerFormatError(f"{message}; it was written by a newer release of embrief, so upgrade")
        raise ArgumentError(message)
    try:
        stored_space(config)
    except ArgumentError as damaged:
        raise type(damaged)(f"{failed}: {damaged}") from damaged


def to_config(embedder: Embedder) -> dict[str, Any]:
    """Return what a collection must keep to embed queries as this embedder does. Loads nothing.

    A folder's small files are read. For the constructor: Chroma stores a collection whose function cannot be
    described as "legacy", without a word.

    Raises:
        ArgumentError: The model is not pinned, or is known to a configuration alone.
        WeightsUnavailableError: The folder has no weights.
    """
    settings = embedder.settings
    if is_configured_only(embedder):
        raise ArgumentError(
            f"a collection cannot keep a model of a configuration, and {settings.model!r} is one: nothing is recorded "
            "of it that another program could go by; embed yourself, and hand Chroma the vectors (embeddings=)"
        )
    record = plugins().catalog.resolve(settings.model, pinned=settings.revision is not None)
    config: dict[str, Any] = {
        "version": VERSION,
        "model": settings.model,
        "revision": settings.revision,
        "like": None,
        "dim": settings.dim,
        "normalize": settings.normalize,
        "task": settings.task,
        "instruction": settings.instruction,
        "max_tokens": settings.max_tokens,
        "space": None,
        # Newer than the others, so left out where nothing is said: what an earlier release can do, it goes on opening.
        **{name: value for name in _NEWER if (value := getattr(settings, name)) is not None},
        **({} if (backend := kept_backend(settings.backend)) is None else {"backend": backend}),
    }
    if isinstance(record, Path):
        return {**config, "model": LOCAL, "dim": embedder.dim, "space": _space_json(embedder.space)}
    if record is None:
        # Its facts are on the hub; the commit implies the space.
        _require_commit(settings.model, settings.revision)
        return {**config, "like": settings.like}
    revision = embedder.spec.revision
    if revision != record.revision:
        _require_commit(record.id, revision)
    identity = {"model": record.id, "revision": revision, "dim": embedder.dim}
    return {**config, **identity, "space": _space_json(embedder.space)}


def _space_json(space: VectorSpace) -> dict[str, Any]:
    # The label is the folder's name on this machine; it is nobody else's business and no part of the space.
    return replace(space, label="").to_json()


def _require_commit(model: str, revision: str | None) -> None:
    if revision is None or not _COMMIT.fullmatch(revision):
        raise ArgumentError(
            f"a collection keeps {model!r} with its revision, and revision={revision!r} may mean other "
            "weights tomorrow; pass the full commit id, revision='<40 hex digits>'"
        )


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a valid configuration that decides the space: equal parts, equal spaces."""
    return {key: value for key, value in config.items() if key not in ("instruction", "max_tokens")}


def stored_space(config: Mapping[str, Any]) -> VectorSpace | None:
    """Return the space of a valid configuration, `None` for a model whose facts are on the hub."""
    return VectorSpace.from_json(config["space"]) if config["space"] is not None else None


def attach(config: Mapping[str, Any], function: str) -> Embedder:
    """Return the embedder of a valid configuration; equal ones share it for the life of the process.

    Args:
        config: The configuration.
        function: Class name of the embedding function, for messages.

    Raises:
        WeightsUnavailableError: The model was in a folder, and a collection never says where.
        ModelMismatchError: This release has another version of the model.
        SpaceMismatchError: This release or its plugins give the model another space.
        EmbriefError: The model cannot be used here, for example because its runtime is not installed.
    """
    return _attach(json.dumps(config, sort_keys=True), function)


# Chroma drops a rebuilt function after each call: without a reference here each query would load the model.
@lru_cache(maxsize=32)
def _attach(text: str, function: str) -> Embedder:
    config = json.loads(text)
    model, revision = config["model"], config["revision"]
    backend = None
    if (written := config.get("backend")) is not None:
        refuse_server(written, where="the collection")
        backend = stored_backend(written, where="the collection")
    if model == LOCAL:
        kept = [f"{name}={config[name]!r}" for name in _KEPT if config.get(name) is not None]
        kept += [] if backend is None else [f"backend={backend!r}"]
        raise WeightsUnavailableError(
            f"the documents were embedded with a model from a folder (weights {config['space']['weights']}), "
            "and a collection never says where a folder is; when you get the collection, pass "
            f"embedding_function={function}(<the folder>, {', '.join(kept)})"
        )
    record = plugins().catalog.models.get(model)
    # A record's own revision is looked at below.
    stored_model(model, None if record is not None else revision, where="the collection")
    if record is not None and revision != record.revision and not _COMMIT.fullmatch(revision):
        raise ModelMismatchError(
            f"the documents were embedded with version {revision!r} of {model}, and this release of embrief "
            f"has {record.revision!r}; use the release that made them, or embed them into a new collection"
        )
    names = ("revision", "like", *_KEPT)
    embedder = Embedder(model, backend=backend, **{name: config.get(name) for name in names})
    if config["space"] is not None:
        require_same(VectorSpace.from_json(config["space"]), embedder.space, where="the collection")
    return embedder


def release_models() -> None:
    """Let go of the models that reopened collections loaded. A later query loads its model again."""
    _attach.cache_clear()
