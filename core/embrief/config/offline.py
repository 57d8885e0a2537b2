"""Which models the faces use unless told otherwise: those that come with the package."""

from __future__ import annotations

from dataclasses import dataclass

from embrief.config.names import named_default
from embrief.discovery.plugins import plugins
from embrief.errors import MissingDependencyError
from embrief.facts.records import LEXICAL_MODEL, TINY_EMBEDDING, TINY_RERANKER
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.system.installed import install_command


@dataclass(frozen=True, slots=True)
class OfflineModels:
    """What runs on this machine without a download."""

    embedding: str
    reranker: str | None
    missing: tuple[str, ...]
    """Import names that the tiny models lack here; with any of them missing, the lexical model stands in."""


def offline_models() -> OfflineModels:
    """Return the tiny models where their runtime is installed, else the lexical one. Imports no runtime."""
    if missing := plugins().catalog.backends["engine"].missing():
        return OfflineModels(LEXICAL_MODEL, None, missing)
    return OfflineModels(TINY_EMBEDDING, TINY_RERANKER, ())


def usual_embedding() -> str:
    """Return the embedding model where a face is told none: the environment's, the configuration's, or an offline one.

    Raises:
        EmbriefError: As of `default_name`.
    """
    return named_default(EmbeddingSpec) or offline_models().embedding


def usual_reranker() -> str:
    """Return the reranker where a face is told none: the environment's, the configuration's, or an offline one.

    Raises:
        MissingDependencyError: None is named, and the offline one's runtime is not installed.
        EmbriefError: As of `default_name`.
    """
    offline = offline_models()
    name = named_default(RerankerSpec) or offline.reranker
    if name is None:
        raise MissingDependencyError(
            f"a reranker needs a runtime: {install_command('torch')} (missing: {', '.join(offline.missing)}); or name "
            "one on a server"
        )
    return name
