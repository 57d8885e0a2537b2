"""Make the pictures of README and documentation: the page in both colours, a search in a terminal, found pictures.

    python .ci/make_pictures.py [--out docs]

Indexes this project's documentation with the tiny models in a temporary folder, asks it, and writes page-light.png,
page-dark.png and search.svg; and images.svg. Needs a Chromium for the page; see tests/browser.
"""

from __future__ import annotations

import argparse
import html
import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))
os.environ["EMBRIEF_CONFIG"] = ""

import chromium  # noqa: E402 - of the tests

from embrief.indexing import table  # noqa: E402
from embrief.indexing.workspace import shared_workspace  # noqa: E402

NAME = "embrief-docs"
QUESTION = "Does a fallback change the vector space?"
OTHER = "Find tables with measured numbers"
MOST = 250_000
"""Bytes of a picture."""
SEEN = "!document.body.matches('.busy') && document.querySelector('#prompt .piece')"
COLUMNS = 96


def index() -> None:
    done = shared_workspace().update([ROOT / "docs"], NAME, model="embrief/tiny-embedding", include=["*.md"])
    print(f"indexed {done.files} files: {done.passages} passages")


@contextmanager
def serving() -> Iterator[str]:
    import uvicorn

    from embrief.server.app import create_app
    from embrief.server.models import served_models
    from embrief.server.page.app import page
    from embrief.server.run import listen

    models = served_models(["embrief/tiny-embedding"], ["embrief/tiny-reranker"])
    listening = listen("127.0.0.1", 0)
    app = create_app(models, mounted=page(shared_workspace()), lazy=True)
    runner = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none"))
    thread = threading.Thread(target=runner.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/ui/"
    finally:
        runner.should_exit = True
        thread.join(30)
        listening.close()


def pages(out: Path, browser: chromium.Browser, url: str) -> None:
    tab = browser.tab()
    tab.look()
    tab.goto(url)
    tab.until("document.querySelector('#source').options.length > 0")
    tab.type(QUESTION)
    # Once more: the first time is that of loading the models.
    for _ in range(2):
        tab.press("Enter")
        tab.until("!document.body.matches('.busy')")
        tab.until(SEEN)
    tab.press("ArrowDown", "ArrowDown")
    tab.until(SEEN)
    tab.eval("document.querySelector('#tab-pair').click()")
    save(out / "page-light.png", tab.picture())
    tab.look(dark=True)
    tab.eval("document.querySelector('#compare').click()")
    tab.type(OTHER)
    tab.press("Enter")
    tab.until("document.querySelector('#views button')")
    tab.until(SEEN)
    tab.press("ArrowDown")
    tab.eval("document.querySelector('#question').focus()")
    tab.press("ArrowDown")
    tab.eval("document.querySelector('#tab-question').click()")
    tab.until("document.querySelectorAll('#prompt .shown').length === 2")
    save(out / "page-dark.png", tab.picture())
    if tab.complaints:
        raise SystemExit(f"the page complains: {tab.complaints}")


def save(file: Path, png: bytes) -> None:
    """Write a picture with as many colours as are needed: a third of the bytes, and nobody sees it."""
    from PIL import Image

    made = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    data = made.getvalue()
    if len(data) > MOST:
        raise SystemExit(f"{file.name} would have {len(data)} bytes, more than {MOST}")
    file.write_bytes(data)
    print(f"{file}: {len(data) // 1024} KiB")


def search(out: Path) -> None:
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    from embrief.cli.running import run_command
    from embrief.local.request import Request

    words = ("search", QUESTION, "--rerank", "--top-k", "3")
    shown, failed = io.StringIO(), io.StringIO()
    code = run_command(Request(words, shown, failed, COLUMNS, True, str(ROOT)))
    if code or failed.getvalue():
        raise SystemExit(f"the search ended with {code}: {failed.getvalue()}")
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), legacy_windows=False)
    console.print(Text.assemble(("$ ", "green"), f'embrief search "{QUESTION}" --rerank --top-k 3'))
    for line in shown.getvalue().splitlines():
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg = console.export_svg(title="embrief search", theme=MONOKAI, unique_id="search")
    # A font of somebody else's server; every machine has one that will do.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "ui-monospace, SF Mono, Menlo, Consolas, DejaVu Sans Mono, monospace")
    assert not re.search(r'url\("?http|href="http', svg), "it loads something"
    file = out / "search.svg"
    file.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", "utf-8", newline="\n")
    print(f"{file}: {file.stat().st_size // 1024} KiB")


def found(out: Path) -> None:
    """Draw what the tiny model finds among the pictures of the demo, and what it names them."""
    import base64

    import numpy as np

    from embrief import Embedder, Image
    from embrief.cli.demo_images import ASKED, QUESTIONS, pictures
    from embrief.facts.records import TINY_VL_EMBEDDING

    embedder, shown = Embedder(TINY_VL_EMBEDDING), pictures()
    vectors = embedder.embed_documents([picture.image for picture in shown])
    parts: list[str] = []

    def draw(image: Image, x: int, y: int, side: int) -> None:
        data = base64.b64encode(image.to_png()).decode()
        parts.append(f'<image x="{x}" y="{y}" width="{side}" height="{side}" href="data:image/png;base64,{data}"/>')

    def write(text: str, x: int, y: int, kind: str) -> None:
        parts.append(f'<text x="{x}" y="{y}" class="{kind}">{html.escape(text)}</text>')

    for row, question in enumerate(QUESTIONS):
        y = 10 + 84 * row
        write(question, 12, y + 38, "asked")
        for column, place in enumerate(np.argsort(-(vectors @ embedder.embed_query(question)))[:6]):
            draw(shown[place].image, 200 + 84 * column, y, 56)
            write(f"{shown[place].name[:14]}{'' if shown[place].learnt else ' *'}", 228 + 84 * column, y + 70, "name")
    names = [picture.name for picture in shown]
    words = embedder.embed_documents(names)
    for row, asked in enumerate(ASKED):
        y = 20 + 84 * len(QUESTIONS) + 66 * row
        picture = next(picture for picture in shown if picture.name == asked)
        draw(picture.image, 120, y, 56)
        best = np.argsort(-(words @ embedder.embed_query(picture.image)))[:4]
        write(", ".join(names[place] for place in best), 200, y + 34, "answer")
    height = 20 + 84 * len(QUESTIONS) + 66 * len(ASKED)
    style = (
        "text{font-family:system-ui,sans-serif;fill:#222}.asked{font-size:15px;font-weight:600}"
        ".name{font-size:10px;text-anchor:middle}.answer{font-size:14px}"
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" width="720" height="{height}">'
        f'<style>{style}</style><rect width="720" height="{height}" fill="#fff"/>{"".join(parts)}</svg>'
    )
    file = out / "images.svg"
    file.write_text(svg + "\n", "utf-8", newline="\n")
    print(f"{file}: {file.stat().st_size // 1024} KiB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="where they are written")
    out = parser.parse_args().out
    found(out)
    path = chromium.find()
    if path is None:
        print(f"there is no Chromium here; install one, or name it in {chromium.VARIABLE}")
        return 1
    with tempfile.TemporaryDirectory() as name:
        table.user_folder = lambda kind: Path(name)
        index()
        search(out)
        with serving() as url, chromium.Browser(path) as browser:
            pages(out, browser, url)
        shared_workspace().close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
