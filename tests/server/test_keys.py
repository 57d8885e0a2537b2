"""Who may ask: keys from the environment or a file."""

from __future__ import annotations

import os

import pytest

from embrief import ArgumentError
from embrief.server.keys import VARIABLE, FileKeys, FixedKeys, keys_of, named_keys

KEYS = FixedKeys({"team-a": "s3cret-a", "team-b": "s3cret-b"})
BODY = {"input": "red", "model": "hash"}


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer s3cret-a"},
        {"authorization": "bearer  s3cret-b"},
        {"authorization": "s3cret-a"},
        {"x-api-key": "s3cret-a"},
    ],
)
async def test_a_key_lets_in(serving, headers):
    async with serving(keys=KEYS, lazy=True) as client:
        assert (await client.post("/v1/embeddings", json=BODY, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"authorization": "Basic s3cret-a"},
        {"authorization": "Bearer s3cret-a s3cret-b"},
        {"authorization": "Bearer s3cret-A"},
        {"authorization": b"Bearer \xff"},
        {"x-api-key": ""},
    ],
)
async def test_without_one_nobody_gets_in(serving, headers):
    async with serving(keys=KEYS, lazy=True) as client:
        for got in (
            await client.post("/v1/embeddings", json=BODY, headers=headers),
            await client.get("/v1/models", headers=headers),
            await client.get("/metrics", headers=headers),
            await client.get("/openapi.json", headers=headers),
        ):
            assert got.status_code == 401
            assert got.headers["www-authenticate"] == "Bearer"
            assert "s3cret" not in got.text


async def test_health_needs_no_key(serving):
    async with serving(keys=KEYS, lazy=True) as client:
        assert (await client.get("/livez")).status_code == 200
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        # What is served, and why something is not ready, is for those who have a key.
        assert ready.json() == {"status": "ready"}
        assert "hash" in (await client.get("/readyz", headers={"x-api-key": "s3cret-a"})).json()["models"]
        assert (await client.post("/livez", json={})).status_code == 401


async def test_each_key_has_its_own_rate(serving):
    from embrief.server.settings import Limits

    async with serving(keys=KEYS, limits=Limits(requests_per_minute=1), lazy=True) as client:
        for key in ("s3cret-a", "s3cret-b"):
            headers = {"authorization": f"Bearer {key}"}
            assert (await client.post("/v1/embeddings", json=BODY, headers=headers)).status_code == 200
            assert (await client.post("/v1/embeddings", json=BODY, headers=headers)).status_code == 429


async def test_a_mounted_application_sees_who_asks(serving):
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    from embrief.server.app import Mounted

    async def page(scope, receive, send):
        await PlainTextResponse(Request(scope).state.caller.key)(scope, receive, send)

    async with serving(keys=KEYS, mounted=[Mounted("/page", page)], lazy=True) as client:
        assert (await client.get("/page/", headers={"x-api-key": "s3cret-b"})).text == "team-b"
        assert (await client.get("/page/")).status_code == 401


def test_a_file_is_read_again_when_it_changes(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("embrief.server.keys.time.monotonic", lambda: now[0])
    file = tmp_path / "keys"
    file.write_text("# of the teams\nteam-a:one\n\ntwo\n")
    keys = FileKeys(file)
    assert keys.caller("one").key == "team-a"
    assert keys.caller("two").key == "key-2"
    assert keys.caller("three") is None
    file.write_text("team-a:three\n")
    os.utime(file, ns=(1, 1))
    now[0] += 2
    assert keys.caller("one") is None
    assert keys.caller("three").key == "team-a"
    file.unlink()
    now[0] += 2
    assert keys.caller("three").key == "team-a"


def test_a_file_of_an_editor_that_marks_utf_8_has_its_first_key(tmp_path):
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbfteam-a:s3cret\n")
    found = FileKeys(file).caller("s3cret")
    assert found is not None
    assert found.key == "team-a"


@pytest.mark.parametrize("lines", ["a:s3cret\ncollections=docs\n", "a:s3cret\nb:collections=docs\n"])
def test_a_line_of_collections_alone_is_no_key(tmp_path, lines):
    file = tmp_path / "keys"
    file.write_text(lines)
    with pytest.raises(ArgumentError, match="collections=") as caught:
        FileKeys(file)
    assert "s3cret" not in str(caught.value)


def test_a_key_that_stands_twice_is_refused_since_it_could_read_more_than_meant(tmp_path):
    file = tmp_path / "keys"
    file.write_text("a:s3cret collections=docs\nb:s3cret\n")
    with pytest.raises(ArgumentError, match="'a' and 'b' have the same key") as caught:
        FileKeys(file)
    assert "s3cret" not in str(caught.value)


def test_a_file_that_cannot_be_read_any_more_is_told_once(tmp_path, monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr("embrief.server.keys.time.monotonic", lambda: now[0])
    file = tmp_path / "keys"
    file.write_text("team-a:s3cret\n")
    keys = FileKeys(file)
    file.write_text("# it was taken away\n")
    with caplog.at_level("WARNING"):
        for _ in range(3):
            now[0] += 2
            assert keys.caller("s3cret").key == "team-a"
    (record,) = [item for item in caplog.records if "keys" in item.getMessage()]
    assert "those that were there before hold" in record.getMessage()
    assert "s3cret" not in record.getMessage()


def test_a_key_that_no_header_can_carry_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="ASCII") as caught:
        named_keys(["team-a:schl\u00fcssel"], "here")
    assert "ssel" not in str(caught.value)


def test_keys_of_the_environment(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert keys_of(None) is None
    monkeypatch.setenv(VARIABLE, "one, team-b:two three")
    keys = keys_of(None)
    assert [keys.caller(key).key for key in ("one", "two", "three")] == ["key-1", "team-b", "key-3"]


@pytest.mark.parametrize("lines", [[], [""], ["name:"], [":key"], ["a:x", "a:y"]])
def test_keys_that_cannot_be_are_refused_without_being_shown(lines):
    with pytest.raises(ArgumentError) as caught:
        named_keys(lines, "here")
    assert not [word for word in ("x", "y", "key") if f"'{word}'" in str(caught.value)]


def test_nothing_shows_a_key():
    assert "s3cret" not in repr(KEYS) + repr(vars(KEYS))
    assert KEYS.caller("") is None
