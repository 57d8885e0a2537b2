"""`FallbackReranker`: one list of documents scored by the first model that can; never by two."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

from embrief.errors import ArgumentError, ArgumentTypeError, EmbriefError, UnavailableError
from embrief.facades import arguments
from embrief.facades.reranker import RankedDocument, Reranker
from embrief.fallback.breaker import Breaker
from embrief.fallback.events import FallbackEvent, told
from embrief.fallback.falls import falls_through

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Input
    from embrief.fallback.events import OnEvent

LastResort = Literal["raise", "input-order"]


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
        self._members = tuple((member, Breaker()) for member in found)
        self._last_resort, self._on_event = last_resort, on_event
        self._settings, self._model, self._checked = found[0]._settings, found[0]._shared, False
        self._check_spec()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all members, in order."""
        return tuple(_name(member) for member, _ in self._members)

    def _view(self, **changes: Any) -> Self:
        twin = super()._view(**changes)
        twin._members = tuple(
            (member._view(**changes), breaker) for member, breaker in self._members if _takes(member, changes)
        )
        twin._last_resort, twin._on_event = self._last_resort, self._on_event
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, ([member for member, _ in self._members], self._last_resort)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.members)!r})"

    def load(self) -> Self:
        """Load the first member that can be.

        Raises:
            UnavailableError: None can.
        """
        failed: list[str] = []
        for member, breaker in self._willing(None, failed):
            with self._watched(member, breaker, (), failed):
                member.load()
                return self
        raise _nobody(failed)

    def score(self, query: str, documents: Sequence[Input], *, instruction: str | None = None) -> NDArray[np.float32]:
        """`Reranker.score` of the whole list by the first member that can.

        Raises:
            UnavailableError: None can. `rerank` has a last resort.
        """
        failed: list[str] = []
        for member, breaker in self._willing(instruction, failed):
            with self._watched(member, breaker, documents, failed):
                return member.score(query, documents, instruction=instruction)
        raise _nobody(failed)

    async def ascore(
        self, query: str, documents: Sequence[Input], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """`score` without blocking the event loop."""
        failed: list[str] = []
        for member, breaker in self._willing(instruction, failed):
            with self._watched(member, breaker, documents, failed):
                return await member.ascore(query, documents, instruction=instruction)
        raise _nobody(failed)

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, instruction: str | None = None) -> NDArray[np.float32]:
        """`Reranker.score_pairs` by the first member that can."""
        failed: list[str] = []
        for member, breaker in self._willing(instruction, failed):
            with self._watched(member, breaker, pairs, failed):
                return member.score_pairs(pairs, instruction=instruction)
        raise _nobody(failed)

    async def ascore_pairs(
        self, pairs: Sequence[tuple[str, str]], *, instruction: str | None = None
    ) -> NDArray[np.float32]:
        """`score_pairs` without blocking the event loop."""
        failed: list[str] = []
        for member, breaker in self._willing(instruction, failed):
            with self._watched(member, breaker, pairs, failed):
                return await member.ascore_pairs(pairs, instruction=instruction)
        raise _nobody(failed)

    def rerank(
        self,
        query: str,
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
        query: str,
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
        self._tell(FallbackEvent("degraded", "input order", len(documents)))
        return [RankedDocument(index, None) for index in range(len(documents))][:top_n]

    def _tell(self, event: FallbackEvent) -> None:
        told(self._on_event, event)

    def _willing(self, instruction: str | None, failed: list[str]) -> Iterator[tuple[Reranker, Breaker]]:
        for place, (member, breaker) in enumerate(self._members):
            # What the first one does not take is the caller's mistake.
            if place and not _takes(member, {"instruction": instruction}):
                failed.append(f"{_name(member)}: it follows no instruction")
            elif breaker.lets_through():
                yield member, breaker
            else:
                failed.append(f"{_name(member)}: left alone for a while, since it failed several times")
                self._tell(FallbackEvent("skipped", _name(member), reason="open"))

    @contextmanager
    def _watched(
        self, member: Reranker, breaker: Breaker, items: Sequence[object], failed: list[str]
    ) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        except BaseException as error:
            if not falls_through(error):
                breaker.gave_up()
                raise
            failed.append(f"{_name(member)}: {error}")
            kind, seconds = type(error).__name__, time.perf_counter() - start
            self._tell(FallbackEvent("failed", _name(member), len(items), seconds, kind))
            if breaker.failed():
                self._tell(FallbackEvent("opened", _name(member), reason=kind))
        else:
            breaker.succeeded()
            self._tell(FallbackEvent("answered", _name(member), len(items), time.perf_counter() - start))

    def info(self) -> dict[str, Any]:
        """Return what the first member would tell, and how each member does."""
        members = [{"name": _name(member), "breaker": breaker.state} for member, breaker in self._members]
        return {**super().info(), "members": members}


def _takes(member: Reranker, changes: dict[str, Any]) -> bool:
    return not changes.get("instruction") or member.spec.instructed


def _name(reranker: Reranker) -> str:
    shared = reranker._shared
    place = shared.identity.partition(" ")[0]
    return f"{reranker.spec.id} ({shared.backend.name}{f' at {place}' if place else ''})"


def _nobody(failed: list[str]) -> UnavailableError:
    return UnavailableError(f"no member of the fallback could answer: {'; '.join(failed)}")


def _rebuild(members: list[Reranker], last_resort: LastResort) -> FallbackReranker:
    return FallbackReranker(members, last_resort=last_resort)
