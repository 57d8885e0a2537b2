"""The address of a server: what it may be, and which machine it names."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from embrief.errors import ArgumentError

_PORTS = {"http": 80, "https": 443}
# Nothing that two readers of addresses could take for different hosts.
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:.]+(%[a-z0-9]+)?")


@dataclass(frozen=True, slots=True)
class Address:
    """A base URL, taken apart."""

    scheme: str
    host: str
    """In lower case, without the brackets of an IPv6 address."""
    port: int
    path: str
    """Without a slash at its end; perhaps empty."""

    @property
    def origin(self) -> str:
        """Return scheme, host and port: what limits and keys belong to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """Return the address that requests go to, without a slash at its end."""
        return self.origin + self.path

    @property
    def is_this_machine(self) -> bool:
        """Return whether what is sent there stays on this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def without(self, *ends: str) -> str:
        """Return the URL without one of these last parts of the path, such as `"/v1"`."""
        for end in ends:
            if self.path.endswith(end):
                return self.origin + self.path.removesuffix(end)
        return self.url


def parse_address(url: str, what: str = "base_url") -> Address:
    """Take a base URL apart.

    Args:
        url: What a user wrote.
        what: Name of the argument, for the message.

    Raises:
        ArgumentError: It is no address of an HTTP server, or holds what does not belong there.
    """

    def refused(problem: str, remedy: str = "write it like http://127.0.0.1:8080") -> ArgumentError:
        # A password in it is not repeated.
        shown = url if "@" not in url else f"{url.partition('://')[0]}://...@{url.rpartition('@')[2]}"
        return ArgumentError(f"{what}={shown[:200]!r} {problem}; {remedy}")

    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise refused("holds a blank or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused(f"is no address ({error})") from error
    if parts.scheme.lower() not in _PORTS or not parts.hostname:
        raise refused("is no address of an HTTP server")
    if _HOST.fullmatch(parts.hostname.lower()) is None and "@" not in parts.netloc:
        raise refused("names a host that cannot be", "write a name in ASCII letters, or an address")
    if "@" in parts.netloc:
        raise refused("has a user or a password in it", "give the name of a variable as api_key_env=")
    if parts.query or parts.fragment:
        raise refused("has a query or a fragment", "leave out everything from '?' or '#' on")
    scheme = parts.scheme.lower()
    return Address(scheme, parts.hostname.lower(), port or _PORTS[scheme], parts.path.rstrip("/"))
