"""One browser for all tests of the page, and servers for it to look at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
pytest.importorskip("chromadb", reason="the extra `chroma` is not installed")
pytest.importorskip("websockets", reason="websockets, which speaks to the browser, is not installed")

from embrief import Embedder, Reranker
from embrief.indexing import table
from embrief.indexing.workspace import Workspace
from embrief.server.app import create_app
from embrief.server.models import ServedModels
from embrief.server.page.app import page

from .chromium import VARIABLE, Browser, Tab, find

EVIL = "<img src=x onerror=alert(1)>"
FILES = {
    "planets.md": "# Planets\n\nMars is called the red planet.\n",
    "oceans.md": "# Oceans\n\nThe Pacific is the deepest ocean.\n",
    "stars.md": "# Stars\n\nA red giant is a star late in its life.\n",
    "long.md": f"# Long\n\n{'red' * 200} https://example.org/{'a/' * 100}\n",
    "rtl.md": "# كواكب\n\nيُعرف المريخ باسم الكوكب الأحمر، 火星は赤い惑星と呼ばれる。\n",
    "evil.md": f"# {EVIL}\n\n{EVIL} <script>alert(2)</script> red <svg onload=alert(3)> &lt;b&gt; planet\n",
}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find()
    if path is None:
        pytest.skip(f"there is no Chromium on this machine; install one, or name it in {VARIABLE}")
    with Browser(path) as found:
        yield found


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A tab of its own; the page never says anything on the console, and never opens a dialog of the browser's."""
    found = browser.tab()
    found.look()
    yield found
    assert found.complaints == []
    assert found.dialogs == []
    found.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The collection `things`, with a file whose name is markup where file systems take it."""
    data, project = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (project / name).write_text(text, "utf-8")
    try:
        (project / f"{EVIL}.md").write_text(FILES["evil.md"].replace("red", "blue"), "utf-8")
    except OSError:
        # Windows takes no such names; the text is markup all the same.
        pass
    with pytest.MonkeyPatch.context() as patch, Workspace(idle_seconds=0.0) as found:
        patch.setattr(table, "user_folder", lambda kind: data)
        found.update([project], "things", model="embrief/tiny-embedding")
        yield found


@pytest.fixture(scope="module")
def models() -> ServedModels:
    embedders = {"tiny": Embedder("embrief/tiny-embedding"), "hash": Embedder("embrief/hash", dim=64)}
    return ServedModels(embedders, {"rank": Reranker("embrief/tiny-reranker")})


@pytest.fixture(scope="module")
def serve(workspace: Workspace, models: ServedModels) -> Callable[..., object]:
    """Serve the page: `with serve(keys=...) as url`."""

    @contextmanager
    def running(**settings: object) -> Iterator[str]:
        import uvicorn

        from embrief.server.run import listen

        app = create_app(models, mounted=page(workspace), lazy=True, **settings)
        listening = listen("127.0.0.1", 0)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none")
        runner = uvicorn.Server(config)
        thread = threading.Thread(target=runner.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/ui/"
        finally:
            runner.should_exit = True
            thread.join(30)
            listening.close()

    return running


@pytest.fixture(scope="module")
def url(serve: Callable[..., object]) -> Iterator[str]:
    """The page, for everybody."""
    with serve() as found:
        yield found


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("all:s3cret\nnone:nothing collections=\n")
    return file
