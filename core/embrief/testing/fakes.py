"""Models without weights that show what reached them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from embrief.discovery.plugins import catalog
from embrief.facts.prompts import RenderedTexts, Source
from embrief.facts.records import gemma, qwen3, qwen3_vl
from embrief.facts.specs import NO_PROMPT, EmbeddingSpec, ModelSpec, RerankerSpec
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

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from embrief.facts.prompts import Content, Rendered
    from embrief.facts.specs import Kind
    from embrief.facts.values import Values
    from embrief.images.image import Image

M = TypeVar("M")
_numbers = itertools.count(1)


@dataclass
class FakeRuntime:
    """A runtime without weights, with one embedding model of each prompt family and one reranker.

    Vectors are hashed from the rendered text, so a wrong prompt gives a wrong vector. Scores grow with the words that
    query and document share. A picture is one word, made of its digest. Use it in a `with` block: it registers its
    models and takes them away again.
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
    dtype: str = "float32"
    """The number format that its models are said to run in."""
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

    @property
    def vision(self) -> str:
        """Name of the model with Qwen3-VL-Embedding's prompts, which takes texts and pictures."""
        return f"{self._name}/vision"

    @property
    def vision_reranker(self) -> str:
        """Name of the model with Qwen3-VL-Reranker's template, which takes texts and pictures."""
        return f"{self._name}/vision-reranker"

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
        rerankers = {
            name: next(spec for spec in family.MODELS if isinstance(spec, RerankerSpec))
            for name, family in ((self.reranker, qwen3), (self.vision_reranker, qwen3_vl))
        }
        return [
            embedder,
            replace(embedder, id=self.gemma, pooling="mean", prompts=gemma.EMBEDDING_PROMPTS),
            replace(
                embedder,
                id=self.vision,
                prompts=qwen3_vl.EMBEDDING_PROMPTS,
                modalities=("text", "image"),
                images=qwen3_vl.IMAGES,
                special_tokens="text",
            ),
            *(
                replace(spec, id=name, revision=self._name, architecture=self._name, defines_family=False, aliases=())
                for name, spec in rerankers.items()
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
    """The runtime of one `FakeRuntime`: its own models, in one number format, wherever it is asked to be."""

    def __init__(self, fake: FakeRuntime) -> None:
        self.name = fake._name
        self._fake = fake

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        if spec.architecture != self.name:
            return Refusal("runs its own models only")
        return Offer(device="cpu", dtype=self._fake.dtype, images=True, plain_text=True)

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
        texts = [_text(item.pieces) for item in inputs]
        self._runtime._enter(texts, self._busy)
        self._runtime.texts.extend(texts)
        return self._model.run(_plain(inputs), replace(options, dim=None))

    def check(self, inputs: Sequence[Rendered], options: RunOptions) -> None:
        self._model.check(_plain(inputs), options)

    def count(self, inputs: Sequence[Rendered], options: RunOptions) -> NDArray[np.int64]:
        return self._model.count(_plain(inputs), options)

    def close(self) -> None:
        """Nothing is held."""


class _FakeReranker:
    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime
        self._busy = threading.Lock()

    def run(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        self._runtime._enter([_text(_listed(pair.body)) for pair in inputs], self._busy)
        self._runtime.pairs.extend(inputs)
        logits = []
        for pair in inputs:
            query, document = (_text(_listed(side)) for side in (pair.source.query or "", pair.body))
            shared = set(query.lower().split()) & set(document.lower().split())
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
    return max(len(_text(item.pieces[: -1 if item.tail else None]).split()), 1)


def _listed(content: Content) -> tuple[str | Image, ...]:
    return (content,) if isinstance(content, str) else content


def _text(parts: Sequence[str | Image]) -> str:
    """Return texts and pictures as one text, in which a picture is a word."""
    return "".join(part if isinstance(part, str) else f" picture-{part.digest.hex()[:16]} " for part in parts)


def _plain(inputs: Sequence[Rendered]) -> Sequence[Rendered]:
    """Return inputs without pictures: as they are, or with words in their place."""
    if not any(item.images for item in inputs):
        return inputs
    return RenderedTexts([_text(item.pieces) for item in inputs], NO_PROMPT, Source())
