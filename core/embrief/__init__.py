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
    BadAnswerError,
    CacheWarning,
    ClosedError,
    ConfigError,
    DegradedAnswerError,
    DuplicateNameError,
    EmbriefError,
    EndpointError,
    GatedModelError,
    IndexedError,
    InputTooLongError,
    ItemFailedError,
    LicenseWarning,
    MissingDependencyError,
    ModelMismatchError,
    NewerFormatError,
    NonFiniteVectorError,
    NotEnoughSpaceError,
    OutOfMemoryError,
    PartlyStoredError,
    PluginError,
    PluginWarning,
    PrecisionWarning,
    RateLimitedError,
    ServerError,
    ServerModelWarning,
    SpaceMismatchError,
    TruncationWarning,
    UnauthorizedError,
    UnavailableError,
    UnknownModelError,
    UnprobedWarning,
    UnsupportedVersionError,
    WeightsUnavailableError,
)
from embrief.system.log import logger as _logger  # noqa: F401 - quiet from the start, unless the application sets it up

if TYPE_CHECKING:
    from embrief.cache.options import MemoryCache, SqliteCache
    from embrief.config.process import load_config, use_config
    from embrief.config.schema import Config
    from embrief.discovery.hookspecs import hookimpl
    from embrief.discovery.integrations import Integration
    from embrief.discovery.plugins import plugins
    from embrief.exporting import ExportReport, export_model
    from embrief.facades.embedder import Embedder, EmbeddingResult
    from embrief.facades.reranker import RankedDocument, RankedItem, Reranker
    from embrief.facts.prompts import Rendered, Source, group_by_query
    from embrief.facts.space import VectorSpace
    from embrief.facts.specs import Artifact, EmbeddingPrompts, EmbeddingSpec, ModelSpec, RerankerSpec, Task, Template
    from embrief.facts.values import Dense, Multi, Scores, Sparse
    from embrief.fallback import FallbackEmbedder, FallbackEvent, FallbackReranker
    from embrief.images.fetching import ImageFetcher
    from embrief.images.image import Image
    from embrief.images.limits import ImageLimits
    from embrief.parity import ParityReport, check_parity
    from embrief.registry import Health, ModelRow, Registry
    from embrief.runtimes.base import (
        Ask,
        Batched,
        LoadRequest,
        Model,
        Offer,
        Output,
        Prepared,
        Refusal,
        Remote,
        RunOptions,
        Runtime,
        RuntimeOptions,
    )

__version__ = "0.1.0"

__all__ = [
    "AmbiguousModelError",
    "ArgumentError",
    "ArgumentTypeError",
    "Artifact",
    "Ask",
    "BackendError",
    "BadAnswerError",
    "Batched",
    "CacheWarning",
    "ClosedError",
    "Config",
    "ConfigError",
    "DegradedAnswerError",
    "Dense",
    "DuplicateNameError",
    "Embedder",
    "EmbeddingPrompts",
    "EmbeddingResult",
    "EmbeddingSpec",
    "EmbriefError",
    "EndpointError",
    "ExportReport",
    "FallbackEmbedder",
    "FallbackEvent",
    "FallbackReranker",
    "GatedModelError",
    "Health",
    "Image",
    "ImageFetcher",
    "ImageLimits",
    "IndexedError",
    "InputTooLongError",
    "Integration",
    "ItemFailedError",
    "LicenseWarning",
    "LoadRequest",
    "MemoryCache",
    "MissingDependencyError",
    "Model",
    "ModelMismatchError",
    "ModelRow",
    "ModelSpec",
    "Multi",
    "NewerFormatError",
    "NonFiniteVectorError",
    "NotEnoughSpaceError",
    "Offer",
    "OutOfMemoryError",
    "Output",
    "ParityReport",
    "PartlyStoredError",
    "PluginError",
    "PluginWarning",
    "PrecisionWarning",
    "Prepared",
    "RankedDocument",
    "RankedItem",
    "RateLimitedError",
    "Refusal",
    "Registry",
    "Remote",
    "Rendered",
    "Reranker",
    "RerankerSpec",
    "RunOptions",
    "Runtime",
    "RuntimeOptions",
    "Scores",
    "ServerError",
    "ServerModelWarning",
    "Source",
    "SpaceMismatchError",
    "Sparse",
    "SqliteCache",
    "Task",
    "Template",
    "TruncationWarning",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownModelError",
    "UnprobedWarning",
    "UnsupportedVersionError",
    "VectorSpace",
    "WeightsUnavailableError",
    "__version__",
    "check_parity",
    "export_model",
    "group_by_query",
    "hookimpl",
    "load_config",
    "plugins",
    "use_config",
]

_LATER = {
    "embrief.exporting": (
        "ExportReport",
        "export_model",
    ),
    "embrief.fallback": (
        "FallbackEmbedder",
        "FallbackEvent",
        "FallbackReranker",
    ),
    "embrief.parity": (
        "ParityReport",
        "check_parity",
    ),
    "embrief.cache.options": (
        "MemoryCache",
        "SqliteCache",
    ),
    "embrief.config.process": (
        "load_config",
        "use_config",
    ),
    "embrief.config.schema": ("Config",),
    "embrief.registry": (
        "Health",
        "ModelRow",
        "Registry",
    ),
    "embrief.facts.values": (
        "Dense",
        "Multi",
        "Scores",
        "Sparse",
    ),
    "embrief.runtimes.base": (
        "Ask",
        "Batched",
        "LoadRequest",
        "Model",
        "Offer",
        "Output",
        "Prepared",
        "Refusal",
        "Remote",
        "RunOptions",
        "Runtime",
        "RuntimeOptions",
    ),
    "embrief.facades.embedder": (
        "Embedder",
        "EmbeddingResult",
    ),
    "embrief.discovery.hookspecs": ("hookimpl",),
    "embrief.discovery.integrations": ("Integration",),
    "embrief.discovery.plugins": ("plugins",),
    "embrief.images.fetching": ("ImageFetcher",),
    "embrief.images.image": ("Image",),
    "embrief.images.limits": ("ImageLimits",),
    "embrief.facts.prompts": (
        "Rendered",
        "Source",
        "group_by_query",
    ),
    "embrief.facades.reranker": (
        "RankedDocument",
        "RankedItem",
        "Refusal",
        "Reranker",
    ),
    "embrief.facts.space": ("VectorSpace",),
    "embrief.facts.specs": (
        "Artifact",
        "EmbeddingPrompts",
        "EmbeddingSpec",
        "ModelSpec",
        "RerankerSpec",
        "Task",
        "Template",
    ),
}
"""What is imported when it is first asked for: numpy and all that computes is not needed to catch an error, to write a
plugin, or to show a command's help."""

_GONE = {
    "BatchedEmbedder": "derive from embrief.Batched, with prepare(inputs, options) and run_rows(rows, kinds)",
    "BatchedReranker": "derive from embrief.Batched, with prepare(inputs, options) and run_rows(rows, kinds)",
    "EmbeddingBackend": "a model is an embrief.Model, with run(inputs, options) in the place of encode",
    "Encoded": "run(inputs, options) returns embrief.Output.dense(vectors, token_counts, truncated)",
    "RerankBackend": "a model is an embrief.Model, with run(inputs, options) in the place of score",
    "Scored": "run(inputs, options) returns embrief.Output.scores(logits, token_counts, truncated)",
    "Backend": "a runtime derives from embrief.Runtime, with offer(spec, ask) and load(request); register an instance",
    "RenderedPair": "texts and pairs are both embrief.Rendered, with head, body (the document of a pair) and tail",
    "RerankPrompt": "a RerankerSpec has template=embrief.Template(head, tail) and default_instruction=",
}
"""What plugins imported before the contract of this release, and what there is instead."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _GONE:
            # No AttributeError, which `from embrief import ...` replaces by a message of its own.
            raise ImportError(f"embrief.{name} is gone: {_GONE[name]}", name=__name__)
        for module, names in _LATER.items():
            if name in names:
                import importlib

                found = globals()[name] = getattr(importlib.import_module(module), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
