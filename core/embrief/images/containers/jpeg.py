"""JPEG: segments up to the picture, which goes on to the end of the file."""

from __future__ import annotations

from embrief.images.containers import exif
from embrief.images.containers.bare import MAX_PIECES, MAX_SAID, Bare, Damaged, some

MAX_SCANS = 64
"""Passes over the picture. Progressive files have about ten; each costs time by the picture's size, not by its own."""
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
# All frame headers, but for DHT (C4), JPG (C8) and DAC (CC), which share their range.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Tables, restart interval, and the two application segments that say how colours are coded: JFIF and Adobe.
_KEPT = _FRAMES | {0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE}
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def bare(data: bytes) -> Bare:
    """Return the first picture of a JPEG file.

    Raises:
        Damaged: It is no such file, is cut short, or makes too many passes.
    """
    kept = [b"\xff\xd8"]
    size: tuple[int, int] | None = None
    said = {exif.PREFIX: b"", _XMP: b""}
    place = 2
    for _ in range(MAX_PIECES):
        place = _marker(data, place)
        marker = data[place]
        place += 1
        if marker in (_START, _END, 0x01) or 0xD0 <= marker < _START:
            raise Damaged("it has no picture")
        length = int.from_bytes(some(data, place, 2), "big")
        if length < 2:
            raise Damaged("its header is wrong")
        segment = some(data, place + 2, length - 2)
        if marker in _FRAMES:
            if size is not None or len(segment) < 6:
                raise Damaged("its header is wrong")
            size = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
        elif marker == 0xE1:
            for prefix in said:
                if segment.startswith(prefix) and len(said[prefix]) < MAX_SAID:
                    said[prefix] += segment[len(prefix) :]
        if marker == _SCAN:
            break
        if marker in _KEPT:
            kept.append(data[place - 2 : place + length])
        place += length
    else:
        raise Damaged("it has too many parts")
    if size is None:
        raise Damaged("its header is missing")
    rest = data[place - 2 :]
    if b"\xff\xd9" not in rest:
        raise Damaged("it is cut short")
    # Inside a picture's own bytes 0xFF is always followed by 0x00 or by a restart.
    if rest.count(b"\xff\xda") > MAX_SCANS:
        raise Damaged(f"it makes more than {MAX_SCANS} passes over the picture")
    kept.append(rest)
    return Bare(
        data=b"".join(kept),
        height=size[0],
        width=size[1],
        orientation=exif.orientation(said[exif.PREFIX], said[_XMP]),
    )


def _marker(data: bytes, place: int) -> int:
    """Return where the next marker's own byte is; bytes between segments, which some writers leave, are passed over."""
    while True:
        place = data.find(b"\xff", place)
        if place < 0:
            raise Damaged("it is cut short")
        while data[place : place + 1] == b"\xff":
            place += 1
        if some(data, place, 1) != b"\0":
            return place
