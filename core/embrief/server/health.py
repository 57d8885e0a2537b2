"""Whether the models of a server answer as they did when they were loaded."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from embrief.errors import EmbriefError, IndexedError, UnavailableError, UnknownModelError
from embrief.facades.embedder import Embedder
from embrief.fallback.embedder import FallbackEmbedder
from embrief.system.log import logger

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.server.models import Served, ServedModels

PROBE_QUERY, PROBE_DOCUMENT = "Is anybody there?", "Somebody is there."
LEAST_COSINE = 0.99
"""Of a probe's vector with the one of the load: batches and number formats move it by less, another model by more."""
FRESH = 30.0
"""Seconds for which the outcome of a probe is told again, so that whoever asks often costs nothing."""
_SCORE_MOVES = 0.05
"""The most that the probability of the probe pair may move."""


@dataclass(eq=False)
class State:
    """How one model does."""

    state: Literal["waiting", "loading", "ready", "failed"] = "waiting"
    reason: str = ""
    """Why it is not ready: the kind of the error and its message, which holds no text."""
    first: NDArray[np.float32] | None = None
    """What the probe gave when the model was loaded."""
    checked: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def is_loaded(self) -> bool:
        """Return whether the model was loaded and has answered."""
        return self.first is not None

    def told(self) -> dict[str, str]:
        """Return it as plain values."""
        return {"state": self.state, **({"reason": self.reason} if self.reason else {})}


class Readiness:
    """Loads models, and compares what a probe text gives with what it gave at first."""

    def __init__(self, models: ServedModels) -> None:
        """Load nothing."""
        self._models = models
        self.states = {served.name: State() for served in models.all()}

    async def load_all(self) -> None:
        """Load all models, one after the other. One that fails is in `states`, and is tried again when it is asked."""
        for served in self._models.all():
            try:
                await self.loaded(served)
            except EmbriefError as error:
                logger.warning("%s could not be loaded: %s", served.name, type(error).__name__)

    async def loaded(self, served: Served[Any]) -> None:
        """Load a model if it is not loaded yet.

        Raises:
            EmbriefError: As of `Embedder.load`; or the probe fails. Never one that is about a request.
        """
        state = self.states[served.name]
        if state.is_loaded():
            return
        async with state.lock:
            if state.is_loaded():
                return
            state.state = "loading"
            try:
                await served.facade.aload()
                state.first = await _probe(served)
            except Exception as error:
                state.state, state.reason = "failed", _told(error)
                if isinstance(error, EmbriefError) and not isinstance(error, (IndexedError, UnknownModelError)):
                    raise
                # Of a request these would say that something is wrong with it, and it is the model that is.
                raise UnavailableError(f"the model cannot be loaded ({type(error).__name__})") from error
            except BaseException:
                # Whoever waited may have left, which says nothing of the model.
                state.state, state.reason = "waiting", ""
                raise
            state.state, state.reason, state.checked = "ready", "", time.monotonic()
            served.batch_tokens = served.facade.info()["batch_tokens"]

    async def check(self, *, load: bool) -> bool:
        """Return whether all models answer as they did.

        Args:
            load: Whether to load those that are not; a server that loads with the first request is ready without.
        """
        return all([await self._checked(served, load) for served in self._models.all()])

    async def _checked(self, served: Served[Any], load: bool) -> bool:
        state = self.states[served.name]
        if state.first is None:
            # Loading goes on by itself; whoever asks does not wait for it.
            return not load and state.state in ("waiting", "loading")
        async with state.lock:
            if time.monotonic() - state.checked >= FRESH:
                try:
                    moved = _moved(state.first, await _probe(served))
                except Exception as error:
                    moved = _told(error)
                state.state, state.reason = ("failed", moved) if moved else ("ready", "")
                state.checked = time.monotonic()
        return state.state == "ready"


async def _probe(served: Served[Any]) -> NDArray[np.float32]:
    facade = served.facade
    if isinstance(facade, Embedder):
        # From the model itself: a cache would give back what it was given. A chain has none.
        asked = facade if isinstance(facade, FallbackEmbedder) else facade.without_cache()
        return await asked.aembed_query(PROBE_QUERY)
    found: NDArray[np.float32] = await facade.ascore(PROBE_QUERY, [PROBE_DOCUMENT])
    return found


def _moved(first: NDArray[np.float32], now: NDArray[np.float32]) -> str:
    """Return what is wrong with a probe's outcome, "" if nothing is."""
    if len(first) == 1:
        moved = float(np.abs(first - now).max())
        return "" if moved <= _SCORE_MOVES else f"the probe's score moved by {moved:.3f} since the model was loaded"
    norms = float(np.linalg.norm(first) * np.linalg.norm(now))
    near = float(first @ now) / norms if norms else 0.0
    return "" if near >= LEAST_COSINE else f"the probe's vector moved since the model was loaded (cosine {near:.4f})"


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, EmbriefError) else type(error).__name__
