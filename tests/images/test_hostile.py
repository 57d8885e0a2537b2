"""Whatever strangers send is a picture or an error of ours, and neither fills memory nor changes anything else."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import ImageFile, JpegImagePlugin

from embrief import ArgumentError, Image
from embrief.images.containers import jpeg

from .pictures import FORMATS, chunk, exif, file, noise, png, tiff, written

MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def _strict():
    """No warning gets out, and nothing that belongs to the process is changed."""
    before = Pil.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert before == (Pil.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def outcome(data):
    """Return the error's message, or `None` for a picture; anything else is raised."""
    try:
        found = Image(bytes(data)).pixels
    except ArgumentError as error:
        return str(error)
    assert found.dtype == np.uint8
    assert found.shape[2] == 3
    return None


def peak(data):
    """Return the outcome, and how many bytes Python held at most beyond the file itself."""
    tracemalloc.start()
    try:
        found = outcome(data)
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def webp_of(width, height):
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + (
        (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )  # fmt: skip


def gif_of(width, height, wide, high):
    """A GIF file with its own size, and that of its picture."""
    head, picture = struct.pack("<HHBBB", width, height, 0, 0, 0), struct.pack("<4HB", 9, 9, wide, high, 0)
    return b"GIF89a" + head + b"," + picture + b"\2\0;"


def jpeg_of(width, height):
    data = bytearray(file("jpeg"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS = {
    "bmp": b"BM" + bytes(12) + struct.pack("<IIi", 40, 50000, -50000) + bytes(28),
    "gif": gif_of(65535, 65535, 9, 9),
    "gif-frame": gif_of(9, 9, 65535, 65535),
    "jpeg": jpeg_of(65500, 65500),
    "png": png(60000, 60000, 8, 2, b""),
    "tiff": tiff((256, 4, 1, 2**31), (257, 4, 1, 2**31)),
    "webp": webp_of(16384, 16384),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_of_a_huge_picture_is_refused_by_its_header(kind):
    found, most = peak(BOMBS[kind])
    assert found is not None
    assert "the limit is 64,000,000" in found
    assert most < MEGABYTE


def test_a_picture_within_the_limit_but_without_pixels_costs_little():
    found, most = peak(png(8000, 8000, 8, 2, b"\0"))
    assert found is not None
    assert most < 2 * MEGABYTE


def bombed_png():
    """Texts and a profile that would become 120 MB."""
    many = zlib.compress(bytes(2 * MEGABYTE))
    texts = [chunk(b"zTXt", b"k%d\0\0" % number + many) for number in range(60)]
    return png(8, 1, 8, 0, bytes(9), chunk(b"iCCP", b"p\0\0" + many), *texts)


def bombed_exif():
    """A directory of 5,000 tags, each of which holds the whole block."""
    size = 60_000
    entries = b"".join(struct.pack(">HHII", tag, 7, size, 2) for tag in range(5000))
    return (b"MM\0*" + struct.pack(">IH", 8, 5000) + entries)[:size].ljust(size, b"\0")


def with_segment(data, marker, body):
    return data[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]


HEAVY = [(1000 + number, 7, 5 * MEGABYTE, 8) for number in range(3000)]
"""Tags of TIFF that nobody asks for, each of which holds the whole file."""


def bombed_tiff():
    return tiff_with(HEAVY)


def bombed_second_tiff():
    """The tags stand in the directory of a second picture."""
    data = tiff_with([])
    data += b"\0" * (len(data) % 2)
    second = tiff(*HEAVY)[8:]
    # The last four bytes of the first directory say where the next one is.
    return data[:118] + struct.pack("<I", len(data)) + data[122:] + second


def tiff_with(tags):
    needed = [(256, 3, 1, 8), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1),
              (278, 3, 1, 1), (279, 4, 1, 8)]  # fmt: skip
    place = 8 + 2 + 12 * (len(tags) + len(needed) + 1) + 4
    return tiff(*needed[:5], (273, 4, 1, place), *needed[5:], *tags, rest=bytes(6 * MEGABYTE))


def endless_tiff():
    """Directories that go round in a circle."""
    data = tiff_with([])
    return data[:118] + struct.pack("<I", 8) + data[122:]


def commented_gif():
    data = file("gif")
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    return (
        data[:place]
        + b"!\xfe"
        + b"\xff"
        + b"c" * 255
        + b"\xff" * 0
        + (b"\xff" + b"c" * 255) * 40_000
        + b"\0"
        + data[place:]
    )


FILLED = {
    "png": bombed_png,
    "jpeg": lambda: with_segment(file("jpeg"), 0xE1, b"Exif\0\0" + bombed_exif()),
    "tiff": bombed_tiff,
    "tiff-second": bombed_second_tiff,
    "tiff-circle": endless_tiff,
    "gif": commented_gif,
    "png-exif": lambda: png(8, 1, 8, 0, bytes(9), chunk(b"eXIf", bombed_exif())),
    "webp-exif": lambda: written(Pil.fromarray(noise()), "WEBP", exif=bombed_exif()),
}


@pytest.mark.parametrize("kind", FILLED)
def test_what_stands_beside_the_pixels_fills_no_memory(kind):
    data = FILLED[kind]()
    found, most = peak(data)
    assert found is None
    # The file is copied once, without what decides nothing, and Pillow may copy it again.
    assert most < 3 * len(data) + 4 * MEGABYTE


REFUSED = {
    "runs": (lambda: b"BM" + bytes(12) + struct.pack("<IIiHHI", 40, 4000, 4000, 1, 8, 1) + bytes(24), "coded in runs"),
    "passes": (lambda: file("jpeg") + b"\xff\xda" * jpeg.MAX_SCANS + b"\xff\xd9", "more than 64 passes"),
    "segments": (lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 100_001 + file("jpeg")[2:], "too many parts"),
    "chunks": (lambda: png(8, 1, 8, 0, bytes(9), chunk(b"tEXt", b"") * 100_001), "too many parts"),
    "two headers": (lambda: with_segment(file("jpeg"), 0xC0, b"\x08\0\x08\0\x08\1\1\x11\0"), "header is wrong"),
    "tiles": (
        lambda: tiff((256, 4, 1, 8), (257, 4, 1, 8), (322, 4, 1, 1 << 16), (323, 4, 1, 1 << 16)),
        "tiles are much larger",
    ),
    "strips": (lambda: tiff((256, 4, 1, 8), (257, 4, 1, 8), (273, 4, 1 << 20, 8)), "more than 262,144 parts"),
    "values": (lambda: tiff((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1 << 24, 8)), "more than 1,048,576 bytes"),
    "tags": (
        lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 40),
        "too many parts",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_absurd_files_are_refused_with_the_reason(kind):
    make, reason = REFUSED[kind]
    found = outcome(make())
    assert found is not None
    assert reason in found


def broken(data, seed):
    """Return 40 files: cut short at 20 places, and with flipped bytes in 20 ways."""
    rng = random.Random(seed)
    yield from (data[: rng.randrange(len(data))] for _ in range(20))
    for _ in range(20):
        flipped = bytearray(data)
        for _ in range(rng.choice((1, 3, 10, 40))):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)


@pytest.mark.parametrize("kind", FORMATS)
def test_broken_files_are_pictures_or_errors_of_ours(kind):
    data = file(kind)
    # What follows the pixels may be lost without a difference: all of it in TIFF, which says where everything is.
    needed = len(data) - (200 if kind.startswith("tiff") else 0)
    for number, damaged in enumerate(broken(data, kind)):
        found = outcome(damaged)
        if number < 20 and len(damaged) < needed:
            assert found is not None, f"{len(damaged)} of {len(data)} bytes passed for the whole"


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind.startswith("tiff")])
def test_a_tiff_without_its_end_has_all_its_pixels_or_is_refused(kind):
    """Where the pixels stand last, what is put behind them for the decoder must not count as some of them."""
    whole = Image(file(kind)).pixels
    for cut in (1, 2, 3, 9, 40, 120, 200):
        try:
            found = Image(file(kind)[:-cut]).pixels
        except ArgumentError:
            continue
        assert np.array_equal(found, whole), f"without {cut} bytes"


def test_fuzzed_headers_are_pictures_or_errors_of_ours():
    rng = random.Random(17)
    whole = [file(kind, noise(8, 8)) for kind in FORMATS]
    whole += [written(Pil.fromarray(noise(8, 8, 4)), name) for name in ("PNG", "WEBP", "TIFF")]
    whole += [written(Pil.fromarray(noise(8, 8)), "JPEG", exif=exif(6)), written(Pil.fromarray(noise(8, 8, 1)), "GIF")]
    taken = 0
    for _ in range(10_000):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(2, min(len(data), 300))
            data[place : place + rng.choice((1, 2, 4))] = rng.randbytes(rng.choice((1, 2, 4)))
        taken += outcome(data) is None
    assert 100 < taken < 9900


def test_random_bytes_behind_a_signature_are_errors_of_ours():
    rng = random.Random(18)
    begins = [
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x40\0\0\0WEBP",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"II+\0",
    ]
    for _ in range(2000):
        assert outcome(rng.choice(begins) + rng.randbytes(rng.randrange(80))) is not None


@pytest.mark.parametrize("raised", [MemoryError(), RecursionError(), struct.error("secret"), zlib.error("secret"),
                                    SyntaxError("secret"), AttributeError("secret"), EOFError()])  # fmt: skip
def test_whatever_a_decoder_raises_becomes_an_error_of_ours(monkeypatch, raised):
    def load(self):
        raise raised

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", load)
    found = outcome(file("jpeg"))
    assert found is not None
    assert "secret" not in found
    assert ("memory" in found) == isinstance(raised, MemoryError)


def test_an_application_that_stops_is_not_held_up(monkeypatch):
    def load(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", load)
    with pytest.raises(KeyboardInterrupt):
        _ = Image(file("jpeg")).pixels


@pytest.mark.parametrize("kind", ["bmp", "jpeg", "jpeg-progressive", "png", "webp", "gif"])
def test_cut_files_are_refused_also_where_the_application_told_pillow_to_take_them(kind, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert outcome(file(kind)[:-40]) is not None
    monkeypatch.undo()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_bmp_is_whole_to_the_byte(mode, monkeypatch):
    """Of lines of every width; what fills up the last one may be missing."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for width in range(1, 10):
        image = Pil.fromarray(noise(3, width)).convert(mode)
        data, bits = written(image, "BMP"), {"1": 1, "RGB": 24, "RGBA": 32}.get(mode, 8)
        spare = -(-(width * bits) // 8) % -4
        whole = Image(data).pixels
        assert np.array_equal(Image(data[: len(data) + spare]).pixels, whole)
        assert outcome(data[: len(data) + spare - 1]) is not None


def test_a_small_limit_of_the_application_raises_no_warning(monkeypatch):
    """It is for what the application opens itself."""
    monkeypatch.setattr(Pil, "MAX_IMAGE_PIXELS", 600)
    for kind in ("bmp", "gif", "jpeg", "png"):
        assert outcome(file(kind)) is None
    monkeypatch.undo()


def test_pictures_of_pillow_whose_file_is_broken_are_errors_of_ours():
    for kind in ("jpeg", "png", "tiff-lzw", "gif"):
        opened = Pil.open(io.BytesIO(file(kind)[:-100] if kind != "tiff-lzw" else file(kind)))
        if kind == "tiff-lzw":
            opened.fp.close()
        with pytest.raises(ArgumentError, match="cannot be read"):
            Image(opened)


def test_messages_hold_nothing_of_the_file():
    data = png(8, 1, 8, 0, bytes(9)).replace(b"IDAT", b"WORD")
    found = outcome(data)
    assert found is not None
    assert "WORD" not in found
