"""What may come over the socket, and what is refused before it is kept."""

from __future__ import annotations

import socket
import struct

import pytest

from embrief.local import frames


def received(sent, *, closed=True):
    here, there = socket.socketpair()
    with here, there:
        there.settimeout(10)
        here.settimeout(10)
        here.sendall(sent)
        if closed:
            here.shutdown(socket.SHUT_WR)
        return frames.receive(there)


@pytest.mark.parametrize("value", [{}, {"a": [1, None, True, "\udce4\N{SNOWMAN}"]}, {"a": "x" * 100_000}])
def test_a_frame_comes_back(value):
    assert received(frames.pack(value)) == value


def test_the_end_is_no_frame():
    assert received(b"") is None


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0",
        struct.pack("!I", 5),
        struct.pack("!I", 5) + b"{}",
        struct.pack("!I", 2) + b"[]",
        struct.pack("!I", 2) + b"{x",
        struct.pack("!I", 3) + b"\xff\xfe\x00",
        struct.pack("!I", 150_000) + b"[" * 150_000,
    ],
)
def test_what_is_none_is_refused(sent):
    with pytest.raises(frames.BadFrameError):
        received(sent)


@pytest.mark.parametrize("length", [0, frames.LARGEST + 1, 0xFFFFFFFF])
def test_a_length_that_may_not_be_is_refused_before_anything_is_waited_for(length):
    with pytest.raises(frames.BadFrameError, match=f"a frame of {length} bytes"):
        received(struct.pack("!I", length), closed=False)


def test_what_is_too_large_is_not_sent():
    with pytest.raises(frames.BadFrameError):
        frames.pack({"a": "x" * frames.LARGEST})
