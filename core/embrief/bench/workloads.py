"""What each row embeds or scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from embrief.bench.texts import chunk_lengths, encode, even_lengths, load_tokenizer, make_texts

if TYPE_CHECKING:
    from embrief.bench.checkpoint import Checkpoint
    from embrief.bench.settings import Sizes
    from embrief.facts.prompts import Input
    from embrief.images.image import Image

Name = Literal[
    "chunks", "long", "equal", "queries", "query", "candidates", "gemma", "photos", "pages", "mixed", "ranked"
]
PICTURES: frozenset[Name] = frozenset(("photos", "pages", "mixed", "ranked"))
"""The workloads with pictures."""
EQUAL = 121
"""Tokens of each text of the workload without padding."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The texts of one row, in every form that a library may want."""

    role: Literal["query", "document", "pair"]
    texts: tuple[str, ...]
    """As a caller has them. For pairs: the documents."""
    rendered: tuple[str, ...]
    """With prompt or template: what reaches the tokenizer."""
    ids: tuple[tuple[int, ...], ...]
    """Token ids, special tokens included."""
    query: str = ""
    """The one query of the pairs."""
    singly: bool = False
    """Whether each text is a call of its own."""
    shown: tuple[Image | None, ...] = ()
    """The picture before each text; empty: there are none."""

    @property
    def inputs(self) -> list[Input]:
        """What a caller passes: texts, pictures, or both."""
        if not self.shown:
            return list(self.texts)
        pairs = zip(self.texts, self.shown, strict=True)
        return [text if image is None else (image, text) if text else image for text, image in pairs]

    @property
    def tokens(self) -> int:
        """Tokens of all texts together."""
        return sum(map(len, self.ids))

    def part(self, places: Sequence[int]) -> Workload:
        """Return the texts at these places."""
        chosen: Any = {
            name: tuple(getattr(self, name)[place] for place in places)
            for name in ("texts", "rendered", "ids", "shown")
            if getattr(self, name)
        }
        return replace(self, **chosen)

    def sample(self, count: int) -> Workload:
        """Return about `count` texts, taken evenly."""
        step = max(1, len(self.texts) // max(1, count))
        return self.part(range(0, len(self.texts), step)[:count])

    def warm_up(self) -> Workload:
        """Return a few texts, the longest among them: what a library does once, it does for these."""
        longest = max(range(len(self.ids)), key=lambda place: len(self.ids[place]))
        return self.part(sorted({longest, *range(min(4, len(self.ids)))}))


def build(name: Name, checkpoint: Checkpoint, sizes: Sizes) -> Workload:
    """Return a workload for a model. The same model gives the same texts every time."""
    from embrief import Embedder

    tokenizer = load_tokenizer(checkpoint.folder)
    if name == "candidates":
        return _pairs(tokenizer, checkpoint, sizes.candidates)
    with Embedder(checkpoint.folder) as embedder:
        role: Literal["query", "document"] = "query" if name in ("queries", "query") else "document"

        def render(text: str) -> str:
            return embedder.render(text, role=role)

        lengths = _lengths(name, sizes, len(tokenizer.encode(render("")).ids))
        texts = make_texts(tokenizer, lengths, render, seed=1)
        rendered = [render(text) for text in texts]
    ids = tuple(map(tuple, encode(tokenizer, rendered)))
    return Workload(role, tuple(texts), tuple(rendered), ids, singly=name == "query")


def _lengths(name: Name, sizes: Sizes, prompt: int) -> list[int]:
    """Return the tokens of each text. Queries are measured without their prompt."""
    if name == "long":
        return even_lengths(sizes.long, 300, 1000, seed=2)
    if name == "equal":
        return [EQUAL] * sizes.equal
    if name in ("queries", "query"):
        count = sizes.queries if name == "queries" else sizes.singles
        return [prompt + length for length in even_lengths(count, 8, 20, seed=3)]
    return chunk_lengths(sizes.chunks if name == "chunks" else sizes.gemma, seed=4)


def _pairs(tokenizer: Any, checkpoint: Checkpoint, count: int) -> Workload:
    from embrief import Reranker

    def itself(text: str) -> str:
        return text

    special = len(tokenizer.encode("").ids)
    (query,) = make_texts(tokenizer, [14 + special], itself, seed=5)
    documents = make_texts(tokenizer, [length + special for length in chunk_lengths(count, 6)], itself, seed=6)
    with Reranker(checkpoint.folder) as reranker:
        pairs = [reranker.render(query, document) for document in documents]
    rendered = tuple(pair.text for pair in pairs)
    return Workload("pair", tuple(documents), rendered, tuple(map(tuple, encode(tokenizer, rendered))), query)
