"""What `embrief doctor` says about a configuration: each model in it, what is wrong, and what has no effect."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from embrief.config import environment
from embrief.config.process import find_config, load_config, use_config
from embrief.errors import ConfigError, EmbriefError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embrief.config.schema import Config
    from embrief.registry import Registry


def check(path: Path | None) -> dict[str, Any]:
    """Return facts about a configuration, JSON values only. Loads no model.

    Args:
        path: The file; `None`: the one that the environment or the user's folder has.

    Returns:
        The file (`None` where there is none), a row per model, what has no effect, and what is wrong.
    """
    found: dict[str, Any] = {"file": None, "models": [], "notes": environment.unknown_variables(), "problems": []}
    try:
        config = find_config() if path is None else load_config(path)
    except ConfigError as error:
        return {**found, "file": None if path is None else str(path), "problems": list(error.problems)}
    except EmbriefError as error:
        return {**found, "file": None if path is None else str(path), "problems": [str(error)]}
    if path is not None:
        # What else is asked of this command is asked with it.
        use_config(config)
    from embrief.registry import Registry

    found |= {"file": config.file or None, "notes": [*found["notes"], *config.notes]}
    # What is wrong with a variable would be what is wrong with every model.
    if problems := _variables():
        return {**found, "problems": problems}
    with Registry(config) as registry:
        models = _models(registry, config, problems)
        broken = {row["name"] for row in models if row["problem"]}
        _defaults(registry, config, broken, problems)
        for names, make, what in (
            (config.fallback_chain, registry.chain, "fallback_chain"),
            (config.reranker_chain, registry.reranker_chain, "reranker_chain"),
        ):
            if names and not broken & set(names):
                _tried(make, f"{config.file}: {what}", problems)
    _runs(config, problems)
    return {**found, "models": models, "problems": problems}


def _variables() -> list[str]:
    """Return what is wrong with the variables that concern every model."""
    from embrief.facades.configured import device_here

    problems: list[str] = []
    for look in (environment.native, environment.server, device_here):
        _tried(look, "", problems)
    return problems


def _tried(make: Callable[[], object], what: str, problems: list[str]) -> None:
    """Note why something cannot be made, if it cannot."""
    try:
        make()
    except EmbriefError as error:
        problems.append(f"{what}: {error}" if what else str(error))


def _models(registry: Registry, config: Config, problems: list[str]) -> list[dict[str, Any]]:
    rows = []
    for row in registry.list():
        problem = None
        try:
            made = registry.get(row.name) if row.kind == "embedding" else registry.reranker(row.name)
            model = made.settings.model
        except EmbriefError as error:
            entry = config.models[row.name]
            # What the configuration's own checks say has the place already.
            told = isinstance(error, ConfigError)
            problem, model = str(error) if told else f"{entry.where}: {row.name}: {error}", row.model
            problems.append(problem)
        rows.append(
            {
                "name": row.name,
                "kind": row.kind,
                "provider": row.provider,
                "model": model,
                "dim": row.dim,
                "max_tokens": row.max_tokens,
                "problem": problem,
            }
        )
    return rows


def _defaults(registry: Registry, config: Config, broken: set[str], problems: list[str]) -> None:
    """Note what is wrong with the models where none is named, if somebody says which they are."""
    from embrief.config.names import named_default
    from embrief.facts.specs import EmbeddingSpec, RerankerSpec

    for kind, make, what in (
        (EmbeddingSpec, registry.default, "embedding model"),
        (RerankerSpec, registry.reranker, "reranker"),
    ):
        what = f"the {what} where none is named"
        try:
            name = named_default(kind, config)
        except EmbriefError as error:
            problems.append(f"{what}: {error}")
            continue
        if name is not None and name not in broken:
            _tried(make, what, problems)


def _runs(config: Config, problems: list[str]) -> None:
    """Note what is wrong with where recorded models run."""
    from embrief.config.names import meaning
    from embrief.discovery.plugins import plugins
    from embrief.facts.specs import EmbeddingSpec, RerankerSpec

    for model in config.runs:
        kind = RerankerSpec if isinstance(plugins().catalog.models[model], RerankerSpec) else EmbeddingSpec
        _tried(partial(meaning, model, kind, config), "", problems)
