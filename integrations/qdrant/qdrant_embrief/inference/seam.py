"""The private parts of qdrant-client that `attach` builds on, and the check that they are there.

qdrant-client has no public way to add a model. `attach` replaces the object that the client asks for
vectors; should a release rename any part of it, an error must say so before a text is embedded with the
wrong prompt, or not at all.
"""

from __future__ import annotations

from importlib.metadata import version

from qdrant_client import AsyncQdrantClient, QdrantClient

from embrief.errors import ArgumentError, ArgumentTypeError, UnsupportedVersionError

SUPPORTED = "qdrant-client >=1.18,<1.21"
_FIRST, _BEYOND = (1, 18), (1, 21)

QUERY_CALLS = {
    "query_points": ("query", "prefetch"),
    "query_points_groups": ("query", "prefetch"),
    "query_batch_points": ("requests",),
}
"""Client methods that embed queries, and the arguments that may hold documents."""
WRITE_CALLS = {
    "upsert": ("points",),
    "update_vectors": ("points",),
    "batch_update_points": ("update_operations",),
}
"""Client methods that embed documents, and the arguments that may hold them."""
UPLOAD_CALLS = ("upload_points", "upload_collection")
"""Methods that take an endless stream; ordinary functions also in the async client."""

CLIENT_NAMES = (
    *QUERY_CALLS,
    *WRITE_CALLS,
    *UPLOAD_CALLS,
    "_embed_models",
    "_embed_models_strict",
    "_inference_inspector",
    "_model_embedder",
    "_resolve_query",
    "_resolve_query_batch_request",
    "cloud_inference",
    "get_embedding_size",
    "init_options",
    "local_inference_batch_size",
)
MODEL_EMBEDDER_NAMES = (
    "_batch_accumulator",
    "_embed_accumulator",
    "_embed_storage",
    "_is_builtin_embedder_available",
    "_resolve_inference_object",
    "embed_models",
    "embed_models_batch",
    "embed_models_strict",
    "embedder",
)


def check_client(client: object) -> None:
    """Refuse what `attach` cannot work with.

    Raises:
        ArgumentTypeError: It is no Qdrant client.
        ArgumentError: The client leaves inference to the server.
        UnsupportedVersionError: The installed qdrant-client is another version, or lacks a part this needs.
    """
    if not isinstance(client, (QdrantClient, AsyncQdrantClient)):
        raise ArgumentTypeError(f"client is a QdrantClient or an AsyncQdrantClient, not {type(client).__name__}")
    installed = version("qdrant-client")
    if not _FIRST <= _release(installed) < _BEYOND:
        raise UnsupportedVersionError(
            f"attach() works with {SUPPORTED}, and {installed} is installed; install a supported one, or use "
            "upsert_texts and query_texts, which do not need it"
        )
    missing = [name for name in CLIENT_NAMES if not hasattr(client, name)]
    inner = getattr(client, "_model_embedder", None)
    missing += [f"_model_embedder.{name}" for name in MODEL_EMBEDDER_NAMES if not hasattr(inner, name)]
    if not hasattr(getattr(client, "_inference_inspector", None), "parser"):
        missing.append("_inference_inspector.parser")
    if missing:
        raise UnsupportedVersionError(
            f"this {type(client).__name__} (qdrant-client {installed}) lacks {', '.join(missing)}, on "
            f"which attach() builds; it works with {SUPPORTED}"
        )
    if client.cloud_inference:
        raise ArgumentError(
            "this client was made with cloud_inference=True, which sends texts to the server to be "
            "embedded there; attach() embeds on this machine, so make the client without it"
        )


def _release(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
