"""What a runtime must offer, and how it is described without importing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from embrief.errors import InputTooLongError
from embrief.facts.specs import EmbeddingSpec, ModelSpec, RerankerSpec
from embrief.system.installed import is_installed

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.files.model_files import ModelFiles


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """All that a runtime needs to load one model."""

    spec: ModelSpec
    folder: Path | None
    """Where the files are; `None` for a runtime that needs none."""
    device: str
    dtype: str
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What one call asks of a loaded model."""

    max_tokens: int
    """Tokens per text, special tokens included."""
    refuse_long: bool = False
    """Raise `InputTooLongError` before any work if a text is longer, instead of cutting its end off."""
    batch_tokens: int | None = None
    """Tokens per batch, padding included; `None` lets the runtime choose."""
    dim: int | None = None
    """Width that will be kept. A runtime that can produce it natively may; others return the full width."""
    on_progress: Callable[[int], None] | None = None
    """Called with the number of texts just finished."""


def too_long(index: int, tokens: int, options: RunOptions, what: str = "the text") -> InputTooLongError:
    """Return the error for a text that may not be cut."""
    return InputTooLongError(
        f"{what} at index {index} has {tokens} tokens, the limit is {options.max_tokens}; split it, raise max_tokens, "
        "or cut its end off with truncate='warn' or 'silent'",
        index=index,
        tokens=tokens,
        limit=options.max_tokens,
    )


def no_room(index: int, tokens: int, options: RunOptions) -> InputTooLongError:
    """Return the error for a limit that leaves nothing of a text."""
    return InputTooLongError(
        f"the prompt of the text at index {index} has {tokens} tokens, special tokens included, so the limit of "
        f"{options.max_tokens} leaves no room for text; raise max_tokens",
        index=index,
        tokens=tokens,
        limit=options.max_tokens,
    )


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an embedding runtime returns."""

    vectors: NDArray[Any]
    """(n, width), pooled, in input order; neither cut nor normalised. The caller's from now on: it may change them."""
    token_counts: NDArray[np.int64]
    """(n,) length of each text before truncation, prompt and special tokens included."""
    truncated: NDArray[np.bool_]
    """(n,) whether the end of the text was cut off."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a reranking runtime returns."""

    logits: NDArray[Any]
    """(n,) log-odds of relevance, in input order."""
    token_counts: NDArray[np.int64]
    truncated: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The inputs of one call, ready to run: one row per text or pair, in input order."""

    rows: Sequence[Any]
    """What `run` takes; opaque to everyone else."""
    sizes: NDArray[np.int64]
    """(n,) tokens that each row adds to a batch; a prefix that is computed once for many rows does not count."""
    token_counts: NDArray[np.int64]
    """(n,) length of each input before truncation, prompt and special tokens included."""
    truncated: NDArray[np.bool_]
    """(n,) whether the end of the text or document was cut off."""


@runtime_checkable
class Batched(Protocol):
    """What a loaded model offers besides `encode` or `score` so that calls can be cut and share batches."""

    batch_tokens: int
    """Tokens per batch unless the caller says otherwise."""
    padded: bool
    """Whether a batch is as wide as its longest row: it costs rows x longest instead of the sum of sizes."""
    side_by_side: int = 1
    """Rows that run at the same time: where a batch is full, it has a multiple of them."""

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        """Turn rendered texts or pairs into rows. Called from any thread, also from several at once.

        Raises:
            InputTooLongError: An input is over the limit and may not be cut. Nothing was computed.
        """

    def run(self, rows: Sequence[Any]) -> NDArray[Any]:
        """Return one result per row: (n, width) pooled vectors or (n,) logits. One call runs at a time.

        A row's result does not depend on the rows beside it. May raise for any of them; the caller finds out for which.
        """


@runtime_checkable
class Checking(Protocol):
    """What a loaded model that is not `Batched` may offer, so that stores find a text that is too long beforehand."""

    def check(self, inputs: Sequence[Rendered], options: RunOptions) -> None:
        """Raise what `encode` or `score` would raise about the lengths of these inputs, and compute nothing."""


def batches(sizes: Sequence[int], budget: int, *, padded: bool) -> Iterator[list[int]]:
    """Yield positions in batches of similar size that stay within the token budget; a larger row goes alone.

    Longest first: if memory is short, it shows at once and not after an hour.
    """
    batch: list[int] = []
    cost = 0
    for position in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        # The longest row of a batch is its first.
        more = sizes[batch[0]] if padded and batch else sizes[position]
        if batch and cost + more > budget:
            yield batch
            batch, cost, more = [], 0, sizes[position]
        batch.append(position)
        cost += more
    if batch:
        yield batch


def _run_all(backend: Batched, prepared: Prepared, options: RunOptions) -> NDArray[Any]:
    """Run the rows of one call in batches and put the results back in order."""
    # Inside the function: what describes a runtime needs no numpy.
    import numpy as np

    from embrief.facts.vectors import keep

    values: NDArray[Any] | None = None
    budget = options.batch_tokens or backend.batch_tokens
    for batch in batches(prepared.sizes.tolist(), budget, padded=backend.padded):
        found = keep(backend.run([prepared.rows[index] for index in batch]), options.dim)
        if values is None:
            values = np.empty((len(prepared.rows), *found.shape[1:]), found.dtype)
        values[batch] = found
        if options.on_progress:
            options.on_progress(len(batch))
    return np.empty(0, np.float32) if values is None else values


class BatchedEmbedder(Batched, Protocol):
    """Base for a `Batched` embedding model: gives it the `encode` that every runtime has."""

    def encode(self, texts: Sequence[Rendered], options: RunOptions) -> Encoded:
        """Return one pooled vector per rendered text. Adds no prompt."""
        prepared = self.prepare(texts, options)
        return Encoded(_run_all(self, prepared, options), prepared.token_counts, prepared.truncated)


class BatchedReranker(Batched, Protocol):
    """Base for a `Batched` reranker: gives it the `score` that every runtime has."""

    def score(self, pairs: Sequence[Rendered], options: RunOptions) -> Scored:
        """Return the log-odds of relevance of each rendered pair. Cuts documents only."""
        prepared = self.prepare(pairs, options)
        return Scored(_run_all(self, prepared, options), prepared.token_counts, prepared.truncated)


class EmbeddingBackend(Protocol):
    """A loaded embedding model. One call runs at a time."""

    def encode(self, texts: Sequence[Rendered], options: RunOptions) -> Encoded:
        """Return one pooled vector per rendered text. Adds no prompt."""

    def close(self) -> None:
        """Free what the model holds."""


class RerankBackend(Protocol):
    """A loaded reranker. One call runs at a time."""

    def score(self, pairs: Sequence[Rendered], options: RunOptions) -> Scored:
        """Return one score per rendered pair. Cuts documents only."""

    def close(self) -> None:
        """Free what the model holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Description of a runtime. Making one must not import the runtime."""

    name: str
    requires: tuple[str, ...] = ()
    """Import names that must be there."""
    install: str = ""
    """Command that installs them."""
    supports: Callable[[ModelSpec], bool]
    """Whether it can serve this model."""
    resolve: Callable[[ModelSpec, str, str], tuple[str, str]]
    """Turn (spec, device, dtype), where both may be `"auto"`, into the actual device and dtype."""
    refusal: Callable[[ModelSpec, ModelFiles], str | None] | None = None
    """Say why it cannot run these files of a model that it supports, as the rest of a sentence that begins with its
    name; `None` if it can. Asked for models without a record; a recorded model is what its record says."""
    load_embedder: Callable[[LoadRequest], EmbeddingBackend] | None = None
    load_reranker: Callable[[LoadRequest], RerankBackend] | None = None
    preference: int = 0
    """Where several runtimes serve a model, the installed one with the highest preference runs it."""
    native_dims: bool = False
    """Whether it makes a shorter vector itself (`RunOptions.dim`) instead of the full one to be cut."""
    needs_files: bool = True
    """Whether the model's files must be on this machine."""

    def missing(self) -> tuple[str, ...]:
        """Return the import names that are not installed."""
        return tuple(name for name in self.requires if not is_installed(name))

    def serves(self, spec: ModelSpec) -> bool:
        """Return whether it supports the model and has a loader for its kind."""
        loader = {EmbeddingSpec: self.load_embedder, RerankerSpec: self.load_reranker}.get(type(spec))
        return loader is not None and self.supports(spec)
