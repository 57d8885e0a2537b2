"""Asking members in turn: who is asked, when one is left alone, and what is told of it. The same for all kinds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from embrief.errors import UnavailableError
from embrief.fallback.events import EventKind, FallbackEvent, OnEvent, told
from embrief.fallback.falls import falls_through

if TYPE_CHECKING:
    from embrief.facades.embedder import Embedder
    from embrief.facades.reranker import Reranker
    from embrief.fallback.breaker import Breaker


class _Asked(Protocol):
    """What is known of a member here."""

    name: str
    breaker: Breaker


M = TypeVar("M", bound=_Asked)


class Turns:
    """One call's way through the members."""

    def __init__(self, on_event: OnEvent | None, count: int) -> None:
        """Take who is told.

        Args:
            on_event: Told of each attempt.
            count: The number of texts of the call.
        """
        self._on_event, self._count = on_event, count
        self._failed: list[str] = []

    def tell(self, kind: EventKind, member: str, seconds: float = 0.0, reason: str = "") -> None:
        """Tell who asked to be told."""
        told(self._on_event, FallbackEvent(kind, member, self._count, seconds, reason))

    def willing(self, members: Iterable[M]) -> Iterator[M]:
        """Yield those that may be asked."""
        for member in members:
            if member.breaker.lets_through():
                yield member
            else:
                self.passed_over(member.name, "left alone for a while, since it failed several times")
                self.tell("skipped", member.name, reason="open")

    def passed_over(self, name: str, why: str) -> None:
        """Note a member that was not asked, for the error in the end."""
        self._failed.append(f"{name}: {why}")

    @contextmanager
    def watched(self, member: _Asked) -> Iterator[None]:
        """Around one member's attempt: an error that another may make up for goes no further."""
        start = time.perf_counter()
        try:
            yield
        except BaseException as error:
            seconds, kind = time.perf_counter() - start, type(error).__name__
            if not falls_through(error):
                member.breaker.gave_up()
                raise
            self.passed_over(member.name, str(error))
            self.tell("failed", member.name, seconds, kind)
            if member.breaker.failed():
                self.tell("opened", member.name, reason=kind)
        else:
            member.breaker.succeeded()
            self.tell("answered", member.name, time.perf_counter() - start)

    def nobody(self) -> UnavailableError:
        """Return the error where none could answer."""
        return UnavailableError(f"no member of the fallback could answer: {'; '.join(self._failed)}")


def name_of(facade: Embedder | Reranker) -> str:
    """Return what a member is called: the model and the runtime, and where its server is."""
    shared = facade._shared
    place = shared.identity.partition(" ")[0]
    return f"{facade.spec.id} ({shared.backend.name}{f' at {place}' if place else ''})"
