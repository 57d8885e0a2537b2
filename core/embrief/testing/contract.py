"""`check_runtime`: what every runtime must keep."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embrief.errors import ArgumentError
from embrief.facts.prompts import Rendered, RenderedTexts, pair_template
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.runtimes.base import Ask, LoadRequest, Offer, RunOptions, Runtime
from embrief.serving.choosing import Choice
from embrief.serving.jobs import Request
from embrief.serving.lanes import Lane
from embrief.serving.scheduler import Worker
from embrief.testing.faults import check_server

if TYPE_CHECKING:
    from embrief.facts.specs import Kind, ModelSpec
    from embrief.runtimes.base import Model, Output
    from embrief.testing.faults import Wire

PROBES = (
    "short",
    "a longer text with several words in it",
    " leading blank",
    "日本語 and émoji 🙂",
    "short",
    "x" * 500,
)
_CALLERS = 1000


def check_runtime(
    model: Model | Runtime,
    spec: ModelSpec,
    *,
    wire: Wire | None = None,
    folder: str | Path | None = None,
    tolerance: float = 1e-4,
) -> None:
    """Check what every runtime must keep; for the tests of plugin authors.

    Of a loaded model: one finite row of the right shape per input, the same alone as in a batch and in any order;
    equal texts with equal vectors, different ones with different vectors. Of a runtime: the same of what it loads, and
    that a thousand callers at once load it once and each get their own answer. Of a runtime that asks servers: what
    must come of all that can go wrong with one (`Faults`), with servers on this machine that speak as its `Wire` says.

    Args:
        model: The loaded model, or a runtime; one that asks servers must be registered, and `spec` too.
        spec: Its record.
        wire: How the runtime's servers speak; for a runtime that asks servers.
        folder: The model's files, for a runtime that needs some; unless given, those that come with the record.
        tolerance: How far the cosine of two runs of one text may be from 1; for a reranker, a tenth of how far the
            log-odds of two runs of one pair may be apart.

    Raises:
        AssertionError: It does not; the message says what.
        ArgumentError: A runtime does not serve the model, or needs the model's files.
    """
    if isinstance(model, Runtime):
        if wire is not None:
            check_server(wire, spec)
        else:
            _check_loading(model, spec, Path(folder).expanduser() if folder is not None else spec.folder, tolerance)
    elif isinstance(spec, RerankerSpec):
        _check_scores(model, spec, tolerance * 10)
    else:
        assert isinstance(spec, EmbeddingSpec)
        _check_vectors(model, spec, tolerance)


def _check_loading(runtime: Runtime, spec: ModelSpec, folder: Path | None, tolerance: float) -> None:
    ask = Ask(device="cpu", dtype="float32", options=runtime.Options())
    offer = runtime.offer(spec, ask)
    if not isinstance(offer, Offer):
        raise ArgumentError(f"the runtime {runtime.name!r} does not serve {spec.id}: it {offer.reason}")
    if offer.leaves_machine:
        raise ArgumentError(f"the runtime {runtime.name!r} asks a server: give wire=, which tells how servers speak")
    if offer.artifact is not None and folder is None:
        raise ArgumentError(f"{spec.id} is loaded from its files: give the folder that holds them")
    settled = Choice(runtime, ask, offer).settled(spec).offer
    place = folder if settled.artifact is not None else None
    loads: list[Model] = []

    def load() -> Model:
        loads.append(runtime.load(LoadRequest(spec, place, settled.device, settled.dtype, artifact=settled.artifact)))
        return loads[-1]

    worker = Worker(load)
    try:
        asyncio.run(_many_callers(worker, spec, tolerance))
        _require(len(loads) == 1, f"one model to {_CALLERS} callers, not {len(loads)}")
        check_runtime(loads[0], spec, tolerance=tolerance)
    finally:
        worker.close()


async def _many_callers(worker: Worker, spec: ModelSpec, tolerance: float) -> None:
    """Ask for a few different texts very often, before the model is loaded."""
    kind: Kind = "score" if isinstance(spec, RerankerSpec) else "dense"
    options = RunOptions(max_tokens=spec.max_tokens, kinds=(kind,))
    items = probe_pairs(spec) if isinstance(spec, RerankerSpec) else [Rendered("", text) for text in PROBES]
    # Short ones: it is their number that counts.
    items = items[:4]
    lane = Lane()

    async def ask(number: int) -> Output:
        return await worker.arun(Request([items[number % len(items)]], options), lambda output: output, lane)

    outputs = await asyncio.gather(*map(ask, range(_CALLERS)))
    rows = np.array([output.array(kind)[0] for output in outputs])
    for place in range(len(items)):
        same = rows[place :: len(items)]
        near = np.abs(same - same[0]).max() if kind == "score" else 1 - min(_cosine(row, same[0]) for row in same)
        _require(bool(near < tolerance * 10), f"each of {_CALLERS} callers its own answer (text {place})")


def _check_vectors(model: Model, spec: EmbeddingSpec, tolerance: float) -> None:
    options = RunOptions(max_tokens=spec.max_tokens, kinds=("dense",))
    texts = [Rendered("", text) for text in PROBES]
    output = model.run(texts, options)
    vectors = output.array("dense")
    _require(vectors.shape == (len(texts), spec.dim), f"vectors of shape {(len(texts), spec.dim)}, not {vectors.shape}")
    _require(set(output.values) == {"dense"}, "what was asked for ('dense') and no other kind")
    _require(bool(np.isfinite(vectors).all()), "finite vectors")
    told = [facts for facts in (output.token_counts, output.truncated) if facts is not None]
    _require(all(len(facts) == len(texts) for facts in told), "one count and one flag per text, or None")
    _require(_cosine(vectors[0], vectors[4]) > 1 - tolerance, "equal texts with equal vectors")
    _require(_cosine(vectors[0], vectors[3]) < 1 - tolerance, "different texts with different vectors")
    shuffled = model.run(texts[::-1], options).array("dense")
    for row, text in enumerate(texts):
        alone = model.run([text], options).array("dense")[0]
        _require(_cosine(vectors[row], alone) > 1 - tolerance, f"batch equal to single (text {row})")
        other = shuffled[len(texts) - 1 - row]
        _require(_cosine(vectors[row], other) > 1 - tolerance, f"results in input order (text {row})")


def _check_scores(model: Model, spec: RerankerSpec, tolerance: float) -> None:
    options = RunOptions(max_tokens=spec.max_tokens, kinds=("score",))
    pairs = probe_pairs(spec)
    logits = model.run(pairs, options).array("score")
    _require(logits.shape == (len(pairs),), f"scores of shape {(len(pairs),)}, not {logits.shape}")
    _require(bool(np.isfinite(logits).all()), "finite scores")
    for row, pair in enumerate(pairs):
        alone = model.run([pair], options).array("score")[0]
        _require(abs(float(alone) - float(logits[row])) < tolerance, f"batch equal to single (pair {row})")


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(f"the runtime must give {what}")


def probe_pairs(spec: RerankerSpec) -> Sequence[Rendered]:
    """Return the texts as documents of one query."""
    return RenderedTexts(PROBES, *pair_template("which planet is red", spec, None))
