"""What a web page that somebody looks at cannot do to a server on their machine."""

from __future__ import annotations

import json

import pytest
from starlette.responses import PlainTextResponse

from embrief import Embedder
from embrief.server.app import Mounted, create_app
from embrief.server.guard import Hosts
from embrief.server.models import ServedModels

BODY = json.dumps({"input": "red", "model": "hash"})
JSON = {"content-type": "application/json"}


async def asked(client, **headers):
    return await client.post("/v1/embeddings", content=BODY, headers={**JSON, **headers})


@pytest.mark.parametrize("host", ["127.0.0.1:8642", "localhost:8642", "LOCALHOST", "[::1]:8642", "127.0.0.9", "[::1]"])
async def test_the_names_of_this_machine_are_answered(client, host):
    assert (await asked(client, host=host)).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "",
             "[", "127.0.0.1@evil.example", "127.0.0.1:8642.evil.example", "[::1]evil.example", "[::1", "localhost:x",
             "127.0.0.1:80@evil.example"]
)  # fmt: skip
async def test_a_rebound_name_is_refused(client, host):
    got = await asked(client, host=host)
    assert got.status_code == 421
    assert got.json()["error"]["code"] == "unknown_host"
    assert (await client.get("/livez", headers={"host": host})).status_code == 421


@pytest.mark.parametrize("hosts", [("127.0.0.1", "evil.example"), ("evil.example", "127.0.0.1")])
async def test_two_hosts_are_none(client, hosts):
    got = await client.get("/livez", headers=[("host", host) for host in hosts])
    assert got.status_code == 421


async def test_further_names_are_allowed_one_by_one(serving):
    async with serving(hosts=Hosts("127.0.0.1", ["models.lan"]), lazy=True) as client:
        assert (await asked(client, host="models.lan:8642")).status_code == 200
        assert (await asked(client, host="other.lan")).status_code == 421


@pytest.mark.parametrize(
    ("bound", "host", "known"),
    [
        ("0.0.0.0", "10.1.2.3:80", True),
        ("::", "[fe80::1]:80", True),
        ("0.0.0.0", "evil.example", False),
        ("10.1.2.3", "10.1.2.3:8642", True),
        ("10.1.2.3", "10.1.2.4:8642", False),
        ("10.1.2.3", "localhost", True),
    ],
)
def test_where_it_listens_to_others_it_has_their_names_for_it(bound, host, known):
    assert (host in Hosts(bound)) is known


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:1", "file://", "http://[",
               "ftp://127.0.0.1:8642"]
)  # fmt: skip
async def test_pages_of_others_are_refused(client, origin):
    got = await asked(client, origin=origin)
    assert got.status_code == 403
    assert got.json()["error"]["code"] == "foreign_origin"
    assert (await client.get("/v1/models", headers={"origin": origin})).status_code == 403


async def test_the_own_page_is_no_stranger(client):
    assert (await asked(client, origin="http://127.0.0.1:8642")).status_code == 200


async def test_what_browsers_say_of_a_request_counts(client):
    assert (await client.get("/v1/models", headers={"sec-fetch-site": "cross-site"})).status_code == 403
    assert (await client.get("/v1/models", headers={"sec-fetch-site": "same-site"})).status_code == 403
    assert (await client.get("/v1/models", headers={"sec-fetch-site": "same-origin"})).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await client.get("/v1/models", headers=link)).status_code == 200


async def test_no_answer_lets_other_pages_read_it(client):
    got = await client.options(
        "/v1/embeddings", headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
    )
    assert got.status_code == 403
    for answer in (got, await asked(client)):
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/plain;"
             "application/json", "application/json; charset=utf-16"]
)  # fmt: skip
async def test_what_a_page_may_send_unasked_is_no_json(client, kind):
    """A no-cors POST: a browser sends these without a preflight."""
    headers = {"content-type": kind} if kind else {}
    got = await client.post("/v1/embeddings", content=BODY, headers=headers)
    assert got.status_code == 415
    assert got.json()["error"]["code"] == "unsupported_media_type"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.api+json", "Application/JSON"])
async def test_json_by_its_other_names(client, kind):
    assert (await client.post("/v1/embeddings", content=BODY, headers={"content-type": kind})).status_code == 200


async def test_compressed_bodies_are_refused(client):
    assert (await asked(client, **{"content-encoding": "gzip"})).status_code == 415


async def test_what_is_mounted_is_guarded_too(serving):
    mounted = Mounted("/page", PlainTextResponse("hello"))
    async with serving(mounted=[mounted], lazy=True) as client:
        assert (await client.get("/page/x")).text == "hello"
        assert (await client.get("/page/x", headers={"host": "evil.example"})).status_code == 421
        assert (await client.post("/page/x", headers={"origin": "https://evil.example"})).status_code == 403
        assert (await client.post("/page/x", content="a", headers={"content-type": "text/plain"})).status_code == 415


async def test_a_websocket_of_a_stranger_is_closed():
    app = create_app(ServedModels({"hash": Embedder("embrief/hash")}))
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/x", "headers": [(b"host", b"evil.example")], "query_string": b""}
    await app(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "unknown_host"}]
