"""Requests to servers: one pool of connections and one window of limits per address, tries, waits and typed errors.

The only module that knows an HTTP library. All of it runs on the event-loop thread of servers.
"""

from __future__ import annotations

import asyncio
import email.utils
import http.cookiejar
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
    EndpointError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
)
from embrief.servers.keys import PROVIDER_KEYS, find_key
from embrief.servers.limits import Window
from embrief.servers.options import LONGEST_WAIT

if TYPE_CHECKING:
    import httpx

    from embrief.servers.address import Address
    from embrief.servers.keys import Key
    from embrief.servers.limits import Sent
    from embrief.servers.options import ServerOptions

Explain = Callable[[int, Any, "Words"], "Exception | None"]
"""From status, body (JSON, or text) and message to the error that it is, perhaps `Again`; `None`: nothing special."""

LONGEST_REQUEST = 600.0
"""Seconds for one request with all its tries and waits, where the call has no deadline."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds: between two tries a random part of a pause that doubles."""
LARGEST_ANSWER = 256 * 2**20
"""Bytes: a server that sends more than any answer can have is not read to the end."""
LARGE = 2**20
"""Bytes of an answer that is read on a thread."""
_WHATEVER_IS_SENT = frozenset({402, 405, 406, 410, 411, 415, 501, 505})
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

    def __init__(self, options: ServerOptions) -> None:
        """Open nothing yet.

        Args:
            options: Address, limits, time-outs, and where the key is: it goes along as a bearer token, to this address
                only, and is looked up for each request, since it may be put right or exchanged meanwhile.

        Raises:
            UnauthorizedError: The key that is named is not there.
        """
        self._options, self._address = options, options.address
        self._pool: _Pool | None = None
        self._key()

    def _key(self) -> Key | None:
        return find_key(self._options.api_key_env, self._options.api_key_file, self._address)

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
            try:
                self._pool = pools.get(place) or pools.setdefault(place, _Pool(_client(self._address)))
            except Exception as error:
                # What this user's environment says is wrong in many ways.
                raise EndpointError(
                    f"{self.where} cannot be asked ({_said(error)}): look at the variables for proxies and "
                    "certificates (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR)"
                ) from error
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
        url = self._address.url + path if path.startswith("/") else path
        key, pool, options = self._key(), self._opened(), self._options
        loop = asyncio.get_running_loop()
        # The call's own deadline ends it sooner, from outside.
        left = LONGEST_REQUEST if options.deadline is None else None
        for attempt in range(tries):
            # Not in the time that the server has: one's own limit is not its delay.
            sent = await pool.window.enter(
                tokens,
                requests_per_minute=options.requests_per_minute,
                tokens_per_minute=options.tokens_per_minute,
            )
            start = loop.time()
            try:
                async with asyncio.timeout(left):
                    try:
                        return await self._try(method, url, content, sent, explain, texts, key)
                    except Again as found:
                        wait = _pause(attempt, found.after)
                        if attempt + 1 >= min(tries, found.tries) or wait > LONGEST_WAIT:
                            raise found.error from found.__cause__
                    await asyncio.sleep(wait)
            except TimeoutError as error:
                raise UnavailableError(
                    f"{self.where} did not answer within {LONGEST_REQUEST:.0f} s, all tries and waits together"
                ) from error
            if left is not None:
                left -= loop.time() - start
        raise AssertionError("every try returns or raises")

    async def _try(
        self,
        method: str,
        url: str,
        content: bytes | None,
        sent: Sent,
        explain: Explain | None,
        texts: Sequence[str],
        key: Key | None,
    ) -> Any:
        import httpx

        options, pool = self._options, self._opened()
        headers = {"Content-Type": "application/json"} if content is not None else {}
        if key is not None:
            headers["Authorization"] = f"Bearer {key.value}"
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
            raise EndpointError(f"{self.where} answers with what is no HTTP: {_said(error)}") from error
        if 200 <= status < 300:
            # A large one holds up the loop for as long as it takes; a thread lets it have its turns.
            large = len(body) > LARGE
            found = await asyncio.to_thread(self._json, body, url) if large else self._json(body, url)
            told = _tokens(found)
            # Some servers count letters.
            if sent.tokens and told is not None and told != sum(map(len, texts)):
                sent.tokens = told
            return found
        raise self._fault(status, answered, body, url, explain, texts, key)

    def _json(self, body: bytes, url: str) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadAnswerError(f"{url} answers with something that is no JSON ({len(body)} bytes)") from error

    def _fault(
        self,
        status: int,
        headers: Any,
        body: bytes,
        url: str,
        explain: Explain | None,
        texts: Sequence[str],
        key: Key | None,
    ) -> Exception:
        parsed: Any
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            parsed = body[:_MOST_WORDS].decode("utf-8", "replace")
        words = Words(" ".join(_message(parsed).split())[:_MOST_WORDS], key, texts)
        said = f": {words}" if words.raw else ""
        if status in (401, 403):
            refused = f"the key of {key.source}" if key else f"to answer without a key ({self._no_key()})"
            return UnauthorizedError(f"{self.where} refuses {refused} (HTTP {status}){said}")
        if (found := explain(status, parsed, words) if explain else None) is not None:
            return found
        if 300 <= status < 400:
            place = key.hide(headers.get("location", "")) if key else headers.get("location", "")
            return EndpointError(
                f"{url} redirects (HTTP {status}) to {place[:200]!r}, and keys and texts go to no other place than the "
                "one that was named; give that address as base_url"
            )
        if status == 404:
            return EndpointError(f"{url} does not exist (HTTP 404){said}; is base_url right?")
        if status in _WHATEVER_IS_SENT:
            return EndpointError(f"{url} refuses requests (HTTP {status}){said}; is it the right address?")
        if status not in _BUSY:
            return BackendError(f"{url} answers with HTTP {status}{said}")
        after = _retry_after(headers.get("retry-after"))
        if status == 429 and "insufficient_quota" in json.dumps(parsed):
            return RateLimitedError(
                f"{self.where} has no quota left for this key (HTTP 429){said}; see its billing page"
            )
        if status == 429:
            return Again(RateLimitedError(f"{self.where} takes no more for now (HTTP 429){said}", retry_after=after))
        if status == 500:
            # Often the text's own fault, which is looked for then; once more, since it may have been a moment's.
            return Again(BackendError(f"{url} fails (HTTP 500){said}"), after=after, tries=2)
        return Again(UnavailableError(f"{self.where} is not available (HTTP {status}){said}"), after=after)

    def _no_key(self) -> str:
        variable = PROVIDER_KEYS.get(self._address.host)
        return f"it is looked for in {variable}, or where api_key_env= says" if variable else "api_key_env= names it"


class Words:
    """A server's message: known by what it says, and shown without the key and without what users wrote."""

    def __init__(self, raw: str, key: Key | None = None, texts: Sequence[str] = ()) -> None:
        """Take the message, and what must not be shown of it."""
        self.raw = raw
        self._key, self._texts = key, texts

    def __str__(self) -> str:
        words = self._key.hide(self.raw) if self._key else self.raw
        return "(its message repeats the text)" if _repeats(words, self._texts) else words


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
        # Compressed answers could be of any size; vectors hardly shrink.
        headers={"User-Agent": "embrief", "Accept": "application/json", "Accept-Encoding": "identity"},
        # Models with different keys share it, and a cookie may stand for a key.
        cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
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
        if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise BadAnswerError(f"{url} compresses its answer, which it was asked not to do")
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(options.timeout):
            async for part in response.aiter_raw():
                size += len(part)
                if size > LARGEST_ANSWER:
                    raise BadAnswerError(f"{url} sends more than {LARGEST_ANSWER // 2**20} MiB for one request")
                parts.append(part)
        return response.status_code, response.headers, b"".join(parts)


def _pause(attempt: int, after: float | None) -> float:
    """Return the seconds until the next try: what the server says, else a random part of a pause that doubles."""
    pause = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))
    # Not all at the moment that it names.
    return pause if after is None else after + pause / 4 if after > LONGEST_PAUSE else max(after, pause)


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
