"""A picture is the same pixels, wherever it comes from; what has no clear pixels is refused."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import ImageFile, ImageOps

from embrief import ArgumentError, Image, ImageLimits
from embrief.images import modes

from .pictures import FORMATS, chunk, exif, file, noise, png, tiff, written


def by_pillow(data):
    return np.asarray(Pil.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_pixels_of_pillow(kind, tmp_path):
    """Also proves that what is taken away before decoding decides nothing."""
    data = file(kind)
    path = tmp_path / "picture"
    path.write_bytes(data)
    opened = Pil.open(io.BytesIO(data))
    expected = by_pillow(data)
    for image in (
        Image(data),
        Image(path),
        Image(opened),
        Image(expected),
        Image(bytearray(data)),
        Image(memoryview(data)),
    ):
        assert np.array_equal(image.pixels, expected)
        assert image.digest == Image(data).digest
        assert image == Image(data)
        assert image.size == (24, 40)


def test_a_large_jpeg_is_decoded_in_full(tmp_path):
    """Decoders can shrink while they read; the pixels would be others."""
    ramp = np.linspace(0, 255, 900 * 1100 * 3).reshape(900, 1100, 3).astype(np.uint8)
    data = file("jpeg", ramp)
    assert np.array_equal(Image(data).pixels, by_pillow(data))


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("order", "<>")
def test_a_camera_that_was_turned_gives_an_upright_picture(orientation, order, tmp_path):
    pixels = noise()
    block = exif(orientation, order)
    files = {
        "png": written(Pil.fromarray(pixels), "PNG", exif=block),
        "webp": written(Pil.fromarray(pixels), "WEBP", lossless=True, exif=block),
        "jpeg": written(Pil.fromarray(pixels), "JPEG", exif=b"Exif\0\0" + block),
        "tiff": written(Pil.fromarray(pixels), "TIFF", tiffinfo={0x0112: orientation}),
    }
    for name, data in files.items():
        plain = by_pillow(written(Pil.fromarray(pixels), "JPEG")) if name == "jpeg" else pixels
        path = tmp_path / name
        path.write_bytes(data)
        for image in (Image(data), Image(path), Image(Pil.open(io.BytesIO(data)))):
            assert np.array_equal(image.pixels, TURNS[orientation](plain)), (name, image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_of_pillow_that_was_worked_on_still_knows_how_the_camera_was_held(kind):
    block = exif(6) if kind != "JPEG" else b"Exif\0\0" + exif(6)
    data = written(Pil.fromarray(noise()), kind, exif=block)
    plain = by_pillow(data)
    for worked_on in (
        lambda image: image.convert("RGB").copy(),
        lambda image: image.convert("RGBA"),
        lambda image: image.convert("L"),
        lambda image: image.convert("RGB").resize((20, 12)),
    ):
        image = worked_on(Pil.open(io.BytesIO(data)))
        assert np.array_equal(Image(image).pixels, np.rot90(np.asarray(image.convert("RGB")), -1))
    # What was turned by hand is turned again, unless that is taken out.
    turned = Pil.open(io.BytesIO(data)).convert("RGB").transpose(Pil.Transpose.ROTATE_270)
    assert np.array_equal(Image(turned).pixels, np.rot90(plain, 2))
    as_it_is = np.asarray(turned)
    del turned.getexif()[0x0112]
    for upright in (turned, as_it_is, ImageOps.exif_transpose(Pil.open(io.BytesIO(data)))):
        assert np.array_equal(Image(upright).pixels, np.rot90(plain, -1))


def test_what_is_said_by_xmp_counts_where_exif_says_nothing():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    pixels = noise()
    data = written(Pil.fromarray(pixels), "WEBP", lossless=True, xmp=xmp)
    assert np.array_equal(Image(data).pixels, np.rot90(pixels, -1))
    both = written(Pil.fromarray(pixels), "WEBP", lossless=True, xmp=xmp, exif=exif(3))
    assert np.array_equal(Image(both).pixels, pixels[::-1, ::-1])
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    assert np.array_equal(Image(png(40, 24, 8, 2, raw, text)).pixels, np.rot90(pixels, -1))


@pytest.mark.parametrize(
    "block",
    [b"", b"MM", b"nonsense" * 9, exif(0), exif(9), exif(6)[:-12], exif(1)[:4] + b"\xff" * 4],
    ids=["empty", "short", "other", "zero", "nine", "cut", "place"],
)
def test_damaged_exif_turns_nothing(block):
    pixels = noise()
    assert np.array_equal(Image(written(Pil.fromarray(pixels), "PNG", exif=block)).pixels, pixels)


def transparent(mode):
    """A picture left black and opaque, right wholly transparent, as an image of Pillow."""
    layer = Pil.new("RGBA", (40, 24), (0, 0, 0, 255))
    layer.paste((0, 0, 0, 0), (20, 0, 40, 24))
    if mode in ("P", "PA"):
        made = Pil.new("P", (40, 24), 0)
        made.putpalette([0, 0, 0, 255, 0, 0])
        made.paste(1, (20, 0, 40, 24))
        made.info["transparency"] = 1
        return made.convert(mode)
    return layer.convert("LA").convert(mode) if mode == "La" else layer.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGBa", "La"])
def test_what_is_transparent_lies_on_white(mode):
    expected = np.zeros((24, 40, 3), np.uint8)
    expected[:, 20:] = 255
    assert np.array_equal(Image(transparent(mode)).pixels, expected)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("LA", "TIFF")],
)
def test_what_is_transparent_in_a_file_lies_on_white(mode, name):
    expected = np.zeros((24, 40, 3), np.uint8)
    expected[:, 20:] = 255
    data = written(transparent(mode), name, **({"lossless": True} if name == "WEBP" else {}))
    assert np.array_equal(Image(data).pixels, expected)
    assert np.array_equal(Image(Pil.open(io.BytesIO(data))).pixels, expected)


def test_half_transparent_mixes_with_white():
    assert Image(Pil.new("RGBA", (40, 24), (0, 0, 0, 128))).pixels[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize(("depth", "key"), [(1, 0), (2, 1), (4, 5), (8, 0x55)])
def test_a_transparent_grey_of_a_png_is_meant_in_its_own_scale(depth, key):
    """Left the grey that is transparent, which is no white of itself; right black, or white for want of another."""
    left, right = (b"\0", b"\xff") if depth == 1 else (b"\x55", b"\0")
    data = png(16, 4, depth, 0, (b"\0" + left * depth + right * depth) * 4, chunk(b"tRNS", struct.pack(">H", key)))
    found = Image(data).pixels
    assert (found[:, :8] == 255).all()
    assert (found[:, 8:] == (255 if depth == 1 else 0)).all()


def test_a_transparent_colour_of_a_png_lies_on_white():
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 4:] = (10, 20, 30)
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    found = Image(png(8, 4, 8, 2, raw, chunk(b"tRNS", struct.pack(">HHH", 10, 20, 30)))).pixels
    assert (found[:, :4] == 0).all()
    assert (found[:, 4:] == 255).all()


def test_a_transparent_colour_of_16_bits_is_refused():
    raw = b"\0" + bytes(6 * 8)
    with pytest.raises(ArgumentError, match="16 bits per colour and one transparent"):
        _ = Image(png(8, 1, 16, 2, raw, chunk(b"tRNS", bytes(6)))).pixels


LEVELS = np.array([[0, 128, 129, 257, 32768, 65407, 65535, 25700]], np.uint16)
SCALED = [0, 0, 1, 1, 128, 255, 255, 100]


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_16_bits_of_grey_become_8_and_are_not_clipped(name):
    data = written(Pil.fromarray(LEVELS), name)
    for image in (Image(data), Image(Pil.open(io.BytesIO(data))), Image(Pil.fromarray(LEVELS))):
        assert image.pixels[0, :, 0].tolist() == SCALED
        assert image.pixels[0, :, 2].tolist() == SCALED


def test_16_bits_of_grey_in_the_other_byte_order():
    values = LEVELS.astype(">u2").tobytes()
    tags = [(256, 3, 1, 8), (257, 3, 1, 1), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 122),
            (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 16)]  # fmt: skip
    shorts = [(tag, kind, count, value << 16 if kind == 3 else value) for tag, kind, count, value in tags]
    data = tiff(*shorts, order=">", rest=values)
    assert Image(data).pixels[0, :, 0].tolist() == SCALED


def test_a_16_bit_png_with_a_transparent_grey():
    data = png(8, 1, 16, 0, b"\0" + LEVELS.astype(">u2").tobytes(), chunk(b"tRNS", struct.pack(">H", 257)))
    assert Image(data).pixels[0, :, 0].tolist() == [0, 0, 1, 255, 128, 255, 255, 100]


def test_a_16_bit_png_that_pillow_holds_as_whole_numbers():
    """Some releases do."""
    held = Pil.fromarray(LEVELS.astype(np.int32))
    held.format = "PNG"
    assert Image(held).pixels[0, :, 0].tolist() == SCALED


@pytest.mark.parametrize("mode", ["F", "I", "LAB", "HSV"])
def test_modes_without_a_known_range_are_refused(mode):
    with pytest.raises(ArgumentError, match=f"mode '{mode}'.*convert it to"):
        Image(Pil.new(mode, (8, 8)))


def test_a_picture_of_floats_in_a_file_is_refused_too():
    data = written(Pil.new("F", (8, 8), 0.5), "TIFF")
    with pytest.raises(ArgumentError, match="mode 'F'"):
        _ = Image(data).pixels


def test_one_bit_palettes_and_other_colours_are_converted():
    assert Image(Pil.new("1", (8, 8), 1)).pixels[0, 0].tolist() == [255] * 3
    assert Image(Pil.new("L", (8, 8), 77)).pixels[0, 0].tolist() == [77] * 3
    assert Image(Pil.new("CMYK", (8, 8), (255, 0, 0, 0))).pixels[0, 0].tolist() == [0, 255, 255]
    assert Image(Pil.new("RGB", (8, 8), "red").convert("YCbCr")).pixels[0, 0].tolist() == [254, 0, 0]
    assert Image(Pil.new("RGB", (8, 8), "red").quantize()).pixels[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_files_are_not_inverted(name):
    """JPEG files of Adobe's programs hold it inverted, and Pillow reads and writes all of them so."""
    found = Image(written(Pil.new("CMYK", (16, 16), (255, 0, 0, 0)), name)).pixels[8, 8].astype(int)
    assert np.abs(found - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_picture_of_several_counts(name):
    first, *more = [Pil.new("RGB", (40, 24), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if name == "WEBP" else {}
    data = written(first, name, save_all=True, append_images=more, **options)
    assert (Image(data).pixels == (255, 0, 0)).all()


def test_a_first_picture_that_is_smaller_than_the_whole_keeps_its_place():
    whole = written(Pil.new("P", (4, 4), 0), "GIF")
    assert Image(whole).size == (4, 4)
    larger = whole[:6] + struct.pack("<HH", 40, 24) + whole[10:]
    assert Image(larger).size == (24, 40)
    assert np.array_equal(Image(larger).pixels, by_pillow(larger))


def test_colours_are_left_as_they_are_whatever_the_profile_says():
    pixels = noise()
    assert np.array_equal(Image(written(Pil.fromarray(pixels), "PNG", icc_profile=b"p" * 4000)).pixels, pixels)


def test_pixels_cannot_be_written_to():
    for source in (file("png"), noise(), Pil.fromarray(noise()), Pil.fromarray(LEVELS)):
        with pytest.raises(ValueError, match="read-only"):
            Image(source).pixels[0, 0, 0] = 1


HINTS = {
    b"": "has no bytes",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>": "an SVG drawing; render it",
    b"<?xml version='1.0'?>\n<!-- <a> --><svg/>": "an SVG drawing",
    b"\xef\xbb\xbf<!DOCTYPE html><p>Not found <svg/>": "a web page",
    b"<?xml version='1.0'?><Error/>": "an XML document",
    b"%PDF-1.7\n": "a PDF document; render its pages",
    b"%!PS-Adobe-3.0 EPSF-3.0": "PostScript",
    b"\0\0\0\x18ftypheic\0\0\0\0": "HEIC or AVIF",
    b"\0\0\0\x18ftypisom\0\0\0\0": "a video; pass single frames",
    b"8BPS\0\1": "Photoshop",
    b"PK\x03\x04": "an archive|archive",
    b'{"error": "no"}': "JSON",
    b"iVBORw0KGgoAAAANSUhEUg==": "pass Image.from_base64",
    b"hello": "this is none",
}


@pytest.mark.parametrize(("data", "hint"), HINTS.items(), ids=[str(number) for number in range(len(HINTS))])
def test_what_is_no_picture_is_refused_and_named(data, hint):
    with pytest.raises(ArgumentError, match=hint) as caught:
        _ = Image(data).pixels
    assert "hello" not in str(caught.value)


@pytest.mark.parametrize("name", ["PPM", "ICO", "TGA", "SGI", "PCX", "EPS"])
def test_other_formats_that_pillow_knows_are_refused(name):
    with pytest.raises(ArgumentError, match="JPEG, PNG, WebP, GIF, BMP or TIFF"):
        _ = Image(written(Pil.new("RGB", (32, 32)), name)).pixels


def test_limits_are_those_of_the_image():
    limits = ImageLimits(max_bytes=10_000, max_pixels=1000, max_aspect=3)
    with pytest.raises(ArgumentError, match="more than 10,000 bytes"):
        Image(bytes(10_001), limits=limits)
    for source in (file("png"), Pil.new("RGB", (40, 30)), np.zeros((30, 40, 3), np.uint8)):
        with pytest.raises(ArgumentError, match=r"40 x (24|30) pixels, the limit is"):
            _ = Image(source, limits=ImageLimits(max_pixels=900)).pixels
        with pytest.raises(ArgumentError, match=r"1\.2 times the other"):
            _ = Image(source, limits=ImageLimits(max_aspect=1.2)).pixels
    with pytest.raises(ArgumentError, match="0 x 3 pixels, which is nothing"):
        Image(Pil.new("RGB", (0, 3)))
    with pytest.raises(ArgumentError, match="it has no pixels"):
        Image(np.zeros((3, 0, 3), np.uint8))


def whole_process():
    """What Pillow and Python keep for everything in the process."""
    return Pil.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK, list(warnings.filters)


@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_that_belongs_to_the_whole_process_is_changed(kind, truncated, monkeypatch):
    """Not for the time of a call either: other threads open pictures of their own."""
    # An application's own values: what an earlier test left behind would show no change.
    monkeypatch.setattr(Pil, "MAX_IMAGE_PIXELS", 54321)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", truncated)
    before, during, pixels = whole_process(), [], modes.pixels

    def watched(image, orientation):
        during.append(whole_process())
        return pixels(image, orientation)

    monkeypatch.setattr(modes, "pixels", watched)
    data = file(kind)
    _ = Image(data).pixels
    _ = Image(Pil.open(io.BytesIO(data))).pixels
    for refused in (data[: len(data) // 2], data[:9], b"<svg/>"):
        with pytest.raises(ArgumentError):
            _ = Image(refused).pixels
    with pytest.raises(ArgumentError, match="the limit is"):
        _ = Image(data, limits=ImageLimits(max_pixels=9)).pixels
    assert len(during) >= 2
    assert all(one == before for one in [*during, whole_process()])


def test_nothing_is_warned_about(recwarn):
    warnings.simplefilter("error")
    for kind in FORMATS:
        _ = Image(file(kind)).pixels
    _ = Image(transparent("P")).pixels
    assert not list(recwarn)
