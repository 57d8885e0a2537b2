"""Collections that say nothing about their vectors, and how far Chroma's own ways of opening one are guarded."""

from __future__ import annotations

import json
import pickle
import sqlite3

import pytest
from chromadb.api.shared_system_client import SharedSystemClient

from chroma_embrief import (
    GemmaEmbeddingFunction,
    Qwen3EmbeddingFunction,
    add_documents,
    open_collection,
    require_same_space,
    restore_configuration,
)
from embrief import (
    ArgumentError,
    ArgumentTypeError,
    EmbriefError,
    InputTooLongError,
    NewerFormatError,
    SpaceMismatchError,
)
from embrief.stores import KEY, stamp
from embrief.testing import FakeRuntime

TEXTS = ["Mars is the red planet.", "Venus is bright."]


def _hash(**changes):
    return Qwen3EmbeddingFunction("embrief/hash", **{"dim": 64, **changes})


def _fill(collection, function):
    collection.add(ids=["mars", "venus"], documents=TEXTS, embeddings=function.embed_documents(TEXTS))


# How people make a collection without telling it about embrief.
MADE = {
    "no function": {"embedding_function": None},
    "default": {},
    "distance": {"metadata": {"hnsw:space": "cosine", "owner": "me"}},
    "metadata": {"embedding_function": None, "metadata": {"owner": "me"}},
    "configuration": {"configuration": {"hnsw": {"space": "ip"}}},
}


@pytest.fixture(params=MADE)
def made(request, open_client):
    return open_client().create_collection("planets", **MADE[request.param])


def _distance(client):
    return client.get_collection("planets", embedding_function=None).configuration_json["hnsw"]["space"]


def test_vectors_of_an_unknown_model_are_refused(made, open_client):
    _fill(made, _hash())
    with pytest.raises(SpaceMismatchError, match=r"'planets' holds vectors and nothing says .*adopt=True"):
        open_collection(open_client(), "planets", _hash())
    kept = open_client().get_collection("planets", embedding_function=None)
    assert KEY not in (kept.metadata or {})
    assert (kept.configuration_json["embedding_function"] or {}).get("name") in (None, "default")


def test_an_adopted_collection_is_stamped_and_keeps_the_function(made, open_client):
    _fill(made, _hash())
    distance = _distance(open_client())
    adopted = open_collection(open_client(), "planets", _hash(), adopt=True)
    assert adopted.query(query_texts=["red planet"], n_results=1)["ids"] == [["mars"]]
    assert json.loads(adopted.metadata[KEY]) == _hash().space.to_json()
    assert adopted.metadata.get("owner") == (made.metadata or {}).get("owner")
    assert _distance(open_client()) == distance
    # From now on without saying it again, also through Chroma alone, and for no other space.
    open_collection(open_client(), "planets", _hash())
    assert open_client().get_collection("planets").query(query_texts=["red planet"], n_results=1)["ids"] == [["mars"]]
    with pytest.raises(SpaceMismatchError, match="normalize"):
        open_collection(open_client(), "planets", _hash(normalize=False), adopt=True)


@pytest.mark.parametrize("adopt", [False, True])
@pytest.mark.parametrize("dim", [32, 128])
def test_the_width_is_compared_either_way(adopt, dim, made, open_client):
    _fill(made, _hash())
    with pytest.raises(SpaceMismatchError, match=f"vectors of 64 values .* makes {dim}"):
        open_collection(open_client(), "planets", _hash(dim=dim), adopt=adopt)


def test_an_empty_collection_is_stamped_silently(made, open_client):
    opened = open_collection(open_client(), "planets", _hash())
    assert json.loads(opened.metadata[KEY]) == _hash().space.to_json()
    opened.add(ids=["mars", "venus"], documents=TEXTS)
    assert open_client().get_collection("planets").query(query_texts=["red planet"], n_results=1)["ids"] == [["mars"]]


def test_an_emptied_collection_is_like_an_empty_one_of_its_width(made, open_client):
    _fill(made, _hash())
    made.delete(ids=["mars", "venus"])
    with pytest.raises(SpaceMismatchError, match="64 values"):
        open_collection(open_client(), "planets", _hash(dim=32))
    open_collection(open_client(), "planets", _hash())


def test_adopting_what_is_new_or_ours_changes_nothing(open_client):
    first = open_collection(open_client(), "planets", _hash(), adopt=True)
    _fill(first, _hash())
    assert open_collection(open_client(), "planets", _hash(), adopt=True) == first


def test_a_stamp_without_our_function_is_enough(open_client):
    """As LangChain's store leaves it, given the stamp as `collection_metadata`."""
    function = _hash()
    _fill(open_client().create_collection("planets", metadata=stamp(function.space)), function)
    with pytest.raises(SpaceMismatchError, match="normalize"):
        open_collection(open_client(), "planets", _hash(normalize=False))
    opened = open_collection(open_client(), "planets", function)
    assert opened.query(query_texts=["red planet"], n_results=1)["ids"] == [["mars"]]


def test_the_guard_by_itself_refuses_what_is_unknown_too(made, open_client):
    require_same_space(made, _hash())
    _fill(made, _hash())
    with pytest.raises(SpaceMismatchError, match="adopt=True"):
        require_same_space(open_client().get_collection("planets", embedding_function=None), _hash())


def test_adding_with_a_function_stamps_an_empty_collection_and_refuses_an_unknown_one(made, open_client):
    for ids in (["mars", "venus"], ["earth", "pluto"]):
        add_documents(open_client(), made, TEXTS, ids=ids, embedding_function=_hash())
    assert open_collection(open_client(), "planets", _hash()).count() == 4
    unknown = open_client().create_collection("other", embedding_function=None)
    _fill(unknown, _hash())
    with pytest.raises(SpaceMismatchError, match="'other' holds vectors"):
        add_documents(open_client(), unknown, ["x"], ids=["x"], embedding_function=_hash())
    assert unknown.count() == 2


@pytest.mark.parametrize("way", ["get_collection", "get_or_create_collection"])
@pytest.mark.parametrize("changes", [{"dim": 32}, {"normalize": False}])
def test_chromas_own_ways_refuse_another_space(way, changes, open_client):
    _fill(open_client().get_or_create_collection("planets", embedding_function=_hash()), _hash())
    with pytest.raises(SpaceMismatchError, match=next(iter(changes))):
        getattr(open_client(), way)("planets", embedding_function=_hash(**changes))
    again = getattr(open_client(), way)("planets", embedding_function=_hash())
    assert again.query(query_texts=["red planet"], n_results=1)["ids"] == [["mars"]]


def test_chromas_own_ways_let_another_instruction_pass(open_client):
    with FakeRuntime() as fake:
        client = open_client()
        client.get_or_create_collection("planets", embedding_function=Qwen3EmbeddingFunction(fake.qwen3))
        other = Qwen3EmbeddingFunction(fake.qwen3, instruction="Other", max_tokens=99)
        client.get_or_create_collection("planets", embedding_function=other).query(query_texts=["q"])
        assert fake.texts == ["Instruct: Other\nQuery:q"]
        with pytest.raises(SpaceMismatchError, match="model"):
            client.get_or_create_collection("planets", embedding_function=_hash())


def test_chromas_own_ways_compare_our_two_classes_by_name(open_client):
    open_client().get_or_create_collection("planets", embedding_function=_hash())
    with pytest.raises(ValueError, match="embrief-gemma vs persisted: embrief-qwen3"):
        open_client().get_or_create_collection(
            "planets", embedding_function=GemmaEmbeddingFunction("embrief/hash", dim=64)
        )


def test_what_chroma_does_not_show_is_noticed_at_the_next_opening(open_client):
    """The rows of the table in the documentation that say "not seen"; if this fails, it can say more."""
    open_collection(open_client(), "planets", _hash())
    other = _hash(normalize=False)
    unseen = open_client().create_collection("planets", embedding_function=other, get_or_create=True)
    for refused in (
        lambda: require_same_space(unseen, other),
        lambda: open_collection(open_client(), "planets", other),
        lambda: open_client().get_collection("planets", embedding_function=other),
    ):
        with pytest.raises(SpaceMismatchError, match="normalize"):
            refused()
    # A stamp without a kept function: metadata is never shown.
    open_client().create_collection("stamped", embedding_function=None, metadata=stamp(_hash().space))
    unseen = open_client().get_or_create_collection("stamped", embedding_function=other)
    with pytest.raises(SpaceMismatchError, match="normalize"):
        require_same_space(unseen, other)


async def test_the_asynchronous_client_asks_in_the_same_way():
    """It needs a server; what it calls to compare is the same function."""
    from chromadb.api import async_client

    kept = {"type": "known", "name": "embrief-qwen3", "config": _hash().get_config()}
    async_client.validate_embedding_function_conflict_on_get(_hash(), kept)
    with pytest.raises(SpaceMismatchError, match="normalize"):
        async_client.validate_embedding_function_conflict_on_get(_hash(normalize=False), kept)


def test_a_function_has_its_name_outside_of_chroma_too():
    assert Qwen3EmbeddingFunction.name() == _hash().name() == pickle.loads(pickle.dumps(_hash())).name()


GOOD = json.dumps(_hash().space.to_json(), sort_keys=True)


@pytest.mark.parametrize(
    "value",
    ["", "{", "[]", "null", GOOD[:-1], f"[{GOOD}]", GOOD.replace("64", "32"), "[" * 100_000, 7, 1.5, True],
    ids=lambda value: str(value)[:12],
)
@pytest.mark.parametrize("function", [None, _hash()], ids=["no function", "ours"])
def test_a_stamp_that_cannot_be_read_is_refused(value, function, open_client):
    metadata = {KEY: value, "owner": "me"}
    _fill(open_client().create_collection("planets", metadata=metadata, embedding_function=function), _hash())
    collection = open_client().get_collection("planets", embedding_function=None)
    for guarded in (
        lambda: open_collection(open_client(), "planets", _hash()),
        lambda: open_collection(open_client(), "planets", _hash(), adopt=True),
        lambda: require_same_space(collection, _hash()),
        lambda: add_documents(open_client(), collection, ["x"], ids=["x"], embedding_function=_hash()),
        lambda: restore_configuration(open_client(), "planets", _hash()),
    ):
        with pytest.raises(SpaceMismatchError, match=r"'planets' has a vector space stamp that cannot be read"):
            guarded()
    after = open_client().get_collection("planets", embedding_function=None)
    assert (after.metadata, after.count()) == (metadata, 2)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"side": "left"}, NewerFormatError),
        ({"id": "es1-" + "0" * 32}, ArgumentError),
        ({"dim": 32}, ArgumentError),
        ({"model": 7}, ArgumentError),
    ],
)
def test_a_kept_space_that_cannot_be_used_is_refused(change, error, open_client, monkeypatch):
    config = _hash().get_config()
    damaged = {**config, "space": {**config["space"], **change}}
    with pytest.raises(error, match="embrief-qwen3"):
        Qwen3EmbeddingFunction.validate_config(damaged)
    function = _hash()
    monkeypatch.setattr(function, "get_config", lambda: damaged)
    open_client().create_collection("planets", embedding_function=function, metadata=stamp(function.space))
    with pytest.raises(error, match="the collection 'planets' keeps a configuration that cannot be used"):
        open_collection(open_client(), "planets", _hash())
    with pytest.raises(error):
        open_client().get_or_create_collection("planets", embedding_function=_hash())
    with pytest.raises((EmbriefError, ValueError), match="Config validation failed"):
        open_client().get_collection("planets").query(query_texts=["q"])
    if error is ArgumentError:
        with pytest.raises(error, match="put it right with restore_configuration"):
            open_collection(open_client(), "planets", _hash())
        restore_configuration(open_client(), "planets", _hash())
        open_collection(open_client(), "planets", _hash())


@pytest.mark.parametrize("damage", [lambda text: text[:-20], lambda text: "[]", lambda text: "{"])
def test_a_configuration_that_chroma_cannot_read_is_our_error(damage, open_client, tmp_path):
    open_collection(open_client(), "planets", _hash())
    with sqlite3.connect(tmp_path / "db" / "chroma.sqlite3") as database:
        # Which column holds it depends on the version of Chroma.
        known = {row[1] for row in database.execute("pragma table_info(collections)")}
        for column in sorted(known & {"config_json_str", "schema_str"}):
            (text,) = database.execute(f"select {column} from collections").fetchone()
            if text and "embrief" in text:
                database.execute(f"update collections set {column} = ?", (damage(text),))
    SharedSystemClient.clear_system_cache()
    with pytest.raises(EmbriefError, match="'planets'"):
        open_collection(open_client(), "planets", _hash())


def test_the_way_back_is_named_only_where_a_stamp_shows_it(open_client, monkeypatch):
    function = _hash()
    damaged = {**function.get_config(), "task": 7}
    monkeypatch.setattr(function, "get_config", lambda: damaged)
    open_client().create_collection("planets", embedding_function=function)
    with pytest.raises(ArgumentError, match=r"cannot be used: .*Nor is there a stamp") as caught:
        open_collection(open_client(), "planets", _hash())
    assert "restore_configuration" not in str(caught.value)


def _rows_of(open_client, name="planets"):
    kept = open_client().get_collection(name, embedding_function=None)
    return kept.count(), dict(kept.metadata or {}), kept.configuration_json["embedding_function"]


OTHER = _hash(normalize=False)


def _by_stamp(client):
    """Chroma compares no stamp, so the handle has a function of another space."""
    client.create_collection("planets", embedding_function=None, metadata=stamp(_hash().space))
    return client.get_or_create_collection("planets", embedding_function=OTHER)


def _by_configuration(client):
    open_collection(client, "planets", _hash())
    return client.create_collection("planets", embedding_function=OTHER, get_or_create=True)


def _replaced(client):
    with pytest.raises(SpaceMismatchError):
        open_collection(client, "planets", _hash()).modify(configuration={"embedding_function": OTHER})
    return client.get_collection("planets")


def _replaced_without_a_function(client):
    _replaced(client)
    return client.get_collection("planets", embedding_function=None)


def _unknown(client):
    _fill(client.create_collection("planets", embedding_function=None), _hash())
    return client.get_or_create_collection("planets", embedding_function=OTHER)


@pytest.mark.parametrize(
    "handle",
    [_by_stamp, _by_configuration, _replaced, _replaced_without_a_function, _unknown],
    ids=lambda f: f.__name__,
)
def test_adding_compares_the_collections_own_function(handle, open_client):
    collection = handle(open_client())
    before = _rows_of(open_client)
    with pytest.raises(SpaceMismatchError, match="'planets'"):
        add_documents(open_client(), collection, TEXTS, ids=["mars", "venus"])
    assert _rows_of(open_client) == before


def test_adding_with_the_collections_own_function_stamps_an_empty_one(open_client):
    open_client().create_collection("planets", embedding_function=None)
    own = open_client().get_or_create_collection("planets", embedding_function=_hash())
    add_documents(open_client(), own, TEXTS, ids=["mars", "venus"])
    assert json.loads(_rows_of(open_client)[1][KEY]) == _hash().space.to_json()
    add_documents(open_client(), open_client().get_collection("planets"), TEXTS, ids=["mars", "venus"])
    assert open_collection(open_client(), "planets", _hash()).count() == 2


@pytest.mark.parametrize("own", [True, False])
def test_a_call_that_is_refused_for_its_texts_stamps_nothing(own, open_client):
    with FakeRuntime() as fake:
        function = Qwen3EmbeddingFunction(fake.qwen3, max_tokens=8, truncate="error")
        open_client().create_collection("planets", embedding_function=None)
        before = _rows_of(open_client)
        collection = open_client().get_or_create_collection("planets", embedding_function=function)
        with pytest.raises(InputTooLongError):
            add_documents(
                open_client(), collection, ["red", "red " * 50], ids=["a", "b"],
                embedding_function=None if own else function,
            )  # fmt: skip
        assert _rows_of(open_client) == before
        assert fake.texts == []


def test_an_asynchronous_client_is_refused_by_name():
    class Asynchronous:
        async def get_collection(self, *_, **__):
            raise AssertionError("called")

    for name, call in (
        ("open_collection", lambda client: open_collection(client, "planets", _hash())),
        ("add_documents", lambda client: add_documents(client, None, ["x"], ids=["x"])),
        ("restore_configuration", lambda client: restore_configuration(client, "planets", _hash())),
    ):
        with pytest.raises(ArgumentTypeError, match=f"{name} takes a synchronous client; .*require_same_space"):
            call(Asynchronous())
