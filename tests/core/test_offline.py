"""Which models the commands use where nobody names one."""

from __future__ import annotations

import pytest

from embrief import plugins
from embrief.config.offline import OfflineModels, offline_models
from embrief.facts.records import LEXICAL_MODEL, TINY_EMBEDDING, TINY_RERANKER
from embrief.runtimes import base
from embrief.serving.choosing import to_fetch

NEEDED = ("torch", "tokenizers", "safetensors")


def test_the_tiny_models_where_the_engine_is_installed() -> None:
    assert offline_models() == OfflineModels(TINY_EMBEDDING, TINY_RERANKER, ())


@pytest.mark.parametrize("hidden", [[name] for name in NEEDED] + [list(NEEDED)], ids="+".join)
def test_the_lexical_model_where_a_part_of_it_is_missing(hidden: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "is_installed", lambda name: name not in hidden)
    assert offline_models() == OfflineModels(LEXICAL_MODEL, None, tuple(hidden))


def test_no_other_runtime_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "is_installed", lambda name: name in NEEDED)
    assert offline_models().missing == ()


def test_they_need_no_download() -> None:
    catalog = plugins().catalog
    for name in (LEXICAL_MODEL, TINY_EMBEDDING, TINY_RERANKER):
        assert to_fetch(catalog, catalog.models[name]) is None
