"""Safe beside a browser: a web page that somebody looks at must not reach a server on their machine.

Pure ASGI, around everything that is mounted: a page on another site can point a name of its own at 127.0.0.1 (so `Host`
must be one that the server is called by), and can send what browsers send without asking first (so `Origin` must be the
server's own, and a body must say that it is JSON, which needs a preflight that nobody here answers).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embrief.server.failures import Problem
from embrief.server.shapes import headers_of, respond

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from embrief.server.shapes import Shapes

_LOOPBACK = frozenset({"localhost", "localhost."})
_WRITTEN = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]@/]+))(?::[0-9]*)?")
"""A name or an address, perhaps with a port."""
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_ELSEWHERE = frozenset({"cross-site", "same-site"})


class Hosts:
    """The names by which requests may call the server."""

    def __init__(self, bound: str = "127.0.0.1", allowed: Iterable[str] = ()) -> None:
        """Take the address that the server listens at, and further names."""
        self._allowed = {_plain(name) for name in (bound, *allowed)}
        # Behind every address of the machine any of them may be named. A page cannot make an address its own name.
        self._any_address = _plain(bound) in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound

    def __contains__(self, host: str) -> bool:
        """Return whether a `Host` header, with or without a port, names this server."""
        name = _plain(host)
        if name in _LOOPBACK or name in self._allowed:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._any_address


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(_plain(host)).is_loopback
    except ValueError:
        return _plain(host) in _LOOPBACK


def _plain(host: str) -> str:
    """Return a host's name without port and brackets; what is written otherwise stays as it is, and is nobody's."""
    host = host.strip().lower()
    found = _WRITTEN.fullmatch(host)
    return host if found is None else found[1] or found[2]


class Guard:
    """Refuses requests that a foreign page may have caused."""

    def __init__(self, app: ASGIApp, hosts: Hosts, shapes: Shapes) -> None:
        """Stand around an application."""
        self._app, self._hosts, self._shapes = app, hosts, shapes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            problem = self._problem(scope)
            if problem is not None:
                await respond(self._shapes, problem, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = headers_of(scope)
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        host = headers.get("host", "")
        if len(hosts) != 1 or host not in self._hosts:
            return Problem(421, "unknown_host", f"this server is not called {host[:100]!a}; --allow-host lets it be")
        origin = headers.get("origin")
        if origin is not None and not self._own(origin, host):
            return Problem(403, "foreign_origin", f"pages of {origin[:100]!a} may not use this server")
        method = scope.get("method", "GET")
        visit = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in _ELSEWHERE and not visit:
            return Problem(403, "foreign_origin", "pages of other sites may not use this server")
        if method in _WITH_BODY and scope["type"] == "http":
            return _body_problem(headers)
        return None

    def _own(self, origin: str, host: str) -> bool:
        try:
            found = urlsplit(origin)
        except ValueError:
            return False
        return found.scheme in ("http", "https") and found.netloc.lower() == host.strip().lower()


def _body_problem(headers: dict[str, str]) -> Problem | None:
    kind, _, parameters = headers.get("content-type", "").lower().partition(";")
    kind = kind.strip()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        said = f"not {kind[:100]!a}" if kind else "and none is said"
        return Problem(415, "unsupported_media_type", f"a body is application/json, {said}; send that content type")
    charset = next((part.partition("=")[2] for part in parameters.split(";") if "charset" in part), "utf-8")
    if charset.strip(" \"'") not in ("utf-8", "utf8"):
        return Problem(415, "unsupported_media_type", "JSON is sent in UTF-8")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        return Problem(415, "unsupported_encoding", "a body is not compressed; send it plain")
    return None
