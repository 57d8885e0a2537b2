"""Reranking: LangChain's document compressor and cross encoder on an `embrief.Reranker`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, Unpack

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import BeforeValidator, Field, PrivateAttr

from embrief import Reranker
from embrief.wrapping import RerankerOptions, carried, choose_facade, listed, no_images, plain_number
from langchain_embrief.documents import document_list, with_scores
from langchain_embrief.options import Configured
from langchain_embrief.pictures import IMAGE_KEY, content

if TYPE_CHECKING:
    from pathlib import Path

    from langchain_core.callbacks import Callbacks

    from embrief.wrapping import Input


class Qwen3Reranker(Configured, BaseDocumentCompressor, BaseCrossEncoder):
    """Qwen3-Reranker in LangChain, as a document compressor and as a cross encoder.

    Scores are probabilities of relevance, 0 to 1.

    Examples:
        >>> from langchain_embrief import Qwen3Reranker
        >>> reranker = Qwen3Reranker(instruction="Find the answer", top_n=3)  # nothing is loaded yet
        >>> reranker
        Qwen3Reranker(model='Qwen/Qwen3-Reranker-0.6B', instruction='Find the answer', top_n=3)
    """

    model: str = "Qwen/Qwen3-Reranker-0.6B"
    # Strict: `True` is not one document.
    top_n: Annotated[int | None, BeforeValidator(plain_number)] = Field(default=None, ge=1, strict=True)
    """How many documents `compress_documents` returns; `None` is all."""

    _other: ClassVar[str] = "Qwen3Embeddings({model})"
    _reranker: Reranker = PrivateAttr()

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        reranker: Reranker | None = None,
        top_n: int | None = None,
        **options: Unpack[RerankerOptions],
    ) -> None:
        """Check the arguments; nothing is loaded before the first document.

        Args:
            model: A recorded name, a folder, or an id on the hub; by default Qwen3-Reranker-0.6B.
            reranker: A reranker that exists; instead of `model` and `options`.
            top_n: How many documents `compress_documents` returns; `None` is all.
            **options: The other fields of this class.

        Raises:
            ArgumentTypeError: There is no such option, or a value has the wrong type.
            ArgumentError: A value cannot work with this model.
            UnknownModelError: No model has this name.
            ValidationError: `top_n` is no positive whole number (pydantic's; a `ValueError`).
        """
        kind = type(self)
        default = kind.model_fields["model"].default
        facade = choose_facade(
            Reranker,
            reranker,
            model,
            options,
            default=default,
            owner=kind.__name__,
            other=kind._other,
            also=("top_n",),
        )
        fields = {**facade.settings.values(), "top_n": top_n}
        super().__init__(**fields)
        self._reranker = facade

    @property
    def reranker(self) -> Reranker:
        """The reranker behind it: `info()`, `load()`, `rerank()` of plain strings, `close()`."""
        return self._reranker

    @property
    def _facade(self) -> Reranker:
        return self._reranker

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[Document]:
        """Return the documents that fit the query best.

        Args:
            documents: The candidates. They are not changed.
            query: The query, without any prompt.
            callbacks: Not used: reranking starts no runs of its own.
            instruction: What makes a document relevant; wins over the constructor's.
            top_n: How many to return; wins over the constructor's.

        Returns:
            Copies, best first, equal scores in input order. Each has its score as `relevance_score` in its
            metadata; a `relevance_score` that was there before is kept as `retrieval_score`.

        Raises:
            ArgumentTypeError: `documents` is no list of documents; the error has the index.
            ArgumentError: `top_n` is not positive, or the model takes no instruction.
            InputTooLongError: The query leaves no room for a document; or a pair is too long and
                `truncate="error"`.
        """
        ranked = self._reranker.rerank_items(
            self._input(query, "query"),
            list(enumerate(document_list(documents))),
            text=self._document,
            instruction=instruction,
            top_n=self.top_n if top_n is None else top_n,
        )
        return with_scores(ranked)

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        *,
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[Document]:
        """`compress_documents` without blocking the event loop."""
        ranked = await self._reranker.arerank_items(
            await self._reranker.off_loop(partial(self._input, query, "query")),
            list(enumerate(document_list(documents))),
            text=self._document,
            instruction=instruction,
            top_n=self.top_n if top_n is None else top_n,
        )
        return await self._reranker.off_loop(partial(with_scores, ranked))

    def score(self, text_pairs: Sequence[tuple[str, str]], *, instruction: str | None = None) -> list[float]:
        """Return how relevant each document is to its query.

        Args:
            text_pairs: Pairs of query and document; queries may differ.
            instruction: What makes a document relevant; wins over the constructor's.

        Returns:
            P(relevant) per pair, 0 to 1, in input order.

        Raises:
            ArgumentTypeError: An item is no pair of strings; the error has the index.
        """
        given = listed(text_pairs, "pairs", "pairs (query, document)")
        pairs = [self._pair(pair, f"pairs[{index}]", index) for index, pair in enumerate(given)]
        scores: list[float] = self._reranker.score_pairs(pairs, instruction=instruction).tolist()
        return scores

    def _input(self, value: Any, what: str, index: int | None = None) -> Input:
        """Return what the reranker takes of a query, or of one side of a pair."""
        return carried(value)

    def _document(self, placed: tuple[int, Document]) -> Input:
        """Return what the reranker takes of a document, which comes with its place."""
        index, document = placed
        if (spec := self._reranker.spec).images is None:
            if not document.page_content.strip() and document.metadata.get(IMAGE_KEY) is not None:
                raise no_images(f"documents[{index}]", spec, index)
            return carried(document.page_content)
        return content(document, f"documents[{index}]", index)

    def _pair(self, pair: Any, what: str, index: int) -> Any:
        # What is no pair is refused by the reranker, in its own words.
        if not isinstance(pair, (list, tuple)):
            return pair
        return tuple(self._input(side, what, index) for side in pair)

    def with_instruction(self, instruction: str | None) -> Self:
        """Return a reranker with another instruction, on the same loaded model.

        `None` is the model's default.
        """
        return type(self)(reranker=self._reranker.with_instruction(instruction), top_n=self.top_n)
