"""LlamaIndex's methods that embed, on an `embrief.Embedder`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from embrief.wrapping import texts as checked_texts
from llama_index_embrief.nodes import node_list, with_vectors
from llama_index_embrief.options import Configured
from llama_index_embrief.pictures import captions, pictured_texts
from llama_index_embrief.places import unplaced, with_places
from llama_index_embrief.progress import in_steps
from llama_index_embrief.titles import warn_untitled
from llama_index_embrief.vectors import acheck, aembed, check, embed

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

    from embrief import Embedder
    from llama_index_embrief.cache import Rows

# The bare ones, without LlamaIndex's span: our overrides get one each.
_get_text_embedding_batch = inspect.unwrap(BaseEmbedding.get_text_embedding_batch)
_aget_text_embedding_batch = inspect.unwrap(BaseEmbedding.aget_text_embedding_batch)


class EmbeddingMethods(Configured, BaseEmbedding):
    """The methods with LlamaIndex's own signatures. Inputs are checked before the first text is embedded."""

    if TYPE_CHECKING:
        # A field of `EmbriefEmbedding`, which says what it means.
        title_metadata_key: str | None

    _embedder: Embedder = PrivateAttr()

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> Rows:
        """Embed documents.

        Args:
            texts: Any number of texts, also none. All are checked before the first is embedded; the lengths of
                those in the `embeddings_cache` are not.
            show_progress: Whether to show a progress bar, which moves in steps of about a twentieth.
            **kwargs: Not used, as in LlamaIndex.

        Returns:
            `dim` floats per text, in input order.

        Raises:
            ArgumentTypeError: `texts` is no list of strings; the error has the index.
            InputTooLongError: A text is too long and `truncate="error"`.
        """
        items = checked_texts(texts, "texts")
        check(self._embedder, self.embeddings_cache, items)
        model = in_steps(self, len(items)) if show_progress else self
        return cast("Rows", _get_text_embedding_batch(model, with_places(items), show_progress, **kwargs))

    async def aget_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> Rows:
        """`get_text_embedding_batch` without blocking the event loop."""
        items = checked_texts(texts, "texts")
        await acheck(self._embedder, self.embeddings_cache, items)
        model = in_steps(self, len(items)) if show_progress else self
        return cast("Rows", await _aget_text_embedding_batch(model, with_places(items), show_progress, **kwargs))

    def get_agg_embedding_from_queries(self, queries: list[str], agg_fn: Any = None) -> list[float]:
        """Embed queries and return one vector of them: their mean, or what `agg_fn` makes."""
        return super().get_agg_embedding_from_queries(with_places(checked_texts(queries, "queries")), agg_fn)

    async def aget_agg_embedding_from_queries(self, queries: list[str], agg_fn: Any = None) -> list[float]:
        """`get_agg_embedding_from_queries` without blocking the event loop."""
        items = checked_texts(queries, "queries")
        return await super().aget_agg_embedding_from_queries(with_places(items), agg_fn)

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the nodes' `embedding`.

        Titles (`title_metadata_key`) reach the model as titles, and pictures one that takes them.
        """
        texts = self._node_texts(given := node_list(nodes))
        return with_vectors(given, self.get_text_embedding_batch(texts, **kwargs), nodes)

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """`__call__` without blocking the event loop."""
        texts = await self._embedder.off_loop(partial(self._node_texts, given := node_list(nodes)))
        return with_vectors(given, await self.aget_text_embedding_batch(texts, **kwargs), nodes)

    @property
    def _sees(self) -> bool:
        """Whether nodes are embedded with their pictures."""
        return self._embedder.spec.images is not None

    def _node_texts(self, nodes: list[BaseNode]) -> list[str]:
        if self._sees:
            return pictured_texts(nodes, self.title_metadata_key)
        return captions(nodes, self.title_metadata_key, self._embedder.spec)

    def _get_query_embedding(self, query: str) -> list[float]:
        with unplaced([query]) as given:
            return embed(self._embedder, self.embeddings_cache, given, "query")[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> Rows:
        with unplaced(texts) as given:
            warn_untitled(given, self.title_metadata_key)
            return embed(self._embedder, self.embeddings_cache, given, "document")

    async def _aget_query_embedding(self, query: str) -> list[float]:
        with unplaced([query]) as given:
            return (await aembed(self._embedder, self.embeddings_cache, given, "query"))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> Rows:
        with unplaced(texts) as given:
            warn_untitled(given, self.title_metadata_key)
            return await aembed(self._embedder, self.embeddings_cache, given, "document")
