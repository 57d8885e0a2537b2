"""`Embedder`: texts in, vectors out, with the prompts the model was trained with."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Never, Self

import numpy as np

from embrief.cache import options as caches
from embrief.cache.places import cache_file
from embrief.config.names import default_name
from embrief.errors import (
    ArgumentError,
    TruncationWarning,
    placed,
    warn,
)
from embrief.facades import arguments, forms
from embrief.facades.facade import Facade, Plan, Settings, model_text, path_text
from embrief.facades.progress import bar_of
from embrief.facades.rendering import count_image_tokens, rendered_as
from embrief.facades.running import Run
from embrief.facades.streaming import Block, ablocks, blocks
from embrief.facts.prompts import (
    PromptChoice,
    Rendered,
    RenderedTexts,
    active_task,
    check_choice,
)
from embrief.facts.space import UNKNOWN_POOLING, VectorSpace
from embrief.facts.specs import EmbeddingSpec, Role, SpecialTokens, Truncate
from embrief.facts.vectors import Matrix, Vector, row_blocks, spread
from embrief.facts.vectors import finish as finish_vectors
from embrief.files.weights import COMMIT
from embrief.serving.jobs import Request

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from embrief.cache.options import CacheOptions
    from embrief.cache.store import Store, Tally
    from embrief.facades.progress import Progress
    from embrief.facts.prompts import Content, Input
    from embrief.facts.specs import ModelSpec
    from embrief.runtimes.base import Output, RuntimeOptions, Token
    from embrief.serving.loading import SharedModel
    from embrief.serving.scheduler import Served


@dataclass(frozen=True, slots=True, repr=False)
class EmbeddingResult:
    """Vectors, and what happened to each text on the way."""

    vectors: Matrix
    """float32, (n, dim), in input order; unit length unless `normalize=False`."""
    token_counts: NDArray[np.int64] | None
    """(n,) tokens of each text before truncation, prompt and special tokens included; `None`: it is not known."""
    truncated: NDArray[np.bool_] | None
    """(n,) whether the text was longer than the model's limit and lost its end; `None`: it is not known."""
    space: VectorSpace
    """The space the vectors belong to."""
    answered_by: str = ""
    """Which member of a fallback made them."""
    image_tokens: NDArray[np.int64] | None = None
    """(n,) how many of the tokens are those of pictures; `None`: of a model that takes texts only."""
    degraded: bool = False
    """Whether they are of another space than the one asked for, since nobody else could answer."""

    def __repr__(self) -> str:
        count, dim = self.vectors.shape
        tokens = "unknown" if self.token_counts is None else self.token_counts.sum()
        cut = "unknown" if self.truncated is None else int(self.truncated.sum())
        return f"EmbeddingResult({count} x {dim}, {tokens} tokens, {cut} truncated, {self.space.id})"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderSettings(Settings):
    """The constructor's arguments of an `Embedder`."""

    dim: int | None = None
    task: str | None = None
    normalize: bool = True
    cache: CacheOptions | None = None

    @property
    def prompt_choice(self) -> PromptChoice:
        """Return what the constructor says about prompts."""
        return PromptChoice(self.instruction, self.task)


class Embedder(Facade[EmbeddingSpec]):
    """An embedding model with its prompts, instructions, dims and limits.

    Constructing checks the arguments and loads nothing; the first text loads the model once, also under concurrency.
    Facades on the same model, revision, device and dtype share it. Every method may be called from any thread.

    Examples:
        >>> from embrief import Embedder
        >>> embedder = Embedder("embrief/hash", dim=64)
        >>> embedder.embed_query("red planet").shape
        (64,)
    """

    _kind = EmbeddingSpec
    _kinds = ("dense",)
    _Settings = EmbedderSettings
    _settings: EmbedderSettings
    _store: Store | None
    _tally: Tally | None = None

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        backend: str | RuntimeOptions | None = None,
        revision: str | None = None,
        dim: int | None = None,
        instruction: str | None = None,
        task: str | None = None,
        normalize: bool = True,
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
        cache: str | CacheOptions | Literal[False] | None = None,
        **unknown: Never,
    ) -> None:
        """Check the arguments.

        Args:
            model: A recorded name (`embrief models` lists them), a name of the user's configuration, a folder, an id on
                the hub, or a reference such as `"ollama:bge-m3"`. `None`: the default of the environment or the
                configuration, and without one Qwen/Qwen3-Embedding-0.6B.
            backend: The runtime, by its name or its options; by default the best installed one that serves the model.
            revision: Commit on the hub; by default the recorded one.
            dim: Values per vector; the model must have been trained to be cut to it (MRL).
            instruction: What queries are for, in a sentence. `None`: the model's default; `""`: no prompt at all.
            task: What texts are for, by a name the model knows. With `instruction` too, that decides the queries.
            normalize: Whether vectors get unit length.
            device: `"auto"`, `"cpu"`, `"cuda"`, `"cuda:<n>"` or `"mps"`.
            dtype: `"auto"` (bfloat16 where the device computes in it natively, else float32), or a format by name;
                `"int8"` is faster on CPUs and less exact, and only the engine has it.
            max_tokens: Tokens per text; by default what the model's authors use.
            truncate: What to do with a longer text: cut its end off with a warning or silently, or raise.
            batch_tokens: Tokens per batch, padding included; by default chosen for the device.
            cache_dir: Where downloads are kept; by default huggingface_hub's folder.
            local_files_only: Never ask the network.
            trust_remote_code: Run code that comes with the model. Needs a full commit id as `revision`.
            like: For a model without a record: the record to take prompts, pooling and limits from.
            max_pixels: Largest area, height times width, in which the model sees a picture; larger ones are made
                smaller. Only for models that take images, and with a default of their own.
            special_tokens: How the names of special tokens in a text are read: `"parsed"` as those tokens, as the
                authors' code of text models does, or `"text"` as letters, so that nobody can forge one. By default as
                the model's record says; models that take images read texts only.
            cache: Where vectors are kept, so that no text is computed twice: `"memory"`, `"sqlite"`, or a `MemoryCache`
                or `SqliteCache` with a size, a place and a time; by default what the configuration says, else nowhere.
                `False`: nowhere, whatever the configuration says.
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
            EmbedderSettings(
                model=model_text(default_name(EmbeddingSpec) if model is None else model),
                backend=backend,
                revision=revision,
                dim=arguments.positive(dim, "dim"),
                instruction=instruction,
                task=task,
                normalize=normalize,
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
                cache=caches.chosen(cache),
            )
        )

    def _begin(self, settings: EmbedderSettings, declared: ModelSpec | None) -> None:  # type: ignore[override] # its own
        self._store = _opened(settings.cache)
        self._tally = None if self._store is None else _tally()
        super()._begin(settings, declared)

    def _check_kind(self, spec: EmbeddingSpec) -> None:
        arguments.flag(self._settings.normalize, "normalize")
        if not self._settings.normalize and self._shared.normalizes:
            raise ArgumentError(
                f"normalize=False cannot be had from {self._shared.backend.name!r}, whose vectors have unit "
                "length; leave it out, or use another runtime"
            )
        arguments.dim(self._settings.dim, spec)
        arguments.optional_text(self._settings.task, "task")
        check_choice(spec.prompts, self._settings.prompt_choice, model=spec.id)

    @property
    def settings(self) -> EmbedderSettings:
        """The constructor's arguments, as a frozen record of plain values."""
        return self._settings

    @property
    def dim(self) -> int:
        """Values per vector."""
        return self._dim(self.spec)

    def _dim(self, spec: EmbeddingSpec) -> int:
        return self._settings.dim or spec.default_dim or spec.dim

    @property
    def space(self) -> VectorSpace:
        """The space of the vectors. Known without loading weights (a folder's small parts are read)."""
        return self._space(self.spec, PromptChoice())

    def _space(self, spec: EmbeddingSpec, call: PromptChoice) -> VectorSpace:
        task = active_task(spec.prompts, call, self._settings.prompt_choice, model=spec.id)
        return VectorSpace(
            model=self._shared.origin,
            weights=self._shared.weights,
            pooling=spec.pooling or UNKNOWN_POOLING,
            document_prompt=task.document.head,
            document_tail=task.document.tail,
            dim=self._dim(spec),
            normalize=self._settings.normalize,
            lexical=spec.lexical,
            label=self._shared.label,
            min_pixels=0 if spec.images is None else spec.images.min_pixels,
            max_pixels=0 if spec.images is None else self._settings.max_pixels or spec.images.max_pixels,
            picture_prompt="" if spec.images is None or spec.images.prompt == "around" else spec.images.prompt,
            special_tokens="text" if self._reads_plain(spec) else "",
        )

    def _reads_plain(self, spec: EmbeddingSpec) -> bool:
        """Return whether texts are read otherwise than the model's authors do."""
        return self._settings.special_tokens not in (None, spec.special_tokens)

    @property
    def fingerprint(self) -> str:
        """A name for everything that moves a document vector, rounding included: the space, runtime, dtype and limit.

        For caches: equal fingerprints and equal texts give equal vectors, between processors up to rounding.
        """
        offer = self._shared.offer
        # Under truncate="error" a long text has no vector; a cache must not answer with one that was cut.
        cut = "refused" if self._settings.truncate == "error" else "cut"
        parts = (
            self.space.id,
            self._shared.backend.name,
            offer.dtype,
            str(self.max_tokens),
            cut,
            *self._identity(self._shared),
        )
        return "ef1-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    @property
    def query_fingerprint(self) -> str:
        """Like `fingerprint`, for query vectors: the query prompt counts too."""
        text = f"{self.fingerprint}\0{self.render('', role='query')}"
        return "eq1-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _view(self, **changes: Any) -> Self:
        twin = super()._view(**changes)
        twin._store, twin._tally = self._store, self._tally
        return twin

    def _served(self, shared: SharedModel[EmbeddingSpec]) -> Served:
        if self._store is None:
            return shared.served
        # Inside the function: most programs have no cache.
        from embrief.cache.keys import Keys
        from embrief.serving.cached import Cached

        spec, offer = shared.spec, shared.offer
        shared.pin()
        model = (
            # Files are known by their digest, wherever they are.
            shared.origin,
            shared.weights,
            spec.pooling or UNKNOWN_POOLING,
            shared.backend.name,
            shared.made_from,
            offer.renders,
            offer.dtype,
            "code" if self._settings.trust_remote_code else "",
        )
        keys = Keys(model, native_dims=offer.native_dims, server_renders=offer.renders == "server")
        return Cached(lambda: shared.served, self._store, keys, self._ttl(shared), self._tally)

    def _ttl(self, shared: SharedModel[EmbeddingSpec]) -> float | None:
        """Return for how many seconds a vector is kept; `None`: for ever."""
        cache = self._settings.cache
        if cache is not None and cache.ttl is not None:
            return cache.ttl
        pinned = COMMIT.fullmatch(shared.weights) is not None or shared.weights.startswith("sha256:")
        # Whatever a server says of its model, somebody may start another one there.
        return None if pinned and not shared.leaves_machine else caches.DAY

    def with_instruction(self, instruction: str | None) -> Self:
        """Return an embedder with another instruction for queries, on the same loaded model.

        `None` goes back to the task's own, `""` uses no prompt. Documents, and so the vector space, stay as they are.
        """
        arguments.optional_text(instruction, "instruction")
        return self._view(instruction=instruction)

    def with_task(self, task: str | None) -> Self:
        """Return an embedder for another task, on the same loaded model. An instruction given before is dropped."""
        arguments.optional_text(task, "task")
        return self._view(task=task, instruction=None)

    def with_dim(self, dim: int | None) -> Self:
        """Return an embedder with another width, on the same loaded model. `None` is the model's own default."""
        return self._view(dim=arguments.positive(dim, "dim"))

    def without_cache(self) -> Self:
        """Return an embedder that asks the model itself, on the same loaded model."""
        twin = self._view(cache=None)
        twin._store = None
        return twin

    def render(
        self,
        text: Input,
        *,
        role: Role,
        instruction: str | None = None,
        task: str | None = None,
        title: str | None = None,
    ) -> str:
        """Return the exact string that the tokenizer gets for a text, without loading anything.

        A picture is one mark in it; the tokenizer gets as many as it has tokens.
        """
        item = arguments.content(text, "text", self.spec)
        return self._render(
            self.spec, [item], role, PromptChoice(instruction, task), None if title is None else [title]
        )[0].shown

    def _render(
        self,
        spec: EmbeddingSpec,
        texts: Sequence[Content],
        role: Role,
        call: PromptChoice,
        titles: Sequence[str | None] | None,
    ) -> Sequence[Rendered]:
        return rendered_as(role, texts, spec, call, self._settings.prompt_choice, titles)

    def encode(
        self,
        texts: Sequence[Input],
        *,
        role: Role,
        titles: Sequence[str | None] | None = None,
        instruction: str | None = None,
        task: str | None = None,
        progress: bool = False,
    ) -> EmbeddingResult:
        """Embed texts and report what happened to each.

        Args:
            texts: Any number of texts, also none; for models that take images, also images (`Image`), sequences of
                texts and images, and mappings with "text" and "image".
            role: Which side of the search the texts are on.
            titles: One title or `None` per document, for models with a place for titles.
            instruction: What these queries are for; wins over the constructor's. `""`: no prompt.
            task: The task of this call; wins over the constructor's.
            progress: Whether to show a progress bar on stderr.

        Returns:
            Vectors in input order, with token counts and truncation. Equal texts are computed once.

        Raises:
            ArgumentTypeError: `texts` is no list of strings; the error has the index.
            ArgumentError: An option does not fit the model.
            InputTooLongError: A text is too long and `truncate="error"`. Nothing was computed.
            NonFiniteVectorError: The model returned NaN or infinity; the error has the index.
        """
        return self._run(partial(self._plan, texts, role, titles, PromptChoice(instruction, task), progress))

    def _plan(
        self,
        texts: Sequence[Input],
        role: Role,
        titles: Sequence[str | None] | None,
        call: PromptChoice,
        progress: bool = False,
        start: int = 0,
    ) -> Plan[EmbeddingResult]:
        """Check and render the texts, the first of which has the index `start` for the caller. Loads nothing."""
        spec, settings = self.spec, self._settings
        items = arguments.contents(texts, "texts", spec, start=start)
        self._check_images(items, "texts", start)
        image_tokens = count_image_tokens(items, spec, settings.max_pixels)
        with placed(range(start, start + len(items))):
            rendered = self._render(spec, items, role, call, titles)
        if self._shared.renders == "server":
            chosen = active_task(spec.prompts, call, settings.prompt_choice, model=spec.id)
            if chosen is not spec.prompts.tasks[0]:
                raise ArgumentError(
                    f"{self._shared.backend.name!r} puts its own prompt around texts, so task={chosen.name!r} does "
                    "nothing; leave it out, or use a runtime that takes prompts"
                )
        if role == "query":
            given = call if call.given else settings.prompt_choice
            self._check_instruction_is_read(given.instruction, spec.prompts.default_instruction)
        space, dim = self._space(spec, call), self._dim(spec)
        distinct, order = _merged(rendered)
        del rendered, items
        shown = Run(progress, order, start)
        options = replace(self._options(spec, dim), on_progress=shown.advance if progress else None)

        def finish(output: Output | None) -> EmbeddingResult:
            if output is None:
                return EmbeddingResult(
                    np.empty((0, dim), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_), space,
                    image_tokens=image_tokens,
                )  # fmt: skip
            vectors = finish_vectors(
                output.array("dense"), count=len(distinct), dim=dim, normalize=settings.normalize, what=spec.id
            )
            counts, truncated = output.token_counts, output.truncated
            if len(distinct) < len(order):
                vectors = spread(vectors, order)
                counts = None if counts is None else counts[order]
                truncated = None if truncated is None else truncated[order]
            if truncated is not None:
                self._warn_truncated(counts, truncated, options.max_tokens, start)
            return EmbeddingResult(vectors, counts, truncated, space, output.answered_by, image_tokens)

        return Plan(Request(distinct, options, urgent=role == "query"), finish, shown)

    def encode_dims(
        self,
        texts: Sequence[Input],
        dims: Sequence[int],
        *,
        role: Role,
        titles: Sequence[str | None] | None = None,
        instruction: str | None = None,
        task: str | None = None,
    ) -> dict[int, EmbeddingResult]:
        """Embed texts once and cut the vectors to several widths, for a search in two stages.

        Args:
            texts: Any number of texts, also none.
            dims: The widths.
            role: Which side of the search the texts are on.
            titles: As in `encode`.
            instruction: As in `encode`.
            task: As in `encode`.

        Returns:
            For each width what `with_dim(width).encode(...)` returns.

        Raises:
            ArgumentError: The model's vectors cannot be cut to one of the widths.
        """
        widths = [arguments.count(dim, f"dims[{index}]") for index, dim in enumerate(arguments.listed(dims, "dims"))]
        views = {dim: self.with_dim(dim) for dim in widths}
        call = partial(Embedder.encode, texts=texts, role=role, titles=titles, instruction=instruction, task=task)
        if self._shared.native_dims:
            return {dim: call(view) for dim, view in views.items()}
        whole = call(self._view(dim=self.spec.dim, normalize=self._shared.normalizes))
        return {
            dim: EmbeddingResult(
                finish_vectors(
                    whole.vectors[:, :dim].copy(),
                    count=len(whole.vectors),
                    dim=dim,
                    normalize=self._settings.normalize,
                    what=self.spec.id,
                ),
                whole.token_counts,
                whole.truncated,
                view._space(view.spec, PromptChoice(instruction, task)),
                whole.answered_by,
                whole.image_tokens,
            )
            for dim, view in views.items()
        }

    def _warn_truncated(
        self, counts: NDArray[np.int64] | None, truncated: NDArray[np.bool_], max_tokens: int, start: int
    ) -> None:
        cut = np.flatnonzero(truncated)
        if len(cut) and self._settings.truncate == "warn":
            tokens = "" if counts is None else f", {counts[cut[0]]} tokens"
            warn(
                f"{len(cut)} of {len(truncated)} texts are longer than {max_tokens} tokens and lost "
                f"their end (first at index {start + cut[0]}{tokens}); split them, "
                "raise max_tokens, or pass truncate='error' or 'silent'",
                TruncationWarning,
            )

    def embed_query(self, text: Input, *, instruction: str | None = None, task: str | None = None) -> Vector:
        """Embed one query.

        Args:
            text: The query, without any prompt.
            instruction: What this query is for; wins over the constructor's. `""`: no prompt.
            task: The task of this call; wins over the constructor's.

        Returns:
            float32, (dim,).
        """
        checked = self._query(text)
        vector: Vector = self.embed_queries([checked], instruction=instruction, task=task)[0]
        return vector

    def _query(self, text: Input) -> Content:
        """Check a query that is no list's, so that errors about it have neither an index nor the name of a list."""
        return arguments.query(text, "text", self.spec)

    def embed_queries(
        self, texts: Sequence[Input], *, instruction: str | None = None, task: str | None = None
    ) -> Matrix:
        """Embed queries. Arguments and errors as in `encode`.

        Returns:
            float32, (n, dim).
        """
        return self.encode(texts, role="query", instruction=instruction, task=task).vectors

    def embed_documents(
        self,
        texts: Sequence[Input],
        *,
        titles: Sequence[str | None] | None = None,
        task: str | None = None,
        progress: bool = False,
    ) -> Matrix:
        """Embed documents. Arguments and errors as in `encode`.

        Returns:
            float32, (n, dim).
        """
        return self.encode(texts, role="document", titles=titles, task=task, progress=progress).vectors

    def iter_documents(
        self,
        texts: Iterable[Input],
        *,
        titles: Iterable[str | None] | None = None,
        task: str | None = None,
        progress: bool = False,
    ) -> Iterator[Vector]:
        """Embed documents as they come, in the memory of about a thousand texts, or of 32 documents with pictures.

        For any number, also an endless stream.

        Texts are read, checked and embedded in blocks when their vectors are asked for. After an error or a break, go
        on with the text whose index is the number of vectors received.

        Args:
            texts: The documents, in an order: a list, a generator.
            titles: One title or `None` per document, read beside the texts.
            task: As in `encode`.
            progress: Whether to show a progress bar on stderr.

        Yields:
            float32, (dim,), one per text, in input order.

        Raises:
            ArgumentTypeError: At once, for what is no stream of texts, such as a table, a mapping or an open file.
            ArgumentError, InputTooLongError, NonFiniteVectorError: As in `encode`, at the block with the text at fault;
                the index counts from the stream's first text.
        """
        found = blocks(texts, titles)
        self._check_stream(task, progress)
        return self._iter_blocks(found, bar_of(texts, progress), task)

    def _iter_blocks(
        self, found: Iterator[Block], bar: AbstractContextManager[Progress], task: str | None
    ) -> Iterator[Vector]:
        with bar as shown:
            for block in found:
                vectors = self._run(self._block_plan(block, task)).vectors
                shown.advance(len(vectors))
                # Copies: a row that somebody keeps would keep its whole block.
                yield from (vector.copy() for vector in vectors)

    def aiter_documents(
        self,
        texts: Iterable[Input] | AsyncIterable[Input],
        *,
        titles: Iterable[str | None] | AsyncIterable[str | None] | None = None,
        task: str | None = None,
        progress: bool = False,
    ) -> AsyncIterator[Vector]:
        """`iter_documents` without blocking the event loop, except while an ordinary iterable makes its next text."""
        return self._aiter_blocks(ablocks(texts, titles), bar_of(texts, progress), task, progress)

    async def _aiter_blocks(
        self, found: AsyncIterator[Block], bar: AbstractContextManager[Progress], task: str | None, progress: bool
    ) -> AsyncGenerator[Vector, None]:
        # Off the loop: the facts of a model without a record may have to be fetched.
        await self.off_loop(partial(self._check_stream, task, progress))
        with bar as shown:
            async for block in found:
                vectors = (await self._arun(self._block_plan(block, task))).vectors
                shown.advance(len(vectors))
                for vector in vectors:
                    yield vector.copy()

    def _check_stream(self, task: str | None, progress: bool) -> None:
        arguments.optional_text(task, "task")
        arguments.flag(progress, "progress")
        check_choice(self.spec.prompts, PromptChoice(task=task), model=self.spec.id)

    def _block_plan(self, block: Block, task: str | None) -> Callable[[], Plan[EmbeddingResult]]:
        call = PromptChoice(task=task)
        return partial(self._plan, block.texts, "document", block.titles, call, start=block.start)

    def check_documents(
        self, texts: Sequence[Input], *, titles: Sequence[str | None] | None = None, task: str | None = None
    ) -> None:
        """Raise what `embed_documents` would raise about its arguments, and compute nothing. Loads the model.

        For code that embeds and stores in batches: all texts should be checked before the first is stored. With
        `truncate="error"`, and with titles, every text is tokenised for it.
        """
        served = self._served(self._shared)
        made = self._plan(texts, "document", titles, PromptChoice(task=task))
        inputs, options = made.request.inputs, made.request.options
        # Without titles one text tells whether the prompt leaves room, and otherwise a long text is no error. Pictures
        # are never cut, so each tells for itself.
        every = options.refuse_long or titles is not None or any(item.images for item in inputs)
        rows = range(len(inputs)) if every else _longest(inputs)
        with made.around:
            for block in row_blocks(len(rows)):
                places = rows[block]
                with placed(places):
                    served.check([inputs[place] for place in places], options)

    def count_tokens(
        self,
        texts: Sequence[Input],
        *,
        role: Role,
        titles: Sequence[str | None] | None = None,
        instruction: str | None = None,
        task: str | None = None,
    ) -> NDArray[np.int64] | None:
        """Return how long texts are for the model, without running it. Loads it.

        Args:
            texts: Any number of texts, also none.
            role: As in `encode`.
            titles: As in `encode`.
            instruction: As in `encode`.
            task: As in `encode`.

        Returns:
            (n,) tokens of each text, prompt and special tokens included, nothing cut off. `None`: the runtime cannot
            tell without running them, as a server whose tokenizer is not on this machine.

        Raises:
            ArgumentError, ArgumentTypeError: As of `encode`.
        """
        spec = self.spec
        items = arguments.contents(texts, "texts", spec)
        self._check_images(items, "texts")
        rendered = self._render(spec, items, role, PromptChoice(instruction, task), titles)
        return self._served(self._shared).count(rendered, self._options(spec)) if items else np.empty(0, np.int64)

    async def acount_tokens(
        self,
        texts: Sequence[Input],
        *,
        role: Role,
        titles: Sequence[str | None] | None = None,
        instruction: str | None = None,
        task: str | None = None,
    ) -> NDArray[np.int64] | None:
        """`count_tokens` without blocking the event loop."""
        call = partial(self.count_tokens, texts, role=role, titles=titles, instruction=instruction, task=task)
        return await self._shared.lanes[role == "query"].run(call)

    def tokenize(
        self,
        texts: Sequence[Input],
        *,
        role: Role,
        titles: Sequence[str | None] | None = None,
        instruction: str | None = None,
        task: str | None = None,
    ) -> list[list[Token]] | None:
        """Return the tokens that the model reads, prompt and special tokens included, nothing cut off. Loads it.

        Args:
            texts: Any number of texts, also none.
            role: As in `encode`.
            titles: As in `encode`.
            instruction: As in `encode`.
            task: As in `encode`.

        Returns:
            Tokens per text, with their places in `render(...)`; all tokens of an image have the place of its mark.
            `None`: the runtime does not tell them.

        Raises:
            ArgumentError, ArgumentTypeError: As of `encode`.
        """
        items = arguments.contents(texts, "texts", self.spec)
        self._check_images(items, "texts")
        rendered = self._render(self.spec, items, role, PromptChoice(instruction, task), titles)
        return self._served(self._shared).tokenize(rendered, self._options(self.spec)) if items else []

    async def acheck_documents(
        self, texts: Sequence[Input], *, titles: Sequence[str | None] | None = None, task: str | None = None
    ) -> None:
        """`check_documents` without blocking the event loop."""
        await self.off_loop(partial(self.check_documents, texts, titles=titles, task=task))

    async def aembed_query(self, text: Input, *, instruction: str | None = None, task: str | None = None) -> Vector:
        """`embed_query` without blocking the event loop."""
        checked: Input
        if isinstance(text, str) and not forms.holds_image(text):
            checked = arguments.text(text, "text")
        else:
            # Its pictures are decoded off the event loop.
            checked = await self._shared.lanes[True].run(partial(self._query, text))
        vector: Vector = (await self.aembed_queries([checked], instruction=instruction, task=task))[0]
        return vector

    async def aembed_queries(
        self, texts: Sequence[Input], *, instruction: str | None = None, task: str | None = None
    ) -> Matrix:
        """`embed_queries` without blocking the event loop."""
        return (await self.aencode(texts, role="query", instruction=instruction, task=task)).vectors

    async def aembed_documents(
        self,
        texts: Sequence[Input],
        *,
        titles: Sequence[str | None] | None = None,
        task: str | None = None,
        progress: bool = False,
    ) -> Matrix:
        """`embed_documents` without blocking the event loop."""
        return (await self.aencode(texts, role="document", titles=titles, task=task, progress=progress)).vectors

    async def aencode(
        self,
        texts: Sequence[Input],
        *,
        role: Role,
        titles: Sequence[str | None] | None = None,
        instruction: str | None = None,
        task: str | None = None,
        progress: bool = False,
    ) -> EmbeddingResult:
        """`encode` without blocking the event loop. Calls at the same time share batches."""
        plan = partial(self._plan, texts, role, titles, PromptChoice(instruction, task), progress)
        return await self._arun(plan, urgent=role == "query")

    def info(self) -> dict[str, Any]:
        """Return what is used and why, as plain values. Chooses a device, but loads no weights."""
        shared, prompts = self._shared, self.spec.prompts
        return {
            **super().info(),
            "dim": self.dim,
            "pooling": self.spec.pooling or UNKNOWN_POOLING,
            "query_prompt": self.render("", role="query"),
            "document_prompt": self.render("", role="document"),
            "prompts_from": shared.prompts_from,
            "tasks": [task.name for task in prompts.tasks],
            "lexical": self.spec.lexical,
            # Only where somebody chose it.
            **({"picture_prompt": prompt} if (prompt := self.space.picture_prompt) else {}),
            "space": self.space.id,
            "fingerprint": self.fingerprint,
            "cache": self._cache_info(),
        }

    @property
    def cache_counts(self) -> tuple[int, int] | None:
        """How many texts were found in the cache so far, and how many were not; `None` without a cache."""
        return None if self._tally is None else (self._tally.found, self._tally.missing)

    def _cache_info(self) -> dict[str, Any] | None:
        cache = self._settings.cache
        if cache is None:
            return None
        place = {"path": str(cache_file(cache.path))} if isinstance(cache, caches.SqliteCache) else {}
        kind = "sqlite" if place else "memory"
        return {"kind": kind, **place, "max_bytes": cache.max_bytes, "ttl": self._ttl(self._shared)}


def _opened(cache: CacheOptions | None) -> Store | None:
    if cache is None:
        return None
    # Inside the function: most programs have no cache.
    from embrief.cache.opening import store_of

    return store_of(cache)


def _tally() -> Tally:
    # Inside the function, as above.
    from embrief.cache.store import Tally

    return Tally()


def _merged(rendered: Sequence[Rendered]) -> tuple[Sequence[Rendered], NDArray[np.int64]]:
    """Return the distinct ones among texts, and the place of each text there."""
    rows: dict[Any, int] = {}
    keys: Sequence[Any] = rendered.bodies if isinstance(rendered, RenderedTexts) else rendered
    order = np.fromiter((rows.setdefault(key, len(rows)) for key in keys), np.int64, len(keys))
    distinct: list[Any] = list(rows)
    return rendered.of(distinct) if isinstance(rendered, RenderedTexts) else distinct, order


def _longest(inputs: Sequence[Rendered]) -> range:
    """Return the place of the longest input, as a range that is empty without inputs."""
    first = max(range(len(inputs)), key=lambda place: len(inputs[place].head) + len(inputs[place].body), default=0)
    return range(first, min(first + 1, len(inputs)))
