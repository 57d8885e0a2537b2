"""Picture files and pages of PDF files in a collection: what becomes of them, and how they are found."""

import hashlib
import io
import sys
import threading

import numpy as np
import pytest

from embrief import Embedder, Image
from embrief.errors import ArgumentError, ArgumentTypeError, SpaceMismatchError, UnreadableFileError
from embrief.indexing import making, pdf_pages, updating
from embrief.indexing.kinds import picture_kind
from embrief.indexing.pdf_pages import PdfPages
from embrief.indexing.picture_files import picture_of
from embrief.indexing.walking import walk
from embrief.indexing.workspace import Workspace
from embrief.testing import FakeRuntime

from ..pdf_writer import write_pdf

pillow = pytest.importorskip("PIL.Image")
pytest.importorskip("pypdfium2")
RED, GREEN, BLUE = (1, 0, 0), (0, 1, 0), (0, 0, 1)


def picture(colour, size=(40, 30), form="PNG") -> bytes:
    made = io.BytesIO()
    pillow.new("RGB", size, tuple(255 * part for part in colour)).save(made, form)
    return made.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def fake():
    with FakeRuntime() as found:
        yield found


@pytest.fixture
def album(tmp_path):
    """A folder with two pictures, a text, and a PDF of three pages."""
    folder = tmp_path / "album"
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "red.png").write_bytes(picture(RED))
    (folder / "photos" / "green.jpg").write_bytes(picture(GREEN, form="JPEG"))
    (folder / "notes.md").write_text("# Notes\n\nWhat was seen.\n", "utf-8")
    (folder / "report.pdf").write_bytes(write_pdf(RED, GREEN, BLUE, title="A report"))
    return folder.resolve()


def rows(workspace, folder):
    with workspace.opened(workspace.choose(cwd=folder)) as collection:
        found = [metadata for _, metadata in collection._metadata()]
    return sorted((row["path"], row["kind"], row["part"], row["parts"], row.get("page")) for row in found)


PAGES = [("report.pdf", "page", part, 3, part + 1) for part in range(3)]
FILES = [
    ("notes.md", "markdown", 0, 1, None),
    ("photos/green.jpg", "image", 0, 1, None),
    ("photos/red.png", "image", 0, 1, None),
]


def test_pictures_and_pages_are_passages_beside_texts(fake, album, store):
    with Workspace() as workspace:
        first = workspace.update([album], store=store, model=fake.vision, pages=True)
        assert (first.files, first.added, first.embedded, first.failed) == (4, 4, 6, [])
        assert rows(workspace, album) == sorted(FILES + PAGES)
        again = workspace.update([album], store=store)
        assert (again.unchanged, again.embedded) == (4, 0)


def test_a_picture_is_found_by_itself_and_says_where_it_is(fake, album, store):
    with Workspace() as workspace:
        workspace.update([album], store=store, model=fake.vision, pages=True)
        file = album / "photos" / "red.png"
        hit = workspace.search(Image(file), cwd=album, top_k=1)[0]
        assert (hit.path, hit.kind, hit.page, hit.text, hit.file) == ("photos/red.png", "image", None, "", file)
        assert (hit.has_lines, hit.is_picture, hit.state, hit.filetype) == (False, True, "current", "png")
        assert hit.digest == digest(file.read_bytes())
        shown = hit.to_json()
        assert (shown["start_line"], shown["end_line"], shown["kind"], shown["page"]) == (None, None, "image", None)
        embedder = Embedder(fake.vision)
        cosine = embedder.embed_query(Image(file)) @ embedder.embed_documents([Image(file)])[0]
        assert hit.score == pytest.approx(float(cosine), abs=1e-5)


def test_a_page_is_found_by_its_picture(fake, album):
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision, pages=True)
        with PdfPages((album / "report.pdf").read_bytes(), "report.pdf") as file:
            third = file.draw(3)
        hit = workspace.search(third, cwd=album, top_k=1, context=3)[0]
        assert (hit.path, hit.kind, hit.page, hit.title, hit.context) == ("report.pdf", "page", 3, "A report", None)
        assert hit.to_json()["page"] == 3
        assert picture_of(hit) == third


def test_text_and_picture_are_asked_together(fake, album):
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision)
        fake.texts.clear()
        assert workspace.search({"text": "in red", "image": Image(picture(RED))}, cwd=album)
        (asked,) = fake.texts
        assert asked.index("picture-") < asked.index("in red")


def test_kinds_are_filters(fake, album, store):
    with Workspace() as workspace:
        workspace.update([album], store=store, model=fake.vision, pages=True)
        kinds = [{hit.kind for hit in workspace.search("x", cwd=album, filetypes=[name])}
                 for name in ("image", "page", "pdf", "png", "md")]  # fmt: skip
        assert kinds == [{"image"}, {"page"}, {"page"}, {"image"}, {"markdown"}]


def test_a_model_of_texts_leaves_pictures_out_and_refuses_pages(workspace, album):
    done = workspace.update([album], model="embrief/hash", exclude=["*.pdf"])
    assert (done.files, done.left_out["binary"], done.failed) == (1, 2, [])
    with pytest.raises(ArgumentError, match=r"takes texts only.*one that takes images is Qwen/Qwen3-VL-Embedding"):
        workspace.update([album], "other", model="embrief/hash", pages=True)
    assert [info.name for info in workspace.collections()] == [workspace.choose(cwd=album).name]
    with pytest.raises(ArgumentTypeError, match="takes texts only"):
        workspace.search(Image(picture(RED)), cwd=album)


@pytest.mark.parametrize("name", ["a.PNG", "a.jpeg", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tif", "a.tiff"])
def test_what_counts_as_a_picture(name):
    assert [picture_kind(name, mode) for mode in ("none", "files", "pages")] == [None, "image", "image"]


def test_what_else_becomes_a_picture():
    assert [picture_kind("a.pdf", mode) for mode in ("none", "files", "pages")] == [None, None, "page"]
    assert picture_kind("a.svg", "pages") is None


def test_pictures_are_walked_only_where_they_are_wanted(album):
    names = {mode: {file.name for file in walk([album], pictures=mode).files} for mode in ("none", "files")}
    assert names["files"] - names["none"] == {"photos/green.jpg", "photos/red.png"}


def test_changes_removals_and_renames_of_pictures(fake, album, store):
    with Workspace() as workspace:
        workspace.update([album], store=store, model=fake.vision, pages=True)
        (album / "photos" / "red.png").write_bytes(picture(BLUE))
        (album / "photos" / "green.jpg").unlink()
        (album / "report.pdf").rename(album / "paper.pdf")
        done = workspace.update([album], store=store)
        assert (done.changed, done.removed, done.added, done.unchanged) == (1, 2, 1, 1)
        assert {row[0] for row in rows(workspace, album)} == {"notes.md", "paper.pdf", "photos/red.png"}
        assert workspace.search(Image(picture(BLUE)), cwd=album, top_k=1)[0].path == "photos/red.png"


def test_pages_are_kept_as_last_time_and_turned_back_into_text(fake, album):
    text = "BT /F1 12 Tf 72 720 Td (words) Tj ET"
    (album / "report.pdf").write_bytes(write_pdf(RED, GREEN, extra=text))
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision, pages=True)
        assert workspace.choose(cwd=album).pages
        (album / "photos" / "red.png").unlink()
        assert workspace.update([album]).unchanged == 3
        before = len(fake.texts)
        back = workspace.update([album], pages=False)
        assert (back.unchanged, back.changed + back.removed) == (2, 1)
        assert not any(row[1] == "page" for row in rows(workspace, album))
        assert len(fake.texts) - before <= 2
        assert not workspace.choose(cwd=album).pages


def test_the_limit_of_pixels_belongs_to_the_collection(fake, album):
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision, max_pixels=65536)
        with workspace.opened(workspace.choose(cwd=album)) as collection:
            assert collection.space.max_pixels == 65536
        again = workspace.update([album])
        assert (again.unchanged, again.embedded, workspace.choose(cwd=album).max_pixels) == (3, 0, 65536)
        assert workspace.search(Image(picture(RED)), cwd=album, top_k=1)[0].path == "photos/red.png"
        with pytest.raises(SpaceMismatchError, match="max_pixels"):
            workspace.update([album], max_pixels=131072)


def test_the_same_picture_in_two_files_is_one_hit(fake, album):
    (album / "copy.png").write_bytes((album / "photos" / "red.png").read_bytes())
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision)
        found = [hit.path for hit in workspace.search("x", cwd=album, filetypes=["image"])]
        assert len(found) == 2
        assert sum(path in ("copy.png", "photos/red.png") for path in found) == 1


def test_broken_files_are_told_by_name_and_stop_no_other(fake, album):
    whole = picture(RED, (200, 200))
    (album / "photos" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (album / "photos" / "page.png").write_text("<html>not here</html>", "utf-8")
    (album / "damaged.pdf").write_bytes(b"%PDF-1.4 and then nothing")
    (album / "locked.pdf").write_bytes(write_pdf(RED, crypt=LOCKED))
    with Workspace() as workspace:
        done = workspace.update([album], model=fake.vision, pages=True)
        reasons = {failure.path.name: failure.reason for failure in done.failed}
        assert set(reasons) == {"cut.png", "page.png", "damaged.pdf", "locked.pdf"}
        assert "looks like a web page" in reasons["page.png"]
        assert "damaged" in reasons["damaged.pdf"]
        assert "encrypted" in reasons["locked.pdf"]
        assert rows(workspace, album) == sorted(FILES + PAGES)


LOCKED = (
    "/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 "
    f"/O <{'11' * 32}> /U <{'22' * 32}> >> /ID [<{'33' * 16}> <{'33' * 16}>]"
)
"""An entry for a password that nobody knows."""


def test_a_page_that_cannot_be_drawn_costs_its_file_only(fake, album, monkeypatch):
    real = PdfPages._drawn

    def drawn(self, page, number):
        if number == 2:
            raise pdf_pages.UnreadableFileError("page 2 of 'report.pdf' cannot be drawn")
        return real(self, page, number)

    monkeypatch.setattr(PdfPages, "_drawn", drawn)
    with Workspace() as workspace:
        done = workspace.update([album], model=fake.vision, pages=True)
        assert [failure.reason for failure in done.failed] == ["page 2 of 'report.pdf' cannot be drawn"]
        assert (done.added, rows(workspace, album)) == (3, FILES)


def test_a_picture_of_too_many_pixels_is_told(fake, album):
    (album / "photos" / "long.png").write_bytes(picture(RED, (2010, 10)))
    with Workspace() as workspace:
        (failure,) = workspace.update([album], model=fake.vision).failed
        assert "2010 x 10" in failure.reason


def test_few_pages_are_held_at_a_time(fake, album, monkeypatch):
    monkeypatch.setattr(updating, "PIXEL_BYTES", 2 * 1240 * 1754 * 3)
    (album / "report.pdf").write_bytes(write_pdf(*[RED, GREEN, BLUE] * 3))
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision, pages=True, include=["*.pdf"])
        # Equal pages are embedded once.
        assert max(fake.runs) <= 2
        assert len(rows(workspace, album)) == 9


def test_a_run_that_was_stopped_within_a_file_goes_on_at_its_page(fake, album, store, monkeypatch):
    monkeypatch.setattr(updating, "PIXEL_BYTES", 1)
    sheets = [(part / 10, 0, 0) for part in range(6)]
    (album / "report.pdf").write_bytes(write_pdf(*sheets))
    stop = threading.Event()
    with Workspace() as workspace:
        options = {"store": store, "model": fake.vision, "pages": True, "include": ["*.pdf"]}
        done = workspace.update([album], **options, stop=stop,
                                on_progress=lambda progress: progress.passages >= 2 and stop.set())  # fmt: skip
        assert (done.stopped, done.passages) == (True, 2)
        fake.texts.clear()
        done = workspace.update([album], **options)
        assert (done.stopped, done.passages, done.embedded, len(fake.texts)) == (False, 6, 4, 4)
        assert workspace.update([album], **options).unchanged == 1


def test_another_version_of_a_file_that_was_stopped_is_made_anew(fake, album, monkeypatch):
    monkeypatch.setattr(updating, "PIXEL_BYTES", 1)
    stop = threading.Event()
    with Workspace() as workspace:
        options = {"model": fake.vision, "pages": True, "include": ["*.pdf"]}
        workspace.update([album], **options, stop=stop, on_progress=lambda progress: progress.passages and stop.set())
        (album / "report.pdf").write_bytes(write_pdf(BLUE, RED))
        done = workspace.update([album], **options)
        assert (done.embedded, done.passages) == (2, 2)


def test_other_settings_of_pictures_touch_no_text(fake, album, monkeypatch):
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision, pages=True)
        monkeypatch.setattr(making, "PICTURING", 2)
        done = workspace.update([album])
        assert (done.changed, done.unchanged) == (3, 1)


def test_a_reranker_judges_pictures(fake, album):
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision, pages=True)
        red = Image(album / "photos" / "red.png")
        hits = workspace.search(red, cwd=album, rerank=fake.vision_reranker)
        assert (hits[0].path, hits[0].rerank_score) == ("photos/red.png", max(hit.rerank_score for hit in hits))
        assert len(hits) == len(fake.pairs) == 6
        assert sum(bool(pair.images) for pair in fake.pairs) == 6


def test_a_picture_that_changed_is_not_judged_and_comes_last(fake, album):
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision)
        (album / "photos" / "red.png").write_bytes(picture(BLUE))
        (album / "photos" / "green.jpg").unlink()
        hits = workspace.search("what was seen", cwd=album, rerank=fake.vision_reranker, filetypes=["image", "md"])
        assert [(hit.path, hit.rerank_score is None) for hit in hits[:1]] == [("notes.md", False)]
        assert {(hit.state, hit.rerank_score) for hit in hits[1:]} == {("changed", None), ("gone", None)}


def test_equal_scores_of_a_reranker_leave_the_order_of_similarity(fake, album):
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision, pages=True)
        hits = workspace.search("zzz", cwd=album, rerank=fake.vision_reranker)
        assert len({hit.rerank_score for hit in hits}) == 1
        assert [hit.id for hit in hits] == [hit.id for hit in workspace.search("zzz", cwd=album)]


def test_a_reranker_of_texts_refuses_pictures_that_were_found(fake, album):
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision)
        with pytest.raises(ArgumentTypeError, match=r"holds an image.*Qwen3-VL-Reranker"):
            workspace.search("x", cwd=album, rerank=fake.reranker)
        assert workspace.search("x", cwd=album, rerank=fake.reranker, filetypes=["md"])


def test_picture_of_gives_nothing_that_is_no_longer_there(fake, album):
    with Workspace() as workspace:
        workspace.update([album], model=fake.vision)
        hits = {hit.path: hit for hit in workspace.search("x", cwd=album)}
        assert picture_of(hits["photos/red.png"]) == Image(picture(RED))
        assert picture_of(hits["notes.md"]) is None
        (album / "photos" / "red.png").write_bytes(picture(GREEN))
        (album / "photos" / "green.jpg").unlink()
        assert [picture_of(hits[path]) for path in ("photos/red.png", "photos/green.jpg")] == [None, None]


def test_a_page_is_drawn_at_150_dots_per_inch_on_white():
    with PdfPages(write_pdf(RED, title="Report.docx"), "a.pdf") as file:
        page = file.draw(1)
        assert (file.count, file.title, page.size) == (1, None, (1754, 1240))
        assert page.pixels[100, 100].tolist() == [255, 0, 0]
    # It stands beside every page in the store; one that is no text keeps no page from being indexed.
    with PdfPages(write_pdf(RED, title="long " * 10_000), "a.pdf") as file:
        assert file.title == ("long " * 40)[:199].rstrip() + "…"
    with PdfPages(write_pdf(RED, title="\\376\\377\\330\\000"), "a.pdf") as file:
        assert (file.title, file.draw(1).size) == (None, (1754, 1240))
    with PdfPages(write_pdf(None, extra="0 0 1 rg 0 700 100 141 re f"), "a.pdf") as file:
        pixels = file.draw(1).pixels
        assert (pixels[10, 10].tolist(), pixels[-10, 10].tolist()) == ([0, 0, 255], [255, 255, 255])


def test_a_page_as_large_as_a_house_is_drawn_smaller():
    with PdfPages(write_pdf(RED, size=(14400, 7200)), "a.pdf") as file:
        height, width = file.draw(1).size
    assert height * width <= pdf_pages.MOST_PIXELS
    assert width == pytest.approx(2 * height, abs=1)


def test_pages_are_drawn_within_limits(monkeypatch):
    with PdfPages(write_pdf(RED, size=(14400, 20)), "a.pdf") as file, pytest.raises(
        UnreadableFileError, match=r"page 1 of 'a\.pdf' has 30000 x 42 pixels"
    ):  # fmt: skip
        file.draw(1)
    monkeypatch.setattr(pdf_pages, "SECONDS", -1.0)
    with PdfPages(write_pdf(RED), "a.pdf") as file, pytest.raises(UnreadableFileError, match="takes more than"):
        file.draw(1)
    monkeypatch.setattr(pdf_pages, "PAGE_LIMIT", 2)
    with pytest.raises(UnreadableFileError, match="3 pages, more than 2"):
        PdfPages(write_pdf(RED, RED, RED), "a.pdf")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "damaged"),
        (b"%PDF-1.4\n", "damaged"),
        (write_pdf(), "damaged"),
        (write_pdf(RED, crypt=LOCKED), "encrypted"),
    ],
)
def test_what_is_no_pdf_is_refused(data, reason):
    with pytest.raises(UnreadableFileError) as caught:
        PdfPages(data, "a.pdf")
    assert caught.value.reason == reason


def test_two_threads_draw_one_after_the_other():
    data = [write_pdf(*[(part / 8, 0, 0) for part in range(8)]), write_pdf(*[(0, 0, part / 8) for part in range(8)])]
    found: dict[int, list[np.ndarray]] = {}

    def draw(which: int) -> None:
        with PdfPages(data[which], "a.pdf") as file:
            found[which] = [file.draw(number).pixels[0, 0] for number in range(1, 9)]

    threads = [threading.Thread(target=draw, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [[int(pixel.max()) for pixel in found[which]] for which in (0, 1)] == [
        [round(part / 8 * 255) for part in range(8)]
    ] * 2


def test_a_run_without_pages_needs_no_renderer(fake, album, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with Workspace() as workspace:
        assert workspace.update([album], model=fake.vision, exclude=["*.pdf"]).failed == []
        (failure,) = workspace.update([album], model=fake.vision, pages=True).failed
        assert "pip install" in failure.reason
