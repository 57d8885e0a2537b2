"""The chain above the schedulers of its members: who answers a call, and what is told of the others."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

from embrief.errors import (
    ArgumentError,
    ModelMismatchError,
    SpaceMismatchError,
    UnprobedWarning,
    warn,
)
from embrief.fallback.breaker import Breaker
from embrief.fallback.events import EventKind, FallbackEvent, OnEvent, told
from embrief.fallback.turns import Turns
from embrief.parity import kept
from embrief.parity.check import EIGHT_BITS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from embrief.facades.embedder import Embedder
    from embrief.facts.prompts import Rendered
    from embrief.runtimes.base import Model, Output, RunOptions, Token
    from embrief.serving.jobs import Request
    from embrief.serving.lanes import Lane
    from embrief.serving.scheduler import Served

T = TypeVar("T")

LEAST = {"float32": 0.9999, "float16": 0.995, "bfloat16": 0.995, "int8": EIGHT_BITS, "server": EIGHT_BITS}
"""Least cosine on every probe text, by the member's number format; a server does not say what it has."""
Unprobed = Literal["refuse", "warn"]


@dataclass(eq=False)
class Member:
    """One way to run the model, and how it does."""

    name: str
    embedder: Embedder
    breaker: Breaker = field(default_factory=Breaker)
    probed: bool = False

    def __post_init__(self) -> None:
        self.reset()
        _members.add(self)

    def reset(self) -> None:
        """Take a new lock: at first, and in a child process, where nobody goes on with a probe."""
        self.lock = threading.Lock()


_members: weakref.WeakSet[Member] = weakref.WeakSet()


def _after_fork() -> None:
    for member in list(_members):
        member.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Chain:
    """A `Served` handle that asks one member after the other. Calls of several callers run side by side."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        unprobed: Unprobed,
        probes: str | Path | None,
        on_event: OnEvent | None,
    ) -> None:
        self.members = members
        self.unprobed, self.probes = unprobed, probes
        self.on_event = on_event

    def tell(self, kind: EventKind, member: str, texts: int = 0, seconds: float = 0.0, reason: str = "") -> None:
        """Tell who asked to be told."""
        told(self.on_event, FallbackEvent(kind, member, texts, seconds, reason))

    def load(self) -> Model:
        """Load the first member that can be."""
        return self._first(lambda served: served.load(), 0)[0]

    def check(self, inputs: Sequence[Rendered], options: RunOptions) -> None:
        """Refuse inputs that may not be cut, by the first member that can tell."""
        self._first(lambda served: served.check(inputs, options), len(inputs))

    def count(self, inputs: Sequence[Rendered], options: RunOptions) -> NDArray[np.int64] | None:
        """Return the lengths of inputs, by the first member that can tell."""
        return self._first(lambda served: served.count(inputs, options), len(inputs))[0]

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]] | None:
        """Return the tokens of inputs, by the first member that can be loaded."""
        return self._first(lambda served: served.tokenize(inputs, options), len(inputs))[0]

    def run(self, request: Request) -> Output:
        """Return what the first member that can makes of a request."""
        output, member = self._first(lambda served: served.run(request), len(request.inputs))
        return replace(output, answered_by=member.name)

    async def arun(self, request: Request, finish: Callable[[Output], T], lane: Lane) -> T:
        """`run` for event loops."""
        turns = Turns(self.on_event, len(request.inputs))
        for member in turns.willing(self.members):
            with turns.watched(member):
                # Loading and probing take a thread for long; the call itself does not.
                served = await lane.run(partial(self._ready, member))
                return await served.arun(request, partial(_named, finish, member.name), lane)
        raise turns.nobody()

    def _first(self, ask: Callable[[Served], T], count: int) -> tuple[T, Member]:
        turns = Turns(self.on_event, count)
        for member in turns.willing(self.members):
            with turns.watched(member):
                return ask(self._ready(member)), member
        raise turns.nobody()

    def _ready(self, member: Member) -> Served:
        """Return a member's own handle, once it has shown that its vectors are those of the space."""
        embedder = member.embedder
        served = embedder._served(embedder._shared)
        if not member.probed:
            with member.lock:
                if not member.probed:
                    self._probe(member)
                    member.probed = True
        return served

    def _probe(self, member: Member) -> None:
        embedder = member.embedder
        space, dtype = kept.whole(embedder), embedder._shared.offer.dtype
        if dtype not in LEAST:
            raise too_coarse(member.name, dtype)
        known = kept.load(space, self.probes)
        if known is None:
            problem = (
                f"nothing is kept to compare {member.name} with: for the space {space.id} there are no probe vectors"
            )
            remedy = f"`embrief parity {embedder.spec.id} --record` makes them, from a model that is right"
            if self.unprobed == "refuse":
                raise SpaceMismatchError(f"{problem}; {remedy}, or unprobed='warn' does without")
            warn(f"{problem}; {remedy}", UnprobedWarning)
            return
        least = LEAST[dtype]
        items = {name: item for name, item in kept.items_of(embedder).items() if name in known.vectors}
        found = kept.ask(embedder, items)
        missing = known.vectors.keys() - found.keys()
        if missing:
            raise ModelMismatchError(
                f"{member.name} cannot be compared: its limit of {embedder.max_tokens} tokens leaves out "
                f"{', '.join(sorted(missing))}; give all members one max_tokens"
            )
        name, near = known.worst(found)
        if near < least:
            raise ModelMismatchError(
                f"{member.name} gives other vectors than {known.by}: cosine {near:.5f} on {name!r}, and {least} is "
                f"asked for in {dtype}; `embrief parity` names the cause"
            )
        self.tell("probed", member.name, len(found))


def too_coarse(name: str, dtype: str) -> ArgumentError:
    """Return the error for a member whose number format moves vectors too far."""
    return ArgumentError(
        f"{name} runs in {dtype}, and a member of a fallback needs a number format of at least 8 bits, one of "
        f"{', '.join(LEAST)}"
    )


def _named(finish: Callable[[Output], T], name: str, output: Output) -> T:
    return finish(replace(output, answered_by=name))
