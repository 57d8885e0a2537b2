"""What goes into the reranker and what comes out: a check of documents, scores in metadata."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.documents import Document

from embrief import ArgumentTypeError, RankedItem
from embrief.wrapping import listed


def document_list(documents: object) -> list[Document]:
    """Return any number of documents as a list; an error has the index of what is none."""
    found = listed(documents, "documents")
    for index, document in enumerate(found):
        if not isinstance(document, Document):
            raise ArgumentTypeError(
                f"documents[{index}] is {type(document).__name__}; wrap a text as Document(page_content=...)",
                index=index,
            )
    return found


def with_scores(ranked: Sequence[RankedItem[tuple[int, Document]]]) -> list[Document]:
    """Return copies that have their scores in their metadata."""
    return [_scored(found.item[1], found.score) for found in ranked]


def _scored(document: Document, score: float | None) -> Document:
    metadata = dict(document.metadata)
    if "relevance_score" in metadata:
        metadata.setdefault("retrieval_score", metadata["relevance_score"])
    return document.model_copy(update={"metadata": {**metadata, "relevance_score": score}})
