"""How much may be sent to one address in a minute, counted before it is sent."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

MINUTE = 60.0
"""Seconds."""


@dataclass(slots=True)
class Sent:
    """One request that was let through."""

    at: float
    tokens: int


class Window:
    """What was sent in the last minute: in no minute more than is allowed goes out. For one event loop."""

    def __init__(self) -> None:
        self._sent: deque[Sent] = deque()
        self._turn = asyncio.Lock()

    async def enter(self, tokens: int, *, requests_per_minute: int | None, tokens_per_minute: int | None) -> Sent:
        """Wait until a request may be sent, in the order of the calls. What alone is too much goes alone.

        Args:
            tokens: What it holds, as far as that is known.
            requests_per_minute: The limit; `None`: none.
            tokens_per_minute: The limit; `None`: none.

        Returns:
            What was counted; put the number of tokens right once the server has said it.
        """
        if requests_per_minute is None and tokens_per_minute is None:
            return self._note(tokens)
        async with self._turn:
            while (wait := self._wait(tokens, requests_per_minute, tokens_per_minute)) > 0:
                await asyncio.sleep(wait)
            return self._note(tokens)

    def _note(self, tokens: int) -> Sent:
        sent = Sent(asyncio.get_running_loop().time(), tokens)
        self._sent.append(sent)
        # Without limits nobody else forgets what is long ago.
        while self._sent[0].at + MINUTE <= sent.at:
            self._sent.popleft()
        return sent

    def _wait(self, tokens: int, requests: int | None, limit: int | None) -> float:
        """Return the seconds until something leaves the window, 0 if there is room."""
        now = asyncio.get_running_loop().time()
        while self._sent and self._sent[0].at + MINUTE <= now:
            self._sent.popleft()
        full = requests is not None and len(self._sent) >= requests
        much = limit is not None and self._sent and sum(sent.tokens for sent in self._sent) + tokens > limit
        return self._sent[0].at + MINUTE - now if full or much else 0.0
