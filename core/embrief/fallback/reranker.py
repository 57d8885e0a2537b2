"""`FallbackReranker`: one list of documents scored by the first model that can; never by two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from embrief.errors import ArgumentError, ArgumentTypeError, EmbriefError
from embrief.facades import arguments, forms
from embrief.facades.reranker import RankedDocument, Reranker
from embrief.fallback.breaker import Breaker
from embrief.fallback.falls import falls_through
from embrief.fallback.turns import Turns, name_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Input
    from embrief.fallback.events import OnEvent
    from embrief.runtimes.base import Token

LastResort = Literal["raise", "input-order"]


@dataclass
class _Member:
    """One reranker, and how it does. Views of a fallback share what is known of it."""

    name: str
    reranker: Reranker
    breaker: Breaker = field(default_factory=Breaker)


class FallbackReranker(Reranker):
    """Several rerankers, asked in turn: a `Reranker` that goes on when one of them is not there.

    They may be different models: scores of two are not compared, since one member scores the whole list. The last
    resort is the order that the list came in, with `score=None`.
    """

    def __init__(
        self,
        members: Sequence[Reranker | str],
        *,
        last_resort: LastResort = "raise",
        on_event: OnEvent | None = None,
    ) -> None:
        """Check the members, and load nothing.

        Args:
            members: Rerankers, or names and references of models, the preferred one first.
            last_resort: What to do when none can: raise, or return the documents in their order without scores.
            on_event: Told of every answer and failure, with counts and names, on the caller's thread.

        Raises:
            ArgumentError: There is no member.
            ArgumentTypeError: A member is no reranker and no name.
        """
        if isinstance(members, (str, Reranker)) or not isinstance(members, Sequence):
            raise ArgumentTypeError("members is a list of rerankers and names of models")
        if not members:
            raise ArgumentError("a fallback needs a member at least")
        if last_resort not in ("raise", "input-order"):
            raise ArgumentError(f"last_resort={last_resort!r} is not known; use 'raise' or 'input-order'")
        found = []
        for index, member in enumerate(members):
            if isinstance(member, FallbackReranker) or not isinstance(member, (str, Reranker)):
                raise ArgumentTypeError(
                    f"members[{index}] is a {type(member).__name__}, no Reranker and no name", index=index
                )
            found.append(Reranker(member) if isinstance(member, str) else member)
        self._members = tuple(_Member(name_of(member), member) for member in found)
        self._last_resort, self._on_event = last_resort, on_event
        self._settings, self._model, self._checked = found[0]._settings, found[0]._shared, False
        self._check_spec()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all members, in order."""
        return tuple(member.name for member in self._members)

    def _view(self, **changes: Any) -> Self:
        twin = super()._view(**changes)
        twin._members = tuple(
            replace(member, reranker=member.reranker._view(**_of_use(member.reranker, changes)))
            for member in self._members
            if _takes(member.reranker, changes)
        )
        twin._last_resort, twin._on_event = self._last_resort, self._on_event
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, ([member.reranker for member in self._members], self._last_resort)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.members)!r})"

    def load(self) -> Self:
        """Load the first member that can be.

        Raises:
            UnavailableError: None can.
        """
        turns = Turns(self._on_event, 0)
        for member in turns.willing(self._able(None, turns)):
            with turns.watched(member):
                member.reranker.load()
                return self
        raise turns.nobody()

    def score(self, query: Input, documents: Sequence[Input], *, instruction: str | None = None) -> NDArray[np.float32]:
        """`Reranker.score` of the whole list by the first member that can.

        Raises:
            UnavailableError: None can. `rerank` has a last resort.
        """
        turns = Turns(self._on_event, len(documents))
        for member in turns.willing(self._able(instruction, turns, lambda: [query, *documents])):
            with turns.watched(member):
                return member.reranker.score(query, documents, instruction=instruction)
        raise turns.nobody()

    def count_tokens(
        self, query: Input, documents: Sequence[Input], *, instruction: str | None = None
    ) -> NDArray[np.int64] | None:
        """`Reranker.count_tokens` by the first member that can be loaded. Another one may count otherwise."""
        turns = Turns(self._on_event, len(documents))
        for member in turns.willing(self._able(instruction, turns, lambda: [query, *documents])):
            with turns.watched(member):
                return member.reranker.count_tokens(query, documents, instruction=instruction)
        raise turns.nobody()

    def tokenize(
        self, query: Input, documents: Sequence[Input], *, instruction: str | None = None
    ) -> list[list[Token]] | None:
        """`Reranker.tokenize` by the first member that can be loaded. Another one may read otherwise."""
        turns = Turns(self._on_event, len(documents))
        for member in turns.willing(self._able(instruction, turns, lambda: [query, *documents])):
            with turns.watched(member):
                return member.reranker.tokenize(query, documents, instruction=instruction)
        raise turns.nobody()

    async def ascore(
        self, query: Input, documents: Sequence[Input], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """`score` without blocking the event loop."""
        turns = Turns(self._on_event, len(documents))
        for member in turns.willing(self._able(instruction, turns, lambda: [query, *documents])):
            with turns.watched(member):
                return await member.reranker.ascore(query, documents, instruction=instruction)
        raise turns.nobody()

    def score_pairs(
        self, pairs: Sequence[tuple[Input, Input]], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """`Reranker.score_pairs` by the first member that can."""
        turns = Turns(self._on_event, len(pairs))
        for member in turns.willing(self._able(instruction, turns, partial(_sides, pairs))):
            with turns.watched(member):
                return member.reranker.score_pairs(pairs, instruction=instruction)
        raise turns.nobody()

    async def ascore_pairs(
        self, pairs: Sequence[tuple[Input, Input]], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """`score_pairs` without blocking the event loop."""
        turns = Turns(self._on_event, len(pairs))
        for member in turns.willing(self._able(instruction, turns, partial(_sides, pairs))):
            with turns.watched(member):
                return await member.reranker.ascore_pairs(pairs, instruction=instruction)
        raise turns.nobody()

    def rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        *,
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[RankedDocument]:
        """`Reranker.rerank`; as the last resort the documents in their own order, with `score=None`."""
        first = arguments.positive(top_n, "top_n")
        try:
            return super().rerank(query, documents, instruction=instruction, top_n=top_n)
        except EmbriefError as error:
            return self._unranked(documents, first, error)

    async def arerank(
        self,
        query: Input,
        documents: Sequence[Input],
        *,
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[RankedDocument]:
        """`rerank` without blocking the event loop."""
        first = arguments.positive(top_n, "top_n")
        try:
            return await super().arerank(query, documents, instruction=instruction, top_n=top_n)
        except EmbriefError as error:
            return self._unranked(documents, first, error)

    def _unranked(self, documents: Sequence[Input], top_n: int | None, error: EmbriefError) -> list[RankedDocument]:
        if self._last_resort == "raise" or not falls_through(error):
            raise error
        Turns(self._on_event, len(documents)).tell("degraded", "input order")
        return [RankedDocument(index, None) for index in range(len(documents))][:top_n]

    def _able(
        self, instruction: str | None, turns: Turns, inputs: Callable[[], Iterable[Input]] = tuple
    ) -> Iterator[_Member]:
        """Yield the members that can follow a call, whose inputs the first one has checked when they are asked for."""
        for place, member in enumerate(self._members):
            # What the first one does not take is the caller's mistake.
            if place and not _takes(member.reranker, {"instruction": instruction}):
                turns.passed_over(member.name, "it follows no instruction")
            elif place and member.reranker.spec.images is None and any(map(forms.holds_image, inputs())):
                turns.passed_over(member.name, "it takes texts only")
            else:
                yield member

    def info(self) -> dict[str, Any]:
        """Return what the first member would tell, and how each member does."""
        members = [{"name": member.name, "breaker": member.breaker.state} for member in self._members]
        return {**super().info(), "members": members}


def _takes(member: Reranker, changes: dict[str, Any]) -> bool:
    return not changes.get("instruction") or member.spec.instructed


def _of_use(member: Reranker, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without those of pictures for a member that is given none."""
    return {name: value for name, value in changes.items() if name != "max_pixels" or member.spec.images is not None}


def _sides(pairs: Sequence[tuple[Input, Input]]) -> Iterator[Input]:
    return (side for pair in pairs for side in pair)


def _rebuild(members: list[Reranker], last_resort: LastResort) -> FallbackReranker:
    return FallbackReranker(members, last_resort=last_resort)
