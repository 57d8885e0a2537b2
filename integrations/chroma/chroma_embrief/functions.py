"""The embedding functions that Chroma knows by name."""

from __future__ import annotations

from typing import Any, ClassVar

from chromadb.api.types import Documents, Embeddable, EmbeddingFunction
from chromadb.utils.embedding_functions import register_embedding_function

from chroma_embrief import config as stored
from chroma_embrief.base import EmbriefEmbeddingFunction
from chroma_embrief.naming import guarded_name

# A name is what a collection keeps: it can never change, and clients in other languages look for the same.


class Qwen3EmbeddingFunction(EmbriefEmbeddingFunction, EmbeddingFunction[Documents]):
    """Qwen3-Embedding for Chroma: queries with their instruction, documents as they are.

    Examples:
        >>> import chromadb
        >>> from chroma_embrief import Qwen3EmbeddingFunction, open_collection
        >>> ef = Qwen3EmbeddingFunction("embrief/hash", dim=64)  # default: Qwen/Qwen3-Embedding-0.6B
        >>> collection = open_collection(chromadb.EphemeralClient(), "qwen3-planets", ef)
        >>> collection.add(ids=["mars", "venus"], documents=["Mars is red.", "Venus is bright."])
        >>> collection.query(query_texts=["the red planet"], n_results=1)["ids"]
        [['mars']]
    """

    default_model: ClassVar[str] = "Qwen/Qwen3-Embedding-0.6B"

    @guarded_name
    def name() -> str:
        """Return the name under which collections keep this function."""
        return "embrief-qwen3"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Qwen3EmbeddingFunction:
        """Rebuild the function of a collection. Loads nothing and reads no file.

        Raises:
            ArgumentError: The configuration is not of our format.
        """
        return Qwen3EmbeddingFunction._from_config(config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Refuse a configuration that is not of our format.

        Raises:
            ArgumentError: It is not.
        """
        stored.validate(config, Qwen3EmbeddingFunction.name())


class GemmaEmbeddingFunction(EmbriefEmbeddingFunction, EmbeddingFunction[Documents]):
    """EmbeddingGemma for Chroma: both sides with their prompts, documents also with titles.

    Examples:
        >>> import chromadb
        >>> from chroma_embrief import GemmaEmbeddingFunction, open_collection
        >>> ef = GemmaEmbeddingFunction("embrief/hash", dim=64)  # default: google/embeddinggemma-300m
        >>> collection = open_collection(chromadb.EphemeralClient(), "gemma-planets", ef)
        >>> collection.add(ids=["mars", "venus"], documents=["Mars is red.", "Venus is bright."])
        >>> collection.query(query_texts=["the red planet"], n_results=1)["ids"]
        [['mars']]
    """

    default_model: ClassVar[str] = "google/embeddinggemma-300m"

    @guarded_name
    def name() -> str:
        """Return the name under which collections keep this function."""
        return "embrief-gemma"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> GemmaEmbeddingFunction:
        """Rebuild the function of a collection. Loads nothing and reads no file.

        Raises:
            ArgumentError: The configuration is not of our format.
        """
        return GemmaEmbeddingFunction._from_config(config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Refuse a configuration that is not of our format.

        Raises:
            ArgumentError: It is not.
        """
        stored.validate(config, GemmaEmbeddingFunction.name())


class Qwen3VLEmbeddingFunction(EmbriefEmbeddingFunction, EmbeddingFunction[Embeddable]):
    """Qwen3-VL-Embedding for Chroma: texts and pictures in one collection, each found by the other.

    `collection.add`, `upsert` and `update` take `images=`, `collection.query` takes `query_images=`: uint8 arrays
    (height, width, 3) in RGB. `uris=` need a loader, see `ImageLoader`. Other functions take pictures as well if they
    are made with a model that does.

    Examples:
        >>> import chromadb
        >>> import numpy as np
        >>> from chroma_embrief import Qwen3VLEmbeddingFunction, open_collection
        >>> from embrief.testing import FakeRuntime
        >>> with FakeRuntime() as fake:  # a model without weights; default: Qwen/Qwen3-VL-Embedding-2B
        ...     ef = Qwen3VLEmbeddingFunction(fake.vision)
        ...     collection = open_collection(chromadb.EphemeralClient(), "vl-planets", ef)
        ...     red = np.full((32, 32, 3), (255, 0, 0), np.uint8)
        ...     collection.add(ids=["mars"], images=[red])
        ...     collection.add(ids=["venus"], documents=["Venus is bright."])
        ...     collection.query(query_images=[red], n_results=1)["ids"]
        [['mars']]
    """

    default_model: ClassVar[str] = "Qwen/Qwen3-VL-Embedding-2B"

    @guarded_name
    def name() -> str:
        """Return the name under which collections keep this function."""
        return "embrief-qwen3-vl"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Qwen3VLEmbeddingFunction:
        """Rebuild the function of a collection. Loads nothing and reads no file.

        Raises:
            ArgumentError: The configuration is not of our format.
        """
        return Qwen3VLEmbeddingFunction._from_config(config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Refuse a configuration that is not of our format.

        Raises:
            ArgumentError: It is not.
        """
        stored.validate(config, Qwen3VLEmbeddingFunction.name())


FUNCTIONS = (Qwen3EmbeddingFunction, GemmaEmbeddingFunction, Qwen3VLEmbeddingFunction)

# Not as a decorator: Chroma's is untyped and would make the classes `Any` to type checkers.
for _function in FUNCTIONS:
    register_embedding_function(_function)  # type: ignore[no-untyped-call]  # untyped there
