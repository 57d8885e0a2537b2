"""What a runtime must offer, and how it is described without importing it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from embrief.errors import ArgumentError, ArgumentTypeError, InputTooLongError
from embrief.system.installed import is_installed

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import Artifact, ModelSpec
    from embrief.files.model_files import ModelFiles


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """What a runtime lets its users choose, such as a server's address: `Embedder(..., backend=Tei(base_url=...))`.

    A subclass per runtime, a frozen dataclass with keyword-only fields, each with a default where there can be one.
    Equal options are one model, others another. Values are plain (strings, numbers, flags, `None`, tuples of these).
    They are shown and travel in pickles, so they hold the name of the environment variable with a secret, and never a
    secret.
    """

    def __post_init__(self) -> None:
        """Refuse values that cannot be compared, written down or shown.

        Raises:
            ArgumentTypeError: A value is not plain.
            ArgumentError: An address has a password in it.
        """
        for item in fields(self):
            value = getattr(self, item.name)
            if not _is_plain(value):
                raise ArgumentTypeError(
                    f"{type(self).__name__}({item.name}=...) takes plain values (strings, numbers, flags, None, tuples "
                    f"of these), not {type(value).__name__}"
                )
            if isinstance(value, str) and _PASSWORD.match(value):
                raise ArgumentError(
                    f"{type(self).__name__}({item.name}=...) has a password in the address, and options are shown and "
                    "stored; put it into an environment variable and give the variable's name"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the values as plain JSON."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/@]*@", re.IGNORECASE)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a caller wants of a runtime besides the model."""

    device: str = "auto"
    dtype: str = "auto"
    options: RuntimeOptions = RuntimeOptions()
    """Of the runtime's own `Options`."""
    files: ModelFiles | None = None
    """The model's small files, where it has no record: a recorded model is what its record says."""
    final: bool = False
    """Whether the answer is what the model will be loaded with. Before that nothing heavy may be imported, and `"auto"`
    may stay as it is; then both are settled, and what a device can do may be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A runtime can do it."""

    device: str
    """In the runtime's own words; `"auto"` only while the question is not final."""
    dtype: str
    artifact: Artifact | None = None
    """The files that it needs on this machine; `None`: none."""
    identity: str = ""
    """What else moves a vector besides runtime, number format and limits, such as the build of a server: it goes into
    the fingerprint."""
    native_dims: bool = False
    """Whether it makes a shorter vector itself (`RunOptions.dim`) instead of the full one to be cut."""
    leaves_machine: bool = False
    """Whether texts are sent to another machine. Such a runtime runs only where it is named."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A runtime cannot do it."""

    reason: str
    """The rest of a sentence that begins with the runtime's name."""
    about: Literal["model", "files", "request"] = "model"
    """What is in the way: the kind of model, the files of one that it runs otherwise, or device, format and options."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """All that a runtime needs to load one model."""

    spec: ModelSpec
    folder: Path | None
    """Where the files of the offer's artifact are; `None` for a runtime that needs none."""
    device: str
    dtype: str
    trust_remote_code: bool = False
    options: RuntimeOptions = RuntimeOptions()
    artifact: Artifact | None = None


class Runtime(ABC):
    """One way to run models. Making one must not import what it runs on.

    A plugin derives from it and registers an instance.
    """

    name: str
    requires: tuple[str, ...] = ()
    """Import names that must be there."""
    install: str = ""
    """Command that installs them."""
    preference: int = 0
    """Where several runtimes serve a model, the installed one with the highest preference runs it."""
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    """The devices that it knows by name, without numbers."""
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    """The number formats that it knows by name."""
    Options: type[RuntimeOptions] = RuntimeOptions
    """Its options."""

    @abstractmethod
    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        """Say whether it serves a model, and how. Asked often and repeatable; asks no network.

        Args:
            spec: The model.
            ask: What else is wanted; device and format are among those that it knows.

        Raises:
            ArgumentError: Of a final question only: the device is not there, or cannot do what is asked.
        """

    @abstractmethod
    def load(self, request: LoadRequest) -> EmbeddingBackend | RerankBackend:
        """Load a model that it has offered: of an `EmbeddingSpec` what embeds, of a `RerankerSpec` what scores."""

    def missing(self) -> tuple[str, ...]:
        """Return the import names that are not installed."""
        return tuple(name for name in self.requires if not is_installed(name))


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
