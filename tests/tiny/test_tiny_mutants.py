"""Retrieval quality guards the pipeline: a wrong pooling, prompt or cut costs measurable nDCG, or is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Reranker, plugins
from embrief.errors import ModelMismatchError
from embrief.evaluation import RetrievalSet, difference, rerank, score
from embrief.evaluation.search import search
from embrief.facts.specs import EmbeddingSpec, ModelSpec, RerankerSpec
from embrief.facts.vectors import Matrix

pytestmark = pytest.mark.slow
Vectors = tuple[Matrix, Matrix]
WIDTH = 32


@contextmanager
def registered(spec: ModelSpec) -> Iterator[str]:
    """Give a changed record a name of its own for a while."""
    catalog = plugins().catalog
    changed = replace(spec, id="test/mutant", aliases=())
    catalog.add_model(changed)
    try:
        yield changed.id
    finally:
        catalog.remove("", [changed.id])


def quality(found: RetrievalSet, vectors: Vectors) -> dict[str, float]:
    """Return nDCG@10 of each question, ranked by the inner product, as a store would."""
    names = list(found.corpus)
    places = search(vectors[0], vectors[1], 10)
    ranking = {query: [names[place] for place in row] for query, row in zip(found.queries, places, strict=True)}
    return score(ranking, found.judgements)["nDCG@10"]


def worse(before: dict[str, float], after: dict[str, float], record: Callable[[str, object], None]) -> float:
    """Return how much is lost, and require that it is no accident."""
    gain = difference(before, after)
    record("nDCG@10", f"{np.mean(list(before.values())):.3f} -> {np.mean(list(after.values())):.3f}, p = {gain.p:.4f}")
    assert gain.p < 0.01, f"nDCG@10 changes by {gain.mean:+.4f} only (p = {gain.p:.3f})"
    assert gain.mean < 0
    return -gain.mean


def tiny(**options: object) -> Embedder:
    return Embedder("embrief/tiny-embedding", dtype="float32", truncate="silent", device="cpu", **options)


def embedded(model: str, found: RetrievalSet) -> Vectors:
    with Embedder(model, dtype="float32", truncate="silent", device="cpu") as embedder:
        queries = embedder.embed_queries(list(found.queries.values()))
        return queries, embedder.embed_documents(list(found.corpus.values()))


@pytest.fixture(scope="module")
def docs(held_out: dict[str, RetrievalSet]) -> RetrievalSet:
    return held_out["stdlib"]


@pytest.fixture(scope="module")
def right(docs: RetrievalSet) -> Vectors:
    return embedded("embrief/tiny-embedding", docs)


@pytest.fixture(scope="module")
def before(docs: RetrievalSet, right: Vectors) -> dict[str, float]:
    return quality(docs, right)


@pytest.fixture
def changed(embedding: EmbeddingSpec, tmp_path: Path) -> Path:
    """A copy of the model's folder."""
    assert embedding.folder is not None
    return Path(shutil.copytree(embedding.folder, tmp_path / "changed"))


def edit(file: Path, change: Callable[[dict[str, object]], None]) -> None:
    content = json.loads(file.read_text("utf-8"))
    change(content)
    file.write_text(json.dumps(content), "utf-8")


def test_mean_pooling(changed, embedding, docs, before, record_property):
    def pool(config):
        config.update(pooling_mode_lasttoken=False, pooling_mode_mean_tokens=True)

    edit(changed / "1_Pooling" / "config.json", pool)
    with registered(replace(embedding, folder=changed)) as name, pytest.raises(ModelMismatchError, match="pool"):
        Embedder(name).load()
    with registered(replace(embedding, folder=changed, pooling="mean")) as name:
        assert worse(before, quality(docs, embedded(name, docs)), record_property) > 0.1


def test_no_end_token(changed, embedding, docs, before, record_property):
    edit(changed / "tokenizer.json", lambda config: config.update(post_processor=None))
    with registered(replace(embedding, folder=changed)) as name, pytest.raises(ModelMismatchError, match="endoftext"):
        Embedder(name).load()
    with registered(replace(embedding, folder=changed, final_token=None)) as name:
        assert worse(before, quality(docs, embedded(name, docs)), record_property) > 0.1


def test_right_padding_without_a_mask(embedding, docs, right, before, record_property):
    """The last column is then the end of the longest text only."""
    import torch
    from tokenizers import Tokenizer
    from transformers import Qwen3Model

    tokenizer = Tokenizer.from_file(str(embedding.folder / "tokenizer.json"))
    model = Qwen3Model.from_pretrained(embedding.folder, dtype=torch.float32)
    rows = [
        [*encoding.ids[:-1][:511], encoding.ids[-1]] for encoding in tokenizer.encode_batch(list(docs.corpus.values()))
    ]
    pad = tokenizer.token_to_id("<|im_end|>")
    found = []
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        width = max(map(len, part))
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in part])
        with torch.no_grad():
            found.append(model(input_ids=ids).last_hidden_state[:, -1])
    documents = torch.nn.functional.normalize(torch.cat(found), dim=-1).numpy()
    assert worse(before, quality(docs, (right[0], documents)), record_property) > 0.03


@pytest.fixture(scope="module")
def told(held_out: dict[str, RetrievalSet]) -> Vectors:
    """Code and documentation of the same functions, where only the prompt's instruction says that code is wanted."""
    found = held_out["stdlib-code"]
    with tiny() as embedder:
        queries = embedder.embed_queries(list(found.queries.values()), instruction=found.instruction)
        return queries, embedder.embed_documents(list(found.corpus.values()))


def test_prompt_missing_on_queries(held_out, told, record_property):
    found = held_out["stdlib-code"]
    with tiny() as embedder:
        untold = embedder.embed_queries(list(found.queries.values()), instruction="")
    assert worse(quality(found, told), quality(found, (untold, told[1])), record_property) > 0.03


def test_prompt_on_documents(held_out, told, record_property):
    found = held_out["stdlib-code"]
    with tiny() as embedder:
        documents = embedder.embed_queries(list(found.corpus.values()), instruction=found.instruction)
    assert worse(quality(found, told), quality(found, (told[0], documents)), record_property) > 0.03


def test_normalised_before_the_cut(docs, right, record_property):
    queries, documents = (vectors[:, :WIDTH] for vectors in right)
    with tiny(dim=WIDTH) as embedder:
        cut = embedder.embed_documents(list(docs.corpus.values()))
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1.0, atol=1e-5)
    assert np.linalg.norm(documents, axis=1).max() < 0.99
    worse(quality(docs, (queries, cut)), quality(docs, (queries, documents)), record_property)


@pytest.fixture(scope="module")
def candidates(held_out: dict[str, RetrievalSet]) -> tuple[RetrievalSet, dict[str, list[str]]]:
    """Sixty questions, and twelve documents of each, the right one among them, in an order that says nothing."""
    found = held_out["stdlib"].first(60)
    names = list(found.corpus)
    order = np.random.default_rng(0)
    ranking = {}
    for query, grades in found.judgements.items():
        others = [name for name in names if name not in grades]
        ranking[query] = sorted([*order.choice(others, 11, replace=False).tolist(), *grades])
    return found, ranking


def judged(model: str, candidates: tuple[RetrievalSet, dict[str, list[str]]]) -> dict[str, float]:
    found, ranking = candidates
    with Reranker(model, dtype="float32", truncate="silent", device="cpu") as judge:
        return score(rerank(judge, found, ranking, 12), found.judgements)["nDCG@10"]


@pytest.fixture(scope="module")
def judged_right(candidates: tuple[RetrievalSet, dict[str, list[str]]]) -> dict[str, float]:
    found = judged("embrief/tiny-reranker", candidates)
    assert np.mean(list(found.values())) > 0.7
    return found


def test_yes_and_no_swapped(reranking: RerankerSpec, candidates, judged_right, record_property):
    with registered(replace(reranking, true_token="no", false_token="yes")) as name:
        assert worse(judged_right, judged(name, candidates), record_property) > 0.3


def test_suffix_cut(reranking: RerankerSpec, candidates, judged_right, record_property):
    """What the model reads is then the end of the document, not the place where it is asked to answer."""
    template = replace(reranking.template, tail="")
    with registered(replace(reranking, template=template)) as name:
        assert worse(judged_right, judged(name, candidates), record_property) > 0.1
