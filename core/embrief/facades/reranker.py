"""`Reranker`: one query and its candidates in, probabilities of relevance out."""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Never, Self, TypeVar

import numpy as np

from embrief.config.names import default_name
from embrief.errors import ArgumentError, BackendError, TruncationWarning, warn
from embrief.facades import arguments
from embrief.facades.facade import Facade, Plan, Settings, model_text, path_text
from embrief.facts.prompts import Rendered, RenderedTexts, pair_template
from embrief.facts.specs import RerankerSpec, SpecialTokens, Truncate
from embrief.facts.vectors import check_finite
from embrief.serving.jobs import Request

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from embrief.facts.prompts import Content, Input, Source
    from embrief.facts.specs import Template
    from embrief.runtimes.base import Output, RuntimeOptions, Token

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document's place in the input, and how relevant it is."""

    index: int
    score: float | None
    """P(relevant), 0 to 1; `None` where a fallback could only keep the order. Of a provider's service whose scores are
    no probabilities (`info()["calibrated"]`) only their order means something."""


@dataclass(frozen=True, slots=True, repr=False)
class RankedItem(Generic[T]):
    """A caller's own object, its place in the input, and how relevant it is."""

    item: T
    index: int
    score: float | None
    """As of `RankedDocument`."""

    def __repr__(self) -> str:
        item = reprlib.repr(self.item)
        shown = item if len(item) <= 80 else f"{item[:80]}..."
        score = "None" if self.score is None else f"{self.score:.4f}"
        return f"RankedItem(item={shown}, index={self.index}, score={score})"


class Reranker(Facade[RerankerSpec]):
    """A reranking model with its template, instruction and limits.

    Loading, sharing and threads as in `Embedder`. Scores are probabilities of relevance in [0, 1].
    """

    _kind = RerankerSpec
    _kinds = ("score",)
    _settings: Settings

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        backend: str | RuntimeOptions | None = None,
        revision: str | None = None,
        instruction: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        max_tokens: int | None = None,
        truncate: Truncate = "warn",
        batch_tokens: int | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        like: str | None = None,
        max_pixels: int | None = None,
        special_tokens: SpecialTokens | None = None,
        **unknown: Never,
    ) -> None:
        """Check the arguments.

        Args:
            model: A recorded name, a name of the user's configuration, a folder, an id on the hub, or a reference such
                as `"tei:http://127.0.0.1:8080"`. `None`: the default of the environment or the configuration, and
                without one Qwen/Qwen3-Reranker-0.6B.
            backend: The runtime, by its name or its options; by default the best installed one that serves the model.
            revision: Commit on the hub; by default the recorded one.
            instruction: What makes a document relevant, in a sentence. `None`: the model's default; `""`: an empty one.
            device: `"auto"`, `"cpu"`, `"cuda"`, `"cuda:<n>"` or `"mps"`.
            dtype: `"auto"` (bfloat16 where the device computes in it natively, else float32), or a format by name;
                `"int8"` is faster on CPUs and less exact, and only the engine has it.
            max_tokens: Tokens per pair, template included.
            truncate: What to do with a longer pair: cut the document's end off with a warning or silently, or raise.
            batch_tokens: Tokens per batch, padding included; by default chosen for the device.
            cache_dir: Where downloads are kept; by default huggingface_hub's folder.
            local_files_only: Never ask the network.
            trust_remote_code: Run code that comes with the model. Needs a full commit id as `revision`.
            like: For a model without a record: the record to take the template and limits from.
            max_pixels: Largest area, height times width, in which the model sees a picture; larger ones are made
                smaller. Only for models that take images, and with a default of their own.
            special_tokens: How the names of special tokens in a text are read: `"parsed"` as those tokens, as the
                authors' code of text models does, or `"text"` as letters, so that nobody can forge one. By default as
                the model's record says; models that take images read texts only.
            **unknown: Nothing may be here; it gives a misspelt keyword an error with the right one.

        Raises:
            UnknownModelError: No model has this name.
            ArgumentError: A value cannot work with this model.
            ArgumentTypeError: A value has the wrong type.
            AmbiguousModelError: The files of a folder fit several kinds of model.
            MissingDependencyError: The runtime is not installed.
            ConfigError: The user's configuration cannot be read, or cannot be used for this name.
            UnavailableError: A reference has an address without a model, and the server there does not answer.
        """
        arguments.no_unknown(unknown, type(self))
        self._start(
            Settings(
                model=model_text(default_name(RerankerSpec) if model is None else model),
                backend=backend,
                revision=revision,
                instruction=instruction,
                device=device,
                dtype=dtype,
                max_tokens=arguments.positive(max_tokens, "max_tokens"),
                truncate=truncate,
                batch_tokens=arguments.positive(batch_tokens, "batch_tokens"),
                cache_dir=path_text(cache_dir, "cache_dir"),
                local_files_only=local_files_only,
                trust_remote_code=trust_remote_code,
                like=like,
                max_pixels=arguments.positive(max_pixels, "max_pixels"),
                special_tokens=special_tokens,
            )
        )

    def _check_kind(self, spec: RerankerSpec) -> None:
        self._check_instruction(self._settings.instruction, spec)

    @staticmethod
    def _check_instruction(instruction: str | None, spec: RerankerSpec) -> None:
        arguments.optional_text(instruction, "instruction")
        if instruction and not spec.instructed:
            raise ArgumentError(
                f"{spec.id} has no place for an instruction, so instruction={instruction!r} would do nothing; leave "
                "it out, or use a model that follows instructions such as Qwen/Qwen3-Reranker-0.6B"
            )

    @property
    def fingerprint(self) -> str:
        """A name for everything that moves a score, rounding included: weights, runtime, dtype, limit and template.

        For caches: equal fingerprints and equal pairs give equal scores.
        """
        settings, offer = self._settings, self._shared.offer
        pair = self.render("", "")
        parts = (
            self._shared.weights,
            self._shared.backend.name,
            offer.dtype,
            str(self.max_tokens),
            "refused" if settings.truncate == "error" else "cut",
            pair.head,
            pair.tail,
            *self._identity(self._shared),
            *([] if self.max_pixels is None else [f"pixels {self.max_pixels}"]),
            *([] if settings.special_tokens in (None, self.spec.special_tokens) else ["plain text"]),
        )
        return "rf1-" + hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def with_instruction(self, instruction: str | None) -> Self:
        """Return a reranker with another instruction, on the same loaded model. `None` is the model's default."""
        arguments.optional_text(instruction, "instruction")
        return self._view(instruction=instruction)

    def render(self, query: Input, document: Input, *, instruction: str | None = None) -> Rendered:
        """Return the exact strings for one pair, without loading anything; `shown` of it has a mark for each image."""
        items = [arguments.content(document, "document", self.spec)]
        asked = arguments.content(query, "query", self.spec)
        return RenderedTexts(items, *self._around(asked, self.spec, instruction))[0]

    def _around(self, query: Content, spec: RerankerSpec, instruction: str | None) -> tuple[Template, Source]:
        self._check_instruction(instruction, spec)
        chosen = instruction if instruction is not None else self._settings.instruction
        return pair_template(query, spec, chosen)

    def score(self, query: Input, documents: Sequence[Input], *, instruction: str | None = None) -> NDArray[np.float32]:
        """Return how relevant each document is to the query.

        Args:
            query: The query, without any prompt; for models that take images, also with some.
            documents: Any number of documents, also none; for models that take images, also with some. A document
                never changes another's score.
            instruction: What makes a document relevant; wins over the constructor's.

        Returns:
            float32, (n,), P(relevant) in [0, 1], in input order.

        Raises:
            ArgumentTypeError: `documents` is no list of strings; the error has the index.
            InputTooLongError: The query leaves no room for a document; or a pair is too long and `truncate="error"`.
            NonFiniteVectorError: The model returned NaN or infinity; the error has the index.
        """
        return self._run(partial(self._plan_query, query, documents, instruction))

    def score_pairs(
        self, pairs: Sequence[tuple[Input, Input]], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """Return how relevant each document is to its own query.

        Args:
            pairs: (query, document), any number; queries may differ and share batches.
            instruction: What makes a document relevant; wins over the constructor's.

        Returns:
            float32, (n,), P(relevant) in [0, 1], in input order.

        Raises:
            ArgumentTypeError: An item is no pair of strings; the error has the index.
            InputTooLongError, NonFiniteVectorError: As in `score`.
        """
        return self._run(partial(self._plan, pairs, instruction))

    def _plan_query(
        self, query: Input, documents: Sequence[Input], instruction: str | None
    ) -> Plan[NDArray[np.float32]]:
        spec = self.spec
        items = arguments.contents(documents, "documents", spec)
        asked = arguments.content(query, "query", spec)
        self._check_images(items, "documents")
        self._check_images([asked], "query")
        around = self._around(asked, spec, instruction)
        return self._planned(RenderedTexts(items, *around), spec)

    def _plan(self, pairs: Sequence[tuple[Input, Input]], instruction: str | None) -> Plan[NDArray[np.float32]]:
        spec = self.spec
        self._check_instruction(instruction, spec)
        items = arguments.pairs(pairs, "pairs", spec)
        for side in zip(*items, strict=True):
            self._check_images(side, "pairs")
        around = {query: self._around(query, spec, instruction) for query in dict.fromkeys(query for query, _ in items)}
        return self._planned([RenderedTexts([document], *around[query])[0] for query, document in items], spec)

    def _planned(self, rendered: Sequence[Rendered], spec: RerankerSpec) -> Plan[NDArray[np.float32]]:
        if rendered:
            self._check_instruction_is_read(rendered[0].source.instruction, spec.default_instruction)
        options = self._options(spec)
        return Plan(Request(rendered, options), partial(self._finish, len(rendered), options.max_tokens))

    def _finish(self, count: int, max_tokens: int, output: Output | None) -> NDArray[np.float32]:
        if output is None:
            return np.empty(0, np.float32)
        logits = np.asarray(output.array("score"), np.float64)
        if logits.shape != (count,):
            raise BackendError(f"{self.spec.id} returned scores of shape {logits.shape} for {count} documents")
        check_finite(logits, self.spec.id)
        cut = np.flatnonzero(output.truncated if output.truncated is not None else ())
        if len(cut) and self._settings.truncate == "warn":
            warn(
                f"{len(cut)} of {count} documents do not fit into {max_tokens} tokens with the query and "
                f"lost their end (first at index {cut[0]}); split them, raise max_tokens, or pass truncate='error' "
                "or 'silent'",
                TruncationWarning,
            )
        # exp of a large positive number would overflow; both forms are the same function.
        small = np.exp(-np.abs(logits))
        return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)

    def rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        *,
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[RankedDocument]:
        """Return the documents' places and scores, best first; equal scores stay in input order.

        Args:
            query: The query, without any prompt.
            documents: Any number of documents, also none.
            instruction: What makes a document relevant; wins over the constructor's.
            top_n: How many to return; `None` is all.

        Raises:
            ArgumentError: `top_n` is not positive.
            ArgumentTypeError: `documents` is no list of strings.
        """
        first = arguments.positive(top_n, "top_n")
        return _ranked(self.score(query, documents, instruction=instruction), first)

    def rerank_items(
        self,
        query: Input,
        items: Sequence[T],
        *,
        text: Callable[[T], Input],
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[RankedItem[T]]:
        """Rerank objects of any kind, such as the hits of a vector store; every integration uses this.

        Args:
            query: The query, without any prompt.
            items: The candidates. They are returned as they are, never copied or changed.
            text: Gives the text of a candidate.
            instruction: What makes a document relevant; wins over the constructor's.
            top_n: How many to return; `None` is all.

        Returns:
            The candidates with their scores, best first.
        """
        candidates: list[T] = arguments.listed(items, "items")
        ranked = self.rerank(query, [text(item) for item in candidates], instruction=instruction, top_n=top_n)
        return _with_items(candidates, ranked)

    def count_tokens(
        self, query: Input, documents: Sequence[Input], *, instruction: str | None = None
    ) -> NDArray[np.int64] | None:
        """Return how long each document is with the query, template included, without running the model. Loads it.

        Args:
            query: As in `score`.
            documents: As in `score`.
            instruction: As in `score`.

        Returns:
            (n,) tokens, nothing cut off. `None`: the runtime cannot tell without running them.

        Raises:
            ArgumentTypeError: As of `score`.
        """
        request = self._plan_query(query, documents, instruction).request
        if not request.inputs:
            return np.empty(0, np.int64)
        return self._served(self._shared).count(request.inputs, request.options)

    def tokenize(
        self, query: Input, documents: Sequence[Input], *, instruction: str | None = None
    ) -> list[list[Token]] | None:
        """Return the tokens that the model reads of each pair, template included, nothing cut off. Loads it.

        Returns:
            Tokens per document, with their places in `render(query, document).shown`; all tokens of an image have the
            place of its mark. `None`: the runtime does not tell them.

        Raises:
            ArgumentTypeError: As of `score`.
        """
        request = self._plan_query(query, documents, instruction).request
        return self._served(self._shared).tokenize(request.inputs, request.options) if request.inputs else []

    async def acount_tokens(
        self, query: Input, documents: Sequence[Input], *, instruction: str | None = None
    ) -> NDArray[np.int64] | None:
        """`count_tokens` without blocking the event loop."""
        return await self._shared.lanes[False].run(
            partial(self.count_tokens, query, documents, instruction=instruction)
        )

    async def ascore(
        self, query: Input, documents: Sequence[Input], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """`score` without blocking the event loop. Calls at the same time share batches."""
        return await self._arun(partial(self._plan_query, query, documents, instruction))

    async def ascore_pairs(
        self, pairs: Sequence[tuple[Input, Input]], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """`score_pairs` without blocking the event loop."""
        return await self._arun(partial(self._plan, pairs, instruction))

    async def arerank(
        self,
        query: Input,
        documents: Sequence[Input],
        *,
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[RankedDocument]:
        """`rerank` without blocking the event loop."""
        first = arguments.positive(top_n, "top_n")
        return _ranked(await self.ascore(query, documents, instruction=instruction), first)

    async def arerank_items(
        self,
        query: Input,
        items: Sequence[T],
        *,
        text: Callable[[T], Input],
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[RankedItem[T]]:
        """`rerank_items` without blocking the event loop."""
        candidates: list[T] = arguments.listed(items, "items")
        texts = await self.off_loop(lambda: [text(item) for item in candidates])
        return _with_items(candidates, await self.arerank(query, texts, instruction=instruction, top_n=top_n))

    def info(self) -> dict[str, Any]:
        """Return what is used and why, as plain values. Chooses a device, but loads no weights."""
        default = self._settings.instruction
        return {
            **super().info(),
            "instruction": default if default is not None else self.spec.default_instruction,
            "scoring": self.spec.scoring,
            "calibrated": self._shared.offer.calibrated,
        }


def _ranked(scores: NDArray[np.float32], top_n: int | None) -> list[RankedDocument]:
    order = np.argsort(-scores, kind="stable")[:top_n]
    return [RankedDocument(int(index), float(scores[index])) for index in order]


def _with_items(items: Sequence[T], ranked: Sequence[RankedDocument]) -> list[RankedItem[T]]:
    return [RankedItem(items[place.index], place.index, place.score) for place in ranked]
