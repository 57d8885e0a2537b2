"""What is measured: ways to turn the questions of a retrieval set into rankings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embrief.errors import ArgumentError, MissingDependencyError
from embrief.evaluation.contents import pictured
from embrief.evaluation.measures import DEPTH, Ranking
from embrief.evaluation.search import search
from embrief.facades.arguments import model_for_images
from embrief.system.installed import install_command, installed_version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.evaluation.retrieval_set import RetrievalSet
    from embrief.facades.embedder import Embedder
    from embrief.facades.reranker import Reranker
    from embrief.facts.vectors import Matrix

DEFAULT, OWN, NONE = "default", "own", "none"
"""Instructions by name: the model's default, the retrieval set's own, and no prompt at all."""
_PAIRS = 1024
"""Pairs per call of a reranker: enough to fill its batches, few enough to show that it moves."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One system: one line of the table."""

    label: str
    """Unique among the systems of a run, and the same in every run with the same choices."""
    identity: Mapping[str, str]
    """What decides its rankings, such as the vector space: a finished line is used again only if this is equal."""
    against: str | None = None
    """The label of the system that it varies; `None`: the first of the table."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a system found."""

    variant: Variant
    ranking: Ranking
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time for documents (shared by the variants of a model), queries and reranking."""
    truncated: int | None = 0
    """Documents that were longer than the embedding model's limit and lost their end."""


class UnfitError(ArgumentError):
    """A system reads texts only, and a set holds pictures: others may be measured on it."""


class System(Protocol):
    """A model, or a baseline, in one or several variants."""

    def variants(self, found: RetrievalSet) -> list[Variant]:
        """Return the lines that this gives for a set, in the order of `rank`.

        Raises:
            UnfitError: It cannot be measured on this set.
        """
        ...

    def rank(self, found: RetrievalSet, wanted: Sequence[str]) -> Iterator[Ranked]:
        """Yield the variants whose labels are wanted."""
        ...


class Bm25:
    """The usual lexical baseline: Okapi BM25 as bm25s computes it by default, words of two characters and more.

    A question without such a word finds nothing, and in documents without any nothing is found.
    """

    def variants(self, found: RetrievalSet) -> list[Variant]:
        """Return the one there is.

        Raises:
            UnfitError: The set holds pictures: what has no words would count as not found.
        """
        if held := _pictures(found):
            raise UnfitError(f"BM25 reads words, and {held}")
        return [Variant("BM25", {"method": f"bm25s {installed_version('bm25s')}, default"})]

    def rank(self, found: RetrievalSet, wanted: Sequence[str]) -> Iterator[Ranked]:
        """Search the words.

        Raises:
            MissingDependencyError: bm25s is not installed.
        """
        try:
            import bm25s
        except ImportError as error:
            raise MissingDependencyError(f"BM25 comes from bm25s: {install_command('eval')}") from error
        (variant,) = self.variants(found)
        names = list(found.corpus)
        start = time.perf_counter()
        index = bm25s.BM25()
        corpus, queries = ([str(text) for text in side.values()] for side in (found.corpus, found.queries))
        read = bm25s.tokenize(corpus, show_progress=False)
        # bm25s fails where no text has a word that counts.
        searched = any(read.ids)
        if searched:
            index.index(read, show_progress=False)
        indexed = time.perf_counter()
        tokens = bm25s.tokenize(queries, return_ids=False, show_progress=False)
        ranking: dict[str, list[str]] = {}
        for query, words in zip(found.queries, tokens, strict=True):
            # And where a question has none.
            if not searched or not words:
                ranking[query] = []
                continue
            scores = index.get_scores(words)
            order = np.argsort(-scores, kind="stable")[:DEPTH]
            # What shares no word with the question was not found.
            ranking[query] = [names[place] for place in order if scores[place] > 0]
        seconds = {"documents": indexed - start, "queries": time.perf_counter() - indexed}
        yield Ranked(variant, ranking, seconds)


@dataclass(frozen=True)
class EmbeddingSystem:
    """An embedding model: its documents are embedded once, and every variant is a search among them.

    Widths are measured with the first instruction, rerankers with the full width.
    """

    embedder: Embedder
    name: str
    """How the table calls it."""
    instructions: Sequence[str] = (DEFAULT,)
    """`default`, `own`, `none`, or a sentence each. Those that the model cannot follow are left out."""
    dims: Sequence[int] = ()
    """Widths besides the embedder's own."""
    rerankers: Mapping[str, Reranker] = field(default_factory=dict)
    """Rerankers, and how the table calls each."""
    top: int = 50
    """Candidates that a reranker gets."""

    def __post_init__(self) -> None:
        """Refuse widths that the model cannot have, before hours of work."""
        for dim in self.dims:
            self.embedder.with_dim(dim)
        if self.top > DEPTH:
            raise ArgumentError(f"{self.top} candidates are more than the {DEPTH} that are looked at")

    def variants(self, found: RetrievalSet) -> list[Variant]:
        """Return the lines for a set.

        Raises:
            UnfitError: The set holds pictures and the model takes texts only.
            ArgumentError: The model takes pictures, and a reranker does not.
        """
        if held := _pictures(found):
            if takes := _takes_texts_only(self.embedder):
                raise UnfitError(f"{takes[0]}, and {held}; {takes[1]}")
            for judge in self.rerankers.values():
                if takes := _takes_texts_only(judge):
                    raise ArgumentError(f"{takes[0]}, and {held}; {takes[1]}, or leave the reranker out")
        return [variant for variant, _, _, _ in self._lines(found)]

    def rank(self, found: RetrievalSet, wanted: Sequence[str]) -> Iterator[Ranked]:
        """Embed what the wanted lines need, and search."""
        lines = [line for line in self._lines(found) if line[0].label in wanted]
        dims = sorted({dim for _, _, dim, _ in lines})
        if not dims:
            return
        self.embedder.load()
        start = time.perf_counter()
        corpus = list(found.corpus.values())
        encoded = self.embedder.encode_dims(corpus, dims, role="document")
        told = encoded[dims[0]].truncated
        truncated = None if told is None else int(told.sum())
        seconds = {"documents": time.perf_counter() - start}
        queries: dict[str | None, tuple[dict[int, Matrix], float]] = {}
        for variant, instruction, dim, judge in lines:
            if instruction not in queries:
                queries[instruction] = self._queries(found, instruction, dims)
            vectors, taken = queries[instruction]
            ranking = _named(found, search(vectors[dim], encoded[dim].vectors, DEPTH))
            spent = {**seconds, "queries": taken}
            if judge is not None:
                start = time.perf_counter()
                ranking = rerank(judge, found, ranking, self.top, instruction)
                spent["rerank"] = time.perf_counter() - start
            yield Ranked(variant, ranking, spent, truncated)

    def _queries(
        self, found: RetrievalSet, instruction: str | None, dims: Sequence[int]
    ) -> tuple[dict[int, Matrix], float]:
        start = time.perf_counter()
        asked = list(found.queries.values())
        encoded = self.embedder.encode_dims(asked, dims, role="query", instruction=instruction)
        return {dim: item.vectors for dim, item in encoded.items()}, time.perf_counter() - start

    def _lines(self, found: RetrievalSet) -> list[tuple[Variant, str | None, int, Reranker | None]]:
        """Return each line with the instruction, the width and the reranker that make it."""
        lines: list[tuple[Variant, str | None, int, Reranker | None]] = []
        full = self.embedder.dim
        first: str | None = None
        for shown, instruction in self._asked(found):
            base = ", ".join([self.name, *([] if shown == DEFAULT else [_in_words(shown)])])
            lines.append((Variant(base, self._identity(instruction, full), first), instruction, full, None))
            if first is None:
                for dim in self.dims:
                    variant = Variant(f"{base}, {dim} values", self._identity(instruction, dim), base)
                    lines.append((variant, instruction, dim, None))
                first = base
            for name, judge in self.rerankers.items():
                identity = {
                    **self._identity(instruction, full),
                    "reranker": _asked_with(judge, instruction).fingerprint,
                    "top": str(self.top),
                }
                lines.append((Variant(f"{base} + {name} on {self.top}", identity, base), instruction, full, judge))
        return lines

    def _identity(self, instruction: str | None, dim: int) -> dict[str, str]:
        embedder = self.embedder.with_dim(dim)
        asking = embedder if instruction is None else embedder.with_instruction(instruction)
        return {"documents": embedder.fingerprint, "queries": asking.query_fingerprint}

    def _asked(self, found: RetrievalSet) -> list[tuple[str, str | None]]:
        """Return the instructions that make a difference here, each with the name it was asked for by."""
        prompts, images = self.embedder.spec.prompts, self.embedder.spec.images
        bare_pictures = images is not None and images.prompt == "none" and bool(pictured(found.queries))
        asked: list[tuple[str, str | None]] = []
        for shown in self.instructions:
            if shown == OWN and found.instruction is None:
                continue
            instruction = {DEFAULT: None, NONE: "", OWN: found.instruction}.get(shown, shown)
            # A model without prompts is the same with and without.
            if shown != DEFAULT and prompts.instructed is None:
                continue
            # One that always has an instruction cannot be asked without.
            if prompts.instruction_is_sentence and instruction is not None and not instruction.strip():
                continue
            # One that puts no prompt beside pictures cannot be told what they ask for.
            if bare_pictures and instruction:
                continue
            asked.append((shown, instruction))
        return asked or [(DEFAULT, None)]


def rerank(judge: Reranker, found: RetrievalSet, ranking: Ranking, top: int, instruction: str | None = None) -> Ranking:
    """Return rankings whose first `top` documents are in a reranker's order; of equal scores, the earlier first.

    Args:
        judge: The reranker.
        found: The documents and questions.
        ranking: The candidates.
        top: How many of each question are scored.
        instruction: What makes a document relevant; an empty one or `None`: the reranker's default.
    """
    asked = _asked_with(judge, instruction)
    pairs = [(query, document) for query, names in ranking.items() for document in names[:top]]
    scores: dict[tuple[str, str], float] = {}
    for start in range(0, len(pairs), _PAIRS):
        part = pairs[start : start + _PAIRS]
        values = asked.score_pairs([(found.queries[query], found.corpus[document]) for query, document in part])
        scores.update(zip(part, map(float, values), strict=True))
    return {
        query: [*sorted(names[:top], key=lambda name: -scores[query, name]), *names[top:]]
        for query, names in ranking.items()
    }


def _asked_with(judge: Reranker, instruction: str | None) -> Reranker:
    """Return the reranker with an instruction, or as it is if there is none or it cannot follow one."""
    return judge.with_instruction(instruction) if instruction and judge.spec.instructed else judge


def _takes_texts_only(facade: Embedder | Reranker) -> tuple[str, str] | None:
    """Return that in words, and the remedy; `None` if it takes pictures too."""
    if "image" in facade.modalities:
        return None
    if facade.spec.images is None:
        return f"{facade.spec.id} takes texts only", model_for_images(facade.spec)
    return f"{facade.spec.id} is given texts only by its runtime", "use the engine"


def _pictures(found: RetrievalSet) -> str:
    """Return what of a set holds a picture, in words; "" if nothing does."""
    sides = ((found.corpus, "documents"), (found.queries, "questions"))
    counts = [f"{count:,} of {len(side):,} {what}" for side, what in sides if (count := len(pictured(side)))]
    return f"{' and '.join(counts)} of {found.name} hold a picture" if counts else ""


def _named(found: RetrievalSet, places: NDArray[np.int64]) -> Ranking:
    names = list(found.corpus)
    return {query: [names[place] for place in row] for query, row in zip(found.queries, places, strict=True)}


def _in_words(instruction: str) -> str:
    words = {OWN: "the set's instruction", NONE: "no instruction"}
    return words.get(instruction, f"instruction {instruction!r}")
