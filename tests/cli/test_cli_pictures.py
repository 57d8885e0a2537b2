"""Pictures on the command line: lines that hold them, folders of them, questions with them."""

import base64
import io
import json
import os
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from embrief import Embedder, Image, Reranker
from embrief.cli import app, piping
from embrief.cli.items import Keys, read_items
from embrief.cli.running import run_command
from embrief.cli.terminal import Terminal, _given
from embrief.indexing import table
from embrief.indexing.workspace import shared_workspace
from embrief.local import client
from embrief.local.request import Request
from embrief.testing import FakeRuntime

from ..pdf_writer import write_pdf

pillow = pytest.importorskip("PIL.Image")
RED, GREEN = (1, 0, 0), (0, 1, 0)


@pytest.fixture(autouse=True)
def user_data(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "user_folder", lambda kind: tmp_path / "data")


@pytest.fixture
def fake():
    with FakeRuntime() as found:
        yield found


def picture(colour, size=(40, 30)) -> bytes:
    made = io.BytesIO()
    pillow.new("RGB", size, tuple(round(255 * part) for part in colour)).save(made, "PNG")
    return made.getvalue()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two pictures, a text and a PDF of two pages, in which commands are typed."""
    folder = tmp_path / "album"
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "red.png").write_bytes(picture(RED))
    (folder / "photos" / "green.png").write_bytes(picture(GREEN))
    (folder / "notes.md").write_text("# Notes\n\nWhat was seen.\n", "utf-8")
    (folder / "report.pdf").write_bytes(write_pdf((0, 0, 1), (1, 1, 0), title="A report"))
    monkeypatch.chdir(folder)
    return folder.resolve()


def run(*arguments, given=b"", code=0):
    done = CliRunner().invoke(app, [str(word) for word in arguments], input=given, env={"COLUMNS": "100"})
    assert done.exit_code == code, (done.output, done.exception)
    return done


def lines(*objects) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in objects).encode()


def parsed(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def address(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_lines_hold_files_addresses_and_texts_with_pictures(fake, here):
    given = lines(
        {"image": "photos/red.png"},
        {"image": address(picture(GREEN)), "id": "g"},
        {"text": "a sheet", "image": str(here / "photos" / "red.png")},
        {"text": "a sheet"},
    )
    found = parsed(run("embed", "--model", fake.vision, given=given))
    red = Image(here / "photos" / "red.png")
    inputs = [red, Image(picture(GREEN)), {"text": "a sheet", "image": red}, "a sheet"]
    expected = Embedder(fake.vision).embed_documents(inputs)
    assert np.array_equal(np.array([row["embedding"] for row in found], np.float32), expected)
    assert [row.get("image_tokens") for row in found] == [6, 6, 6, None]
    assert found[1]["id"] == "g"


def test_max_pixels_reaches_the_model(fake, here):
    (here / "large.png").write_bytes(picture(RED, (640, 640)))
    counts = [
        parsed(run("embed", "--model", fake.vision, *more, given=lines({"image": "large.png"})))[0]["image_tokens"]
        for more in ((), ("--max-pixels", "65536"))
    ]
    assert counts == [400, 64]
    assert "takes texts only" in run("embed", "--model", "embrief/hash", "--max-pixels", "65536", given=b"x\n",
                                     code=1).stderr  # fmt: skip


def test_pairs_hold_pictures_on_both_sides(fake, here):
    red, green = Image(here / "photos" / "red.png"), Image(here / "photos" / "green.png")
    given = lines(
        {"image": "photos/red.png"},
        {"document": "a sheet", "image": "photos/green.png"},
        {"query": {"text": "like this", "image": "photos/red.png"}, "document": {"image": "photos/red.png"}},
        {"document": {"text": "plain", "image": "photos/green.png"}},
        {"document": "plain"},
    )
    found = parsed(run("rerank", "--model", fake.vision_reranker, "--query", "a red sheet", given=given))
    expected = Reranker(fake.vision_reranker).score_pairs(
        [
            ("a red sheet", red),
            ("a red sheet", {"text": "a sheet", "image": green}),
            ({"text": "like this", "image": red}, red),
            ("a red sheet", {"text": "plain", "image": green}),
            ("a red sheet", "plain"),
        ]
    )
    assert np.allclose([row["score"] for row in found], expected, atol=1e-6)


def test_lists_null_and_objects_without_pictures(fake, here):
    red, green = Image(here / "photos" / "red.png"), Image(here / "photos" / "green.png")
    given = lines(
        {"image": ["photos/red.png", address(picture(GREEN))]},
        {"text": "sheets", "image": ["photos/red.png", "photos/green.png"]},
        {"text": "a sheet", "image": None},
        {"text": {"text": "a sheet", "image": []}, "image": None},
        {"text": None, "image": ["photos/red.png"]},
    )
    found = parsed(run("embed", "--model", fake.vision, given=given))
    inputs = [[red, green], {"text": "sheets", "image": [red, green]}, "a sheet", "a sheet", red]
    expected = Embedder(fake.vision).embed_documents(inputs)
    assert np.array_equal(np.array([row["embedding"] for row in found], np.float32), expected)
    plain = lines({"text": "a sheet", "image": None}, {"text": "a sheet"}, {"text": {"text": "a sheet"}})
    rows = parsed(run("embed", "--model", "embrief/hash", given=plain))
    assert rows[0]["embedding"] == rows[1]["embedding"] == rows[2]["embedding"]


def test_every_picture_of_a_line_counts(here):
    (here / "lines.jsonl").write_bytes(
        lines(
            {"document": "a", "image": ["photos/red.png", "photos/green.png"], "query": {"image": "photos/red.png"}},
            {"document": {"text": "a", "image": ["photos/red.png"] * 3}, "query": "b"},
            {"document": "a", "query": "b"},
        )
    )
    items = list(read_items([here / "lines.jsonl"], "auto", Keys("document", query="query")))
    assert [(item.error, item.pictures) for item in items] == [(None, 3), (None, 3), (None, 0)]


@pytest.mark.parametrize(
    ("command", "line", "key"),
    [
        (("embed",), {"images": ["photos/red.png"]}, "'images', and has neither 'text' nor 'image'"),
        (("embed",), {"id": 7, "Text": "secret"}, "'Text', and has neither 'text' nor 'image'"),
        (("rerank", "--query", "q"), {"documents": "secret"}, "'documents', and has neither 'document' nor 'image'"),
        (("rerank", "--query", "q"), {"text": "secret"}, "'text', and has neither 'document' nor 'image'"),
        (("rerank",), {"query": "secret", "doc": "d"}, "'query', and has neither 'document' nor 'image'"),
    ],
)
def test_a_first_line_with_a_misspelt_key_is_not_embedded_as_text(fake, command, line, key):
    model = ("--model", fake.vision if command[0] == "embed" else fake.vision_reranker)
    done = run(*command, *model, given=lines(line), code=1)
    assert done.stderr.startswith(f"error: stdin:1: is a JSON object with {key}")
    assert "--input text" in done.stderr
    assert "secret" not in done.stderr
    assert fake.texts == []


def test_other_objects_are_texts_still_and_input_text_makes_all_of_them_texts(fake):
    for given in (lines({"context": "a", "next": 3}), lines({"level": "info"})):
        run("embed", "--model", fake.vision, given=given)
        assert given.decode().strip() in fake.texts[-1]
    run("embed", "--model", fake.vision, "--input", "text", given=lines({"images": "a"}))
    assert '{"images": "a"}' in fake.texts[-1]


RAW = base64.b64encode(picture((0.5, 0.5, 0))).decode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"image": 3}, "has an 'image' that is no string"),
        ({"image": ""}, "has an 'image' that is no string"),
        ({"image": [""]}, "has an 'image' that is no string"),
        ({"image": ["photos/red.png", "missing.png"]}, "has an 'image' that is no file: 'missing.png'"),
        ({"image": None}, "holds neither a text nor a picture"),
        ({"text": None, "image": []}, "holds neither a text nor a picture"),
        ({"text": {"text": 3}}, "has a 'text' whose 'text' is no string"),
        ({"text": {}}, "holds neither a text nor a picture"),
        ({"text": {"image": "photos/red.png"}, "image": "photos/red.png"}, "beside a 'text' that is no string"),
        (
            {"image": "secret. " * 30},
            "has an 'image' of 240 characters that is no file; a picture in base64 is written as data:image/",
        ),
        (
            {"image": RAW},
            f"{len(RAW)} characters that is no file; a picture in base64 is written as data:image/png;base64,...",
        ),
        ({"image": "missing.png"}, "has an 'image' that is no file: 'missing.png'; paths are seen from this folder"),
        ({"image": "photos"}, "has an 'image' that is no file"),
        ({"image": "a\0b"}, "has an 'image' that is no file"),
        ({"image": "https://example.org/a.png"}, "is an address, which is not fetched"),
        ({"image": "data:text/html;base64,AAAA"}, "no address of a picture in base64"),
        ({"image": "data:image/png;base64,***"}, "no base64"),
        ({"image": "notes.md"}, "and this is none"),
        ({"text": 3, "image": "photos/red.png"}, "beside a 'text' that is no string"),
    ],
)
def test_a_picture_that_cannot_be_used_has_the_number_of_its_line(fake, here, line, message):
    given = lines({"text": "one"}, line, {"text": "secret"})
    done = run("embed", "--model", fake.vision, given=given, code=1)
    assert done.stderr.startswith("error: stdin:2: ")
    assert message in done.stderr
    assert RAW[:20] not in done.stderr
    assert "secret" not in done.stderr
    assert [row["index"] for row in parsed(done)] == [0]
    skipped = parsed(run("embed", "--model", fake.vision, "--on-error", "skip", given=given, code=1))
    assert ["error" in row for row in skipped] == [False, True, False]


def test_a_file_of_lines_is_checked_before_anything_is_computed(fake, here):
    (here / "lines.jsonl").write_bytes(lines({"text": "one"}, {"image": "missing.png"}))
    done = run("embed", "--model", fake.vision, "lines.jsonl", code=1)
    assert (done.stdout, fake.texts) == ("", [])


@pytest.mark.parametrize(
    ("command", "line", "able"),
    [
        (("embed", "--model", "embrief/hash"), {"image": "photos/red.png"}, "Qwen/Qwen3-VL-Embedding"),
        (("rerank", "--query", "x"), {"image": "photos/red.png"}, "Qwen/Qwen3-VL-Reranker"),
        (("rerank",), {"query": {"image": "photos/red.png"}, "document": "x"}, "Qwen/Qwen3-VL-Reranker"),
    ],
)
def test_a_model_of_texts_refuses_pictures_by_line_and_names_one_that_takes_them(fake, here, command, line, able):
    if command[0] == "rerank":
        command = (*command, "--model", fake.reranker)
    first = {"text": "one"} if command[0] == "embed" else {"query": "q", "document": "d"}
    done = run(*command, given=lines(first, line), code=1)
    assert done.stderr.startswith("error: stdin:2: ")
    assert "holds an image" in done.stderr
    assert able in done.stderr


def test_few_pictures_are_held_at_a_time(fake, here, monkeypatch):
    monkeypatch.setattr(piping, "BLOCK_BYTES", 64 * 1000)
    sheets = [lines({"image": address(picture((part / 10, 0, 0)))}) for part in range(10)]
    assert all(len(line) < 300 for line in sheets)
    run("embed", "--model", fake.vision, given=b"".join(sheets))
    assert max(fake.runs) == 10
    fake.runs.clear()
    monkeypatch.setattr(piping, "BLOCK_BYTES", 3 * len(sheets[0]))
    run("embed", "--model", fake.vision, given=b"".join(sheets))
    assert max(fake.runs) == 3


def test_a_folder_is_indexed_with_its_pictures_and_asked_with_one(fake, here):
    pytest.importorskip("chromadb")
    out = run("index", "--model", fake.vision, "--pages", "--max-pixels", "262144").output
    assert "Files       4 new" in out
    assert "Passages    5 embedded" in out
    data = json.loads(run("search", "--image", "photos/red.png", "--top-k", "1", "--json").stdout)
    assert (data["question"], data["image"]) == ("", str(here / "photos" / "red.png"))
    (hit,) = data["hits"]
    assert (hit["path"], hit["kind"], hit["page"], hit["start_line"]) == ("photos/red.png", "image", None, None)
    assert json.loads(run("search", "--json", "a sheet").stdout)["image"] is None
    shown = run("search", "--image", "photos/green.png", "something green").output.splitlines()
    assert fake.texts[-1].index("picture-") < fake.texts[-1].index("something green")
    assert sum(line.startswith(os.path.join("photos", "green.png  ")) for line in shown) == 1
    assert sum(line.startswith("report.pdf page 2  ") for line in shown) == 1
    assert any(line.startswith("report.pdf page ") and line.endswith("A report") for line in shown)
    # Only the text has lines.
    assert sum("What was seen." in line for line in shown) == 1
    assert len([line for line in shown if line]) == 5 + 3
    (here / "photos" / "green.png").write_bytes(picture((0, 0, 1)))
    assert "this is the old picture" in run("search", "x").output


def test_what_cannot_be_asked_with_a_picture_is_code_2(fake, here):
    pytest.importorskip("chromadb")
    run("index", "--model", "embrief/hash", "--include", "*.md")
    assert "takes texts only" in run("search", "--image", "photos/red.png", code=2).stderr
    assert "there is no question; ask in words, or with --image FILE" in run("search", code=2).stderr
    refused = run("index", "--model", "embrief/hash", "--pages", "--collection", "pages", code=1)
    assert "takes texts only" in refused.stderr
    assert "Qwen/Qwen3-VL-Embedding-2B" in refused.stderr
    run("index", "--model", fake.vision, "--collection", "album")
    for name, message in (("missing.png", "cannot be read"), ("notes.md", "and this is none")):
        told = run("search", "--collection", "album", "--image", name, code=2).stderr
        assert told.startswith(f"error: --image {here / name}: ")
        assert message in told


def test_a_picture_is_read_where_the_command_was_typed(fake, here, tmp_path, monkeypatch):
    pytest.importorskip("chromadb")
    shared_workspace().update([here], "album", model=fake.vision)
    monkeypatch.chdir(tmp_path)
    arguments = ("search", "--collection", "album", "--image", "red.png", "--json", "--top-k", "1")
    request = Request(arguments, io.StringIO(), io.StringIO(), 100, False, str(here / "photos"))
    assert run_command(request) == 0
    assert json.loads(request.out.getvalue())["hits"][0]["path"] == "photos/red.png"
    there = Terminal(io.StringIO(), io.StringIO(), 100, False, here)
    token = _given.set(there)
    try:
        app([*arguments[:4], "photos/red.png", *arguments[5:]], standalone_mode=False)
    finally:
        _given.reset(token)
    assert json.loads(there.out.getvalue())["image"] == str(here / "photos" / "red.png")


@pytest.mark.parametrize(
    ("words", "forwarded"),
    [
        (["--image", "photos/red.png"], True),
        (["--image=photos/red.png", "words"], True),
        (["words"], True),
        (["--image", "missing.png"], False),
        (["--image=photos"], False),
        (["--image", "/dev/stdin"], False),
        (["--", "--image", "missing.png"], True),
    ],
)
def test_only_what_is_a_file_for_every_process_is_asked_elsewhere(here, monkeypatch, words, forwarded):
    asked = []
    monkeypatch.setattr(client.places, "own_place", lambda: asked.append("place") or sys.exit(77))
    if forwarded:
        with pytest.raises(SystemExit):
            client.forward(["search", *words])
    else:
        assert client.forward(["search", *words]) is None
    assert bool(asked) == forwarded
