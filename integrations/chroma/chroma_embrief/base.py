"""What both embedding functions share: the constructor, and the two roles of a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from chroma_embrief.persisted import PersistedFunction
from embrief import ArgumentError, ArgumentTypeError, Embedder

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from chromadb.api.types import Documents, Embeddings


class EmbriefEmbeddingFunction(PersistedFunction):
    """Base of the embedding functions. Use `Qwen3EmbeddingFunction` or `GemmaEmbeddingFunction`."""

    default_model: ClassVar[str]

    def __init__(
        self,
        model_name: str | Path | None = None,
        *,
        embedder: Embedder | None = None,
        backend: str | None = None,
        revision: str | None = None,
        dim: int | None = None,
        instruction: str | None = None,
        task: str | None = None,
        normalize: bool = True,
        device: str = "auto",
        dtype: str = "auto",
        max_tokens: int | None = None,
        truncate: Literal["warn", "error", "silent"] = "warn",
        batch_tokens: int | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        like: str | None = None,
    ) -> None:
        """Check the arguments. Loads no weights; only of a folder that is named here are small files read.

        Args:
            model_name: A recorded name, a folder, or an id on the hub with a full commit id as `revision`.
            embedder: An `Embedder` that exists. Give this or the other arguments.
            backend: This and all that follow are those of `embrief.Embedder`.
            revision: Commit on the hub; by default the recorded one.
            dim: Values per vector.
            instruction: What queries are for, in a sentence. `None`: the model's default; `""`: no prompt.
            task: What texts are for, by a name the model knows.
            normalize: Whether vectors get unit length.
            device: `"auto"`, `"cpu"`, `"cuda"`, `"cuda:<n>"` or `"mps"`.
            dtype: `"auto"`, or a format by name.
            max_tokens: Tokens per text.
            truncate: What to do with a longer text.
            batch_tokens: Tokens per batch.
            cache_dir: Where downloads are kept.
            local_files_only: Never ask the network.
            trust_remote_code: Run code that comes with the model. Never persisted.
            like: For a model without a record: the record to take prompts, pooling and limits from.

        Raises:
            ArgumentError: A value cannot work, a hub id is not pinned, or `embedder` has other arguments
                beside it.
            UnknownModelError: No model has this name.
        """
        settings = dict(locals())  # before anything else is local: the arguments, each written once
        for name in ("self", "model_name", "embedder"):
            del settings[name]
        if embedder is None:
            embedder = Embedder(self.default_model if model_name is None else model_name, **settings)
        elif not isinstance(embedder, Embedder):
            raise ArgumentTypeError(f"embedder is an embrief.Embedder, not {type(embedder).__name__}")
        elif given := self._given(model_name, settings):
            raise ArgumentError(f"embedder= has settings of its own; leave out {', '.join(given)}")
        self._start(embedder)

    @staticmethod
    def _given(model_name: str | Path | None, settings: dict[str, Any]) -> list[str]:
        default = EmbriefEmbeddingFunction.__init__.__kwdefaults__ or {}
        named = ["model_name"] if model_name is not None else []
        return named + [key for key, value in settings.items() if value != default[key]]

    def __call__(self, input: Documents) -> Embeddings:
        """Embed documents.

        Args:
            input: The documents.

        Returns:
            One finite float32 array per document.
        """
        return self.embed_documents(input)

    def embed_documents(self, input: Documents, *, titles: Sequence[str | None] | None = None) -> Embeddings:
        """Embed documents, with titles where the model has a place for them.

        Args:
            input: The documents.
            titles: One title or `None` per document.

        Returns:
            One finite float32 array per document, for `collection.upsert(embeddings=...)`.
        """
        return list(self.embedder.embed_documents(input, titles=titles))

    def embed_query(self, input: Documents, *, instruction: str | None = None, task: str | None = None) -> Embeddings:
        """Embed queries, with the query prompt. Chroma calls this for `collection.query(query_texts=...)`.

        Args:
            input: The queries, a list even of one.
            instruction: What these queries are for; wins over the constructor's. `""`: no prompt.
            task: The task of this call; wins over the constructor's.

        Returns:
            One finite float32 array per query, for `collection.query(query_embeddings=...)`.

        Raises:
            NonFiniteVectorError: The model returned NaN or infinity; Chroma would find nothing, silently.
        """
        return list(self.embedder.embed_queries(input, instruction=instruction, task=task))

    async def aembed_documents(self, input: Documents, *, titles: Sequence[str | None] | None = None) -> Embeddings:
        """`embed_documents` without blocking the event loop."""
        return await self.embedder.off_loop(partial(self.embed_documents, input, titles=titles))

    async def aembed_query(
        self, input: Documents, *, instruction: str | None = None, task: str | None = None
    ) -> Embeddings:
        """`embed_query` without blocking the event loop."""
        return await self.embedder.off_loop(partial(self.embed_query, input, instruction=instruction, task=task))

    def with_instruction(self, instruction: str | None) -> Self:
        """Return a function with another instruction for queries, on the same loaded model."""
        return type(self)(embedder=self.embedder.with_instruction(instruction))
