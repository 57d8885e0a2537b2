"""What the page asks: who may read what, rankings, prompts token by token, and the map. Without a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `server` is not installed")
pytest.importorskip("chromadb", reason="the extra `chroma` is not installed")

import embrief
from embrief import Embedder, Reranker
from embrief.errors import ArgumentError
from embrief.indexing import table
from embrief.indexing.workspace import Workspace
from embrief.server.keys import ANYBODY, STRANGER, VARIABLE, FileKeys, keys_of
from embrief.server.page.app import HEADERS, page
from embrief.server.page.plane import on_plane
from embrief.server.page.rendering import show_pair, show_text
from embrief.server.page.shelf import Shelf, identity
from embrief.server.settings import Limits

TINY, RANK = "embrief/tiny-embedding", "embrief/tiny-reranker"
FILES = {
    "planets.md": "# Planets\n\nMars is called the red planet.\n",
    "oceans.md": "# Oceans\n\nThe Pacific is the deepest ocean.\n",
    "stars.md": "# Stars\n\nA red giant is a star late in its life.\n",
}
QUESTION = "Which planet is red?"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A user's data folder, and a project."""
    with pytest.MonkeyPatch.context() as patch:
        data = tmp_path_factory.mktemp("data")
        patch.setattr(table, "user_folder", lambda kind: data)
        project = tmp_path_factory.mktemp("project")
        for name, text in FILES.items():
            (project / name).write_text(text, "utf-8")
        yield data, project


@pytest.fixture(scope="module")
def workspace(places):
    """The collections `open` and `hidden`."""
    _, project = places
    with Workspace(idle_seconds=0.0) as found:
        found.update([project], "open", model=TINY)
        found.update([project / "planets.md"], "hidden", model="embrief/hash")
        yield found


@pytest.fixture
def looking(serving, workspace):
    """Serve the page: `async with looking(keys=...) as client`."""

    def make(collections=None, **settings):
        return serving(mounted=page(workspace, collections), lazy=True, **settings)

    return make


@pytest.fixture
def ids(workspace) -> dict[str, str]:
    return {info.name: identity(info) for info in workspace.collections()}


@pytest.fixture
def keys(tmp_path) -> FileKeys:
    file = tmp_path / "keys"
    file.write_text("all:s3cret-all\nsome:s3cret-some  collections=open, other\nnone:s3cret-none collections=\n")
    return FileKeys(file)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer s3cret-{key}"}


def test_the_command_says_where_the_page_is_and_what_it_shows(workspace, monkeypatch):
    from typer.testing import CliRunner

    from embrief.cli import app

    ran = []

    def run(models, settings, **_):
        ran.append((models.names, [item.says("http://127.0.0.1:1") for item in settings.mounted if item.says]))

    monkeypatch.setattr("embrief.server.run.serve", run)
    monkeypatch.setattr("embrief.indexing.workspace.shared_workspace", lambda: workspace)

    def serve(*arguments):
        return CliRunner().invoke(app, ["serve", *arguments])

    assert serve("--ui").exit_code == 0
    # Whoever only wants to look need not name a model.
    says = "the page is at http://127.0.0.1:1/ui/ and shows the collections"
    assert ran.pop() == ([TINY, RANK], [f"{says} hidden, open"])
    assert serve("--ui", "--collection", "open", "embrief/hash").exit_code == 0
    assert ran.pop() == (["embrief/hash"], [f"{says} open"])
    assert serve("embrief/hash").exit_code == 0
    assert ran.pop() == (["embrief/hash"], [])
    for arguments, told in (
        (["--ui", "--collection", "nothing"], "there is: hidden, open"),
        (["--collection", "open"], "--ui"),
    ):
        done = serve(*arguments, "embrief/hash")
        assert done.exit_code == 1
        assert told in " ".join(done.output.split())
    assert ran == []


async def test_the_page_needs_no_key_and_its_answers_do(looking, keys):
    async with looking(keys=keys) as client:
        assert (await client.get("/ui")).headers["location"] == "/ui/"
        for path, kind in (("", "text/html"), ("page.js", "text/javascript"), ("page.css", "text/css")):
            got = await client.get(f"/ui/{path}")
            assert got.status_code == 200
            assert got.headers["content-type"].startswith(kind)
            assert got.headers.items() >= HEADERS.items()
        for path in ("api/choices", "nothing.js", "../page/app.py", "%2e%2e/app.py"):
            assert (await client.get(f"/ui/{path}")).status_code == 401
        got = await client.get("/ui/api/choices", headers=bearer("all"))
        assert got.status_code == 200
        assert got.headers["cache-control"] == "no-store"
        for path in ("nothing.js", "app.py", "..%2fapp.py", "static/page.js"):
            assert (await client.get(f"/ui/{path}", headers=bearer("all"))).status_code == 404


async def test_a_key_reads_its_collections_alone(looking, keys, ids):
    async with looking(keys=keys) as client:

        async def names(key):
            got = await client.get("/ui/api/choices", headers=bearer(key))
            return [item["name"] for item in got.json()["collections"]]

        assert await names("all") == ["hidden", "open"]
        assert await names("some") == ["open"]
        assert await names("none") == []

        for path, more in (("search", {}), ("prompts", {"text": "red"})):
            body = {"question": QUESTION, **more}
            refused = [
                await client.post(f"/ui/api/{path}", json={**body, "collection": given}, headers=bearer("some"))
                for given in (ids["hidden"], "hidden", "0" * 16, "")
            ]
            assert {got.status_code for got in refused} == {404}
            assert len({got.content for got in refused}) == 1
            allowed = await client.post(
                f"/ui/api/{path}", json={**body, "collection": ids["open"]}, headers=bearer("some")
            )
            assert allowed.status_code == 200


async def test_what_does_not_keep_to_keys_is_closed_to_those_with_limits(serving, keys):
    from starlette.responses import PlainTextResponse

    from embrief.server.app import Mounted

    others = [Mounted("/one", PlainTextResponse("seen"), exact=True), Mounted("/all", PlainTextResponse("seen"))]
    async with serving(keys=keys, mounted=others, lazy=True) as client:
        for path in ("/one", "/all/of"):
            assert (await client.get(path, headers=bearer("all"))).text == "seen"
            got = await client.get(path, headers=bearer("some"))
            assert got.status_code == 403
            assert "some collections only" in got.json()["error"]["message"]


async def test_the_page_may_be_for_some_collections_only(looking, ids, workspace):
    async with looking(["open"]) as client:
        assert [item["name"] for item in (await client.get("/ui/api/choices")).json()["collections"]] == ["open"]
        got = await client.post("/ui/api/search", json={"question": "red", "collection": ids["hidden"]})
        assert got.status_code == 404
    with pytest.raises(ArgumentError, match="there is: hidden, open"):
        page(workspace, ["nothing"])


def test_what_keys_may_read_is_said_in_a_file_only(monkeypatch, keys):
    assert keys.caller("s3cret-some").collections == {"open", "other"}
    assert keys.caller("s3cret-all").collections is None
    assert keys.caller("s3cret-none").collections == frozenset()
    assert ANYBODY.may_read("open")
    assert not STRANGER.may_read("open")
    # The names of collections would be taken for keys.
    monkeypatch.setenv(VARIABLE, "some:key collections=open,other")
    with pytest.raises(ArgumentError, match="in a file"):
        keys_of(None)


async def test_both_rankings_are_those_of_the_models(looking, workspace, ids, places):
    async with looking() as client:
        got = await client.post(
            "/ui/api/search", json={"question": QUESTION, "collection": ids["open"], "reranker": "rank"}
        )
    found = got.json()
    (side,) = found["sides"]
    hits = workspace.search(QUESTION, "open")
    texts = [found["documents"][place["document"]] for place in side["nearest"]]
    assert [text["path"] for text in texts] == [hit.path for hit in hits]
    assert [place["score"] for place in side["nearest"]] == pytest.approx([hit.score for hit in hits], abs=1e-6)
    ranked = Reranker(RANK).rerank(QUESTION, [text["text"] for text in texts])
    assert [side["nearest"][item.index]["document"] for item in ranked] == [
        place["document"] for place in side["reranked"]
    ]
    assert [place["score"] for place in side["reranked"]] == pytest.approx([item.score for item in ranked], abs=1e-5)
    counts = Embedder(TINY).count_tokens([text["text"] for text in found["documents"]], role="document")
    assert [text["tokens"] for text in found["documents"]] == counts.tolist()
    assert np.shape(found["map"]["documents"]) == (3, 2)
    assert np.shape(found["map"]["questions"]) == (1, 2)
    # Where the files are is nobody's business.
    assert not [str(place) for place in places if str(place) in got.text]


async def test_an_empty_collection_finds_nothing(looking, workspace, tmp_path):
    (tmp_path / "a.md").write_text("red", "utf-8")
    workspace.update([tmp_path], "empty", model=TINY)
    (tmp_path / "a.md").unlink()
    workspace.update([tmp_path], "empty")
    info = workspace.choose("empty")
    body = {"question": "red", "collection": identity(info), "reranker": "rank", "instructions": [None, "b"]}
    async with looking() as client:
        found = (await client.post("/ui/api/search", json=body)).json()
    table._file(info.place, table.usual_folder()).unlink()
    assert found["documents"] == []
    assert [(side["nearest"], side["reranked"]) for side in found["sides"]] == [([], []), ([], [])]
    assert np.shape(found["map"]["questions"]) == (2, 2)


async def test_two_instructions_are_two_sides(looking):
    texts = ["Mars is called the red planet.", "A red giant is a star late in its life.", "The Pacific is an ocean."]
    instructions = [None, "Find a text about water"]
    body = {"question": "red", "texts": texts, "instructions": instructions, "reranker": "rank"}
    async with looking() as client:
        found = (await client.post("/ui/api/search", json={**body, "model": "tiny"})).json()
        other = (await client.post("/ui/api/search", json={**body, "model": "hash"})).json()
    embedder = Embedder(TINY)
    documents = embedder.embed_documents(texts)
    for side, instruction in zip(found["sides"], instructions, strict=True):
        scores = documents @ embedder.embed_query("red", instruction=instruction)
        assert [place["document"] for place in side["nearest"]] == np.argsort(-scores).tolist()
        assert sorted(place["score"] for place in side["nearest"]) == pytest.approx(sorted(scores), abs=1e-5)
        judged = Reranker(RANK).score("red", texts, instruction=instruction)
        assert sorted(place["score"] for place in side["reranked"]) == pytest.approx(sorted(judged), abs=1e-5)
    assert found["model"]["instructed"]
    # A model without a place for an instruction answers as it does without one.
    assert not other["model"]["instructed"]
    assert other["sides"][0]["nearest"] == other["sides"][1]["nearest"]
    assert len(other["map"]["questions"]) == 2


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"question": "  ", "texts": ["a"]}, 400, "question is empty"),
        ({"question": "a"}, 400, "nothing to look in"),
        ({"question": "a", "texts": []}, 400, "paste one"),
        ({"question": "a", "texts": ["a", " "]}, 400, "index 1"),
        ({"question": "a", "texts": ["a"], "collection": "b"}, 400, "two sources"),
        ({"question": "a", "texts": ["a"], "instructions": ["a", "b", "c"]}, 400, "at most 2"),
        ({"question": "a", "texts": ["a"], "count": 51}, 400, "50"),
        ({"question": "a" * 20_001, "texts": ["a"]}, 400, "20000"),
        ({"question": "a", "texts": ["a"], "model": "./folder"}, 404, "no model"),
        ({"question": "a", "texts": ["a"], "reranker": "owner/name"}, 404, "no model"),
        ({"question": "a", "texts": ["a"] * 4}, 413, "max_items"),
        ({"question": "a", "texts": ["word " * 100]}, 413, "max_request_tokens"),
        ({"question": "a", "texts": ["a"] * 3, "reranker": "rank"}, 413, "max_rerank_documents"),
    ],
)
async def test_what_cannot_be_asked_is_refused_in_a_sentence(looking, body, status, told):
    limits = Limits(max_items=3, max_request_tokens=60, max_rerank_documents=2)
    async with looking(limits=limits) as client:
        got = await client.post("/ui/api/search", json=body)
    assert got.status_code == status
    assert told in got.json()["error"]["message"]


async def test_the_guards_stand_around_the_page(looking):
    async with looking() as client:
        assert (await client.get("/ui/", headers={"host": "evil.example"})).status_code == 421
        body = '{"question": "a", "texts": ["a"]}'
        got = await client.post("/ui/api/search", content=body, headers={"content-type": "text/plain"})
        assert got.status_code == 415
        headers = {"origin": "https://evil.example", "content-type": "application/json"}
        assert (await client.post("/ui/api/search", content=body, headers=headers)).status_code == 403
        # Its requests end with the deadline and are counted, each for itself.
        await client.post("/ui/api/search", content=body, headers={"content-type": "application/json"})
        assert "/ui/api/search" in (await client.get("/metrics")).text


async def test_a_collection_that_another_process_has_open(looking, ids, workspace, monkeypatch):
    from embrief.errors import StoreInUseError

    def taken(self, info):
        raise StoreInUseError(f"{info.to} is open elsewhere")

    monkeypatch.setattr(Workspace, "opened", taken)
    async with looking() as client:
        got = await client.post("/ui/api/search", json={"question": "a", "collection": ids["open"]})
    assert got.status_code == 503
    assert "retry-after" in got.headers
    assert got.json()["error"]["message"] == (
        "another process has the collection 'open' open; ask again when it has ended"
    )


async def test_prompts_are_shown_as_the_models_read_them(looking, ids):
    text = "Mars <|im_end|> is red 世界 😀"
    body = {"question": QUESTION, "text": text, "instruction": "Find planets", "reranker": "rank"}
    async with looking() as client:
        got = (await client.post("/ui/api/prompts", json={**body, "collection": ids["open"]})).json()
        long = await client.post("/ui/api/prompts", json={**body, "text": "a" * 50_001})
    assert long.status_code == 400
    embedder, reranker = Embedder(TINY), Reranker(RANK)
    whole = {
        "question": embedder.render(QUESTION, role="query", instruction="Find planets"),
        "document": embedder.render(text, role="document"),
        "pair": reranker.render(QUESTION, text, instruction="Find planets").text,
    }
    for name, shown in got.items():
        pieces = shown["pieces"]
        assert "".join(piece["text"] for piece in pieces if piece["part"] != "added") == whole[name]
        assert sum(piece["tokens"] for piece in pieces) == shown["tokens"]
        own = QUESTION if name == "question" else text
        assert "".join(piece["text"] for piece in pieces if piece["part"] == "text") == own
        assert not shown["truncated"]
    markers = [piece for piece in got["pair"]["pieces"] if piece["special"]]
    assert {"<|im_start|>", "<|im_end|>"} <= {piece["text"] for piece in markers}
    assert got["question"]["pieces"][-1] == {
        "text": "<|endoftext|>",
        "part": "added",
        "tokens": 1,
        "special": True,
        "cut": False,
    }


def test_what_is_cut_off_is_marked():
    text = "Mars is red. " * 50
    for shown in (
        show_text(Embedder(TINY, max_tokens=40), text, role="document"),
        show_pair(Reranker(RANK, max_tokens=120), "red", text),
    ):
        cut = sum(piece.tokens for piece in shown.pieces if piece.cut)
        assert cut == shown.tokens - shown.limit > 0
        read = [piece for piece in shown.pieces if not piece.cut]
        assert sum(piece.tokens for piece in read) == shown.limit
        # The end of the text goes, and what stands behind it stays.
        assert "".join(piece.text for piece in read if piece.part == "text") == text[: len(text) - _cut(shown)]
        assert shown.pieces[-1].part != "text"
        assert not shown.pieces[-1].cut


def _cut(shown) -> int:
    return sum(len(piece.text) for piece in shown.pieces if piece.cut)


def test_a_runtime_that_does_not_tell_its_tokens():
    shown = show_text(Embedder("embrief/hash"), "red planet", role="query")
    assert [(piece.text, piece.part, piece.tokens) for piece in shown.pieces] == [("red planet", "text", None)]
    assert shown.tokens == 2


@pytest.mark.parametrize("store", ["chroma", "qdrant"])
def test_vectors_come_back_as_they_were_stored(workspace, places, store):
    pytest.importorskip({"chroma": "chromadb", "qdrant": "qdrant_client"}[store])
    name = f"vectors-{store}"
    workspace.update([places[1]], name, model="embrief/hash", store=store)
    info = workspace.choose(name)
    hits = workspace.search("red", name)
    with Shelf(workspace).opened(info) as opened:
        found = opened.vectors([hit.id for hit in hits] + ["00000000-0000-0000-0000-000000000000"])
    assert set(found) == {hit.id for hit in hits}
    wanted = Embedder("embrief/hash").embed_documents([hit.text for hit in hits])
    np.testing.assert_allclose([found[hit.id] for hit in hits], wanted, atol=1e-6)
    table._file(info.place, table.usual_folder()).unlink()


def test_the_plane_shows_what_differs_most():
    rows = np.zeros((4, 8), np.float32)
    rows[:, 3] = [3, -3, 0, 0]
    rows[:, 5] = [0, 0, 1, -1]
    found = on_plane(rows)
    np.testing.assert_allclose(np.abs(found.points), [[3, 0], [3, 0], [0, 1], [0, 1]], atol=1e-6)
    assert found.explained == pytest.approx((0.9, 0.1))


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((0, 4)),
        np.ones((1, 4)),
        np.ones((5, 4)),
        np.zeros((3, 4)),
        np.full((3, 4), np.nan),
        np.float32([[1, 1 + 2e-7], [1 + 2e-7, 1]]),
        np.float32([[1, 0], [np.inf, 0]]),
    ],
    ids=["none", "one", "equal", "zero", "nan", "rounding", "one finite"],
)
def test_what_does_not_differ_is_one_point(rows):
    found = on_plane(rows)
    assert found.points.tolist() == [[0.0, 0.0]] * len(rows)
    assert found.explained == (0.0, 0.0)


@pytest.mark.parametrize("rows", [np.eye(2, 4), np.eye(2, 1), np.float32([[1, 0], [np.nan, 1], [0, 1]])])
def test_two_points_are_on_a_line(rows):
    found = on_plane(rows)
    assert np.isfinite(found.points).all()
    assert found.points[:, 1].tolist() == [0.0] * len(rows)
    assert found.explained == pytest.approx((1.0, 0.0))


async def test_a_model_that_is_gone_does_not_say_where_it_was(serving, places, tmp_path):
    folder = tmp_path / "models" / "own"
    shutil.copytree(Path(embrief.__file__).parent / "facts" / "records" / "tiny_embedding", folder)
    with Workspace(idle_seconds=0.0, data=tmp_path / "data") as found:
        found.update([places[1]], "gone", model=str(folder))
    shutil.rmtree(folder)
    with Workspace(idle_seconds=0.0, data=tmp_path / "data") as later:
        (info,) = later.collections()
        async with serving(mounted=page(later), lazy=True) as client:
            for path, more in (("search", {}), ("prompts", {"text": "a"})):
                asking = {"question": QUESTION, "collection": identity(info), **more}
                got = await client.post(f"/ui/api/{path}", json=asking)
                assert got.status_code == 503, got.text
                assert str(tmp_path) not in got.text
                assert int(got.headers["retry-after"]) > 0
