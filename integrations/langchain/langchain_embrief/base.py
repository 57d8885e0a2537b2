"""LangChain's embedding methods on an `embrief.Embedder`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

from langchain_core.embeddings import Embeddings
from pydantic import InstanceOf, PrivateAttr, field_serializer

from embrief import Embedder, MemoryCache, SqliteCache
from embrief.wrapping import EmbedderOptions, ato_lists, carried, choose_facade, listed, to_lists
from langchain_embrief.options import Configured

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.wrapping import Input


class EmbriefEmbeddings(Configured, Embeddings):
    """Base of the embedding classes; serves any model."""

    dim: int | None = None
    """Values per vector; `None` is the full width."""
    task: str | None = None
    """What texts are for, by a name the model knows. Give this or `instruction`."""
    normalize: bool = True
    """Whether vectors get unit length."""
    cache: InstanceOf[MemoryCache] | InstanceOf[SqliteCache] | None = None
    """Where vectors are kept, so that no text is computed twice: `"memory"`, `"sqlite"`, or the options of one."""

    _other: ClassVar[str] = "Qwen3Reranker({model})"
    _embedder: Embedder = PrivateAttr()

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        embedder: Embedder | None = None,
        **options: Unpack[EmbedderOptions],
    ) -> None:
        """Check the arguments; nothing is loaded before the first text.

        Args:
            model: A recorded name, a folder, or an id on the hub; by default the class's own model.
            embedder: An embedder that exists; instead of `model` and `options`.
            **options: The fields of this class.

        Raises:
            ArgumentTypeError: There is no such option, or a value has the wrong type.
            ArgumentError: A value cannot work with this model.
            UnknownModelError: No model has this name.
        """
        kind = type(self)
        default = kind.model_fields["model"].default
        facade = choose_facade(
            Embedder, embedder, model, options, default=default, owner=kind.__name__, other=kind._other
        )
        super().__init__(**facade.settings.values())
        self._embedder = facade

    @field_serializer("cache")
    def _write_cache(self, cache: MemoryCache | SqliteCache | None) -> None:
        # Where vectors are kept is for each machine to say.
        return None

    @property
    def embedder(self) -> Embedder:
        """The embedder behind it: `info()`, `load()`, `space`, `close()`."""
        return self._embedder

    @property
    def _facade(self) -> Embedder:
        return self._embedder

    def embed_query(self, text: str, *, instruction: str | None = None, task: str | None = None) -> list[float]:
        """Embed one query.

        Args:
            text: The query, without any prompt.
            instruction: What this query is for; wins over the constructor's. `""`: no prompt.
            task: The task of this call; wins over the constructor's.

        Returns:
            `dim` floats.

        Raises:
            ArgumentTypeError: `text` is no string.
            ArgumentError: An option does not fit the model.
            InputTooLongError: The text is too long and `truncate="error"`.
        """
        vector = self._embedder.embed_query(self._input(text, "text"), instruction=instruction, task=task)
        return to_lists(vector[None])[0]

    def embed_documents(
        self, texts: Sequence[str], *, titles: Sequence[str | None] | None = None, task: str | None = None
    ) -> list[list[float]]:
        """Embed documents.

        Args:
            texts: Any number of documents, also none.
            titles: One title or `None` per document, for models with a place for titles (EmbeddingGemma).
            task: The task of this call; wins over the constructor's.

        Returns:
            One list of `dim` floats per text, in input order.

        Raises:
            ArgumentTypeError: `texts` is no list of strings; the error has the index.
            ArgumentError: An option does not fit the model.
            InputTooLongError: A text is too long and `truncate="error"`.
        """
        return to_lists(self._embedder.embed_documents(self._inputs(texts), titles=titles, task=task))

    async def aembed_query(self, text: str, *, instruction: str | None = None, task: str | None = None) -> list[float]:
        """`embed_query` without blocking the event loop."""
        vector = await self._embedder.aembed_query(await self._ainput(text), instruction=instruction, task=task)
        return (await ato_lists(self._embedder, vector[None]))[0]

    async def aembed_documents(
        self, texts: Sequence[str], *, titles: Sequence[str | None] | None = None, task: str | None = None
    ) -> list[list[float]]:
        """`embed_documents` without blocking the event loop."""
        items = await self._embedder.off_loop(partial(self._inputs, texts))
        vectors = await self._embedder.aembed_documents(items, titles=titles, task=task)
        return await ato_lists(self._embedder, vectors)

    def _input(self, value: Any, what: str, index: int | None = None) -> Input:
        """Return what the embedder takes of one input."""
        return carried(value)

    async def _ainput(self, text: Any) -> Input:
        # A string takes no time, and a query should not wait for a bulk job's turn.
        if isinstance(text, str):
            return carried(text)
        return await self._embedder.off_loop(partial(self._input, text, "text"))

    def _inputs(self, texts: Sequence[Any]) -> list[Input]:
        items = listed(texts, "texts", "strings")
        return [self._input(item, f"texts[{index}]", index) for index, item in enumerate(items)]

    def with_instruction(self, instruction: str | None) -> Self:
        """Return embeddings with another instruction for queries, on the same loaded model.

        For vector stores and retrievers, which pass nothing but the query. `None`: the model's default;
        `""`: no prompt.
        """
        return type(self)(embedder=self._embedder.with_instruction(instruction))

    def with_task(self, task: str | None) -> Self:
        """Return embeddings for another task, on the same loaded model."""
        return type(self)(embedder=self._embedder.with_task(task))

    def with_dim(self, dim: int | None) -> Self:
        """Return embeddings of another width, on the same loaded model. `None` is the full width."""
        return type(self)(embedder=self._embedder.with_dim(dim))

    def cache_namespace(self) -> str:
        """Return a name for all that moves a document vector: model, weights, prompt, dim, precision, limit.

        For `CacheBackedEmbeddings` and record managers. Equal names and equal texts give equal vectors.
        """
        return self._embedder.fingerprint

    def query_cache_namespace(self) -> str:
        """Return the same for query vectors: the query's prompt and instruction count too."""
        return self._embedder.query_fingerprint
