"""The tiny models: what comes with the package, that other libraries read it alike, and what it is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Reranker
from embrief.evaluation import EmbeddingSystem, evaluate
from embrief.evaluation.formats import load
from embrief.facts.specs import EmbeddingSpec, RerankerSpec

PAIRS = [
    ("copy a folder", "Recursively copy a directory tree and return the destination directory."),
    ("copy a folder", "Return the arc tangent of x, in radians."),
    ("who wrote it?", ""),
]


def tiny() -> Embedder:
    return Embedder("embrief/tiny-embedding", dtype="float32", device="cpu", truncate="silent")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_together_at_most_24_mb(embedding: EmbeddingSpec, reranking: RerankerSpec):
    assert size(embedding.folder) + size(reranking.folder) <= 24_000_000


@pytest.mark.parametrize("kind", ["embedding", "reranking"])
def test_records_say_what_the_files_hold(kind, request):
    from safetensors import safe_open

    spec = request.getfixturevalue(kind)
    with safe_open(spec.folder / "model.safetensors", "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - no mapping
    assert sum(int(np.prod(shape)) for shape in shapes) == spec.parameters
    assert (spec.folder / "README.md").read_text("utf-8").startswith("---\nlicense: apache-2.0\n")


def test_vectors_are_those_of_sentence_transformers(embedding: EmbeddingSpec, texts: list[str]):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(embedding.folder), device="cpu", model_kwargs={"dtype": "float32"})
    with Embedder(embedding.id, dtype="float32", device="cpu") as ours:
        for mine, prompt in ((ours.embed_documents(texts), "document"), (ours.embed_queries(texts), "query")):
            cosines = (mine * theirs.encode(texts, prompt_name=prompt)).sum(axis=1)
            assert cosines.min() > 0.999999


def test_scores_are_those_of_transformers(reranking: RerankerSpec):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(reranking.folder)
    model = AutoModelForCausalLM.from_pretrained(reranking.folder, dtype=torch.float32)
    answers = tokenizer.convert_tokens_to_ids(["yes", "no"])
    with Reranker(reranking.id, dtype="float32", device="cpu") as ours:
        expected = []
        for query, document in PAIRS:
            template = reranking.template
            head = template.head.replace("{instruction}", reranking.default_instruction).replace("{query}", query)
            ids = tokenizer(head + document + template.tail, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.no_grad():
                logits = model(ids).logits[0, -1, answers]
            expected.append(float(logits.softmax(dim=-1)[0]))
        np.testing.assert_allclose(ours.score_pairs(PAIRS), expected, atol=1e-5)
    assert expected[0] > 0.5 > expected[1]


def test_an_instruction_changes_what_is_found(held_out):
    """Code and documentation of the same functions: only the instruction says that code is asked for."""
    with tiny() as embedder:
        system = EmbeddingSystem(embedder, "tiny", ("default", "own"))
        off, on = (row["measures"]["nDCG@10"]["mean"] for row in evaluate([held_out["stdlib-code"]], [system]).rows)
    assert on > off + 0.05


def test_better_than_spelling_on_what_it_never_saw(held_out):
    with tiny() as embedder:
        systems = [
            EmbeddingSystem(Embedder("embrief/hash"), "hash"),
            EmbeddingSystem(embedder, "tiny", dims=(64,)),
        ]
        rows = evaluate([held_out["stdlib"]], systems).rows
    lexical, full, short = (row["measures"]["nDCG@10"]["mean"] for row in rows)
    # 1024 values that know every spelling: these docstrings have many words in common with what is asked.
    assert full > lexical + 0.01
    assert short > 0.85 * full


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "least"), [("cranfield", 0.28), ("xquad/xquad.en.json", 0.855), ("cosqa", 0.78), ("humaneval", 0.41)]
)
def test_published_sets(data: Path, folder: str, least: float):
    pytest.importorskip("ir_measures")
    (found,) = load(data / "retrieval" / folder)
    with tiny() as embedder:
        (row,) = evaluate([found], [EmbeddingSystem(embedder, "tiny")]).rows
    assert row["measures"]["nDCG@10"]["mean"] > least
