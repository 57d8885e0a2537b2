"""Requests to servers: one pool of connections and one window of limits per address, tries, waits and typed errors.

The only module that knows an HTTP library. All of it runs on the event-loop thread of servers.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from embrief.errors import (
    BackendError,
    BadAnswerError,
    EmbriefError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
)
from embrief.servers.keys import PROVIDER_KEYS
from embrief.servers.limits import Window
from embrief.servers.options import LONGEST_WAIT

if TYPE_CHECKING:
    import httpx

    from embrief.servers.address import Address
    from embrief.servers.keys import Key
    from embrief.servers.options import ServerOptions

Explain = Callable[[int, Any, str], "Exception | None"]
"""From status, body (JSON, or text) and message to the error that it is, perhaps `Again`; `None`: nothing special."""

LONGEST_REQUEST = 600.0
"""Seconds for one request with all its tries and waits, where the call has no deadline."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds: between two tries a random part of a pause that doubles."""
LARGEST_ANSWER = 256 * 2**20
"""Bytes: a server that sends more than any answer can have is not read to the end."""
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_MOST_WORDS = 300
_PART, _SHORT = 20, 8
"""Letters: of a text's part that a message must not hold, and of a whole text that is none of its own words."""


@dataclass
class _Pool:
    """What all models at one address share, on one loop."""

    client: httpx.AsyncClient
    window: Window = field(default_factory=Window)
    users: int = 0


_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Pool]] = WeakKeyDictionary()


class Client:
    """One model's way to its server."""

    def __init__(self, options: ServerOptions, key: Key | None) -> None:
        """Open nothing yet.

        Args:
            options: Address, limits and time-outs.
            key: Goes along as a bearer token, to this address only.
        """
        self._options, self._address, self._key = options, options.address, key
        self._pool: _Pool | None = None

    @property
    def where(self) -> str:
        """Return the server's address, for messages."""
        return self._address.url

    async def get(self, path: str, *, explain: Explain | None = None, tries: int | None = None) -> Any:
        """Return the JSON of an answer. Arguments and errors as of `post`."""
        return await self._send("GET", path, None, 0, explain, (), tries or self._options.tries)

    async def post(
        self,
        path: str,
        body: object,
        *,
        tokens: int = 0,
        explain: Explain | None = None,
        texts: Sequence[str] = (),
    ) -> Any:
        """Send JSON and return the JSON of the answer.

        Args:
            path: Behind the base URL, or a whole URL at the same address.
            body: Plain values.
            tokens: What it holds, for the limit per minute.
            explain: Knows the server's own errors.
            texts: What was sent; a message that repeats one is not passed on.

        Raises:
            UnavailableError: It cannot be reached or does not answer in time, after all tries.
            RateLimitedError: It takes no more, after all tries, or for longer than is waited.
            UnauthorizedError: It refuses the key.
            BackendError: It answers with another error, or with something that is no JSON.
        """
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        return await self._send("POST", path, content, tokens, explain, texts, self._options.tries)

    async def aclose(self) -> None:
        """Let go of the connections; the last model at an address closes them."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        pool.users -= 1
        if not pool.users:
            pools = _pools.get(asyncio.get_running_loop(), {})
            for place in [place for place, other in pools.items() if other is pool]:
                del pools[place]
            await pool.client.aclose()

    def _opened(self) -> _Pool:
        if self._pool is None:
            pools = _pools.setdefault(asyncio.get_running_loop(), {})
            place = self._address.origin
            self._pool = pools.get(place) or pools.setdefault(place, _Pool(_client(self._address)))
            self._pool.users += 1
        return self._pool

    async def _send(
        self,
        method: str,
        path: str,
        content: bytes | None,
        tokens: int,
        explain: Explain | None,
        texts: Sequence[str],
        tries: int,
    ) -> Any:
        url = path if "://" in path else self._address.url + path
        try:
            # The call's own deadline ends it sooner, from outside.
            async with asyncio.timeout(LONGEST_REQUEST if self._options.deadline is None else None):
                for attempt in range(tries):
                    try:
                        return await self._try(method, url, content, tokens, explain, texts)
                    except Again as found:
                        wait = _pause(attempt, found.after)
                        if attempt + 1 >= min(tries, found.tries) or wait > LONGEST_WAIT:
                            raise found.error from found.__cause__
                    await asyncio.sleep(wait)
        except TimeoutError as error:
            raise UnavailableError(
                f"{self.where} did not answer within {LONGEST_REQUEST:.0f} s, all tries and waits together"
            ) from error
        raise AssertionError("every try returns or raises")

    async def _try(
        self,
        method: str,
        url: str,
        content: bytes | None,
        tokens: int,
        explain: Explain | None,
        texts: Sequence[str],
    ) -> Any:
        import httpx

        options, pool = self._options, self._opened()
        sent = await pool.window.enter(
            tokens,
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
        )
        headers = {"Content-Type": "application/json"} if content is not None else {}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.value}"
        try:
            # The library's own limits are for each byte: a server that sends one now and then would never be given up.
            async with asyncio.timeout(options.connect_timeout + 2 * options.timeout):
                status, answered, body = await _exchange(pool.client, method, url, headers, content, options)
        except httpx.ConnectError as error:
            raise Again(UnavailableError(f"{self.where} cannot be reached: {_said(error)}")) from error
        except (httpx.TransportError, TimeoutError) as error:
            late = isinstance(error, (TimeoutError, httpx.TimeoutException))
            problem = f"did not answer within {options.timeout:g} s" if late else f"broke off: {_said(error)}"
            raise Again(UnavailableError(f"{self.where} {problem}")) from error
        except httpx.HTTPError as error:
            raise BackendError(f"{self.where} answers with what is no HTTP: {_said(error)}") from error
        if 200 <= status < 300:
            found = self._json(body, url)
            if tokens and (told := _tokens(found)) is not None:
                # Never more than was thought: a usage may be in characters.
                sent.tokens = min(sent.tokens, told)
            return found
        raise self._fault(status, answered, body, url, explain, texts)

    def _json(self, body: bytes, url: str) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadAnswerError(f"{url} answers with something that is no JSON ({len(body)} bytes)") from error

    def _fault(
        self, status: int, headers: Any, body: bytes, url: str, explain: Explain | None, texts: Sequence[str]
    ) -> Exception:
        parsed: Any
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            parsed = body[:_MOST_WORDS].decode("utf-8", "replace")
        words = self._words(parsed, texts)
        said = f": {words}" if words else ""
        if status in (401, 403):
            key = f"the key of {self._key.source}" if self._key else f"to answer without a key ({self._no_key()})"
            return UnauthorizedError(f"{self.where} refuses {key} (HTTP {status}){said}")
        if (found := explain(status, parsed, words) if explain else None) is not None:
            return found
        if 300 <= status < 400:
            place = self._key.hide(headers.get("location", "")) if self._key else headers.get("location", "")
            return BackendError(
                f"{url} redirects (HTTP {status}) to {place[:200]!r}, and keys and texts go to no other place than the "
                "one that was named; give that address as base_url"
            )
        if status == 404:
            return BackendError(f"{url} does not exist (HTTP 404){said}; is base_url right?")
        if status not in _BUSY:
            return BackendError(f"{url} answers with HTTP {status}{said}")
        after = _retry_after(headers.get("retry-after"))
        if status == 429:
            return Again(RateLimitedError(f"{self.where} takes no more for now (HTTP 429){said}", retry_after=after))
        if status == 500:
            # Often the text's own fault, which is looked for then; once more, since it may have been a moment's.
            return Again(BackendError(f"{url} fails (HTTP 500){said}"), after=after, tries=2)
        return Again(UnavailableError(f"{self.where} is not available (HTTP {status}){said}"), after=after)

    def _no_key(self) -> str:
        variable = PROVIDER_KEYS.get(self._address.host)
        return f"it is looked for in {variable}, or where api_key_env= says" if variable else "api_key_env= names it"

    def _words(self, body: Any, texts: Sequence[str]) -> str:
        """Return the server's message, without the key and without what users wrote."""
        words = " ".join(_message(body).split())
        words = (self._key.hide(words) if self._key else words)[:_MOST_WORDS]
        return "(its message repeats the text)" if _repeats(words, texts) else words


class Again(Exception):
    """What another try may put right."""

    def __init__(self, error: EmbriefError, *, after: float | None = None, tries: int = 1000) -> None:
        """Take the error that it is if no try does.

        Args:
            error: The error.
            after: Seconds that the server asks for.
            tries: How many there are for it, at most.
        """
        super().__init__(str(error))
        self.error, self.tries = error, tries
        self.after = error.retry_after if isinstance(error, RateLimitedError) else after


def _client(address: Address) -> httpx.AsyncClient:
    import httpx

    return httpx.AsyncClient(
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        follow_redirects=False,
        # A proxy that is set for this user must not see what was to stay on this machine.
        trust_env=not address.is_this_machine,
        headers={"User-Agent": "embrief", "Accept": "application/json"},
    )


async def _exchange(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    headers: dict[str, str],
    content: bytes | None,
    options: ServerOptions,
) -> tuple[int, Any, bytes]:
    import httpx

    limits = httpx.Timeout(options.timeout, connect=options.connect_timeout)
    async with client.stream(method, url, headers=headers, content=content, timeout=limits) as response:
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(options.timeout):
            async for part in response.aiter_bytes():
                size += len(part)
                if size > LARGEST_ANSWER:
                    raise BadAnswerError(f"{url} sends more than {LARGEST_ANSWER // 2**20} MiB for one request")
                parts.append(part)
        return response.status_code, response.headers, b"".join(parts)


def _pause(attempt: int, after: float | None) -> float:
    """Return the seconds until the next try: what the server says, else a random part of a pause that doubles."""
    if after is not None:
        return after
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for, a number or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        return max(float(value), 0.0) if value.strip().replace(".", "", 1).isdigit() else _until(value)
    except (ValueError, TypeError, OverflowError):
        return None


def _until(date: str) -> float:
    return max(email.utils.parsedate_to_datetime(date).timestamp() - time.time(), 0.0)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}{f' ({error})' if str(error) else ''}"[:200]


def _tokens(answer: Any) -> int | None:
    usage = answer.get("usage") if isinstance(answer, dict) else None
    told = usage.get("total_tokens", usage.get("prompt_tokens")) if isinstance(usage, dict) else None
    return told if isinstance(told, int) and told > 0 else None


def _message(body: Any) -> str:
    """Return what a server says is wrong, in any of the forms that are in use."""
    if isinstance(body, str):
        # A page of a proxy says nothing worth repeating.
        return "" if body.lstrip().startswith("<") else body
    if isinstance(body, list):
        # FastAPI's: what and where, and not the input that it repeats.
        told = (item for item in body if isinstance(item, dict))
        return "; ".join(f"{item.get('msg', '')} at {_place(item.get('loc'))}" for item in told)
    if isinstance(body, dict):
        for name in ("error", "message", "detail", "error_description"):
            if body.get(name):
                return _message(body[name])
    return ""


def _repeats(words: str, texts: Sequence[str]) -> bool:
    """Return whether a message holds a text, or a part of one that nobody writes by chance."""
    parts = {words[start : start + _PART] for start in range(len(words) - _PART + 1)}
    for text in texts:
        plain = " ".join(text.split())
        if len(plain) >= _PART:
            found = any(part in plain for part in parts)
        else:
            # A short one stands in every message as a part of words.
            found = any(f"{mark}{plain}{mark}" in words for mark in "\"'`") if plain else False
            found = found or (len(plain) >= _SHORT and plain in words)
        if found:
            return True
    return False


def _place(loc: Any) -> str:
    return ".".join(map(str, loc)) if isinstance(loc, list) else "the request"
