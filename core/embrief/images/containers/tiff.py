"""TIFF: directories of tags anywhere in the file. A new directory at its end holds what decides the first picture."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from embrief.images.containers import exif
from embrief.images.containers.bare import MAX_PIECES, MAX_SAID, Bare, Damaged, some

MAX_PARTS = 1 << 18
"""Strips or tiles: the lines of the longest picture that is taken are fewer."""
MAX_TILE = 1 << 24
"""Pixels that a tile may have beyond those of the picture."""
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _XMP = 256, 257, 322, 323, 700
_STRIPS, _TILES = (273, 279), (324, 325)
"""Where they are, and their lengths."""
_PARTS = {*_STRIPS, *_TILES}
_KEPT = _PARTS | {
    _WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT,
    258, 259, 262, 266, 277, 278, 284,  # how the pixels of one plane are laid out
    292, 293, 317, 332, 338, 339,       # options of fax codes, predictor, inks, extra samples, number format
    320, 347,                           # colours of a palette, tables of JPEG
    512, 513, 514, 515, 517, 518, 519, 520, 521,  # JPEG as the first TIFF had it
    529, 530, 531, 532,                 # YCbCr
}  # fmt: skip
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes per value, by type."""
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True, slots=True)
class _Layout:
    """How one of the two forms of the format writes its numbers, for `struct`."""

    order: str
    header: int
    """Bytes before the place of the first directory."""
    entries: str
    entry: str
    """Tag, type, number of values; a place for the values follows."""
    offset: str


@dataclass(frozen=True, slots=True)
class _Tag:
    raw: bytes
    """The entry as it stands in the directory."""
    kind: int
    count: int
    value: bytes
    """Up to `MAX_SAID` bytes of its values."""


def bare(data: bytes) -> Bare:
    """Return the first picture of a TIFF file.

    Raises:
        Damaged: It is no such file, is cut short, or has tags or tiles of absurd sizes.
    """
    layout = _layout(data)
    tags = _tags(data, layout)
    width, height = _number(tags, _WIDTH, layout), _number(tags, _HEIGHT, layout)
    if width is None or height is None:
        raise Damaged("its header is missing")
    # Decoders hold a whole tile, which may be larger than a small picture.
    tile = (_number(tags, _TILE_WIDTH, layout) or 0) * (_number(tags, _TILE_HEIGHT, layout) or 0)
    if tile > 2 * width * height + MAX_TILE:
        raise Damaged("its tiles are much larger than the picture")
    _check_parts(tags, layout, len(data))
    said = _number(tags, exif.ORIENTATION, layout)
    xmp = tags[_XMP].value if _XMP in tags else b""
    return Bare(
        data=_with_directory(data, layout, [tag.raw for number, tag in sorted(tags.items()) if number in _KEPT]),
        height=height,
        width=width,
        orientation=said
        if said is not None and 1 <= said <= 8
        else exif.orientation(b"", xmp if said is None else b""),
    )


def _layout(data: bytes) -> _Layout:
    order = "<" if data.startswith(b"II") else ">"
    if struct.unpack(f"{order}H", some(data, 2, 2)) == (43,):
        return _Layout(order, 8, "Q", "HHQ", "Q")
    return _Layout(order, 4, "H", "HHI", "I")


def _tags(data: bytes, layout: _Layout) -> dict[int, _Tag]:
    """Return what the first directory has of the tags that are kept, and of those that say how a picture is turned."""
    start = _read(data, layout.header, layout.order + layout.offset)[0]
    entries = _read(data, start, layout.order + layout.entries)[0]
    head, wide = struct.calcsize(f"={layout.entry}"), struct.calcsize(f"={layout.offset}")
    if entries > MAX_PIECES:
        raise Damaged("it has too many parts")
    found: dict[int, _Tag] = {}
    for number in range(entries):
        place = start + struct.calcsize(f"={layout.entries}") + number * (head + wide)
        tag, kind, count = _read(data, place, layout.order + layout.entry)
        if tag not in _KEPT and tag not in (_XMP, exif.ORIENTATION):
            continue
        size = _SIZES.get(kind, 1) * count
        if tag in _PARTS and count > MAX_PARTS:
            raise Damaged(f"it has more than {MAX_PARTS:,} parts")
        if tag in _KEPT and tag not in _PARTS and size > MAX_SAID:
            raise Damaged(f"a tag of it has more than {MAX_SAID:,} bytes")
        at = place + head if size <= wide else _read(data, place + head, layout.order + layout.offset)[0]
        value = some(data, at, min(size, MAX_SAID)) if tag in _KEPT else data[at : at + min(size, MAX_SAID)]
        found[tag] = _Tag(some(data, place, head + wide), kind, count, value)
    return found


def _number(tags: dict[int, _Tag], tag: int, layout: _Layout) -> int | None:
    """Return the first value of a tag, `None` if there is none that is a whole number."""
    found = tags.get(tag)
    if found is None or found.kind not in _NUMBERS or not found.count:
        return None
    number: int = _read(found.value, 0, layout.order + _NUMBERS[found.kind])[0]
    return number


def _check_parts(tags: dict[int, _Tag], layout: _Layout, size: int) -> None:
    """Refuse strips or tiles behind the end: a decoder would read the new directory, which is put there, as pixels.

    Raises:
        Damaged: There is one.
    """
    for places, lengths in (_STRIPS, _TILES):
        ends = map(sum, zip(*(_numbers(tags.get(tag), layout) for tag in (places, lengths)), strict=False))
        if any(end > size for end in ends):
            raise Damaged("it is cut short")


def _numbers(tag: _Tag | None, layout: _Layout) -> tuple[int, ...]:
    """Return the values of a tag as far as they are looked at, none if they are no whole numbers."""
    if tag is None or tag.kind not in _NUMBERS:
        return ()
    count = min(tag.count, len(tag.value) // _SIZES[tag.kind])
    return struct.unpack_from(f"{layout.order}{count}{_NUMBERS[tag.kind]}", tag.value)


def _with_directory(data: bytes, layout: _Layout, entries: list[bytes]) -> bytes:
    """Return the file with another directory, and no second one."""
    data += b"\0" * (len(data) % 2)
    place = struct.pack(layout.order + layout.offset, len(data))
    count = struct.pack(layout.order + layout.entries, len(entries))
    end = struct.pack(layout.order + layout.offset, 0)
    return b"".join([data[: layout.header], place, data[layout.header + len(place) :], count, *entries, end])


def _read(data: bytes, place: int, form: str) -> tuple[int, ...]:
    return struct.unpack(form, some(data, place, struct.calcsize(form)))
