r"""For authors of plugins and wrappers: models without weights that show what reached them, and contract checks.

Examples:
    >>> from embrief import Embedder
    >>> from embrief.testing import FakeRuntime
    >>> with FakeRuntime() as fake:
    ...     vector = Embedder(fake.qwen3).embed_query("red planet", instruction="Find planets")
    >>> fake.texts
    ['Instruct: Find planets\nQuery:red planet']
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from embrief.discovery.plugins import catalog
from embrief.errors import ArgumentError, ModelMismatchError, WeightsUnavailableError
from embrief.facts.prompts import Rendered, RenderedTexts, Source, fill, pair_template
from embrief.facts.records import gemma, qwen3
from embrief.facts.specs import NO_PROMPT, EmbeddingSpec, ModelSpec, RerankerSpec, Template
from embrief.files.folders import missing_files
from embrief.files.identify import verify_files
from embrief.files.model_files import ModelFiles, read_files
from embrief.runtimes.base import (
    Ask,
    Batched,
    LoadRequest,
    Model,
    Offer,
    Output,
    Prepared,
    Refusal,
    RunOptions,
    Runtime,
    too_long,
)
from embrief.runtimes.hashing import HashBackend
from embrief.serving.choosing import Choice, ask_all, best
from embrief.testing.faults import Faults, Wire, check_server
from embrief.testing.loopback import Asked, LoopbackServer, Reply

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from embrief.facts.specs import Kind
    from embrief.facts.values import Values

__all__ = [
    "Asked",
    "FakeRuntime",
    "Faults",
    "LoopbackServer",
    "Reply",
    "Wire",
    "check_model",
    "check_runtime",
]

M = TypeVar("M")
_numbers = itertools.count(1)


@dataclass
class FakeRuntime:
    """A runtime without weights, with one embedding model of each prompt family and one reranker.

    Vectors are hashed from the rendered text, so a wrong prompt gives a wrong vector. Scores grow with the words that
    query and document share. Use it in a `with` block: it registers its models and takes them away again.
    """

    delay: float = 0.0
    """Seconds that each run takes."""
    fault: Callable[[Sequence[str]], None] | None = None
    """Called with the rendered texts of each run; may raise, or hold the run up."""
    batch_tokens: int | None = None
    """Makes the models `Batched`, with this many tokens per batch. A token is a word, and at least one per text."""
    memory: int | None = None
    """Tokens that fit into memory in one run of a `Batched` model; more raises `MemoryError`."""
    padded: bool = False
    """Whether batches of a `Batched` model are padded."""
    width: int = 64
    texts: list[str] = field(default_factory=list)
    """Every rendered text that was embedded, in order."""
    pairs: list[Rendered] = field(default_factory=list)
    """Every rendered pair that was scored, in order."""
    runs: list[int] = field(default_factory=list)
    """The number of texts or pairs of each run."""
    threads: set[str] = field(default_factory=set)
    """Names of the threads that entered the model."""
    loads: int = 0
    """How often a model was loaded."""
    overlapped: bool = False
    """Whether two threads were ever inside one model together."""

    def __post_init__(self) -> None:
        # Facades share models by name: a name of its own keeps one test's models out of the next.
        self._name = f"testing-{next(_numbers)}"

    @property
    def qwen3(self) -> str:
        """Name of the model with Qwen3-Embedding's prompts; any dim from 8 to `width`."""
        return f"{self._name}/qwen3"

    @property
    def gemma(self) -> str:
        """Name of the model with EmbeddingGemma's prompts, titles included."""
        return f"{self._name}/gemma"

    @property
    def reranker(self) -> str:
        """Name of the model with Qwen3-Reranker's template."""
        return f"{self._name}/reranker"

    def _models(self) -> list[ModelSpec]:
        embedder = replace(
            qwen3.MODELS[0],
            id=self.qwen3,
            revision=self._name,
            architecture=self._name,
            hidden_size=self.width,
            dim=self.width,
            mrl=range(8, self.width + 1),
            defines_family=False,
            aliases=(),
            served_names=(),
        )
        rerankers = [spec for spec in qwen3.MODELS if isinstance(spec, RerankerSpec)]
        return [
            embedder,
            replace(embedder, id=self.gemma, pooling="mean", prompts=gemma.EMBEDDING_PROMPTS),
            replace(
                rerankers[0],
                id=self.reranker,
                revision=self._name,
                architecture=self._name,
                defines_family=False,
                aliases=(),
            ),
        ]

    def __enter__(self) -> Self:
        for spec in self._models():
            catalog().add_model(spec)
        catalog().add_backend(_Fake(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        catalog().remove(self._name, [spec.id for spec in self._models()])

    def _embedder(self, request: LoadRequest) -> Model:
        whole = _FakeEmbedder(self, request)
        return whole if self.batch_tokens is None else _BatchedFake(self, whole)

    def _reranker(self) -> Model:
        whole = _FakeReranker(self)
        return whole if self.batch_tokens is None else _BatchedFake(self, whole)

    def _load(self, model: M) -> M:
        self.loads += 1
        return model

    def _enter(self, texts: Sequence[str], busy: threading.Lock) -> None:
        self.threads.add(threading.current_thread().name)
        self.runs.append(len(texts))
        if not busy.acquire(blocking=False):
            self.overlapped = True
            return
        try:
            time.sleep(self.delay)
            if self.fault:
                self.fault(texts)
        finally:
            busy.release()


class _Fake(Runtime):
    """The runtime of one `FakeRuntime`: its own models, in float32 wherever it is asked to be."""

    def __init__(self, fake: FakeRuntime) -> None:
        self.name = fake._name
        self._fake = fake

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        if spec.architecture != self.name:
            return Refusal("runs its own models only")
        return Offer(device="cpu", dtype="float32")

    def load(self, request: LoadRequest) -> Model:
        embeds = isinstance(request.spec, EmbeddingSpec)
        return self._fake._load(self._fake._embedder(request) if embeds else self._fake._reranker())


class _FakeEmbedder:
    def __init__(self, runtime: FakeRuntime, request: LoadRequest) -> None:
        assert isinstance(request.spec, EmbeddingSpec)
        self._runtime = runtime
        # The hash runtime would make a shorter vector natively; real models are cut.
        self._model = HashBackend(request.spec)
        self._busy = threading.Lock()

    def run(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        texts = [item.text for item in inputs]
        self._runtime._enter(texts, self._busy)
        self._runtime.texts.extend(texts)
        return self._model.run(inputs, replace(options, dim=None))

    def check(self, inputs: Sequence[Rendered], options: RunOptions) -> None:
        self._model.check(inputs, options)

    def close(self) -> None:
        """Nothing is held."""


class _FakeReranker:
    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime
        self._busy = threading.Lock()

    def run(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        self._runtime._enter([pair.words for pair in inputs], self._busy)
        self._runtime.pairs.extend(inputs)
        logits = []
        for pair in inputs:
            shared = set((pair.source.query or "").lower().split()) & set(pair.words.lower().split())
            logits.append(float(len(shared)) - 1.0)
        count = len(inputs)
        return Output.scores(np.array(logits), np.zeros(count, np.int64), np.zeros(count, np.bool_))

    def close(self) -> None:
        """Nothing is held."""


class _BatchedFake(Batched):
    """A fake model in rows: the inputs themselves."""

    def __init__(self, runtime: FakeRuntime, whole: _FakeEmbedder | _FakeReranker) -> None:
        self.batch_tokens = runtime.batch_tokens or 1
        self.padded = runtime.padded
        self._runtime, self._whole = runtime, whole

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        counts = np.array([_words(item) for item in inputs], np.int64)
        truncated = counts > options.max_tokens
        if options.refuse_long and truncated.any():
            index = int(np.argmax(truncated))
            raise too_long(index, int(counts[index]), options)
        return Prepared(list(inputs), np.minimum(counts, options.max_tokens), counts, truncated)

    def run_rows(self, rows: Sequence[Rendered], kinds: tuple[Kind, ...]) -> Mapping[Kind, Values]:
        sizes = [_words(item) for item in rows]
        cost = max(sizes) * len(sizes) if self.padded else sum(sizes)
        if self._runtime.memory is not None and cost > self._runtime.memory:
            # Counted: an attempt is a run, too.
            self._runtime.runs.append(len(rows))
            raise MemoryError(f"no room for {cost} tokens")
        return self._whole.run(rows, RunOptions(max_tokens=10**6)).values

    def close(self) -> None:
        """Nothing is held."""


def _words(item: Rendered) -> int:
    return max(len((item.head + item.words).split()), 1)


_PROBES = (
    "short",
    "a longer text with several words in it",
    " leading blank",
    "日本語 and émoji 🙂",
    "short",
    "x" * 500,
)
_FEW_TOKENS = 16
"""Fewer than the longest probe has: it is cut."""


def check_runtime(
    model: Model | Runtime, spec: ModelSpec, *, wire: Wire | None = None, tolerance: float = 1e-4
) -> None:
    """Check what every runtime must keep; for the tests of plugin authors.

    Of a loaded model: one finite row of the right shape per input, the same alone as in a batch and in any order;
    equal texts with equal vectors, different ones with different vectors. Of a runtime that asks servers: what must
    come of all that can go wrong with one (`Faults`), with servers on this machine that speak as its `Wire` says.

    Args:
        model: The loaded model, or a registered runtime that asks servers.
        spec: Its record, registered too in the second case.
        wire: How the runtime's servers speak; for a runtime.
        tolerance: How far the cosine of two runs of one text may be from 1; for a reranker, a tenth of how far the
            log-odds of two runs of one pair may be apart.

    Raises:
        AssertionError: It does not; the message says what.
        ArgumentError: A runtime was given without a wire.
    """
    if isinstance(model, Runtime):
        if wire is None:
            raise ArgumentError("a runtime is checked with wire=, which tells how its servers speak; or load a model")
        check_server(wire, spec)
    elif isinstance(spec, RerankerSpec):
        _check_scores(model, spec, tolerance * 10)
    else:
        assert isinstance(spec, EmbeddingSpec)
        _check_vectors(model, spec, tolerance)


def _check_vectors(model: Model, spec: EmbeddingSpec, tolerance: float) -> None:
    options = RunOptions(max_tokens=spec.max_tokens, kinds=("dense",))
    texts = [Rendered("", text) for text in _PROBES]
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
    pairs = _probe_pairs(spec)
    logits = model.run(pairs, options).array("score")
    _require(logits.shape == (len(pairs),), f"scores of shape {(len(pairs),)}, not {logits.shape}")
    _require(bool(np.isfinite(logits).all()), "finite scores")
    for row, pair in enumerate(pairs):
        alone = model.run([pair], options).array("score")[0]
        _require(abs(float(alone) - float(logits[row])) < tolerance, f"batch equal to single (pair {row})")


def check_model(spec: ModelSpec, folder: str | Path | None = None) -> None:
    """Check a model's record: by itself, against the model's files, and on every installed runtime that serves it.

    For the tests of whoever adds a model. It loads the model once per runtime, in float32 on the CPU. Each runtime must
    keep the contract (`check_runtime`), and where there are several, all must agree
    on texts with the prompts of all tasks. What no file says is left to you: whether the prompts are those that the
    model was trained with. Of a model that only servers run, the record alone is checked.

    Args:
        spec: The record. It need not be registered.
        folder: The model's files; unless given, those that come with the record. A model whose runtime needs no files
            has none.

    Raises:
        AssertionError: Something is wrong; the message says what.
        ArgumentError: The model needs files and there is no folder.
        WeightsUnavailableError: Files of the model are missing.
        MissingDependencyError: No runtime that serves the model is installed.
        BackendError: No runtime serves the model.
    """
    found = catalog()
    if gaps := _gaps(spec):
        raise AssertionError(f"the record of {spec.id}: {'; '.join(gaps)}")
    if spec.elsewhere is not None and not any(_is_here(answer) for answer in ask_all(found, spec).values()):
        _require_sound(spec, native_dims=False)
        return
    # Says what is missing if there is none.
    serves = best(found, spec)
    _require_sound(spec, native_dims=serves.offer.native_dims)
    place = Path(folder).expanduser() if folder is not None else spec.folder
    if serves.offer.artifact is not None and place is None:
        raise ArgumentError(f"{spec.id} is checked against its files: give the folder that holds them")
    try:
        files = None if place is None else read_files(place)
        if files is not None:
            _check_files(spec, files)
        offers = {
            runtime: answer
            for runtime, answer in ask_all(found, spec, device="cpu", dtype="float32", files=files).items()
            if _is_here(answer) and isinstance(answer, Offer)
        }
        answers = {
            runtime.name: _answers(runtime, offer, spec, place)
            for runtime, offer in offers.items()
            if not runtime.missing() and (place is not None or offer.artifact is None)
        }
    except ModelMismatchError as error:
        raise AssertionError(str(error)) from error
    (first, expected), *others = answers.items()
    for name, answer in others:
        if not np.allclose(answer, expected, atol=1e-3):
            raise AssertionError(f"the runtimes {first} and {name} give different results for {spec.id}")


def _is_here(answer: Offer | Refusal) -> bool:
    return isinstance(answer, Offer) and not answer.leaves_machine


def _require_sound(spec: ModelSpec, *, native_dims: bool) -> None:
    if problems := _record_problems(spec, native_dims=native_dims):
        raise AssertionError(f"the record of {spec.id}: {'; '.join(problems)}")


def _record_problems(spec: ModelSpec, *, native_dims: bool) -> list[str]:
    """Say what is wrong with a record by itself, where the runtime that would serve it makes any width or not."""
    problems = [f"it has no {name}" for name in ("id", "revision", "license", "source") if not getattr(spec, name)]
    if spec.max_tokens > spec.context:
        problems.append(f"max_tokens={spec.max_tokens} is more than context={spec.context}")
    if isinstance(spec, RerankerSpec):
        head = spec.template.head
        problems += [f"the head of the template needs {{query}} once: {head!r}"] * (head.count("{query}") != 1)
        problems += ["true_token and false_token are the same"] * (spec.true_token == spec.false_token)
        if spec.default_instruction and not spec.instructed:
            problems.append("there is a default_instruction, and the template has no place {instruction}")
        return problems
    assert isinstance(spec, EmbeddingSpec)
    prompts = spec.prompts
    if not native_dims and any(not 0 < width <= spec.dim for width in spec.mrl):
        problems.append(f"mrl has widths that are not between 1 and dim={spec.dim}")
    if not prompts.tasks:
        return [*problems, "it has no task; a model without prompts has one with empty ones"]
    names = [name for task in prompts.tasks for name in (task.name, *task.aliases)]
    problems += [f"two tasks have the name {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    for task in prompts.tasks:
        if task.titled is not None and _slots(task.titled) != ["title"]:
            problems.append(f"the titled prompt of {task.name!r} needs {{title}} once: {_shown(task.titled)}")
        problems += [
            f"the {role} prompt of {task.name!r} has a place that nothing fills: {_shown(template)}"
            for role, template in (("query", task.query), ("document", task.document))
            if _slots(template)
        ]
    if prompts.instructed is not None and _slots(prompts.instructed) != ["instruction"]:
        problems.append(f"the instructed prompt needs {{instruction}} once: {_shown(prompts.instructed)}")
    default = prompts.default_instruction
    if default is not None and fill(prompts.instructed or NO_PROMPT, instruction=default) != prompts.tasks[0].query:
        problems.append(
            f"default_instruction={default!r} in the instructed prompt is not the first task's query prompt"
        )
    return problems


def _gaps(spec: ModelSpec) -> list[str]:
    """Say what a record leaves open and may not: only of a model that servers alone run may facts be unknown."""
    if spec.elsewhere is not None:
        named = bool(spec.served_names)
        return [] if named else ["no runtime of this machine loads it, and served_names names none that serves it"]
    wanted = ["architecture", "padding_side", *(["pooling"] if isinstance(spec, EmbeddingSpec) else [])]
    return [
        f"it has no {name}, which only a model that servers alone run may leave open (hosted=, needs_server=)"
        for name in wanted
        if getattr(spec, name) is None
    ]


def _slots(template: Template) -> list[str]:
    """Return the places that a template has, in order."""
    return re.findall(r"\{(instruction|title|query)\}", template.head + template.tail)


def _shown(template: Template) -> str:
    return repr(template.head + template.tail)


def _probe_pairs(spec: RerankerSpec) -> Sequence[Rendered]:
    return RenderedTexts(_PROBES, *pair_template("which planet is red", spec, None))


def _check_files(spec: ModelSpec, files: ModelFiles) -> None:
    """Compare a record with the model's files."""
    if missing := missing_files(files.folder):
        raise WeightsUnavailableError(f"{files.folder} lacks {', '.join(missing)}")
    verify_files(files, spec)
    if files.context is not None and spec.context > files.context:
        raise AssertionError(f"{spec.id} has context={spec.context}, and its config.json has {files.context} positions")


def _answers(runtime: Runtime, offer: Offer, spec: ModelSpec, folder: Path | None) -> NDArray[Any]:
    """Check one runtime; return unit vectors for texts with every prompt of the record, or log-odds of pairs."""
    ask = Ask(device="cpu", dtype="float32", options=runtime.Options())
    settled = Choice(runtime, ask, offer).settled(spec).offer
    request = LoadRequest(
        spec, folder if settled.artifact is not None else None, settled.device, settled.dtype, artifact=settled.artifact
    )
    model = runtime.load(request)
    options = RunOptions(max_tokens=spec.max_tokens)
    with closing(model):
        check_runtime(model, spec)
        if isinstance(spec, RerankerSpec):
            return model.run(_probe_pairs(spec), options).array("score")
        assert isinstance(spec, EmbeddingSpec)
        around = dict.fromkeys(template for task in spec.prompts.tasks for template in (task.query, task.document))
        texts = [item for template in around for item in RenderedTexts(_PROBES, template, Source())]
        whole = model.run(texts, options).array("dense")
        few = replace(options, max_tokens=_FEW_TOKENS)
        cut = model.run(RenderedTexts(_PROBES, NO_PROMPT, Source()), few).array("dense")
        vectors = np.concatenate([whole, cut])
        unit: NDArray[Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(f"the runtime must give {what}")
