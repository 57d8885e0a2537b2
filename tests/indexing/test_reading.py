"""What files say: encodings, titles, lines, pages, and what cannot be read."""

from __future__ import annotations

import io
import json
import logging
import pickle
from pathlib import Path

import pytest

from embrief.errors import EmbriefError, UnreadableFileError
from embrief.indexing import kinds, pdf_files
from embrief.indexing.documents import Document, SourceFile
from embrief.indexing.reading import read

PAGE = """<!doctype html>
<html><head><title>The &amp; thing</title>
<script>var hidden = 1;</script></head>
<body><nav><a href="/">Home</a> <a href="/i">Install the thing</a></nav>
<main>
<h1>Install the thing</h1>
<p>Install it with the usual command. It takes
a while &mdash; really, since there are
many packages that have to be fetched.</p>
<pre><code>pip install thing
thing --help
</code></pre>
<table><tr><th>Name</th><th>Value</th></tr>
<tr><td>limit</td><td>512</td></tr></table>
<ul><li>One point about the thing</li>
<li>Another point about it</li></ul>
</main>
<footer>Copyright</footer></body></html>
"""


def said(tmp_path: Path, name: str, data: bytes | str) -> Document:
    path = tmp_path / Path(name).name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read(SourceFile(path, name, path.stat().st_size))


def refused(tmp_path: Path, name: str, data: bytes | str) -> UnreadableFileError:
    with pytest.raises(UnreadableFileError) as caught:
        said(tmp_path, name, data)
    assert name in str(caught.value)
    return caught.value


TEXT = "Schöne Grüße – „aus“ Köln\r\nund\rmehr\n\x0c漢字\u2028x"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_the_whole_file_as_it_is(tmp_path, encoding):
    assert said(tmp_path, "a.txt", TEXT.encode(encoding)) == Document(TEXT, "text")


def test_both_orders_of_utf16(tmp_path):
    for order, mark in (("le", b"\xff\xfe"), ("be", b"\xfe\xff")):
        assert said(tmp_path, "a.txt", mark + "Grüße".encode(f"utf-16-{order}")).text == "Grüße"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_a_latin_alphabet_is_told_from_other_bytes(tmp_path, encoding):
    text = "Schöne Grüße aus Köln\n" if encoding == "latin-1" else "Schöne „Grüße“ – aus Köln\n"
    assert said(tmp_path, "a.md", text.encode(encoding)).text == text


@pytest.mark.parametrize(
    "data",
    [
        "Привет, мир".encode("koi8-r"),
        "これは日本語の文章です".encode("shift-jis"),
        b"Gr\xfc\xdfe\x01 aus K\xf6ln",
        b"zero\0byte",
        "zero\0".encode("utf-16"),
        b"\xff\xfea",
        b"caf\x8d and so on",
    ],
)
def test_what_is_in_no_encoding_that_can_be_told_is_refused(tmp_path, data):
    error = refused(tmp_path, "docs/a.txt", data)
    assert error.reason == "not text"
    assert isinstance(error, OSError)
    assert error.__cause__ is None  # it would hold the text


def test_the_error_can_be_pickled_as_every_one_of_this_library(tmp_path):
    error = pickle.loads(pickle.dumps(refused(tmp_path, "a.txt", b"\0")))
    assert (type(error), error.reason, isinstance(error, EmbriefError)) == (UnreadableFileError, "not text", True)


@pytest.mark.parametrize(
    ("name", "text", "kind", "language", "title"),
    [
        ("src/a.py", "x = 1", "code", "python", "a.py"),
        ("a.TSX", "x", "code", "tsx", "a.TSX"),
        ("a.mts", "x", "code", "typescript", "a.mts"),
        ("a.h", "x", "code", "cpp", "a.h"),
        ("a.kt", "x", "code", "", "a.kt"),
        ("Rakefile", "x", "code", "ruby", "Rakefile"),
        ("run", "#!/usr/bin/env -S python3.12 -u\nx", "code", "python", "run"),
        ("run", "#!/bin/sh\nx", "code", "bash", "run"),
        ("run", "#!/opt/strange\nx", "text", "", None),
        ("Makefile", "x:", "text", "", None),
        ("a.yaml", "x: 1", "text", "", None),
        (
            "a.md",
            "Intro\n\n```\n# no\n```\n\n## The *thing* [here](x) {#id}\n\n# Other",
            "markdown",
            "",
            "The *thing* here",
        ),
        ("a.md", "\ufeffThe title\n=====\n", "markdown", "", "The title"),
        ("a.md", "---\ntitle: 'From above'\n---\n\nText\n", "markdown", "", "From above"),
        ("a.md", "---\ntitle: From above\n---\n# Heading\n", "markdown", "", "Heading"),
        ("a.md", "- a\n---\n", "markdown", "", None),
    ],
)
def test_kind_language_and_title(tmp_path, name, text, kind, language, title):
    found = said(tmp_path, name, text)
    assert (found.kind, found.language, found.title) == (kind, language, title)


def test_a_page_is_its_main_text_with_the_lines_of_the_file(tmp_path):
    found = said(tmp_path, "docs/a.html", PAGE)
    assert (found.kind, found.title) == ("html", "The & thing")
    lines = dict(zip(found.text.split("\n"), found.lines, strict=True))
    for hidden in ("Copyright", "hidden", "Home", "<"):
        assert hidden not in found.text
    assert lines["Install the thing"] == 6  # not the menu's in line 4
    assert next(line for text, line in lines.items() if text.startswith("Install it with")) == 7
    assert lines["pip install thing"] == 10
    assert lines["thing --help"] == 11
    assert next(line for text, line in lines.items() if "512" in text) == 14
    assert next(line for text, line in lines.items() if "One point" in text) == 15
    assert next(line for text, line in lines.items() if "Another" in text) == 16
    assert list(found.lines) == sorted(found.lines)


def test_a_page_without_a_main_text_is_all_that_is_visible(tmp_path):
    page = "<nav>One</nav>\r\n<script>no</script><style>no</style>\r\n<nav\nid=x>Two\n<b>words</b><br>three</nav>"
    found = said(tmp_path, "a.htm", page)
    assert (found.text, found.lines, found.title) == ("One\nTwo words\nthree", (1, 4, 5), None)


def test_a_page_says_which_encoding_it_is_in(tmp_path):
    for head in ('<meta charset="koi8-r">', '<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">'):
        assert "Привет, мир" in said(tmp_path, "a.html", f"{head}<p>Привет, мир</p>".encode("koi8-r")).text
    for name in ("hex", "nonsense", "rot13"):
        page = f'<meta charset="{name}"><p>{"Привет" * 50}</p>'.encode("koi8-r")
        assert refused(tmp_path, "a.html", page).reason == "not text"


def test_a_page_without_text_is_refused(tmp_path):
    assert refused(tmp_path, "a.html", "<html><script>let a</script></html>").reason == "no text"


def test_reading_a_page_opens_no_connection_and_prints_nothing(tmp_path, monkeypatch, capfd):
    import socket

    def no(*arguments: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", no)
    monkeypatch.setattr(socket, "getaddrinfo", no)
    linked = PAGE.replace(
        "<main>", '<link rel="canonical" href="http://example.com/x"><img src="http://example.com/y"><main>'
    )
    said(tmp_path, "a.html", linked)
    said(tmp_path, "b.html", "<p>x")
    assert capfd.readouterr() == ("", "")


def notebook(*cells: dict[str, object]) -> str:
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def test_a_notebook_is_its_cells_with_the_lines_of_the_file(tmp_path):
    printed = {"output_type": "stream", "name": "stdout", "text": ["import numpy\n", "secret\n"]}
    text = notebook(
        {"cell_type": "markdown", "metadata": {}, "source": ["# A “title”\n", "\n", "Words."]},
        {"cell_type": "code", "metadata": {}, "outputs": [printed], "source": ["import numpy\n", "x = 1\n", "x = 1"]},
        {"cell_type": "raw", "metadata": {}, "source": ""},
        {"cell_type": "markdown", "metadata": {}, "source": "In one text\nof two lines"},
    )
    found = said(tmp_path, "a.ipynb", text)
    assert (found.kind, found.title) == ("markdown", "A “title”")
    assert found.text == (
        "# A “title”\n\nWords.\n\n```python\nimport numpy\nx = 1\nx = 1\n```\n\nIn one text\nof two lines\n"
    )
    rows = text.split("\n")
    for row, number in zip(found.text.split("\n"), found.lines, strict=False):
        if row and "`" not in row:
            assert json.dumps(row)[1:-1] in rows[number - 1]
    assert found.lines[5] > rows.index(next(row for row in rows if "secret" in row))
    assert found.lines[7] == found.lines[6] + 1
    assert list(found.lines) == sorted(found.lines)


@pytest.mark.parametrize("text", ["{", "[]", '{"cells": 1}', '{"cells": [1]}', "[" * 100_000, '{"worksheets": []}'])
def test_a_damaged_notebook_is_refused(tmp_path, text):
    error = refused(tmp_path, "a.ipynb", text)
    assert (error.reason, error.__cause__) == ("damaged", None)


def test_a_notebook_without_text_is_refused(tmp_path):
    assert refused(tmp_path, "a.ipynb", notebook({"cell_type": "code", "source": ["\n"]})).reason == "no text"


def pdf(*pages: str, title: str | None = None) -> bytes:
    """A PDF file with lines of text on each page, written by hand."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for page in pages:
        shown = "".join(f"({line}) Tj T* " for line in page.split("\n"))
        stream = f"BT /F1 12 Tf 14 TL 50 700 Td {shown}ET" if page else ""
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        kids.append(f"{len(objects) + 1} 0 R")
        resources = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 600 800]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {resources} /Contents {len(objects)} 0 R >>")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    objects.append(f"<< /Title ({title}) >>" if title else "<< >>")
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>"
    end = f"trailer\n{trailer}\nstartxref\n{len(data)}\n%%EOF"
    return data + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()


def encrypted(data: bytes, password: str) -> bytes:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_a_pdf_is_the_text_of_its_pages(tmp_path):
    found = said(tmp_path, "a.pdf", pdf("First page\nits second line", "", "Third page", title="The manual"))
    assert (found.kind, found.title) == ("pdf", "The manual")
    assert found.text == "First page\nits second line\n\nThird page\n"
    assert [found.text[at:].split("\n")[0] for at in found.pages] == ["First page", "", "Third page"]


def test_the_name_of_a_source_file_is_no_title(tmp_path):
    for title in ("Microsoft Word - x", "paper.dvi", "Untitled document"):
        assert said(tmp_path, "a.pdf", pdf("x", title=title)).title is None


def test_a_pdf_with_a_password_is_refused_and_one_that_only_forbids_is_read(tmp_path):
    assert refused(tmp_path, "a.pdf", encrypted(pdf("Secret words"), "password")).reason == "encrypted"
    assert said(tmp_path, "a.pdf", encrypted(pdf("Open words"), "")).text == "Open words\n"


@pytest.mark.parametrize(
    "data", [b"", b"%PDF-1.4\n", b"<html>no such page</html>", pdf("x")[:200], b"%PDF-1.4" + b"[" * 50_000]
)
def test_a_damaged_pdf_is_refused(tmp_path, data):
    assert refused(tmp_path, "docs/a.pdf", data).reason == "damaged"


def test_a_pdf_of_pictures_is_refused(tmp_path):
    assert refused(tmp_path, "a.pdf", pdf("", "")).reason == "no text"


def test_a_pdf_is_read_within_limits(tmp_path, monkeypatch):
    data = pdf("one", "two", "x" * 500)
    for name, limit in (("PAGE_LIMIT", 2), ("TEXT_LIMIT", 400), ("CONTENT_LIMIT", 400), ("SECONDS", -1.0)):
        with monkeypatch.context() as patch:
            patch.setattr(pdf_files, name, limit)
            assert refused(tmp_path, "a.pdf", data).reason == "too large"
    assert said(tmp_path, "a.pdf", data).text.startswith("one\ntwo\n")


def test_a_pdf_that_pypdf_complains_about_prints_nothing(tmp_path, capfd, monkeypatch):
    # As in a program that has set up no log, whose warnings go to stderr.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger("pypdf"), "handlers", [])
    said(tmp_path, "a.pdf", pdf("words").replace(b"startxref\n", b"startxref\n9"))
    assert capfd.readouterr() == ("", "")


def test_no_more_is_read_than_the_limit_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(kinds, "TEXT_LIMIT", 10)
    path = tmp_path / "a.txt"
    path.write_text("x" * 11)
    with pytest.raises(UnreadableFileError, match="limit") as caught:
        read(SourceFile(path, "a.txt", 5))  # it has grown
    assert caught.value.reason == "too large"


def test_a_file_that_is_gone_or_closed_is_told(tmp_path, monkeypatch):
    with pytest.raises(UnreadableFileError, match=r"'a.txt' cannot be read: it is no longer there") as caught:
        read(SourceFile(tmp_path / "a.txt", "a.txt", 5))
    assert caught.value.reason == "gone"
    (tmp_path / "b").mkdir()
    with pytest.raises(UnreadableFileError) as caught:
        read(SourceFile(tmp_path / "b", "b.txt", 5))
    assert caught.value.reason == "unreadable"
