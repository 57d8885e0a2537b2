"""What all embedding functions share: the constructor, and the two roles of a text or a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self, Unpack

from chroma_embrief.persisted import PersistedFunction
from chroma_embrief.pictures import as_inputs
from embrief import Embedder
from embrief.wrapping import EmbedderOptions, choose_facade

if TYPE_CHECKING:
    from pathlib import Path

    from chromadb.api.types import Documents, Embeddings, Images

    from embrief import Image

    Inputs = Documents | Images | Sequence[str | Image | Mapping[str, object] | Sequence[str | Image]]


class EmbriefEmbeddingFunction(PersistedFunction):
    """Base of the embedding functions, of which there is one per family of models: use those."""

    default_model: ClassVar[str]

    def __init__(
        self,
        model_name: str | Path | None = None,
        *,
        embedder: Embedder | None = None,
        **options: Unpack[EmbedderOptions],
    ) -> None:
        """Check the arguments. Loads no weights; only of a folder that is named here are small files read.

        Args:
            model_name: A recorded name, a folder, or an id on the hub with a full commit id as `revision`.
            embedder: An `Embedder` that exists. Give this or the other arguments.
            **options: The keywords of `embrief.Embedder`. What decides the vector space and the query prompt is
                persisted; where and how fast the model runs is not, nor is `trust_remote_code`.

        Raises:
            ArgumentTypeError: There is no such option, or a value has the wrong type.
            ArgumentError: A value cannot work, a hub id is not pinned, or `embedder` has other arguments
                beside it.
            UnknownModelError: No model has this name.
        """
        kind = type(self)
        self._start(
            choose_facade(
                Embedder,
                embedder,
                model_name,
                options,
                default=kind.default_model,
                owner=kind.__name__,
                other="rerank_results(results, queries, Reranker({model}))",
                field="model_name",
            )
        )

    def __call__(self, input: Inputs) -> Embeddings:
        """Embed documents. Chroma calls this for `documents=` as well as for `images=`, one kind at a time.

        Args:
            input: The documents, as of `embed_documents`.

        Returns:
            One finite float32 array per document.
        """
        return self.embed_documents(input)

    def embed_documents(
        self, input: Inputs, *, titles: Sequence[str | None] | None = None, task: str | None = None
    ) -> Embeddings:
        """Embed documents, with titles where the model has a place for them.

        Args:
            input: The documents: texts; for a model that takes pictures also uint8 arrays (height, width, 3), `Image`s,
                sequences of texts and `Image`s, and mappings with "text" and "image".
            titles: One title or `None` per document.
            task: The task of this call; wins over the constructor's.

        Returns:
            One finite float32 array per document, for `collection.upsert(embeddings=...)`.

        Raises:
            ArgumentTypeError: There is a picture and the model takes texts only; the error has its index.
            ArgumentError: A picture is none, or is damaged, or over a limit; the error has its index. Nothing was
                computed.
        """
        return list(self.embedder.embed_documents(as_inputs(input), titles=titles, task=task))

    def embed_query(self, input: Inputs, *, instruction: str | None = None, task: str | None = None) -> Embeddings:
        """Embed queries, with the query prompt. Chroma calls this for `query_texts=` and `query_images=`.

        Args:
            input: The queries, a list even of one; each as of `embed_documents`.
            instruction: What these queries are for; wins over the constructor's. `""`: no prompt.
            task: The task of this call; wins over the constructor's.

        Returns:
            One finite float32 array per query, for `collection.query(query_embeddings=...)`.

        Raises:
            NonFiniteVectorError: The model returned NaN or infinity; Chroma would find nothing, silently.
            ArgumentError: As of `embed_documents`.
        """
        return list(self.embedder.embed_queries(as_inputs(input), instruction=instruction, task=task))

    async def aembed_documents(
        self, input: Inputs, *, titles: Sequence[str | None] | None = None, task: str | None = None
    ) -> Embeddings:
        """`embed_documents` without blocking the event loop."""
        inputs = await self.embedder.off_loop(partial(as_inputs, input))
        return list(await self.embedder.aembed_documents(inputs, titles=titles, task=task))

    async def aembed_query(
        self, input: Inputs, *, instruction: str | None = None, task: str | None = None
    ) -> Embeddings:
        """`embed_query` without blocking the event loop."""
        inputs = await self.embedder.off_loop(partial(as_inputs, input))
        return list(await self.embedder.aembed_queries(inputs, instruction=instruction, task=task))

    def with_instruction(self, instruction: str | None) -> Self:
        """Return a function with another instruction for queries, on the same loaded model."""
        return type(self)(embedder=self.embedder.with_instruction(instruction))

    def with_task(self, task: str | None) -> Self:
        """Return a function for another task, on the same loaded model."""
        return type(self)(embedder=self.embedder.with_task(task))

    def with_dim(self, dim: int | None) -> Self:
        """Return a function of another width, on the same loaded model. `None` is the full width."""
        return type(self)(embedder=self.embedder.with_dim(dim))
