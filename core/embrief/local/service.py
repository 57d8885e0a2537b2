"""The side that answers: commands of the user's other terminals, each on a thread, with their output sent back."""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import embrief
from embrief.errors import LocalProcessError
from embrief.local import frames, fresh, lock, places, sockets
from embrief.local.request import Reply, Request, parse
from embrief.system.log import logger

if TYPE_CHECKING:
    from embrief.local.places import Place

Run = Callable[[Request], int]


class Service:
    """Answers at the place of this environment until it is stopped.

    Args:
        run_command: Runs a command and returns its exit code. Called on many threads at once.
        kind: What this process is, for whoever asks.
        stops_for_others: End when `embrief daemon stop` asks, and when the configuration file has changed. A process
            that does more than this only stops answering then.
        place: Where to listen, if not at the place of this environment.
        port: Listen on a port of this machine; by default only where Python has no unix sockets.
        idle: Seconds without a command after which it ends by itself; `None`: never.
        slow: Seconds that a reader may take nothing before its command is given up.
        most: Commands at once; more are told to run by themselves.
        patience: Seconds that commands get to end once the configuration has changed.
    """

    def __init__(
        self,
        run_command: Run,
        *,
        kind: str = "daemon",
        stops_for_others: bool = True,
        place: Place | None = None,
        port: bool | None = None,
        idle: float | None = None,
        slow: float = 600.0,
        most: int = 32,
        patience: float = 60.0,
    ) -> None:
        self._run_command = run_command
        self._kind = kind
        self._stops_for_others = stops_for_others
        self.place = places.own_place() if place is None else place
        self._port = sockets.port_needed() if port is None else port
        self._idle = idle
        self._slow = slow
        self._most = most
        self._patience = patience
        self._since = time.time()
        self._used = time.monotonic()
        self._served = 0
        self._changed = threading.Condition()
        self._running: set[Request] = set()
        self._ending = False
        self._grace = 0.0
        self._over = threading.Event()
        self._connections = threading.BoundedSemaphore(4 * most)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen from now on.

        Raises:
            LocalProcessError: Another process does already, or the folder must not be trusted.
        """
        places.make(self.place.folder)
        self._stamp = fresh.stamp()
        try:
            held = lock.take(self.place.lock)
        except OSError as error:
            raise LocalProcessError(f"{self.place.lock}: cannot be opened ({error.strerror}); remove it") from error
        if held is None:
            raise LocalProcessError("a process of this environment answers already; `embrief daemon status` shows it")
        try:
            listener, self._token = sockets.listen(self.place, port=self._port)
        except OSError as error:
            lock.release(held)
            raise LocalProcessError(f"{self.place.socket}: cannot be listened on ({error.strerror})") from error
        self._wake, waker = socket.socketpair()
        self._thread = threading.Thread(
            target=self._serve, args=(listener, waker, held), name="embrief-local", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Answer nobody any more, tell the commands that run to end, and wait for them; a moment at most."""
        self._end(grace=0.0)
        self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, whoever ended it; return whether it has."""
        return self._over.wait(timeout)

    def _end(self, grace: float) -> None:
        with self._changed:
            if self._thread is None:
                self._over.set()
            elif not self._ending:
                self._ending, self._grace = True, grace
                self._wake.close()
            elif grace < self._grace:
                self._grace = grace
                self._changed.notify_all()

    def _serve(self, listener: socket.socket, waker: socket.socket, held: int) -> None:
        try:
            with closing(listener), closing(waker):
                self._accept(listener, waker)
        finally:
            with self._changed:
                self._ending = True
            try:
                sockets.remove(self.place)
            except OSError as error:
                logger.warning("the socket could not be removed (%s)", error.strerror)
            self._finish()
            lock.release(held)
            self._wake.close()
            self._over.set()

    def _accept(self, listener: socket.socket, waker: socket.socket) -> None:
        import selectors

        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(waker, selectors.EVENT_READ)
            while not self._ending:
                ready = [key.fileobj for key, _ in selector.select(self._until_idle())]
                if waker in ready or (not ready and self._until_idle() == 0):
                    return
                if listener not in ready:
                    continue
                try:
                    connection, _ = listener.accept()
                except OSError:
                    # As when this process has no room for another file. Those who wait are served when it has.
                    time.sleep(0.05)
                    continue
                if not self._connections.acquire(blocking=False):
                    connection.close()
                    continue
                threading.Thread(target=self._meet, args=(connection,), name="embrief-local-peer", daemon=True).start()

    def _until_idle(self) -> float | None:
        """Return the seconds until nothing has been asked for too long; `None`: that is no matter now."""
        if self._idle is None:
            return None
        with self._changed:
            # Commands that run are asked about again later.
            return self._idle if self._running else max(self._used + self._idle - time.monotonic(), 0)

    def _finish(self) -> None:
        """Wait for the commands that run; tell them to end when their time is over."""
        start = time.monotonic()
        with self._changed:
            while self._running and (left := start + self._grace - time.monotonic()) > 0:
                self._changed.wait(left)
            for request in self._running:
                request.stop.set()
            self._changed.wait_for(lambda: not self._running, 5)

    def _meet(self, connection: socket.socket) -> None:
        try:
            with closing(connection):
                if sockets.admit(connection, self._token):
                    self._answer(connection)
        except (OSError, frames.BadFrameError):
            pass  # Whoever it was speaks something else, or has gone.
        finally:
            self._connections.release()

    def _answer(self, connection: socket.socket) -> None:
        value = frames.receive(connection)
        if value is None:
            return
        stop = threading.Event()
        connection.settimeout(self._slow)
        reply = Reply(connection, stop)
        if value.get("protocol") != frames.PROTOCOL:
            reply.send({"cold": "another protocol"})
        elif value.get("do") == "status":
            reply.send({"status": self.status()})
        elif value.get("do") == "stop":
            if self._stops_for_others:
                reply.send({"stopping": os.getpid()})
                self._end(grace=0.0)
            else:
                reply.send({"refused": f"this is `embrief {self._kind}`; end it where it was started"})
        elif value.get("do") == "run" and value.get("version") == embrief.__version__:
            request = parse(value, reply, stop)
            if request is not None:
                self._run(connection, reply, request)
        else:
            reply.send({"cold": "another version"})

    def status(self) -> dict[str, Any]:
        """Return what this process is and does, for people."""
        with self._changed:
            return {
                "pid": os.getpid(),
                "kind": self._kind,
                "version": embrief.__version__,
                "started": self._since,
                "running": len(self._running),
                "served": self._served,
                "ends_in": None if self._idle is None or self._running else self._used + self._idle - time.monotonic(),
            }

    def _run(self, connection: socket.socket, reply: Reply, request: Request) -> None:
        if fresh.stamp() != self._stamp:
            self._end(grace=self._patience)
        with self._changed:
            if self._ending or len(self._running) >= self._most:
                cold = True
            else:
                cold = False
                self._running.add(request)
                self._served += 1
        if cold:
            reply.send({"cold": "not now"})
            return
        try:
            reply.send({"accepted": True})
            thread = threading.Thread(
                target=self._work, args=(connection, reply, request), name="embrief-local-command", daemon=True
            )
            thread.start()
        except BaseException:
            self._leave(request)
            raise
        _until_gone(connection)
        request.stop.set()
        thread.join()

    def _work(self, connection: socket.socket, reply: Reply, request: Request) -> None:
        try:
            code = _code(self._run_command, request)
            reply.send({"exit": code})
        except OSError:
            pass  # They have gone.
        finally:
            self._leave(request)
            try:
                # Wakes the thread that waits for them to go.
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _leave(self, request: Request) -> None:
        with self._changed:
            self._running.discard(request)
            self._used = time.monotonic()
            self._changed.notify_all()


def _until_gone(connection: socket.socket) -> None:
    """Read, and forget, what comes until the other side closes the connection."""
    while True:
        try:
            if not connection.recv(1 << 12):
                return
        except TimeoutError:
            continue
        except OSError:
            return


def _code(run_command: Run, request: Request) -> int:
    """Run a command and return how it ended, as a process would.

    Raises:
        OSError: Nobody reads any more what it says.
    """
    try:
        return run_command(request)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        request.err.write(f"{end.code}\n")
    except BrokenPipeError:
        pass
    except BaseException:
        # A defect: its traceback belongs to whoever typed the command, not into a log.
        request.err.write(traceback.format_exc())
    return 1
