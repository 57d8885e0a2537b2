"""Running a server: what is refused before it listens, its socket, and its end."""

from __future__ import annotations

import errno
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import uvicorn

from embrief.errors import ArgumentError, BackendError
from embrief.server.app import Mounted, create_app
from embrief.server.guard import Hosts, is_loopback
from embrief.server.keys import VARIABLE
from embrief.server.settings import HOST, PORT, Limits

if TYPE_CHECKING:
    from embrief.server.asking import Said
    from embrief.server.keys import Keys
    from embrief.server.models import ServedModels


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server runs."""

    host: str = HOST
    port: int = PORT
    """0: a free one."""
    allowed_hosts: Sequence[str] = ()
    keys: Keys | None = None
    insecure: bool = False
    """Whether it may listen to other machines without keys."""
    limits: Limits = field(default_factory=Limits)
    default_role: Said = "document"
    lazy: bool = False
    mounted: Sequence[Mounted] = ()


def serve(
    models: ServedModels,
    settings: Settings,
    *,
    told: Callable[[str], None],
    own: Callable[[], object] | None = None,
) -> None:
    """Serve until a signal ends it; requests under way are answered first, a second signal leaves them.

    Args:
        models: What is served.
        settings: How.
        told: Called with a line for people, once it listens.
        own: Called when it has ended.

    Raises:
        ArgumentError: Other machines would reach it without a key; or it cannot listen there.
    """
    check(settings)
    listening = listen(settings.host, settings.port)
    port = int(listening.getsockname()[1])
    app = create_app(
        models,
        limits=settings.limits,
        keys=settings.keys,
        hosts=Hosts(settings.host, settings.allowed_hosts),
        default_role=settings.default_role,
        lazy=settings.lazy,
        mounted=settings.mounted,
        own=own,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # Nothing here depends on where a request comes from.
            proxy_headers=False,
            # Its answer to a handshake would come before the guard's.
            ws="none",
            timeout_graceful_shutdown=settings.limits.deadline,
        )
    )
    address = url(settings.host, port)
    told(f"embrief serves {', '.join(models.names)} at {address}")
    for item in settings.mounted:
        if item.says is not None:
            told(item.says(address))
    # What goes wrong with a request is logged, never with its texts; somebody should see it.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # After its own end the server raises the signal that ended it once more.
    with listening, suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    if not server.started:
        raise BackendError("the server could not start; what went wrong is logged above")


def check(settings: Settings) -> None:
    """Refuse what would let strangers in.

    Raises:
        ArgumentError: Other machines would reach the server without a key.
    """
    if settings.keys is None and not settings.insecure and not is_loopback(settings.host):
        raise ArgumentError(
            f"other machines reach {settings.host}, and no key is set; give --key-file or {VARIABLE}, or say --insecure"
        )


def url(host: str, port: int) -> str:
    """Return a server's address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ArgumentError: It cannot; the message says why.
    """
    if not 0 <= port <= 65535:
        raise ArgumentError(f"port {port} cannot be: it is between 0 and 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ArgumentError(f"{host!r} is no address of this machine; for this machine alone: {HOST}") from error
    made = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            # There it would let two servers have one port.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(2048)
    except OSError as error:
        made.close()
        raise ArgumentError(_problem(host, port, error)) from error
    return made


def _problem(host: str, port: int, error: OSError) -> str:
    if error.errno in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", -1)):
        return f"port {port} is in use on {host}; stop what listens there, or give another --port (0: a free one)"
    if error.errno in (errno.EACCES, getattr(errno, "WSAEACCES", -1)):
        return f"port {port} may not be used by this user; give a --port above 1023"
    if error.errno in (errno.EADDRNOTAVAIL, getattr(errno, "WSAEADDRNOTAVAIL", -1)):
        return f"{host} is no address of this machine; for this machine alone: {HOST}"
    return f"it is not possible to listen at {host} port {port} ({error.strerror})"
