"""What a runtime must offer, and how it is described without importing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from embrief.errors import InputTooLongError
from embrief.installed import is_installed
from embrief.specs import EmbeddingSpec, ModelSpec, RerankerSpec

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from embrief.prompts import RenderedPair


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
    prompts: tuple[str, ...] = ()
    """The prompts that stand before the texts. A limit that leaves room for nothing else is refused."""
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


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an embedding runtime returns."""

    vectors: NDArray[Any]
    """(n, width), pooled, in input order; neither cut nor normalised."""
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


class EmbeddingBackend(Protocol):
    """A loaded embedding model. One call runs at a time."""

    def encode(self, texts: Sequence[str], options: RunOptions) -> Encoded:
        """Return one pooled vector per rendered text. Adds no prompt."""

    def close(self) -> None:
        """Free what the model holds."""


class RerankBackend(Protocol):
    """A loaded reranker. One call runs at a time."""

    def score(self, pairs: Sequence[RenderedPair], options: RunOptions) -> Scored:
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
