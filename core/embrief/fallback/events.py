"""What a fallback tells about itself: counts and names, never a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from embrief.system.log import logger

EventKind = Literal["answered", "failed", "skipped", "opened", "probed", "degraded"]


@dataclass(frozen=True, slots=True)
class FallbackEvent:
    """One thing that happened."""

    kind: EventKind
    member: str
    """Name of the member that it is about."""
    texts: int = 0
    """How many texts the call had."""
    seconds: float = 0.0
    """How long the member took."""
    reason: str = ""
    """Of a failure: the kind of error; of a member that was skipped: why."""


OnEvent = Callable[[FallbackEvent], object]


def told(on_event: OnEvent | None, event: FallbackEvent) -> None:
    """Tell who asked to be told. What goes wrong there is logged and costs no answer."""
    if on_event is None:
        return
    try:
        on_event(event)
    except Exception as error:
        # Only its kind: its message may hold anything.
        logger.warning("on_event failed on %r of %s with %s", event.kind, event.member, type(error).__name__)
