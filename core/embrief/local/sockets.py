"""Listening and connecting: a unix socket, and on Windows a port of this machine with a token in a file.

Both sides look at the folder first, and both know afterwards that the other is the same user: the system tells whose
process is at the other end of a unix socket; over a port each proves that it can read the token.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any

from embrief.errors import LocalProcessError
from embrief.local import frames, places

if TYPE_CHECKING:
    from embrief.local.places import Place

_PATIENCE = 5.0
"""Seconds for what the other side answers at once unless it hangs."""
_LOOPBACK = "127.0.0.1"


def listen(place: Place, *, port: bool) -> tuple[socket.socket, str]:
    """Listen at a place whose lock the caller holds. What a dead process left there is removed.

    Args:
        place: Where; its folder is checked.
        port: Listen on a port instead of a unix socket.

    Returns:
        The listener, and the token of a port (else "").

    Raises:
        OSError: As of the socket.
    """
    remove(place)
    if not port:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fspath(place.socket))
            place.socket.chmod(0o600)
            listener.listen(64)
        except OSError:
            listener.close()
            raise
        return listener, ""
    import secrets

    token = secrets.token_hex(32)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        listener.bind((_LOOPBACK, 0))
        listener.listen(64)
        # Under another name first: whoever reads it finds the whole.
        new = place.door.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(f"{listener.getsockname()[1]} {token}\n")
        new.replace(place.door)
    except OSError:
        listener.close()
        raise
    return listener, token


def remove(place: Place) -> None:
    """Remove the socket, or the file with port and token; only for whoever holds the lock."""
    place.socket.unlink(missing_ok=True)
    place.door.unlink(missing_ok=True)


def connect(place: Place, *, port: bool) -> socket.socket | None:
    """Return a connection to the process at a place, `None` if none answers there. The folder is checked before.

    Raises:
        LocalProcessError: Something is there that must not be trusted.
    """
    try:
        return _connect_port(place) if port else _connect_unix(place)
    except (OSError, ValueError, frames.BadFrameError):
        return None


def _connect_unix(place: Place) -> socket.socket | None:
    found = place.socket.lstat()
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise LocalProcessError(f"{place.socket}: this is not a socket of yours, so it is not used; remove it")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect(os.fspath(place.socket))
        if peer_is_other(connection):
            raise LocalProcessError(f"{place.socket}: another user's process answers there, so it is not used")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_port(place: Place) -> socket.socket | None:
    found = place.door.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > 1000:
        raise LocalProcessError(f"{place.door}: this is not a file of embrief's, so it is not used; remove it")
    number, token = place.door.read_text("ascii").split()
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect((_LOOPBACK, int(number)))
        _prove(connection, token, asks=True)
    except BaseException:
        connection.close()
        raise
    return connection


def admit(connection: socket.socket, token: str) -> bool:
    """Return whether whoever has connected is the same user. The connection has a time-out then."""
    connection.settimeout(_PATIENCE)
    try:
        if not token:
            return not peer_is_other(connection)
        _prove(connection, token, asks=False)
    except (OSError, ValueError, frames.BadFrameError):
        return False
    return True


def _prove(connection: socket.socket, token: str, *, asks: bool) -> None:
    """Exchange proofs that both sides know the token, which itself is never sent.

    Whoever got the port after its owner had died learns nothing: it must answer first.

    Raises:
        ValueError: The other side does not know it.
    """
    import hmac
    import secrets

    def proof(who: str, number: str) -> str:
        return hmac.new(token.encode(), f"{who} {number}".encode(), "sha256").hexdigest()

    def check(answer: dict[str, Any] | None, who: str) -> None:
        # Of bytes: texts are compared in constant time only if they are ASCII, and this came from elsewhere.
        given = str((answer or {}).get("proof")).encode("utf-8", "replace")
        if not hmac.compare_digest(given, proof(who, mine).encode()):
            raise ValueError("no proof")

    mine = secrets.token_hex(16)
    if asks:
        connection.sendall(frames.pack({"number": mine}))
        answer = frames.receive(connection)
        check(answer, "process")
        connection.sendall(frames.pack({"proof": proof("client", str((answer or {}).get("number")))}))
        return
    theirs = str((frames.receive(connection) or {}).get("number"))
    connection.sendall(frames.pack({"proof": proof("process", theirs), "number": mine}))
    check(frames.receive(connection), "client")


def peer_is_other(connection: socket.socket) -> bool:
    """Return whether the system says that another user is at the other end of a unix socket."""
    user = _peer(connection)
    return user is not None and user != os.geteuid()


def _peer(connection: socket.socket) -> int | None:
    if hasattr(socket, "SO_PEERCRED"):
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])
    if sys.platform == "darwin":
        # struct xucred of <sys/ucred.h>: version, user, number of groups, groups. SOL_LOCAL is 0, LOCAL_PEERCRED 1.
        credentials = connection.getsockopt(0, 1, 76)
        return int(struct.unpack_from("=II", credentials)[1])
    return None


def port_needed() -> bool:
    """Return whether this system has no unix sockets for Python."""
    return places.WINDOWS or not hasattr(socket, "AF_UNIX")
