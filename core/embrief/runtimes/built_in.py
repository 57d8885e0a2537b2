"""The built-in runtimes as discovery sees them: what they are called, serve and refuse.

What runs them is imported when a model is loaded: numpy alone takes longer than all that `embrief models` does besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embrief.errors import ArgumentError
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.runtimes.base import Backend
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from embrief.facts.specs import ModelSpec
    from embrief.files.model_files import ModelFiles
    from embrief.runtimes.base import EmbeddingBackend, LoadRequest, RerankBackend

_ENGINE_ARCHITECTURES = ("qwen3", "gemma3_text")
_ENGINE_MODULES = {"Transformer", "Pooling", "Dense", "Normalize", "Dropout", "LogitScore"}


def _engine_supports(spec: ModelSpec) -> bool:
    if isinstance(spec, EmbeddingSpec):
        return spec.architecture in _ENGINE_ARCHITECTURES and spec.pooling in ("last", "mean")
    return (
        isinstance(spec, RerankerSpec) and spec.architecture in _ENGINE_ARCHITECTURES and spec.scoring != "classifier"
    )


def _engine_resolve(spec: ModelSpec, device: str, dtype: str) -> tuple[str, str]:
    """Return device and number format; where 8 bits of a weight do not add up right, int8 becomes int7."""
    if dtype != "int8":
        return _torch_resolve(spec, device, dtype)
    device, between = _torch_resolve(spec, device, "auto")
    if device != "cpu":
        raise ArgumentError(f"dtype='int8' runs on the CPU only, not on {device}; use dtype='auto' or device='cpu'")
    import torch

    from embrief.engine.linear import int8_format

    return device, int8_format(getattr(torch, between))


def _engine_refusal(spec: ModelSpec, files: ModelFiles) -> str | None:
    """Say why the engine does not run these files, `None` if it does."""
    from embrief.engine.description import DENSE_ACTIVATIONS, UnsupportedError, dense_activation, describe

    if "auto_map" in files.config:
        return "runs no code that comes with a model"
    try:
        describe(files.config)
    except UnsupportedError as error:
        return str(error)
    if unknown := sorted(set(files.kinds) - _ENGINE_MODULES):
        return f"has no module {unknown[0]}"
    for config in files.module_config("Dense"):
        if dense_activation(config) not in DENSE_ACTIVATIONS:
            return f"has no Dense layer with {config.get('activation_function')}"
        if config.flag("use_residual"):
            return "has no Dense layer with use_residual"
    if not (files.base / "tokenizer.json").is_file():
        return "reads tokenizer.json, which is not there"
    return None


def _engine_embedder(request: LoadRequest) -> EmbeddingBackend:
    from embrief.runtimes.engine import EngineEmbedder

    return EngineEmbedder(request)


def _engine_reranker(request: LoadRequest) -> RerankBackend:
    from embrief.runtimes.engine import EngineReranker

    return EngineReranker(request)


def _hash_supports(spec: ModelSpec) -> bool:
    return spec.architecture == "hash"


def _hash_resolve(spec: ModelSpec, device: str, dtype: str) -> tuple[str, str]:
    if device not in ("auto", "cpu") or dtype not in ("auto", "float32"):
        raise ArgumentError(
            f"{spec.id} runs on the CPU in float32 only, not with device={device!r} and dtype={dtype!r}"
        )
    return "cpu", "float32"


def _hash_embedder(request: LoadRequest) -> EmbeddingBackend:
    from embrief.runtimes.hashing import HashBackend

    assert isinstance(request.spec, EmbeddingSpec)  # `Backend.serves` has checked it
    return HashBackend(request.spec)


def _st_supports(spec: ModelSpec) -> bool:
    # Which architectures the installed transformers knows cannot be told without importing it.
    return spec.architecture != "hash"


def _st_embedder(request: LoadRequest) -> EmbeddingBackend:
    from embrief.runtimes.sentence_transformers import SentenceTransformersEmbedder

    return SentenceTransformersEmbedder(request)


def _st_reranker(request: LoadRequest) -> RerankBackend:
    from embrief.runtimes.transformers_rerank import load

    return load(request)


def _torch_resolve(spec: ModelSpec, device: str, dtype: str) -> tuple[str, str]:
    from embrief.runtimes.torch_common import resolve

    return resolve(spec, device, dtype)


ENGINE = Backend(
    name="engine",
    requires=("torch", "tokenizers", "safetensors"),
    install=install_command("torch"),
    supports=_engine_supports,
    resolve=_engine_resolve,
    load_embedder=_engine_embedder,
    load_reranker=_engine_reranker,
    refusal=_engine_refusal,
    preference=10,
)
HASH = Backend(
    name="hash",
    supports=_hash_supports,
    resolve=_hash_resolve,
    load_embedder=_hash_embedder,
    native_dims=True,
    needs_files=False,
)
SENTENCE_TRANSFORMERS = Backend(
    name="sentence-transformers",
    requires=("torch", "transformers", "sentence_transformers"),
    install=install_command("torch"),
    supports=_st_supports,
    resolve=_torch_resolve,
    load_embedder=_st_embedder,
    load_reranker=_st_reranker,
    # It takes anything, so every runtime that knows a model better goes first.
    preference=-10,
)
