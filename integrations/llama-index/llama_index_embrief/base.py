"""Embeddings: what is configured, its twins, and queries with an instruction of their own."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, Unpack, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import BeforeValidator, Field, field_serializer

from embrief import Embedder
from embrief.wrapping import plain_number
from llama_index_embrief.cache import RoleCache
from llama_index_embrief.identity import Configuration
from llama_index_embrief.methods import EmbeddingMethods

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index_embrief.options import EmbeddingOptions

# LlamaIndex puts a span around overrides of methods that have one; the bare ones inside keep it at one span.
_get_query_embedding = inspect.unwrap(BaseEmbedding.get_query_embedding)
_aget_query_embedding = inspect.unwrap(BaseEmbedding.aget_query_embedding)


class EmbriefEmbedding(EmbeddingMethods):
    """Base of `Qwen3Embedding` and `GemmaEmbedding`, which differ in their default model; serves any model.

    All public methods of `BaseEmbedding` work. The async ones never run a model on the event loop's thread.
    """

    model_name: str = Field(default="", frozen=True)
    """A recorded name (`embrief models` lists them), a folder, or an id on the hub."""
    dim: int | None = Field(default=None, frozen=True)
    """Values per vector; `None` is the full width."""
    task: str | None = Field(default=None, frozen=True)
    """What texts are for, by a name the model knows. Give this or `instruction`."""
    normalize: bool = Field(default=True, frozen=True)
    """Whether vectors get unit length."""
    # `Any`: pydantic would build the options anew.
    cache: Any = Field(default=None, frozen=True)
    """Where vectors are kept, so that no text is computed twice: `"memory"`, `"sqlite"`, or the options of one. Unlike
    `embeddings_cache`, it knows what moves a vector."""
    title_metadata_key: str | None = Field(default=None, frozen=True)
    """Metadata key of a node's title, for models with a place for titles; used where nodes are embedded."""
    # The most that LlamaIndex allows: the core makes batches by tokens, from all that it sees at once.
    embed_batch_size: Annotated[int, BeforeValidator(plain_number)] = Field(default=2048, gt=0, le=2048, strict=True)
    """Texts per call of the core and per event; with a progress bar no more than a twentieth of the texts."""
    # Excluded: a live store is no configuration, and keeping vectors does not change them.
    embeddings_cache: Any | None = Field(default=None, exclude=True, frozen=True)
    """A `BaseKVStore`. Vectors are kept by model, role and text."""

    _model_field: ClassVar[str] = "model_name"
    _other: ClassVar[str] = "Qwen3Rerank({model})"

    def __init__(
        self,
        model_name: str | Path | None = None,
        *,
        embedder: Embedder | None = None,
        **options: Unpack[EmbeddingOptions],
    ) -> None:
        """Check the arguments; nothing is loaded before the first text.

        Args:
            model_name: A recorded name, a folder, or an id on the hub; by default the class's own model.
            embedder: An embedder that exists; instead of `model_name` and the model's options.
            **options: The fields of this class.

        Raises:
            ArgumentTypeError: There is no such option, or a value has the wrong type.
            ArgumentError: A value cannot work with this model.
            UnknownModelError: No model has this name.
            ValidationError: One of LlamaIndex's own options is wrong (pydantic's; a `ValueError`).
        """
        facade, values = self._configure(Embedder, embedder, model_name, options)
        if "embeddings_cache" in values:
            values["embeddings_cache"] = RoleCache(values["embeddings_cache"])
        super().__init__(**values)
        self._embedder = facade

    @field_serializer("cache")
    def _write_cache(self, cache: Any) -> None:
        # Where vectors are kept is for each machine to say.
        return None

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "EmbriefEmbedding"

    @property
    def embedder(self) -> Embedder:
        """The embedder behind it: `info()`, `load()`, `space`, `close()`."""
        return self._embedder

    @property
    def _facade(self) -> Embedder:
        return self._embedder

    def with_instruction(self, instruction: str | None) -> Self:
        """Return a twin with another instruction for queries, on the same loaded model.

        For indexes and retrievers, which pass nothing but the query. `None`: the model's default; `""`: no
        prompt.
        """
        return self._on(self._embedder.with_instruction(instruction))

    def with_task(self, task: str | None) -> Self:
        """Return a twin for another task, on the same loaded model."""
        return self._on(self._embedder.with_task(task))

    def with_dim(self, dim: int | None) -> Self:
        """Return a twin of another width, on the same loaded model. `None` is the full width."""
        return self._on(self._embedder.with_dim(dim))

    def get_query_embedding(self, query: str, *, instruction: str | None = None) -> list[float]:
        """Embed one query.

        Args:
            query: The query, without any prompt.
            instruction: What this query is for; wins over the constructor's. `""`: no prompt.

        Returns:
            `dim` floats.

        Raises:
            ArgumentTypeError: `query` is no string.
            ArgumentError: The model takes no instruction.
            InputTooLongError: The query is too long and `truncate="error"`.
        """
        chosen = self if instruction is None else self.with_instruction(instruction)
        return cast("list[float]", _get_query_embedding(chosen, query))

    async def aget_query_embedding(self, query: str, *, instruction: str | None = None) -> list[float]:
        """`get_query_embedding` without blocking the event loop."""
        chosen = self if instruction is None else self.with_instruction(instruction)
        return cast("list[float]", await _aget_query_embedding(chosen, query))

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return all options, for `from_dict`. Its `str()` is the ingestion cache's key: see `Configuration`."""
        return Configuration(super().to_dict(**kwargs), self._embedder)

    def to_payload(self) -> dict[str, Any]:
        """Return what names the vectors, for events and callbacks: plain options, no secrets; reads no file."""
        names = ("model_name", "embed_batch_size", "revision", "dim", "normalize", "instruction", "task", "dtype")
        return {"class_name": self.class_name(), **{name: getattr(self, name) for name in names}}
