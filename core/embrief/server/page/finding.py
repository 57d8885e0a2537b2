"""One question, asked of a collection or of pasted texts, with one instruction or two: the rankings, and of what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.indexing import searching
from embrief.indexing.making import takes_titles
from embrief.indexing.picture_files import PicturesOfHits
from embrief.server.asking import asked
from embrief.server.failures import refused
from embrief.server.page.plane import Plane, on_plane
from embrief.server.page.shelf import model_name
from embrief.server.work import Told, embed, score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from embrief.facades.embedder import Embedder, EmbeddingResult
    from embrief.facades.reranker import Reranker
    from embrief.facts.prompts import Content
    from embrief.facts.vectors import Matrix
    from embrief.indexing.searching import Hit
    from embrief.indexing.table import CollectionInfo
    from embrief.server.models import Served
    from embrief.server.page.shelf import Shelf
    from embrief.server.pictures import Item
    from embrief.server.service import Service


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text that is ranked."""

    text: str
    number: int | None = None
    """Of a pasted text: its place, counted from 1."""
    hit: Hit | None = None
    """Where a passage of a collection is from."""
    titled: bool = False
    """Whether the model reads its title."""
    tokens: int | None = None
    """As a document, prompt included, before anything is cut off; `None`: it is not known."""
    truncated: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values. Where a file is on this machine is not among them."""
        hit = self.hit
        return {
            "text": self.text,
            "number": self.number,
            "path": hit and hit.path,
            "start_line": hit.start_line if hit is not None and not hit.is_picture else None,
            "end_line": hit.end_line if hit is not None and not hit.is_picture else None,
            "page": hit and hit.page,
            "title": hit and hit.title,
            "read_title": hit.title if hit is not None and self.titled else None,
            "kind": hit and hit.kind,
            "state": hit and hit.state,
            "picture": hit.id if hit is not None and hit.is_picture else None,
            "tokens": self.tokens,
            "truncated": self.truncated,
        }


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a ranking."""

    document: int
    """Which candidate."""
    score: float
    tokens: int | None = None
    """Of the pair that a reranker reads."""
    truncated: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "document": self.document,
            "score": self.score,
            "tokens": self.tokens,
            "truncated": self.truncated,
        }


@dataclass(frozen=True, slots=True)
class Side:
    """What one instruction finds."""

    instruction: str | None
    tokens: int | None
    """Of the question, prompt included."""
    truncated: bool | None
    nearest: list[Place]
    """By the cosine similarity of the vectors, best first."""


@dataclass(frozen=True, slots=True)
class Found:
    """What all instructions find."""

    candidates: list[Candidate]
    sides: list[Side]
    plane: Plane
    """Candidates, then the question once per side."""
    model: str
    dim: int
    instructed: bool
    """Whether the embedding model reads instructions."""


def in_collection(
    shelf: Shelf, info: CollectionInfo, question: Content, instructions: Sequence[str | None], count: int
) -> Found:
    """Ask a collection. Blocks: for a thread.

    Args:
        shelf: Where it is from.
        info: The collection.
        question: The question, perhaps with a picture.
        instructions: One or two; `None`: the model's own.
        count: Passages per instruction at most.

    Raises:
        Refused: The collection cannot be used, or its model takes no pictures and the question holds one.
        EmbriefError: The model failed.
    """
    with shelf.opened(info) as opened, shelf.embedder(info) as embedder:
        if not isinstance(question, str) and "image" not in embedder.modalities:
            message = f"the collection {info.name!r} was indexed with a model that takes texts only; ask in words"
            raise refused(400, "no_images", message, param="image")
        instructed = takes_instructions(embedder)
        roots = {name: Path(root) for name, root in info.roots}
        hits: dict[str, Hit] = {}
        found: list[list[Hit]] = []
        asked: list[EmbeddingResult] = []
        for instruction in instructions:
            told = instruction if instructed else None
            asked.append(embedder.encode([question], role="query", instruction=told))
            found.append(searching.search(opened, embedder, question, top_k=count, instruction=told, roots=roots))
            hits.update((hit.id, hit) for hit in found[-1])
        order = {hit_id: place for place, hit_id in enumerate(hits)}
        stored = opened.vectors(list(hits))
        nothing = np.full(opened.space.dim, np.nan, np.float32)
        documents = np.array([stored.get(hit_id, nothing) for hit_id in hits], np.float32)
        titled = takes_titles(embedder)
        passages = list(hits.values())
        titles = [hit.title for hit in passages] if titled else None
        # What a picture has nobody knows without looking at it again.
        counts = embedder.count_tokens([hit.text for hit in passages], role="document", titles=titles)
        tokens_of = [
            None if hit.is_picture else tokens
            for hit, tokens in zip(passages, _plain(counts, len(passages)), strict=True)
        ]
        return _found(
            [
                Candidate(hit.text, hit=hit, titled=titled, tokens=tokens, truncated=_longer(tokens, embedder))
                for hit, tokens in zip(passages, tokens_of, strict=True)
            ],
            documents,
            instructions,
            asked,
            [[Place(order[hit.id], hit.score) for hit in side] for side in found],
            model_name(info.model),
            instructed,
        )


async def among_texts(
    service: Service,
    served: Served[Embedder],
    question: Item,
    texts: Sequence[str],
    instructions: Sequence[str | None],
    count: int,
) -> Found:
    """Ask pasted texts, within the server's limits.

    Args:
        service: The server.
        served: The embedding model.
        question: The question, perhaps with a picture.
        texts: The texts.
        instructions: As of `in_collection`.
        count: Texts per instruction at most.

    Raises:
        Refused, EmbriefError: As of `embed`.
    """
    instructed = takes_instructions(served.facade)
    documents = await embed(service, served, texts, asked(served, "document"))
    asks = [asked(served, "query", instruction=item if instructed else None) for item in instructions]
    questions = [await embed(service, served, [question], ask, what="image", alone=True) for ask in asks]
    told = Told.of(documents)
    units = _unit(documents.vectors)
    rankings = []
    for result in questions:
        scores = units @ _unit(result.vectors)[0]
        order = np.argsort(-scores, kind="stable")[:count]
        rankings.append([Place(int(place), float(scores[place])) for place in order])
    kept = sorted({place.document for ranking in rankings for place in ranking})
    places = {document: place for place, document in enumerate(kept)}
    return _found(
        [
            Candidate(texts[item], number=item + 1, tokens=told.tokens[item], truncated=told.truncated[item])
            for item in kept
        ],
        documents.vectors[kept],
        instructions,
        questions,
        [[Place(places[place.document], place.score) for place in ranking] for ranking in rankings],
        served.name,
        instructed,
    )


async def reranked(service: Service, served: Served[Reranker], question: Content, found: Found) -> list[list[Place]]:
    """Return the order in which a reranker puts what each instruction has found.

    Pictures whose files are no longer what was indexed are left out.

    Raises:
        Refused, EmbriefError: As of `score`.
    """
    reranker = served.facade
    contents = await service.decode(partial(_contents, found.candidates))
    orders = []
    for side in found.sides:
        told = side.instruction if reranker.spec.instructed else None
        judged = [(place, item) for place in side.nearest if (item := contents[place.document]) is not None]
        texts = [item for _, item in judged]
        scores = await score(service, served, question, texts, instruction=told)
        counts = _plain(await reranker.acount_tokens(question, texts, instruction=told), len(texts))
        order = np.argsort(-scores, kind="stable")
        orders.append(
            [
                Place(judged[row][0].document, float(scores[row]), counts[row], _longer(counts[row], reranker))
                for row in order
            ]
        )
    return orders


def _contents(candidates: Sequence[Candidate]) -> list[Content | None]:
    """Return what a reranker reads of each, `None` of a picture that is no longer there. Blocks."""
    pictures = PicturesOfHits()
    found: list[Content | None] = []
    for candidate in candidates:
        if candidate.hit is None or not candidate.hit.is_picture:
            found.append(candidate.text)
        else:
            image = pictures.of(candidate.hit)
            found.append(None if image is None else (image,))
    return found


def holds_pictures(question: Item, found: Found) -> bool:
    """Return whether a reranker would have to look at a picture."""
    return not isinstance(question, str) or any(
        candidate.hit is not None and candidate.hit.is_picture for candidate in found.candidates
    )


def takes_instructions(embedder: Embedder) -> bool:
    """Return whether an embedding model has a place for an instruction."""
    return embedder.spec.prompts.instructed is not None


def _found(
    candidates: list[Candidate],
    documents: Matrix,
    instructions: Sequence[str | None],
    questions: Sequence[EmbeddingResult],
    rankings: Sequence[list[Place]],
    model: str,
    instructed: bool,
) -> Found:
    told = [Told.of(result) for result in questions]
    asked = [result.vectors for result in questions]
    vectors = np.concatenate([documents, *asked] if candidates else asked)
    sides = [
        Side(instruction, told[number].tokens[0], told[number].truncated[0], rankings[number])
        for number, instruction in enumerate(instructions)
    ]
    return Found(candidates, sides, on_plane(vectors), model, vectors.shape[1], instructed)


def _unit(vectors: Matrix) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def _plain(counts: NDArray[np.int64] | None, count: int) -> list[int | None]:
    return [None] * count if counts is None else list(counts.tolist())


def _longer(tokens: int | None, facade: Embedder | Reranker) -> bool | None:
    return None if tokens is None else tokens > facade.max_tokens
