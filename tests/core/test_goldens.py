"""Published values of the real models, for those who have the weights: EMBRIEF_REAL_MODELS=1.

Pictures are other people's: EMBRIEF_TEST_IMAGES is a folder with those that the authors' pages show.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Image, Reranker, WeightsUnavailableError

from . import vision_goldens

pytestmark = [
    pytest.mark.real_models,
    pytest.mark.skipif(os.environ.get("EMBRIEF_REAL_MODELS") != "1", reason="needs the published weights"),
]
CASES = (
    "tei:Qwen/Qwen3-Embedding-0.6B", "tei:google/embeddinggemma-300m", "fastembed:qwen3-doc", "fastembed:qwen3-query",
    "fastembed:gemma-doc", "fastembed:gemma-query", "st:qwen3-0.6b", "st:gemma", "card:gemma", "card:qwen3-0.6b",
    "st:reranker-0.6b",
)  # fmt: skip


@pytest.fixture(scope="module")
def goldens(data: Path) -> dict[str, dict]:
    return {case["id"]: case for case in json.loads((data / "goldens" / "goldens.json").read_text("utf-8"))}


@pytest.mark.parametrize("name", CASES)
def test_published_values(name: str, goldens: dict[str, dict]) -> None:
    case = goldens[name]
    dtype = "bfloat16" if "bfloat16" in case.get("dtype", "") else "float32"
    try:
        if case["kind"] == "rerank_logit_diff":
            check_reranker(case, dtype)
        else:
            check_embedder(case, Embedder(case["model"], dtype=dtype))
    except WeightsUnavailableError as error:
        pytest.skip(f"no weights: {error}")


def check_reranker(case: dict, dtype: str) -> None:
    # The published values are of a converted clone of the model, whose template was the canonical one.
    scores = Reranker(case["model"], dtype=dtype, instruction=case["instruction"]).score(
        case["query"], case["documents"]
    )
    np.testing.assert_allclose(scores, case["probabilities"], atol=1e-3)


def check_embedder(case: dict, embedder: Embedder) -> None:
    if case["kind"] == "cosine_matrix":
        assert embedder.render("", role="query") == case["query_prompt"]
        assert embedder.render("", role="document") == case["document_prompt"]
        scores = embedder.embed_queries(case["queries"]) @ embedder.embed_documents(case["documents"]).T
        np.testing.assert_allclose(scores, case["scores"], atol=case.get("atol", 0), rtol=case.get("rtol", 0))
        return
    # The prompt of the case, given or none, is either the query's or the document's.
    prompt = case["prompt"] or ""
    if prompt == embedder.render("", role="document"):
        vectors = embedder.embed_documents(case["texts"])
    else:
        vectors = embedder.embed_queries(case["texts"], instruction=None if prompt else "")
    if case["kind"] == "embedding_first_components":
        np.testing.assert_allclose(vectors[:, : len(case["first"][0])], case["first"], atol=case["atol"])
    else:
        expected = np.array(case["vectors"])
        cosines = (vectors * expected).sum(1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.999


@functools.lru_cache(maxsize=1)
def facade_of(model: str, max_pixels: int | None) -> Embedder | Reranker:
    """Return a model; the last one is kept, since most cases follow one of the same weights."""
    kind = Reranker if "Reranker" in model else Embedder
    return kind(model, max_pixels=max_pixels)


def published_pictures(names: set[str]) -> dict[str, Image]:
    folder = os.environ.get("EMBRIEF_TEST_IMAGES")
    if not folder:
        pytest.skip(f"needs {', '.join(sorted(names))}: EMBRIEF_TEST_IMAGES is the folder that has them")
    found = {name: Path(folder) / name for name in sorted(names)}
    if missing := [name for name, path in found.items() if not path.is_file()]:
        pytest.skip(f"EMBRIEF_TEST_IMAGES has no {', '.join(missing)}")
    return {name: Image(path) for name, path in found.items()}


@pytest.mark.parametrize(
    ("case", "part"),
    [
        pytest.param(case, part, id=f"{case['id']}-{part}")
        for case in vision_goldens.CASES
        for part in vision_goldens.PARTS
        if vision_goldens.chosen(case, part).any()
    ],
)
def test_published_values_of_pictures(case: dict, part: str) -> None:
    images = published_pictures(vision_goldens.pictures_of(case)) if part == "pictures" else {}
    try:
        vision_goldens.check(case, part, facade_of(case["model"], case["max_pixels"]), images)
    except WeightsUnavailableError as error:
        pytest.skip(f"no weights: {error}")
