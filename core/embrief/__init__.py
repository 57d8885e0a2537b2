"""Qwen3 and Gemma embedding and reranking for retrieval, with the prompts the models were trained with.

Examples:
    >>> from embrief import Embedder
    >>> embedder = Embedder("embrief/hash")
    >>> documents = embedder.embed_documents(["Mars is the Red Planet.", "Venus is bright."])
    >>> scores = documents @ embedder.embed_query("Which planet is red?")
    >>> int(scores.argmax())
    0
"""

from typing import TYPE_CHECKING, Any

from embrief.errors import (
    AmbiguousModelError,
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    ClosedError,
    DuplicateNameError,
    EmbriefError,
    GatedModelError,
    IndexedError,
    InputTooLongError,
    ItemFailedError,
    MissingDependencyError,
    ModelMismatchError,
    NewerFormatError,
    NonFiniteVectorError,
    NotEnoughSpaceError,
    OutOfMemoryError,
    PartlyStoredError,
    PluginError,
    PluginWarning,
    SpaceMismatchError,
    TruncationWarning,
    UnknownModelError,
    UnsupportedVersionError,
    WeightsUnavailableError,
)
from embrief.log import logger as _logger  # noqa: F401 - quiet from the start, unless the application sets it up
from embrief.plugins import plugins

if TYPE_CHECKING:
    from embrief.backends.base import (
        Backend,
        Batched,
        BatchedEmbedder,
        BatchedReranker,
        EmbeddingBackend,
        Encoded,
        LoadRequest,
        Prepared,
        RerankBackend,
        RunOptions,
        Scored,
    )
    from embrief.embedder import Embedder, EmbeddingResult
    from embrief.hookspecs import hookimpl
    from embrief.integrations import Integration
    from embrief.prompts import RenderedPair
    from embrief.reranker import RankedDocument, RankedItem, Reranker
    from embrief.space import VectorSpace
    from embrief.specs import EmbeddingPrompts, EmbeddingSpec, ModelSpec, RerankerSpec, RerankPrompt, Task

__version__ = "0.1.0"

__all__ = [
    "AmbiguousModelError",
    "ArgumentError",
    "ArgumentTypeError",
    "Backend",
    "BackendError",
    "Batched",
    "BatchedEmbedder",
    "BatchedReranker",
    "ClosedError",
    "DuplicateNameError",
    "Embedder",
    "EmbeddingBackend",
    "EmbeddingPrompts",
    "EmbeddingResult",
    "EmbeddingSpec",
    "EmbriefError",
    "Encoded",
    "GatedModelError",
    "IndexedError",
    "InputTooLongError",
    "Integration",
    "ItemFailedError",
    "LoadRequest",
    "MissingDependencyError",
    "ModelMismatchError",
    "ModelSpec",
    "NewerFormatError",
    "NonFiniteVectorError",
    "NotEnoughSpaceError",
    "OutOfMemoryError",
    "PartlyStoredError",
    "PluginError",
    "PluginWarning",
    "Prepared",
    "RankedDocument",
    "RankedItem",
    "RenderedPair",
    "RerankBackend",
    "RerankPrompt",
    "Reranker",
    "RerankerSpec",
    "RunOptions",
    "Scored",
    "SpaceMismatchError",
    "Task",
    "TruncationWarning",
    "UnknownModelError",
    "UnsupportedVersionError",
    "VectorSpace",
    "WeightsUnavailableError",
    "__version__",
    "hookimpl",
    "plugins",
]

_LATER = {
    "embrief.backends.base": (
        "Backend",
        "Batched",
        "BatchedEmbedder",
        "BatchedReranker",
        "EmbeddingBackend",
        "Encoded",
        "LoadRequest",
        "Prepared",
        "RerankBackend",
        "RunOptions",
        "Scored",
    ),
    "embrief.embedder": (
        "Embedder",
        "EmbeddingResult",
    ),
    "embrief.hookspecs": ("hookimpl",),
    "embrief.integrations": ("Integration",),
    "embrief.prompts": ("RenderedPair",),
    "embrief.reranker": (
        "RankedDocument",
        "RankedItem",
        "Reranker",
    ),
    "embrief.space": ("VectorSpace",),
    "embrief.specs": (
        "EmbeddingPrompts",
        "EmbeddingSpec",
        "ModelSpec",
        "RerankerSpec",
        "RerankPrompt",
        "Task",
    ),
}
"""What is imported when it is first asked for: numpy and all that computes is not needed to catch an error, to write a
plugin, or to show a command's help."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        for module, names in _LATER.items():
            if name in names:
                import importlib

                found = globals()[name] = getattr(importlib.import_module(module), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
