"""Other words for settings, as files of other projects have them: one table to what they are called here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Alias:
    """Another word for a setting."""

    setting: str
    """What it is called here."""
    means: Callable[[Any], Any] | None = None
    """Makes the setting's value of the word's, where they are not the same."""
    kind: str | None = None
    """The kind of the word's own value, where it is not the setting's."""
    note: str = ""
    """What differs, for the documentation."""
    elsewhere: str = ""
    """What is told, and no error, where the setting does not apply: habit writes this word for every model."""


_DIM = Alias("dim")
_TOKENS = Alias("max_tokens")
_ROWS = Alias(
    "batch_rows", note="in texts; for models in this process `batch_tokens` is in tokens",
    elsewhere="counts texts, and a model in this process is given tokens; it has no effect (batch_tokens: N would)",
)  # fmt: skip
_GPU = Alias(
    "device", means=lambda on: "auto" if on else "cpu", kind="flag", note="true: `auto`; false: `cpu`",
    elsewhere="has no effect: the server decides where its model runs",
)  # fmt: skip
_TRIES = Alias("tries", means=lambda count: count + 1, kind="number", note="tries = retries + 1")
_DTYPE = Alias("dtype")
_MODEL = Alias("model_id")
_URL = Alias("base_url")
_PROVIDER = Alias("provider")
_INSTRUCTION = Alias("instruction")

MODEL_ALIASES: Mapping[str, Alias] = {
    "provider_type": _PROVIDER, "type": _PROVIDER, "backend": _PROVIDER, "runtime": _PROVIDER, "engine": _PROVIDER,
    "model": _MODEL, "model_name": _MODEL, "model_name_or_path": _MODEL, "model_path": _MODEL, "path": _MODEL,
    "repo_id": _MODEL, "id": _MODEL,
    "commit": Alias("revision"), "model_revision": Alias("revision"),
    "dimensions": _DIM, "dimension": _DIM, "dims": _DIM, "embedding_dim": _DIM, "embed_dim": _DIM,
    "output_dimension": _DIM, "output_dimensionality": _DIM, "truncate_dim": _DIM, "vector_size": _DIM,
    "max_length": _TOKENS, "max_seq_length": _TOKENS, "context_length": _TOKENS, "max_input_tokens": _TOKENS,
    "max_sequence_length": _TOKENS,
    "batch_size": _ROWS, "embed_batch_size": _ROWS, "max_batch_size": _ROWS, "chunk_size": _ROWS,
    "cache_enabled": Alias("cache"), "enable_cache": Alias("cache"), "use_cache": Alias("cache"),
    "ttl": Alias("cache_ttl"), "cache_folder": Alias("cache_dir"), "download_dir": Alias("cache_dir"),
    "gpu_enabled": _GPU, "use_gpu": _GPU, "gpu": _GPU,
    "quantization": _DTYPE, "quantisation": _DTYPE, "torch_dtype": _DTYPE, "precision": _DTYPE,
    "query_instruction": _INSTRUCTION, "instruct": _INSTRUCTION, "query_prompt": _INSTRUCTION,
    "normalize_embeddings": Alias("normalize"), "normalise": Alias("normalize"),
    "offline": Alias("local_files_only"), "local_only": Alias("local_files_only"),
    "url": _URL, "api_base": _URL, "host": _URL, "endpoint": _URL, "server_url": _URL,
    "api_key_env_var": Alias("api_key_env"), "api_key_variable": Alias("api_key_env"),
    "request_timeout": Alias("timeout"), "timeout_seconds": Alias("timeout"),
    "max_retries": _TRIES, "retries": _TRIES,
    "concurrency": Alias("in_flight"), "max_concurrency": Alias("in_flight"),
    "max_concurrent_requests": Alias("in_flight"),
    "rpm": Alias("requests_per_minute"), "tpm": Alias("tokens_per_minute"),
    "text_path": Alias("text_endpoint"), "image_path": Alias("image_endpoint"),
}  # fmt: skip
"""Of one model."""

FILE_ALIASES: Mapping[str, Alias] = {
    "default": Alias("default_model"), "default_embedding_model": Alias("default_model"),
    "embedding_models": Alias("models"), "reranker_model": Alias("reranker"), "default_reranker": Alias("reranker"),
    "fallbacks": Alias("fallback_chain"), "fallback": Alias("fallback_chain"),
}  # fmt: skip
"""Of the file itself."""
