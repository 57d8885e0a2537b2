"""What `embrief doctor` says about a configuration: each model in it, what is wrong, and what has no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embrief.config import environment
from embrief.config.process import find_config, load_config, use_config
from embrief.errors import ConfigError, EmbriefError

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.config.schema import Config


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
    problems: list[str] = []
    try:
        environment.native()
    except EmbriefError as error:
        # It would be what is wrong with every model.
        return {
            **found,
            "file": config.file or None,
            "notes": [*found["notes"], *config.notes],
            "problems": [str(error)],
        }
    models = _models(config, problems)
    _defaults(config, problems)
    return {
        "file": config.file or None,
        "models": models,
        "notes": [*found["notes"], *config.notes],
        "problems": problems,
    }


def _models(config: Config, problems: list[str]) -> list[dict[str, Any]]:
    from embrief.registry import Registry

    rows = []
    with Registry(config) as registry:
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


def _defaults(config: Config, problems: list[str]) -> None:
    """Note what is wrong with the models where none is named, and with where recorded models run."""
    from embrief.config.names import default_name, meaning
    from embrief.discovery.plugins import plugins
    from embrief.facts.specs import EmbeddingSpec, RerankerSpec

    for kind in (EmbeddingSpec, RerankerSpec):
        try:
            name = default_name(kind, config)
            if name not in config.models:
                meaning(name, kind, config)
        except EmbriefError as error:
            problems.append(f"the model where none is named: {error}")
    for model in config.runs:
        try:
            spec = plugins().catalog.models[model]
            meaning(model, RerankerSpec if isinstance(spec, RerankerSpec) else EmbeddingSpec, config)
        except EmbriefError as error:
            problems.append(str(error))
