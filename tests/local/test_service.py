"""The process that answers: streams, bounds, disturbances, ends."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import threading
import time

import pytest

from embrief.errors import LocalProcessError
from embrief.local import client, frames, places, sockets
from embrief.local.service import Service

WAIT = 20
"""Seconds against hangs."""
BOTH = pytest.mark.parametrize("port", [False, True] if hasattr(socket, "AF_UNIX") else [True])
UNIX = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no unix sockets")


def texts(found, name="out"):
    return "".join(frame[name] for frame in found if name in frame)


@BOTH
def test_a_command_is_run_as_it_was_typed_and_says_how_it_ended(serving, call, port):
    seen = []

    def run(request):
        seen.append(request)
        request.out.write("one\n")
        request.err.write("two\n")
        print("three", file=request.out, flush=True)
        return 7

    words = ["search", "--top-k", "3", "what is \udce4 \N{SNOWMAN}?", ""]
    with serving(run, port=port):
        found = call(port=port, arguments=words, width=33, colour=True, out=[True, "latin-1"], folder="/somewhere")
        assert found.next() == {"accepted": True}
        rest = found.rest()
    assert rest[0] == {"out": "one\n"}
    assert rest[1] == {"err": "two\n"}
    assert texts(rest) == "one\nthree\n"
    assert rest[-1] == {"exit": 7}
    (request,) = seen
    assert request.arguments == tuple(words)
    assert (request.width, request.colour, request.folder) == (33, True, "/somewhere")
    assert (request.out.isatty(), request.out.encoding) == (True, "latin-1")


def test_output_comes_while_the_command_runs(serving, call):
    go_on = threading.Event()

    def run(request):
        request.out.write("first")
        assert go_on.wait(WAIT)
        return 0

    with serving(run):
        found = call()
        assert [found.next(), found.next()] == [{"accepted": True}, {"out": "first"}]
        go_on.set()
        assert found.rest() == [{"exit": 0}]


def test_who_goes_stops_their_command_and_no_other(serving, call):
    stops = {}
    begun = threading.Semaphore(0)

    def run(request):
        stops[request.arguments[0]] = request.stop
        begun.release()
        assert request.stop.wait(WAIT)
        return 0

    with serving(run):
        one, two = call(arguments=["one"]), call(arguments=["two"])
        assert begun.acquire(timeout=WAIT)
        assert begun.acquire(timeout=WAIT)
        one.close()
        assert stops["one"].wait(WAIT)
        assert not stops["two"].is_set()
        two.close()


def test_long_texts_come_whole_and_in_pieces(serving, call):
    text = "\N{SNOWMAN}ab" * 100_000

    def run(request):
        request.out.write(text)
        return 0

    with serving(run):
        found = call().rest()
    assert texts(found) == text
    assert max(len(frame.get("out", "")) for frame in found) <= frames.PIECE


def defect(request):
    raise ZeroDivisionError("a defect")


def left(code):
    def run(request):
        sys.exit(code)

    return run


@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        (left(3), 3, ""), (left(None), 0, ""), (left("because"), 1, "because\n"), (defect, 1, "a defect\n"),
    ],
)  # fmt: skip
def test_every_end_of_a_command_has_a_code(serving, call, run, code, said, caplog):
    with serving(run):
        found = call().rest()
        assert found[-1] == {"exit": code}
        assert texts(found, "err").endswith(said)
        assert call().rest()[-1] == {"exit": code}
    assert caplog.text == ""


GARBAGE = [
    b"",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\0\0",
    struct.pack("!I", 0),
    struct.pack("!I", 0xFFFFFFFF) + b"x" * 100,
    struct.pack("!I", 50) + b"{}",
    struct.pack("!I", 2) + b"[]",
    struct.pack("!I", 4) + b"\xff\xfe\x00\x01",
    struct.pack("!I", 100_000) + b"[" * 100_000,
    frames.pack({}),
    frames.pack({"protocol": 1}),
    frames.pack({"protocol": 1, "do": ["run"]}),
    frames.pack({"protocol": {}, "do": "run"}),
]


@BOTH
def test_garbage_harms_nobody(serving, call, port):
    with serving(lambda _: 0, port=port) as service:
        for garbage in GARBAGE:
            for _ in range(2):
                connection = (
                    socket.create_connection(("127.0.0.1", int(service.place.door.read_text().split()[0])), WAIT)
                    if port
                    else client.reach(service.place)
                )
                with connection:
                    connection.settimeout(WAIT)
                    try:
                        connection.sendall(garbage)
                        connection.shutdown(socket.SHUT_WR)
                        connection.recv(100)
                    except ConnectionError:
                        pass  # It has hung up already.
                    except OSError as error:
                        # As when it had hung up before this side did.
                        if error.errno != errno.ENOTCONN:
                            raise
        assert call(port=port).rest()[-1] == {"exit": 0}
        assert service.status()["running"] == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"arguments": []}, {"arguments": "search"}, {"arguments": [1]}, {"folder": None}, {"width": "80"},
        {"width": True}, {"width": 0}, {"width": 10**9}, {"out": None}, {"out": [1, "utf-8"]}, {"err": [True]},
    ],
)  # fmt: skip
def test_a_request_that_is_none_is_not_run(serving, call, changed):
    ran = []
    with serving(lambda request: ran.append(request) or 0):
        assert call(**changed).rest() == []
    assert ran == []


@pytest.mark.parametrize("changed", [{"version": "0.0.1"}, {"protocol": 2}, {"do": "something"}])
def test_another_version_is_told_to_run_by_itself(serving, call, changed):
    with serving(lambda _: 0):
        (answer,) = call(**changed).rest()
    assert set(answer) == {"cold"}


@UNIX
def test_a_reader_that_takes_nothing_is_given_up_and_fills_no_memory(serving, call):
    ended = threading.Event()
    sent = []

    def run(request):
        try:
            while True:
                sent.append(request.out.write("x" * frames.PIECE))
        finally:
            assert request.stop.is_set()
            ended.set()

    with serving(run, slow=0.3) as service:
        slow = call()
        assert ended.wait(WAIT)
        assert sum(sent) < 50 << 20
        until(lambda: service.status()["running"] == 0)
        slow.close()


def until(true):
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_many_at_once_get_their_own_output(serving, call):
    together = threading.Barrier(20)

    def run(request):
        together.wait(WAIT)
        for _ in range(50):
            request.out.write(request.arguments[0])
        return int(request.arguments[0])

    answers = {}

    def ask(number):
        answers[number] = call(arguments=[str(number)]).rest()

    with serving(run):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    assert {number: (texts(found), found[-1]["exit"]) for number, found in answers.items()} == {
        number: (str(number) * 50, number) for number in range(20)
    }


def test_more_than_it_takes_run_by_themselves(serving, call):
    go_on = threading.Event()
    with serving(lambda request: go_on.wait(WAIT) and 0, most=2):
        busy = [call(), call()]
        assert [one.next() for one in busy] == [{"accepted": True}] * 2
        assert set(call().rest()[0]) == {"cold"}
        go_on.set()
        assert [one.rest() for one in busy] == [[{"exit": 0}]] * 2


def test_of_several_that_start_at_once_one_answers(folder, call):
    services = [Service(lambda _, number=number: number) for number in range(8)]
    won, lost = [], []
    together = threading.Barrier(8)

    def start(service):
        together.wait(WAIT)
        try:
            service.start()
            won.append(service)
        except LocalProcessError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=start, args=(service,)) for service in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(won) == 1
    assert all("answers already" in message for message in lost)
    assert call().rest()[-1] == {"exit": services.index(won[0])}
    for service in services:
        service.stop()
    assert client.reach(places.own_place()) is None


@UNIX
def test_the_socket_of_a_dead_process_is_replaced(folder, serving, call):
    folder.mkdir(mode=0o700)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(places.own_place().socket))
    dead.close()
    assert client.reach(places.own_place()) is None
    assert client.forward(["search", "x"]) is None
    with serving(lambda _: 5) as service:
        assert call().rest()[-1] == {"exit": 5}
        assert service.place.socket.exists()
    assert not service.place.socket.exists()


@UNIX
def test_nobody_is_answered_whose_user_is_another(serving, call, monkeypatch):
    ran = []
    with serving(lambda request: ran.append(request) or 0) as service:
        assert sockets._peer(client.reach(service.place)) in (os.geteuid(), None)
        monkeypatch.setattr(sockets, "_peer", lambda _: os.geteuid() + 1)
        with pytest.raises(LocalProcessError, match="another user's process"):
            client.reach(service.place)
        # The client does not look; the service does.
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(WAIT)
        raw.connect(str(service.place.socket))
        try:
            raw.sendall(frames.pack(client._request(["search"])))
            assert raw.recv(10) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
        raw.close()
    assert ran == []


def test_who_cannot_read_the_token_is_not_answered(serving):
    ran = []
    with serving(lambda request: ran.append(request) or 0, port=True) as service:
        door = service.place.door
        number, token = door.read_text().split()
        assert door.stat().st_mode & 0o077 == 0 or sys.platform == "win32"
        door.write_text(f"{number} {'0' * 64}")
        assert client.reach(service.place, port=True) is None
        door.write_text(f"{number} {token}")
        with client.reach(service.place, port=True) as connection:
            assert "status" in client.ask(connection, "status")
    assert ran == []
    assert not door.exists()


def test_who_has_taken_the_port_of_a_dead_process_learns_nothing(folder):
    folder.mkdir(mode=0o700)
    token = "a" * 64
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as thief:

        def steal():
            connection, _ = thief.accept()
            with connection:
                heard.append(connection.recv(10_000))
                connection.sendall(frames.pack({"proof": "0" * 64, "number": "1"}))
                heard.append(connection.recv(10_000))

        thread = threading.Thread(target=steal)
        thread.start()
        places.own_place().door.write_text(f"{thief.getsockname()[1]} {token}")
        assert client.reach(places.own_place(), port=True) is None
        thread.join(WAIT)
    assert token.encode() not in heard[0]
    assert heard[1] == b""


def test_a_changed_configuration_ends_it_when_what_runs_is_done(serving, call, tmp_path, monkeypatch):
    file = tmp_path / "embrief.yaml"
    file.write_text("version: 1\n")
    monkeypatch.setenv("EMBRIEF_CONFIG", str(file))
    go_on = threading.Event()
    with serving(lambda _: go_on.wait(WAIT) and 0) as service:
        first = call()
        assert first.next() == {"accepted": True}
        file.write_text("version: 1\n# more\n")
        assert set(call().rest()[0]) == {"cold"}
        assert not service.wait(0.2)
        go_on.set()
        assert first.rest() == [{"exit": 0}]
        assert service.wait(WAIT)
    assert client.forward(["search", "x"]) is None


def test_what_does_not_end_after_a_change_is_told_to(serving, call, tmp_path, monkeypatch):
    file = tmp_path / "embrief.yaml"
    monkeypatch.setenv("EMBRIEF_CONFIG", str(file))
    with serving(lambda request: request.stop.wait(WAIT) and 0, patience=0.1) as service:
        first = call()
        assert first.next() == {"accepted": True}
        file.write_text("")
        assert set(call().rest()[0]) == {"cold"}
        assert service.wait(WAIT)


def test_without_commands_it_ends_by_itself(serving, call):
    go_on = threading.Event()
    with serving(lambda _: go_on.wait(WAIT) and 0, idle=0.3) as service:
        first = call()
        assert first.next() == {"accepted": True}
        assert not service.wait(0.6)
        go_on.set()
        assert first.rest() == [{"exit": 0}]
        assert service.wait(WAIT)
        assert not service.place.socket.exists()


def test_stopping_tells_the_commands_that_run_to_end(serving, call):
    with serving(lambda request: request.stop.wait(WAIT) and 4) as service:
        first = call()
        assert first.next() == {"accepted": True}
        with client.reach(service.place) as connection:
            assert client.ask(connection, "stop") == {"stopping": os.getpid()}
        assert service.wait(WAIT)
        first.close()


def test_a_server_is_not_ended_by_a_client(serving, call):
    with serving(lambda _: 0, kind="serve", stops_for_others=False) as service:
        with client.reach(service.place) as connection:
            assert "embrief serve" in client.ask(connection, "stop")["refused"]
        assert call().rest()[-1] == {"exit": 0}
        assert service.status()["served"] == 1


def test_a_service_can_be_stopped_twice_and_before_its_start(folder):
    service = Service(lambda _: 0)
    service.stop()
    other = Service(lambda _: 0)
    other.start()
    other.stop()
    other.stop()
    third = Service(lambda _: 0)
    third.start()
    third.stop()
