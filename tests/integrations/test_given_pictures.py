"""Pictures in the forms in which frameworks pass them, and texts that carry them."""

from __future__ import annotations

import base64
import copy
import io
import json
import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from embrief import ArgumentError, ArgumentTypeError, Image
from embrief.wrapping import PicturedText, as_image, carried

PIXELS = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
FILE = Image(PIXELS).to_png()
BASE64 = base64.b64encode(FILE).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "picture.png"
    place.write_bytes(FILE)
    return place


def test_a_picture_is_the_same_in_every_form(path):
    with path.open("rb") as file:
        forms = {
            "Image": Image(FILE),
            "bytes": FILE,
            "bytearray": bytearray(FILE),
            "path": path,
            "path as a string": str(path),
            "data address": f"data:image/png;base64,{BASE64}",
            "BytesIO": io.BytesIO(FILE),
            "file": file,
            "pixels": PIXELS,
            "Pillow": PIL.Image.open(path),
        }
        for name, form in forms.items():
            assert as_image(form, "image").digest == Image(PIXELS).digest, name
    assert as_image(BASE64, "image", strings="base64") == Image(PIXELS)
    assert as_image(f"data:image/png;base64,{BASE64}", "image", strings="base64") == Image(PIXELS)


def test_a_file_in_memory_can_be_passed_twice():
    file = io.BytesIO(FILE)
    assert as_image(file, "image") == as_image(file, "image")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("https://user:secret@example.org/a.png", r"an address \(https://\.\.\.\) is not fetched; .*fetch="),
        ("s3://bucket/a.png", r"\(s3://"),
        ("FILE:///etc/a.png", r"\(file://"),
        ("data:text/plain;base64,QQ==", "no address of a picture"),
        ("", "0 characters that is no path"),
        ("a\0b.png", "no path"),
        (BASE64 * 100, "Image.from_base64"),
        (np.zeros((2, 2)), "uint8 array"),
        (io.StringIO("a"), "mode 'rb'"),
        (3, "not int"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_place(value, match):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=match) as caught:
        as_image(value, "images[4]", 4)
    assert caught.value.index == 4
    assert str(caught.value).startswith("images[4]: ")
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_base64_is_never_read_as_a_path(path):
    for text, match in ((str(path), "no base64"), ("https://example.org/a.png", "not fetched")):
        with pytest.raises(ArgumentError, match=match):
            as_image(text, "image", strings="base64")


def test_a_damaged_image_of_pillow_is_refused(path):
    # The header is whole, so Pillow opens it.
    path.write_bytes(FILE[:-30])
    with pytest.raises(ArgumentError, match="image: ") as caught:
        as_image(PIL.Image.open(path), "image", 2)
    assert caught.value.index == 2


def test_a_file_that_cannot_be_read_is_refused_with_its_place(path):
    closed = path.open("rb")
    closed.close()
    ended = io.BytesIO(FILE)
    ended.close()
    with path.open("r", encoding="utf-8") as text:
        for file in (closed, ended, text):
            with pytest.raises(ArgumentError, match=r"image: a picture's file cannot be read .* mode 'rb'") as caught:
                as_image(file, "image", 2)
            assert caught.value.index == 2


def test_a_text_carries_its_pictures_through_copies():
    image = Image(FILE)
    text = PicturedText("red", [image])
    assert text == "red"
    assert json.dumps(text) == '"red"'
    for twin in (text, copy.copy(text), copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert (twin, carried(twin)) == ("red", [image, "red"])
        assert type(carried(twin)[1]) is str


def test_nobody_tells_texts_with_pictures_apart_by_their_bytes():
    with pytest.raises(ArgumentError, match="one picture for another"):
        PicturedText("red", [Image(FILE)]).encode()
    assert PicturedText("rosé").encode() == "rosé".encode()
    assert str(PicturedText("red", [Image(FILE)])).encode() == b"red"


def test_a_text_without_pictures_is_a_text():
    assert carried(PicturedText("red")) == "red"
    assert carried("red") == "red"
    assert carried(PicturedText("", [Image(FILE)])) == [Image(FILE)]
