"""`Image` is a value: it never changes, is decoded once, and says what is wrong with what it was made of."""

from __future__ import annotations

import base64
import copy
import io
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from embrief import ArgumentError, ArgumentTypeError, Embedder, Image, ImageLimits, Reranker
from embrief.images import decoding
from embrief.images.recent import Recent
from embrief.testing import FakeRuntime

from .pictures import file, noise, written


@pytest.fixture
def decoded(monkeypatch):
    """Names of the threads in which files were decoded, in order."""
    found, decode = [], decoding.decode

    def counted(data, limits):
        found.append(threading.current_thread().name)
        return decode(data, limits)

    monkeypatch.setattr(decoding, "decode", counted)
    return found


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "picture.png"
    found.write_bytes(file("png"))
    return found


def test_nothing_is_read_before_it_is_needed(decoded, tmp_path):
    Image(tmp_path / "absent.png")
    Image(b"no picture")
    assert decoded == []


def test_it_is_decoded_once_however_many_threads_want_it(decoded, path):
    image = Image(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: (image.digest, image.size, image.pixels is image.pixels), range(64)))
    assert set(found) == {(image.digest, (24, 40), True)}
    assert len(decoded) == 1


@pytest.mark.parametrize("name", ["size", "pixels", "digest", "anything"])
def test_it_cannot_be_changed(name):
    image = Image(noise())
    with pytest.raises(AttributeError):
        setattr(image, name, None)


def test_what_it_was_made_of_may_change_afterwards():
    pixels, opened, data = noise(), Pil.fromarray(noise()), bytearray(file("png"))
    images = [Image(pixels), Image(opened), Image(data)]
    pixels[:] = 0
    opened.paste("red", (0, 0, 40, 24))
    data[:] = bytes(len(data))
    assert all(np.array_equal(image.pixels, noise()) for image in images)


def test_arrays_may_lie_in_memory_as_they_like():
    pixels = noise()
    for other in (np.asfortranarray(pixels), np.repeat(pixels, 2, axis=0)[::2], pixels[::-1][::-1]):
        assert Image(other).digest == Image(pixels).digest
    assert Image(pixels[:, ::-1]).digest == Image(pixels[:, ::-1].copy()).digest


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda image: pickle.loads(pickle.dumps(image))])
def test_copies_and_pickles_are_equal(make, path):
    for source in (path, path.read_bytes(), noise(), Pil.fromarray(noise())):
        image = make(Image(source, limits=ImageLimits(max_pixels=1000)))
        assert image == Image(source)
        assert hash(image) == hash(Image(source))
        with pytest.raises(ValueError, match="read-only"):
            image.pixels[0, 0, 0] = 1


def test_other_pixels_are_another_image():
    assert Image(noise(seed=1)) != Image(noise())
    # The same bytes in another shape, too.
    assert Image(noise()) != Image(noise().reshape(40, 24, 3))
    assert Image(noise()) != "a text"


def test_limits_travel_with_a_pickle(path):
    image = pickle.loads(pickle.dumps(Image(path, limits=ImageLimits(max_pixels=900))))
    with pytest.raises(ArgumentError, match="the limit is 900"):
        _ = image.size


def test_a_file_that_changed_meanwhile_is_refused(path):
    image = Image(path)
    assert image.size == (24, 40)
    travelled = pickle.dumps(image)
    path.write_bytes(file("png", noise(seed=1)))
    image.let_go()
    for other in (image, pickle.loads(travelled)):
        with pytest.raises(ArgumentError, match="changed since it was first read"):
            _ = other.pixels
    assert Image(path).size == (24, 40)


def test_a_file_with_other_bytes_and_equal_pixels_is_the_same(path):
    image = Image(path)
    before = image.digest
    path.write_bytes(file("bmp"))
    image.let_go()
    assert np.array_equal(image.pixels, noise())
    assert image.digest == before


def test_absent_files_folders_and_impossible_names_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"absent\.png cannot be read"):
        _ = Image(tmp_path / "absent.png").pixels
    with pytest.raises(ArgumentError, match="a folder, pipe or device"):
        _ = Image(tmp_path).pixels
    with pytest.raises(ArgumentError, match="its name cannot be used"):
        _ = Image(Path("a\0b")).pixels
    with pytest.raises(ArgumentError, match="cannot be read"):
        _ = Image(Path("~nobody-of-this-name/a.png")).pixels


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(ArgumentError, match="a folder, pipe or device"):
            _ = Image(path).pixels


def test_a_file_over_the_limit_is_not_read(path):
    with pytest.raises(ArgumentError, match="more than 100 bytes"):
        _ = Image(path, limits=ImageLimits(max_bytes=100)).pixels


def test_what_a_picture_may_be_where_nothing_is_said(tmp_path):
    for height, width in ((1, 200), (200, 1)):
        pixels = np.zeros((height, width, 3), np.uint8)
        taken = Image(pixels)
        assert Image(taken.to_png()).size == taken.size == (height, width)
    for height, width in ((1, 201), (201, 1), (2, 401)):
        pixels = np.zeros((height, width, 3), np.uint8)
        for source in (pixels, Pil.fromarray(pixels)):
            with pytest.raises(ArgumentError, match=r"one side may be 200 times the other"):
                Image(source)
        with pytest.raises(ArgumentError, match=r"one side may be 200 times the other"):
            _ = Image(written(Pil.fromarray(pixels))).pixels
    most = 20 * 1024 * 1024
    large = bytes(most + 1)
    path = tmp_path / "large.png"
    path.write_bytes(large)
    assert repr(Image(large[:-1])) == f"Image({most} bytes)", "what it holds is looked at later"
    for too_large in (lambda: Image(large), lambda: Image(path).pixels):
        with pytest.raises(ArgumentError, match=r"more than 20,971,520 bytes"):
            too_large()


def test_a_string_is_never_a_picture():
    with pytest.raises(ArgumentTypeError, match="always a text") as caught:
        Image("secret.png")
    assert "secret" not in str(caught.value)
    with pytest.raises(ArgumentTypeError, match="not list"):
        Image([1, 2])


def test_base64_texts_are_pictures():
    data = file("png")
    text = base64.b64encode(data).decode()
    lines = base64.encodebytes(data).decode()
    for form in (text, f"  {text}\n", lines, lines.replace("\n", "\r\n"), f"data:image/png;base64,{text}",
                 f"DATA:IMAGE/PNG;charset=x;BASE64,{text}"):  # fmt: skip
        assert Image.from_base64(form) == Image(data)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("secret!", "with the = at its end"),
        ("secre", "with the = at its end"),
        ("sécret==", "with the = at its end"),
        ("secret\u00a0\u2028AA", "with the = at its end"),
        (base64.urlsafe_b64encode(b"\xff\xfe\xfb" * 4).decode(), "urlsafe_b64decode"),
        ("data:image/png,secret", "write data:image/png;base64"),
        ("data:text/html;base64,c2VjcmV0", "write data:image/png;base64"),
        ("data:secret", "write data:image/png;base64"),
    ],
)
def test_other_texts_are_no_base64(text, remedy):
    with pytest.raises(ArgumentError, match=remedy) as caught:
        Image.from_base64(text)
    assert "secret" not in str(caught.value)
    assert "c2Vj" not in str(caught.value)


def test_base64_is_counted_before_it_is_decoded(monkeypatch):
    data = file("png")
    text = base64.encodebytes(data).decode()
    assert Image.from_base64(text, limits=ImageLimits(max_bytes=len(data))) == Image(data)

    def never(*_, **__):
        raise AssertionError("it was decoded")

    monkeypatch.setattr(base64, "b64decode", never)
    for form in (text, "A" * 100 * len(data)):
        with pytest.raises(ArgumentError, match=f"more than {len(data) - 1:,} bytes"):
            Image.from_base64(form, limits=ImageLimits(max_bytes=len(data) - 1))
    with pytest.raises(ArgumentTypeError, match="not bytes"):
        Image.from_base64(text.encode())


@pytest.mark.parametrize(
    ("array", "remedy"),
    [
        (np.zeros((8, 8, 3), np.float32), r"\(array \* 255\)"),
        (np.zeros((3, 8, 8), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((3, 8, 8), np.float32), r"transpose\(1, 2, 0\)"),
        (np.zeros((8, 8), np.uint16), "scale it"),
        (np.zeros((8, 8, 4), np.float32), r"\(array \* 255\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "one by one"),
        (np.zeros((8, 8, 3), bool), r"astype\('uint8'\) \* 255"),
        (np.zeros((8, 8, 3), np.uint16), "scale it"),
        (np.zeros((8, 8, 2), np.uint8), "grey with transparency"),
        (np.zeros((3, 8, 2), np.uint8), "grey with transparency"),
        (np.zeros((3, 8, 3), np.float32), r"\(array \* 255\)"),
        (np.zeros((8, 8, 5), np.uint8), "reorder it"),
        (np.zeros(8, np.uint8), "reorder it"),
        (np.zeros((8, 0), np.uint8), "no pixels"),
    ],
)
def test_other_arrays_are_refused_with_the_remedy(array, remedy):
    with pytest.raises(ArgumentError, match=remedy):
        Image(array)


@pytest.mark.parametrize("height", [1, 3, 4, 24])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_an_array_is_the_same_as_a_file_of_its_pixels(height, channels):
    pixels = np.random.default_rng(7).integers(0, 256, (height, 40, *channels), np.uint8)
    saved = io.BytesIO()
    Pil.fromarray(pixels.squeeze(-1) if channels == (1,) else pixels).save(saved, "PNG")
    image = Image(pixels)
    assert np.array_equal(image.pixels, Image(saved.getvalue()).pixels)
    assert (image.size, image.pixels.shape) == ((height, 40), (height, 40, 3))
    assert not image.pixels.flags.writeable
    assert Image(pixels[:, ::-1]) == Image(pixels[:, ::-1].copy())
    pixels[:] = 0
    assert np.array_equal(image.pixels, Image(saved.getvalue()).pixels)


@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_arrays_of_every_form_are_within_limits(channels):
    with pytest.raises(ArgumentError, match="the limit is 99"):
        Image(np.zeros((10, 10, *channels), np.uint8), limits=ImageLimits(max_pixels=99))


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "max_aspect"])
def test_limits_that_are_none_are_refused(name):
    for value in (0, -1) + ((float("nan"),) if name == "max_aspect" else ()):
        with pytest.raises(ArgumentError, match=rf"{name}={value} of ImageLimits must be at least 1"):
            ImageLimits(**{name: value})
    for value in ("a", None, True) + (() if name == "max_aspect" else (1.5,)):
        with pytest.raises(ArgumentTypeError, match=rf"{name} of ImageLimits is a (whole )?number, not "):
            ImageLimits(**{name: value})
    assert getattr(ImageLimits(**{name: np.int64(7)}), name) == 7


def test_what_are_no_limits_is_refused():
    for call in (
        lambda: Image(b"", limits=None),
        lambda: Image.from_base64("", limits={"max_bytes": 1}),
        lambda: Image.from_url("https://example.org/a.png", fetch=lambda url: b"", limits=7),
    ):
        with pytest.raises(ArgumentTypeError, match=r"limits are ImageLimits\(\.\.\.\), not "):
            call()


def test_arrays_of_others_are_refused():
    class Tensor:
        dtype, shape = "torch.uint8", (8, 8, 3)

    with pytest.raises(ArgumentError, match="make it one of numpy"):
        Image(Tensor())


def test_the_png_of_an_image_is_the_same_image(path):
    assert Image(Image(path).to_png()) == Image(path)


def test_pixels_used_longest_ago_are_let_go():
    recent, images = Recent(max_bytes=6000), [Image(file("png", noise(seed=seed))) for seed in range(4)]
    size = 24 * 40 * 3
    held = [image.pixels for image in images]
    for image in images[:2]:
        recent.note(image, size)
    recent.note(images[0], size)
    recent.note(images[2], size)
    assert images[1].pixels is not held[1]
    assert [images[number].pixels is held[number] for number in (0, 2, 3)] == [True] * 3


def test_images_that_are_gone_hold_no_place():
    recent, kept = Recent(max_bytes=6000), Image(file("png"))
    pixels = kept.pixels
    recent.note(kept, 2880)
    for seed in range(50):
        recent.note(Image(file("png", noise(seed=seed))), 2880)
    assert kept.pixels is pixels


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_decodes_though_a_thread_of_its_parent_did():
    script = """
import os, sys, time
import numpy as np
from embrief import Image
from embrief.images import recent
data = Image(np.zeros((8, 8, 3), np.uint8)).to_png()
recent._recent._lock.acquire()
child = os.fork()
if not child:
    os._exit(Image(data).size != (8, 8))
end = time.monotonic() + 60
while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
    if time.monotonic() > end:
        os.kill(child, 9)
        sys.exit("the child hangs")
    time.sleep(0.01)
sys.exit(done[1])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


BROKEN = b"\x89PNG\r\n\x1a\nsecret"


def inputs_with(broken):
    return [{"text": "a", "image": Image(noise())}, ["b", Image(noise(seed=1)), Image(broken)], Image(noise(seed=2))]


@pytest.mark.parametrize("broken", [BROKEN, b"", Path("absent.png")], ids=["broken", "empty", "absent"])
def test_a_broken_picture_is_named_by_its_index_before_anything_is_computed(broken):
    with FakeRuntime() as fake:
        embedder, reranker = Embedder(fake.vision), Reranker(fake.vision_reranker)
        calls = {
            "texts": lambda items: embedder.embed_documents(items),
            "documents": lambda items: reranker.score("q", items),
            "pairs": lambda items: reranker.score_pairs([("q", item) for item in items]),
        }
        for what, call in calls.items():
            with pytest.raises(ArgumentError, match=rf"{what}\[1\]: ") as caught:
                call(inputs_with(broken))
            assert caught.value.index == 1
            assert "secret" not in str(caught.value)
        with pytest.raises(ArgumentError, match="query: "):
            reranker.rerank(Image(broken), ["a"])
        assert fake.runs == []


async def test_pictures_are_decoded_off_the_event_loop(decoded, path):
    loop = threading.current_thread().name
    with FakeRuntime() as fake:
        embedder, reranker = Embedder(fake.vision), Reranker(fake.vision_reranker)
        await embedder.aembed_documents([Image(path), "a"])
        await embedder.aembed_query(Image(path))
        await reranker.arerank(Image(path), ["a", Image(path)])
    assert len(decoded) == 4
    assert loop not in decoded


def test_one_picture_is_one_vector_whatever_it_came_from(path):
    with FakeRuntime() as fake:
        sources = path, path.read_bytes(), noise(), Pil.open(path), memoryview(path.read_bytes())
        vectors = Embedder(fake.vision).embed_documents([Image(source) for source in sources])
    assert (vectors == vectors[0]).all()
