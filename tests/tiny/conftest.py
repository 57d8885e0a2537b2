"""What the tiny family is measured on: the third of the standard library that its training never saw."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from embrief import plugins
from embrief.evaluation import RetrievalSet
from embrief.facts.specs import EmbeddingSpec, RerankerSpec

RECIPE = Path(__file__).parents[2] / "examples" / "train_tiny"


@pytest.fixture(scope="session")
def held_out() -> dict[str, RetrievalSet]:
    """The sets by name; the recipe decides what was held out."""
    pytest.importorskip("ir_measures")
    there = set(sys.modules)
    sys.path.insert(0, str(RECIPE))
    try:
        sets = importlib.import_module("held_out").sets()
    finally:
        sys.path.remove(str(RECIPE))
        for name in set(sys.modules) - there:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == RECIPE:
                del sys.modules[name]
    return {found.name: found for found in sets}


@pytest.fixture(scope="session")
def embedding() -> EmbeddingSpec:
    spec = plugins().catalog.models["embrief/tiny-embedding"]
    assert isinstance(spec, EmbeddingSpec)
    return spec


@pytest.fixture(scope="session")
def reranking() -> RerankerSpec:
    spec = plugins().catalog.models["embrief/tiny-reranker"]
    assert isinstance(spec, RerankerSpec)
    return spec
