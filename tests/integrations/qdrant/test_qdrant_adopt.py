"""Collections that do not say which model made their vectors, and stamps that cannot be read."""

from __future__ import annotations

import inspect
import json

import pytest
from qdrant_client import models

from embrief import Embedder
from embrief.errors import ArgumentError, ArgumentTypeError, InputTooLongError, SpaceMismatchError
from embrief.stores import KEY, NOTE, stamp
from embrief.testing import FakeRuntime
from qdrant_embrief import (
    acheck_collection,
    acreate_collection,
    aquery_texts,
    attach,
    aupsert_texts,
    check_collection,
    create_collection,
    query_texts,
    space_metadata,
    upsert_texts,
    vectors_config,
)

OURS = Embedder("embrief/hash", dim=64)
OTHER = Embedder("embrief/hash", dim=64, normalize=False)
NARROW = Embedder("embrief/hash", dim=32)

# What is given for an unnamed vector, a named one, and several.
GIVEN = {"unnamed": OURS, "named": {"text": OURS}, "several": {"text": OURS, "small": NARROW}}
SYNC = {"check": check_collection, "create": create_collection, "upsert": upsert_texts, "query": query_texts}
ASYNC = {"check": acheck_collection, "create": acreate_collection, "upsert": aupsert_texts, "query": aquery_texts}


class Store:
    """One collection through either client, with the same calls."""

    def __init__(self, client, calls):
        self.client, self.calls = client, calls

    async def run(self, call, *args, **options):
        found = call(*args, **options)
        return await found if inspect.isawaitable(found) else found

    async def make(self, given, metadata=None):
        await self.run(self.client.create_collection, "docs", vectors_config=vectors_config(given), metadata=metadata)

    async def fill(self, given):
        """Write vectors as another program does."""
        named = given if isinstance(given, dict) else {"": given}
        vectors = {name: item.embed_documents(["Mars is red"])[0].tolist() for name, item in named.items()}
        point = models.PointStruct(id=1, vector=vectors.get("", vectors), payload={"document": "Mars is red"})
        await self.run(self.client.upsert, "docs", [point])

    async def call(self, name, *args, **options):
        return await self.run(self.calls[name], self.client, "docs", *args, **options)

    async def metadata(self):
        return (await self.run(self.client.get_collection, "docs")).config.metadata or {}


@pytest.fixture(params=["sync", "async"])
def store(request, client, aclient):
    return Store(client, SYNC) if request.param == "sync" else Store(aclient, ASYNC)


@pytest.fixture(params=GIVEN)
def given(request):
    return GIVEN[request.param]


def _changed(given, other):
    return {**given, "text": other} if isinstance(given, dict) else other


def _first(given):
    return (given["text"], {"using": "text"}) if isinstance(given, dict) else (given, {})


async def test_vectors_of_an_unknown_model_are_refused(store, given):
    await store.make(given, {"owner": "me"})
    await store.fill(given)
    embedder, using = _first(given)
    for name, arguments, options in (
        ("check", [given], {}),
        ("create", [given], {}),
        ("upsert", [given, ["Venus"]], {}),
        ("query", [embedder, "red"], using),
    ):
        with pytest.raises(SpaceMismatchError, match=r"'docs'.* holds vectors and nothing says .*adopt=True"):
            await store.call(name, *arguments, **options)
    assert await store.metadata() == {"owner": "me"}


@pytest.mark.parametrize("name", ["check", "create"])
async def test_an_adopted_collection_is_stamped(name, store, given):
    await store.make(given, {"owner": "me"})
    await store.fill(given)
    assert not await store.call(name, given, adopt=True)
    assert await store.metadata() == {"owner": "me", **space_metadata(given)}
    # From now on without saying it again, and for no other space.
    await store.call("upsert", given, ["Venus is bright"])
    embedder, using = _first(given)
    assert (await store.call("query", embedder, "red", limit=1, **using))[0].text == "Mars is red"
    with pytest.raises(SpaceMismatchError, match="normalize"):
        await store.call("check", _changed(given, OTHER), adopt=True)


@pytest.mark.parametrize("adopt", [False, True])
async def test_the_width_is_compared_either_way(adopt, store, given):
    await store.make(given)
    await store.fill(given)
    with pytest.raises(SpaceMismatchError, match=r"64 values.*128"):
        await store.call("check", _changed(given, Embedder("embrief/hash", dim=128)), adopt=adopt)
    assert await store.metadata() == {}


@pytest.mark.parametrize("name", ["check", "create", "upsert"])
async def test_an_empty_collection_is_stamped_silently(name, store, given):
    await store.make(given)
    await store.call(name, given, *([["Mars is red"]] if name == "upsert" else []))
    assert await store.metadata() == space_metadata(given)
    with pytest.raises(SpaceMismatchError, match="normalize"):
        await store.call("check", _changed(given, OTHER))


async def test_a_call_that_is_refused_for_its_texts_stamps_nothing(store):
    with FakeRuntime() as fake:
        embedder = Embedder(fake.qwen3, max_tokens=8, truncate="error")
        await store.make(embedder)
        with pytest.raises(InputTooLongError):
            await store.call("upsert", embedder, ["red", "red " * 50])
        assert await store.metadata() == {}
        assert fake.texts == []


async def test_a_query_of_an_empty_collection_writes_nothing(store, given):
    await store.make(given)
    embedder, using = _first(given)
    assert await store.call("query", embedder, "red", **using) == []
    assert await store.metadata() == {}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"using": 5}, ArgumentTypeError, "using is the name of a vector or None, not int"),
        ({"using": "\ud800"}, ArgumentError, "using holds half a surrogate pair"),
        ({"limit": "3"}, ArgumentTypeError, "limit is a whole number or None, not '3'"),
        ({"limit": True}, ArgumentTypeError, "limit is a whole number or None, not True"),
        ({"limit": 0}, ArgumentError, "limit=0 must be at least 1"),
        ({"text_key": 3}, ArgumentTypeError, "text_key is a key of the payload, a string, not 3"),
        ({"text_key": "\ud800"}, ArgumentError, "text_key holds half a surrogate pair"),
    ],
)
async def test_what_a_query_cannot_take_is_refused_with_a_typed_error(options, error, match, store):
    await store.make(OURS)
    with pytest.raises(error, match=match) as caught:
        await store.call("query", OURS, "red", **options)
    assert type(caught.value) is error


@pytest.mark.parametrize("key", ["text_key", "id_key"])
async def test_a_key_of_the_payload_is_a_string(key, store):
    await store.make(OURS)
    with pytest.raises(ArgumentTypeError, match=f"{key} is a key of the payload, a string, not 3"):
        await store.call("upsert", OURS, ["red"], **{key: 3})


async def test_each_vector_is_stamped_by_itself(store):
    """One field is filled and unknown, one is empty, one is ours already."""
    given = {"text": OURS, "small": NARROW, "kept": OTHER}
    await store.make(given, space_metadata({"kept": OTHER}))
    await store.fill({"text": OURS})
    with pytest.raises(SpaceMismatchError, match=r"vector 'text'.* nothing says"):
        await store.call("check", given)
    await store.call("check", {"small": NARROW})
    assert set((await store.metadata())["embrief_vectors"]) == {"small", "kept"}
    await store.call("check", {"text": OURS}, adopt=True)
    assert await store.metadata() == space_metadata(given)
    await store.call("check", given)


GOOD = stamp(OURS.space)[KEY]
DAMAGED = [
    "",
    "{",
    "[]",
    "null",
    GOOD[:-1],
    f"[{GOOD}]",
    GOOD.replace("64", "32"),
    "[" * 100_000,
    None,
    7,
    [],
    {},
    [GOOD],
]


@pytest.mark.parametrize("value", DAMAGED, ids=lambda value: f"{type(value).__name__}-{str(value)[:9]}")
@pytest.mark.parametrize("named", [False, True])
def test_a_stamp_that_cannot_be_read_is_refused(value, named, client):
    given = {"text": OURS} if named else OURS
    metadata = {"embrief_vectors": {"text": {KEY: value}}} if named else {KEY: value}
    _refused_everywhere(client, given, metadata)


@pytest.mark.parametrize("value", [*DAMAGED[:4], None, 7, [], [GOOD], {"text": None}, {"text": {}}, {"text": GOOD}])
def test_a_place_of_stamps_that_cannot_be_read_is_refused(value, client):
    _refused_everywhere(client, {"text": OURS}, {"embrief_vectors": value})


@pytest.mark.parametrize(("given", "metadata"), [
    (OURS, space_metadata({"text": OURS})),
    ({"text": OURS}, space_metadata(OURS)),
])  # fmt: skip
def test_a_stamp_in_the_wrong_place_is_refused(given, metadata, client):
    _refused_everywhere(client, given, metadata)
    # The remedy of the message: a stamp in the right place does not help while the other is there.
    client.update_collection("docs", metadata=space_metadata(given))
    with pytest.raises(SpaceMismatchError) as caught:
        check_collection(client, "docs", given)
    (key,) = metadata.keys() - {NOTE}
    assert f"client.update_collection(name, metadata={{{key!r}: None}})" in str(caught.value)
    client.update_collection("docs", metadata={key: None})
    check_collection(client, "docs", given, adopt=True)
    kept = client.get_collection("docs").config.metadata
    assert {name: value for name, value in kept.items() if value is not None} == {
        **{name: value for name, value in metadata.items() if name == NOTE},
        **space_metadata(given),
    }


def _refused_everywhere(client, given, metadata):
    client.create_collection("docs", vectors_config=vectors_config(given), metadata=json.loads(json.dumps(metadata)))
    embedder, using = _first(given)
    document = models.Document(text="Mars", model="embrief/hash")
    attach(client, OURS)
    for call in (
        lambda: check_collection(client, "docs", given),
        lambda: check_collection(client, "docs", given, adopt=True),
        lambda: create_collection(client, "docs", given, adopt=True),
        lambda: upsert_texts(client, "docs", given, ["Mars"]),
        lambda: query_texts(client, "docs", embedder, "Mars", **using),
        lambda: client.query_points("docs", document, **using),
    ):
        with pytest.raises(SpaceMismatchError, match=r"'docs'.* has a vector space stamp that cannot be read"):
            call()
    assert client.get_collection("docs").config.metadata == metadata
    assert client.count("docs").count == 0


def test_a_stamp_of_a_newer_release_says_upgrade(client):
    newer = json.dumps({**OURS.space.to_json(), "side": "left"})
    client.create_collection("docs", vectors_config=vectors_config(OURS), metadata={KEY: newer})
    for adopt in (False, True):
        with pytest.raises(SpaceMismatchError, match=r"'docs'.*newer release.*upgrade"):
            check_collection(client, "docs", OURS, adopt=adopt)
