"""The ids of vector spaces are a storage format: these were written by the first release and can never change.

Those of folders: test_folder_goldens.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embrief import Embedder, EmbeddingSpec, plugins
from embrief.stores import stamp

# A changed id orphans every stored collection. New records and widths are added here; a line is only ever changed
# together with the record's revision.
GOLDEN: dict[str, str] = json.loads(Path(__file__).with_name("space_ids.json").read_text("utf-8"))
RECORDED = [
    spec for spec in map(plugins().catalog.find_model, plugins().catalog.models) if isinstance(spec, EmbeddingSpec)
]


def variants(spec: EmbeddingSpec) -> list[dict[str, Any]]:
    """Every task, the widths that people use, and vectors that are not normalised."""
    widths = [width for width in (32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 2560) if width in spec.mrl]
    tasks = [task.name for task in spec.prompts.tasks]
    return [
        {},
        {"normalize": False},
        *({"task": task} for task in tasks),
        *({"dim": width} for width in widths),
        *({"task": task, "dim": width} for task in tasks[1:] for width in widths[:1]),
    ]


def line(model: str, options: dict[str, Any]) -> str:
    return ", ".join([model, *(f"{name}={value!r}" for name, value in options.items())])


@pytest.mark.parametrize("spec", RECORDED, ids=lambda spec: spec.id)
@pytest.mark.filterwarnings("ignore::embrief.LicenseWarning")
def test_the_ids_of_recorded_models_stay(spec: EmbeddingSpec, facade_of: Callable[..., Embedder]) -> None:
    now = {line(spec.id, options): facade_of(spec, **options).space.id for options in variants(spec)}
    assert now == {name: GOLDEN.get(name) for name in now}


def test_no_id_is_forgotten() -> None:
    """A record that is gone takes its collections with it."""
    lines = {line(spec.id, options) for spec in RECORDED for options in variants(spec)}
    assert set(GOLDEN) == lines


def test_what_stores_keep_stays() -> None:
    assert stamp(Embedder("google/embeddinggemma-300m").space) == {
        "embrief_space": (
            '{"dim": 768, "document_prompt": "title: none | text: ", "id": "es1-7795646c0642e542a0711a86731f2f09", '
            '"label": "", "lexical": false, "model": "google/embeddinggemma-300m", "normalize": true, '
            '"pooling": "mean", "weights": "64614b0b8b64f0c6c1e52b07e4e9a4e8fe4d2da2"}'
        )
    }
