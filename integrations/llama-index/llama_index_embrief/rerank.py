"""Reranking: LlamaIndex's node postprocessor on an `embrief.Reranker`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, Unpack

from llama_index.core.bridge.pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from embrief import ArgumentError, ArgumentTypeError, RankedItem, Reranker
from embrief.wrapping import listed, plain_number
from llama_index_embrief.options import Configured, RerankOptions
from llama_index_embrief.pictures import node_content, query_content

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.wrapping import Input

dispatcher = get_dispatcher(__name__)


class RerankedNode(NodeWithScore):
    """A node with its rerank score, and the score it was retrieved with.

    The old score is kept here and not in the node's metadata, which is part of the text that models read.
    """

    retrieval_score: float | None = None
    """The score before the first reranking."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "RerankedNode"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # Without the text and the vector.
        yield from (("node_id", self.node.node_id), ("score", self.score), ("retrieval_score", self.retrieval_score))


class Qwen3Rerank(Configured, BaseNodePostprocessor):
    """Qwen3-Reranker as a LlamaIndex node postprocessor. Scores are probabilities of relevance, 0 to 1.

    It returns new `RerankedNode` objects, best first; the nodes inside are those that came in, unchanged.

    Examples:
        >>> from llama_index_embrief import Qwen3Rerank
        >>> rerank = Qwen3Rerank(instruction="Find the answer", top_n=3)  # nothing is loaded yet
        >>> rerank.model, rerank.top_n
        ('Qwen/Qwen3-Reranker-0.6B', 3)
    """

    # People set `top_n` on a postprocessor that exists.
    model_config = ConfigDict(validate_assignment=True)

    model: str = Field(default="Qwen/Qwen3-Reranker-0.6B", frozen=True)
    """A recorded name, a folder, or an id on the hub."""
    # Strict: `True` is not one node.
    top_n: Annotated[int | None, BeforeValidator(plain_number)] = Field(default=None, ge=1, strict=True)
    """How many nodes to return; `None` is all."""

    _model_field: ClassVar[str] = "model"
    _other: ClassVar[str] = "Qwen3Embedding({model})"
    _reranker: Reranker = PrivateAttr()

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        top_n: int | None = None,
        reranker: Reranker | None = None,
        **options: Unpack[RerankOptions],
    ) -> None:
        """Check the arguments; nothing is loaded before the first node.

        Args:
            model: A recorded name, a folder, or an id on the hub; by default Qwen3-Reranker-0.6B.
            top_n: How many nodes to return; `None` is all.
            reranker: A reranker that exists; instead of `model` and the model's options.
            **options: The other fields of this class.

        Raises:
            ArgumentTypeError: There is no such option, or a value has the wrong type.
            ArgumentError: A value cannot work with this model.
            UnknownModelError: No model has this name.
            ValidationError: `top_n` is no positive whole number (pydantic's; a `ValueError`).
        """
        facade, values = self._configure(Reranker, reranker, model, options)
        super().__init__(**{**values, "top_n": top_n})
        self._reranker = facade

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "Qwen3Rerank"

    @property
    def reranker(self) -> Reranker:
        """The reranker behind it: `info()`, `load()`, `rerank()` of plain strings, `close()`."""
        return self._reranker

    @property
    def _facade(self) -> Reranker:
        return self._reranker

    def with_instruction(self, instruction: str | None) -> Self:
        """Return a twin with another instruction, on the same loaded model. `None` is the model's default."""
        return self._on(self._reranker.with_instruction(instruction))

    @property
    def _sees(self) -> bool:
        """Whether the model reads pictures of nodes and queries."""
        return self._reranker.spec.images is not None

    def _query(self, query: QueryBundle) -> Input:
        return query_content(query, self._reranker.spec, sees=self._sees)

    def _content(self, placed: tuple[int, NodeWithScore]) -> Input:
        return node_content(placed[1].node, placed[0], self._reranker.spec, sees=self._sees)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._observed(nodes, query_bundle) as (asked, ranked):
            query = self._query(asked)
            found = self._reranker.rerank_items(query, list(enumerate(nodes)), text=self._content, top_n=self.top_n)
            ranked.extend(map(_reranked, found))
        return ranked

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        with self._observed(nodes, query_bundle) as (asked, ranked):
            query = await self._reranker.off_loop(partial(self._query, asked))
            items = list(enumerate(nodes))
            found = await self._reranker.arerank_items(query, items, text=self._content, top_n=self.top_n)
            ranked.extend(map(_reranked, found))
        return ranked

    @contextmanager
    def _observed(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None
    ) -> Iterator[tuple[QueryBundle, list[NodeWithScore]]]:
        """Emit LlamaIndex's events around a reranking, whose result goes into the list."""
        # Before the first event: a start without an end would confuse whoever counts.
        if query_bundle is None:
            raise ArgumentError("reranking needs the query; pass query_str= or query_bundle=")
        for index, node in enumerate(listed(nodes, "nodes")):
            if not isinstance(node, NodeWithScore):
                raise ArgumentTypeError(f"nodes[{index}] is {type(node).__name__}, not NodeWithScore", index=index)
        # The event takes no None.
        top_n = len(nodes) if self.top_n is None else self.top_n
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: top_n,
        }
        ranked: list[NodeWithScore] = []
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield query_bundle, ranked
            event.on_end(payload={EventPayload.NODES: list(ranked)})
        dispatcher.event(ReRankEndEvent(nodes=ranked))


def _reranked(found: RankedItem[tuple[int, NodeWithScore]]) -> RerankedNode:
    before = found.item[1]
    first = before.retrieval_score if isinstance(before, RerankedNode) else before.score
    return RerankedNode(node=before.node, score=found.score, retrieval_score=first)
