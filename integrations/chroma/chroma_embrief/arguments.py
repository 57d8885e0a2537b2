"""What several functions of this package check of their arguments."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from chroma_embrief.base import EmbriefEmbeddingFunction
from embrief import ArgumentTypeError, EmbriefError

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

    from embrief import Embedder, VectorSpace


def require_sync(client: ClientAPI, caller: str) -> None:
    """Refuse an asynchronous client, whose methods would return coroutines that nobody awaits."""
    if inspect.iscoroutinefunction(client.get_collection):
        raise ArgumentTypeError(
            f"{caller} takes a synchronous client; with an asynchronous one, await "
            "client.get_or_create_collection(...) and check the result with require_same_space"
        )


def embedder_of(embedding_function: EmbriefEmbeddingFunction) -> Embedder | None:
    """Return the facade of a function, `None` where one that Chroma rebuilt finds none on this machine."""
    try:
        return embedding_function.embedder
    except EmbriefError:
        return None


def checked_space(embedding_function: EmbriefEmbeddingFunction) -> VectorSpace:
    """Return the space of a function, which must be one of ours."""
    if not isinstance(embedding_function, EmbriefEmbeddingFunction):
        raise ArgumentTypeError(
            "embedding_function is a Qwen3EmbeddingFunction, a GemmaEmbeddingFunction or a Qwen3VLEmbeddingFunction, "
            f"not {type(embedding_function).__name__}"
        )
    return embedding_function.space
