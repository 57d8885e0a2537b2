"""Embeddings: LlamaIndex's methods on an `embrief.Embedder`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, Unpack, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import BeforeValidator, Field, PrivateAttr

from embrief import Embedder
from embrief.wrapping import plain_number
from embrief.wrapping import texts as checked_texts
from llama_index_embrief.cache import RoleCache, Rows
from llama_index_embrief.identity import Configuration
from llama_index_embrief.options import Configured, EmbeddingOptions
from llama_index_embrief.titles import embed_texts, node_list, titles_of, warn_untitled
from llama_index_embrief.vectors import aembed, embed

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.schema import BaseNode

# LlamaIndex puts a span around overrides of methods that have one; the bare ones inside keep it at one span.
_get_query_embedding = inspect.unwrap(BaseEmbedding.get_query_embedding)
_aget_query_embedding = inspect.unwrap(BaseEmbedding.aget_query_embedding)
_get_text_embedding_batch = inspect.unwrap(BaseEmbedding.get_text_embedding_batch)
_aget_text_embedding_batch = inspect.unwrap(BaseEmbedding.aget_text_embedding_batch)

_STEPS, _LEAST_STEP = 20, 16


class EmbriefEmbedding(Configured, BaseEmbedding):
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
    _embedder: Embedder = PrivateAttr()

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

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "EmbriefEmbedding"

    @property
    def embedder(self) -> Embedder:
        """The embedder behind it: `info()`, `load()`, `space`, `close()`."""
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

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> Rows:
        """Embed documents.

        Args:
            texts: Any number of texts, also none. All are checked before the first is embedded.
            show_progress: Whether to show a progress bar, which moves in steps of about a twentieth.
            **kwargs: Not used, as in LlamaIndex.

        Returns:
            `dim` floats per text, in input order.

        Raises:
            ArgumentTypeError: `texts` is no list of strings; the error has the index.
            InputTooLongError: A text is too long and `truncate="error"`.
        """
        items = checked_texts(texts, "texts")
        if self.embeddings_cache is None:
            self._embedder.check_documents(items, titles=titles_of(items))
        steps = self._in_steps(len(items)) if show_progress else self
        return cast("Rows", _get_text_embedding_batch(steps, items, show_progress, **kwargs))

    async def aget_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> Rows:
        """`get_text_embedding_batch` without blocking the event loop."""
        items = checked_texts(texts, "texts")
        if self.embeddings_cache is None:
            await self._embedder.acheck_documents(items, titles=titles_of(items))
        steps = self._in_steps(len(items)) if show_progress else self
        return cast("Rows", await _aget_text_embedding_batch(steps, items, show_progress, **kwargs))

    def get_agg_embedding_from_queries(self, queries: list[str], agg_fn: Any = None) -> list[float]:
        """Embed queries and return one vector of them: their mean, or what `agg_fn` makes."""
        return super().get_agg_embedding_from_queries(checked_texts(queries, "queries"), agg_fn)

    async def aget_agg_embedding_from_queries(self, queries: list[str], agg_fn: Any = None) -> list[float]:
        """`get_agg_embedding_from_queries` without blocking the event loop."""
        items = checked_texts(queries, "queries")
        return await super().aget_agg_embedding_from_queries(items, agg_fn)

    def _in_steps(self, count: int) -> Self:
        """Return a twin whose progress bar moves: LlamaIndex's has a step per batch."""
        twin = self.model_copy()
        twin.embed_batch_size = min(self.embed_batch_size, max(count // _STEPS, _LEAST_STEP))
        return twin

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the nodes' `embedding`; with `title_metadata_key`, titles reach the model as titles."""
        texts = embed_texts(given := node_list(nodes), self.title_metadata_key)
        return _with_vectors(given, self.get_text_embedding_batch(texts, **kwargs), nodes)

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """`__call__` without blocking the event loop."""
        texts = embed_texts(given := node_list(nodes), self.title_metadata_key)
        return _with_vectors(given, await self.aget_text_embedding_batch(texts, **kwargs), nodes)

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return all options, for `from_dict`. Its `str()` is the ingestion cache's key: see `Configuration`."""
        return Configuration(super().to_dict(**kwargs), self._embedder)

    def to_payload(self) -> dict[str, Any]:
        """Return what names the vectors, for events and callbacks: plain options, no secrets; reads no file."""
        names = (
            "model_name",
            "embed_batch_size",
            "revision",
            "dim",
            "normalize",
            "instruction",
            "task",
            "dtype",
        )
        return {"class_name": self.class_name(), **{name: getattr(self, name) for name in names}}

    def _get_query_embedding(self, query: str) -> list[float]:
        return embed(self._embedder, self.embeddings_cache, [query], "query")[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> Rows:
        warn_untitled(texts, self.title_metadata_key)
        return embed(self._embedder, self.embeddings_cache, texts, "document")

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await aembed(self._embedder, self.embeddings_cache, [query], "query"))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> Rows:
        warn_untitled(texts, self.title_metadata_key)
        return await aembed(self._embedder, self.embeddings_cache, texts, "document")


def _with_vectors(nodes: list[BaseNode], vectors: Rows, given: Iterable[BaseNode]) -> Sequence[BaseNode]:
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector
    # The caller's own list, but an iterator is used up.
    return given if isinstance(given, Sequence) else nodes
