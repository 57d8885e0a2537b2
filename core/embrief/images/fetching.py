"""Pictures behind addresses, for those who ask for it: over TLS only, from public addresses only, and within limits."""

from __future__ import annotations

import http.client
import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from embrief.errors import ArgumentError, ArgumentTypeError, UnavailableError
from embrief.images.addresses import is_public
from embrief.images.connecting import Cutting, Deadline, in_time, open_socket, resolve, secured
from embrief.images.containers.opening import format_of
from embrief.images.limits import LIMITS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

PORT = 443
MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 1 << 16
_ADDRESS = re.compile(r"[!-\[\]-~]{1,4096}")
"""Printable ASCII without the backslash, which some read as a slash."""
_TYPE = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,60}", re.ASCII)
_ANY_TYPE = ("application/octet-stream", "binary/octet-stream", "")
"""What stores say of files that they know nothing of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFetcher:
    """Gets pictures behind https addresses: `Image.from_url(url, fetch=ImageFetcher())`.

    Each name is looked up once, every address it has must be public, and the connection goes to one of just those; the
    same for each of at most three redirects. Proxies of the environment, cookies and credentials have no part in it.
    Where the addresses come from strangers, say which hosts are meant.
    """

    hosts: Sequence[str] | None = None
    """Names that may be asked, as they stand in addresses; `None` is all. Redirects must lead to them, too."""
    timeout: float = 10.0
    """Seconds for all of it, redirects included."""
    max_bytes: int = LIMITS.max_bytes
    """Of the picture's file."""
    resolver: Callable[[str, int], list[str]] = field(default=resolve, repr=False)
    """Gives all addresses of a name and port, or raises `OSError`."""
    connector: Callable[[str, int, float], socket.socket] = field(default=open_socket, repr=False)
    """Connects to an address and port within seconds, or raises `OSError`; TLS comes on top."""
    context: ssl.SSLContext | None = field(default=None, repr=False)
    """Whose certificates count; `None`: those that the system trusts."""

    def __post_init__(self) -> None:
        """Check what was given.

        Raises:
            ArgumentTypeError: `hosts` is one string.
            ArgumentError: `timeout` or `max_bytes` is not positive.
        """
        if isinstance(self.hosts, str):
            raise ArgumentTypeError(f"hosts is a list of names, not a string; write [{self.hosts!r}]")
        if self.hosts is not None:
            object.__setattr__(self, "hosts", tuple(_plain(host) for host in self.hosts))
        if not self.timeout > 0 or not self.max_bytes > 0:
            raise ArgumentError(f"timeout={self.timeout} and max_bytes={self.max_bytes} must be positive")

    def __call__(self, url: str) -> bytes:
        """Return the file behind an address.

        Raises:
            ArgumentTypeError: It is no string.
            ArgumentError: It is no https address, leads to one that is not public or not allowed, or what is there is
                no picture, too large, or not to be had. The message names the host, and nothing else of the address.
            UnavailableError: The host cannot be reached, or does not answer in time.
        """
        deadline = Deadline(self.timeout)
        target = self._checked(url)
        for _ in range(MAX_REDIRECTS + 1):
            host = target.hostname or ""
            try:
                found = self._get(target, host, deadline)
            except TimeoutError:
                raise UnavailableError(f"{host} took more than {self.timeout:g} seconds to send the picture") from None
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, UnavailableError):
                    raise
                try:
                    deadline.left()
                except TimeoutError:
                    raise UnavailableError(
                        f"{host} took more than {self.timeout:g} seconds to send the picture"
                    ) from None
                kind = type(error).__name__
                raise UnavailableError(f"the picture at {host} cannot be fetched ({kind}); try later") from error
            if isinstance(found, bytes):
                return found
            target = self._checked(self._joined(target, found.location))
        raise ArgumentError(f"the address is redirected more than {MAX_REDIRECTS} times; pass the one of the picture")

    def _joined(self, target: SplitResult, location: str) -> str:
        """Return where a redirect leads, which may be said in part."""
        try:
            return urljoin(target.geturl(), location)
        except ValueError:
            raise ArgumentError(f"{target.hostname} redirects to what is no address; look at the address") from None

    def _checked(self, url: str) -> SplitResult:
        """Return the parts of an address that may be asked."""
        if not isinstance(url, str):
            raise ArgumentTypeError(f"an address is a string, not {type(url).__name__}")
        if not _ADDRESS.fullmatch(url):
            raise ArgumentError(
                "an address has up to 4,096 letters of ASCII without blanks and backslashes; percent-encode others"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ArgumentError("this is no address; write https://host/path") from None
        if parts.scheme != "https" or not host:
            raise ArgumentError("pictures are fetched from addresses https://... only; get others yourself")
        if parts.username is not None or parts.password is not None:
            raise ArgumentError(
                "an address with a user or password is not fetched; get it yourself, and pass the bytes"
            )
        if port not in (None, PORT):
            raise ArgumentError(f"pictures are fetched from port {PORT} only, not from {port}; get others yourself")
        if self.hosts is not None and _plain(host) not in self.hosts:
            raise ArgumentError(f"{host} is not one of the hosts that pictures may be fetched from")
        return parts

    def _get(self, target: SplitResult, host: str, deadline: Deadline) -> bytes | _Redirect:
        context = self.context or ssl.create_default_context()
        connection = self._connected(host, deadline, context)
        cutting = Cutting(connection, deadline)
        try:
            client = http.client.HTTPSConnection(host, PORT, context=context)
            # It has its connection, and must never make another one, to an address that nobody looked at.
            client.sock, client.auto_open = connection, 0
            path = target.path or "/"
            # A part behind "#" is never sent.
            client.request(
                "GET",
                f"{path}?{target.query}" if target.query else path,
                headers={"Accept": "image/*", "User-Agent": "embrief", "Connection": "close"},
            )
            with client.getresponse() as answer:
                return self._answered(answer, host, deadline)
        finally:
            cutting.stop()
            connection.close()

    def _connected(self, host: str, deadline: Deadline, context: ssl.SSLContext) -> socket.socket:
        addresses = in_time(self.resolver, host, PORT, deadline)
        if not addresses:
            raise UnavailableError(f"{host} has no address; look at its name")
        if not all(map(is_public, addresses)):
            raise ArgumentError(
                f"{host} leads to an address that is not public; get the picture yourself, and pass the bytes"
            )
        for number, address in enumerate(addresses):
            try:
                # An address that never answers leaves time for the others: a host without IPv6, for instance.
                plain = self.connector(address, PORT, deadline.left() / (len(addresses) - number))
            except OSError:
                if number == len(addresses) - 1:
                    raise
                continue
            return secured(plain, host, deadline, context)
        raise AssertionError("there is an address, and the last one returns or raises")

    def _answered(self, answer: http.client.HTTPResponse, host: str, deadline: Deadline) -> bytes | _Redirect:
        if answer.status in _REDIRECTS and (location := answer.headers.get("Location")):
            return _Redirect(location)
        if answer.status >= 500 or answer.status == 429:
            raise UnavailableError(f"{host} answers with status {answer.status} where the picture was; try later")
        if answer.status != 200:
            raise ArgumentError(f"{host} answers with status {answer.status}, not with a picture; look at the address")
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if not kind.startswith("image/") and kind not in _ANY_TYPE:
            said = kind if _TYPE.fullmatch(kind) else "something else"
            raise ArgumentError(f"{host} sends {said}, not a picture; pass the address of the picture itself")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise ArgumentError(
                f"{host} sends the picture compressed once more, which was not asked for; get it yourself"
            )
        if answer.length is not None and answer.length > self.max_bytes:
            raise self._too_large(host)
        data = b"".join(self._pieces(answer, host, deadline))
        if answer.length:
            raise UnavailableError(f"{host} sent {len(data):,} bytes of the picture, and {answer.length:,} are missing")
        format_of(data)
        return data

    def _pieces(self, answer: http.client.HTTPResponse, host: str, deadline: Deadline) -> list[bytes]:
        pieces: list[bytes] = []
        count = 0
        while piece := answer.read(_PIECE):
            deadline.left()
            pieces.append(piece)
            count += len(piece)
            if count > self.max_bytes:
                raise self._too_large(host)
            if len(pieces) == 1 and count >= 16:
                format_of(piece)
        # What was cut ends like what is whole.
        deadline.left()
        return pieces

    def _too_large(self, host: str) -> ArgumentError:
        return ArgumentError(f"the picture at {host} has more than {self.max_bytes:,} bytes; make it smaller")


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


def _plain(host: str) -> str:
    """Return a name of a host as it is compared."""
    return host.lower().rstrip(".")
