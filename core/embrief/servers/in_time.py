"""Answers over HTTP that end by a moment, however slowly their bytes come: time-outs of sockets count per byte.

Imported when a server is asked: `http.client` brings `email` and `ssl`.
"""

from __future__ import annotations

import http.client
import io
import time
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer


class _Reading(io.RawIOBase):
    """What comes from a socket, up to a moment."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def opener(seconds: float, proxies: urllib.request.ProxyHandler) -> urllib.request.OpenerDirector:
    """Return what opens addresses: headers, body and a proxy's own answer end within a time, or raise `TimeoutError`.

    Args:
        seconds: From now on.
        proxies: Which proxies are asked.
    """
    until = time.monotonic() + seconds

    class Answer(http.client.HTTPResponse):
        def __init__(
            self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
        ) -> None:
            super().__init__(sock, debuglevel, method, url)
            self.fp.close()
            self.fp = io.BufferedReader(_Reading(sock, until))

    class Plain(http.client.HTTPConnection):
        response_class = Answer

    class Secure(http.client.HTTPSConnection):
        response_class = Answer

    class OpensPlain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, request)

    class OpensSecure(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, request)

    class Stays(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            """Follow nothing: another host was not named, and must not see the key."""

    return urllib.request.build_opener(Stays(), proxies, OpensPlain(), OpensSecure())
