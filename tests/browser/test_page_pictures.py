"""Pictures on the page: those that were found, and one that somebody asks with."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest

pytest.importorskip("PIL", reason="Pillow is not installed")

from PIL import Image as Pillow

from embrief import Embedder, Reranker
from embrief.indexing import table
from embrief.indexing.workspace import Workspace
from embrief.server.keys import FileKeys
from embrief.server.models import ServedModels
from embrief.testing import FakeRuntime

SHOWN = "[...document.querySelectorAll('img.found')].length && [...document.querySelectorAll('img.found')].every("
SHOWN += "(item) => !item.hidden && item.complete && item.naturalWidth > 0)"


def picture(colour: tuple[int, int, int]) -> bytes:
    made = io.BytesIO()
    Pillow.new("RGB", (60, 40), colour).save(made, "PNG")
    return made.getvalue()


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as found:
        yield found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, fake: FakeRuntime) -> Iterator[Workspace]:
    data, album = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("album")
    (album / "red.png").write_bytes(picture((200, 0, 0)))
    (album / "green.png").write_bytes(picture((0, 200, 0)))
    (album / "words.md").write_text("A red planet.\n", "utf-8")
    with pytest.MonkeyPatch.context() as patch, Workspace(idle_seconds=0.0) as found:
        patch.setattr(table, "user_folder", lambda kind: data)
        found.update([album], "album", model=fake.vision)
        yield found


@pytest.fixture(scope="module")
def models(fake: FakeRuntime) -> ServedModels:
    rerankers = {"judge": Reranker(fake.vision_reranker), "plain": Reranker(fake.reranker)}
    return ServedModels({"see": Embedder(fake.vision), "read": Embedder(fake.qwen3)}, rerankers)


def names(tab, ranking: str) -> list[str]:
    return tab.eval(f"[...document.querySelectorAll('[data-ranking={ranking}] .name')].map((item) => item.textContent)")


def choose(tab, data: bytes) -> None:
    """Choose a file, as a dialog of the system's would."""
    tab.eval(
        "(() => { const made = new DataTransfer(); const bytes = Uint8Array.from(atob("
        f"'{base64.b64encode(data).decode('ascii')}'), (letter) => letter.charCodeAt(0));"
        "made.items.add(new File([bytes], 'a.png', { type: 'image/png' }));"
        "document.querySelector('#picture').files = made.files; })()"
    )


def opened(tab, url: str) -> None:
    tab.goto(url)
    tab.until("document.querySelector('#source').options.length > 0")


def test_pictures_are_seen_in_rankings_and_beside_them(tab, url):
    opened(tab, url)
    tab.type("a red planet")
    tab.press("Enter")
    tab.until(SHOWN)
    assert sorted(names(tab, "nearestA")) == ["green.png", "red.png", "words.md:1"]
    assert sorted(names(tab, "rerankedA")) == ["green.png", "red.png", "words.md:1"]
    assert tab.eval("document.querySelectorAll('[data-ranking=nearestA] img.found').length") == 2
    # A text has its prompt beside it, a picture itself.
    for name, large in (("red.png", 1), ("words.md:1", 0)):
        tab.eval(
            "[...document.querySelectorAll('[data-ranking=nearestA] .row')].find((row) => "
            f"row.querySelector('.name').textContent === {name!r}).click()"
        )
        tab.until(f"document.querySelectorAll('#prompt img.found.large').length === {large}")
        assert tab.eval("document.querySelector('#tabs').parentElement.hidden") is bool(large)
    tab.until("document.querySelector('#prompt .piece')")


def test_a_picture_is_asked_with(tab, url):
    opened(tab, url)
    choose(tab, picture((200, 0, 0)))
    tab.eval("document.querySelector('#reranker').value = 'plain'")
    tab.press("Enter")
    tab.until(SHOWN)
    assert names(tab, "nearestA")[0] == "red.png"
    assert "plain reads texts only" in tab.eval("document.querySelector('#told').textContent")
    choose(tab, b"<html>")
    tab.press("Enter")
    tab.until("!document.querySelector('#problem').hidden")
    assert "a picture is a file in JPEG" in tab.eval("document.querySelector('#problem').textContent")
    # The browser itself notes the answer's status.
    tab.complaints.clear()


def test_what_takes_no_pictures_shows_no_place_for_one(tab, url):
    opened(tab, url)
    assert tab.eval("document.querySelector('#picture-field').hidden") is False
    tab.eval("(() => { document.querySelector('#source').value = '';"
             "document.querySelector('#model').value = 'read';"
             "document.querySelector('#ask').dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert tab.eval("document.querySelector('#picture-field').hidden") is True


def test_a_key_is_sent_for_pictures_too(tab, serve, key_file):
    with serve(keys=FileKeys(key_file)) as url:
        tab.goto(url)
        tab.until("document.querySelector('#key-dialog').open")
        tab.type("s3cret")
        tab.press("Enter")
        tab.until("!document.querySelector('#key-dialog').open")
        tab.type("red")
        tab.press("Enter")
        tab.until(SHOWN)
    # The first answer, that a key is needed, is on the console.
    tab.complaints.clear()
