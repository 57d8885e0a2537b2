"""Which models the commands use unless told otherwise: those that come with the package."""

from __future__ import annotations

from dataclasses import dataclass

from embrief import plugins
from embrief.facts.records import LEXICAL_MODEL, TINY_EMBEDDING, TINY_RERANKER


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
