"""The identity of vector spaces, and the guard for stores."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from embrief import (
    ArgumentError,
    ArgumentTypeError,
    Embedder,
    NewerFormatError,
    SpaceMismatchError,
    VectorSpace,
)
from embrief.stores import KEY, read_stamp, require_same, stamp

QWEN = "Qwen/Qwen3-Embedding-0.6B"


def test_ids_are_a_storage_format() -> None:
    """A changed id would orphan every stored collection: change these strings only with a release note."""
    assert Embedder(QWEN).space.id == "es1-b7e7524fbe6465938175a82451370dd9"
    assert Embedder("embrief/hash", dim=256).space.id == "es1-4ec63b672524fe8558ba263abfd917de"


@pytest.mark.parametrize(
    "other",
    [
        {"model": "Qwen/Qwen3-Embedding-4B"},
        {"revision": "c" * 40},
        {"dim": 512},
        {"normalize": False},
        {"task": "sentence_similarity"},
    ],
)
def test_what_changes_document_vectors_changes_the_space(other: dict) -> None:
    base = Embedder(QWEN).space
    changed = Embedder(**{"model": QWEN, **other}).space
    assert changed != base
    assert changed.id != base.id
    assert base.differences(changed)


@pytest.mark.parametrize(
    "same",
    [
        {"instruction": "other"},
        {"task": "code_retrieval"},
        {"device": "cpu"},
        {"dtype": "float32"},
        {"batch_tokens": 1},
        {"truncate": "error"},
        {"dim": 1024},
        {"revision": "b22da495047858cce924d27d76261e96be6febc0"},
        {"model": "qwen/qwen3-embedding-0.6b"},
    ],
)
def test_what_does_not_change_them_does_not(same: dict) -> None:
    assert Embedder(**{"model": QWEN, **same}).space == Embedder(QWEN).space


def test_every_record_and_task_has_its_own_document_space() -> None:
    ids = [Embedder(name).space.id for name in (QWEN, "BAAI/bge-m3", "embrief/hash", "google/embeddinggemma-300m")]
    ids += [Embedder("google/embeddinggemma-300m", task=task).space.id for task in ("clustering", "classification")]
    assert len(set(ids)) == len(ids)


def test_a_task_per_call_is_reported_in_the_result() -> None:
    embedder = Embedder("embrief/hash")
    assert embedder.encode(["a"], role="document").space == embedder.space
    gemma = Embedder("google/embeddinggemma-300m")
    result = gemma.encode([], role="document", task="clustering")
    assert result.space == Embedder("google/embeddinggemma-300m", task="clustering").space != gemma.space


def test_the_hash_space_says_that_it_is_lexical() -> None:
    assert Embedder("embrief/hash").space.lexical
    assert not Embedder(QWEN).space.lexical


def test_json_round_trip() -> None:
    space = Embedder(QWEN).space
    data = json.loads(json.dumps(space.to_json()))
    assert VectorSpace.from_json(data) == space
    assert data["id"] == space.id


def nested(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "field", ["model", "weights", "pooling", "document_prompt", "dim", "normalize", "lexical", "label"]
)
@pytest.mark.parametrize(
    "value",
    [None, 1.0, float("nan"), b"x", [], {}, {"a": {}}, nested(5000), 10**5000, -(10**5000), object(), str],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_the_wrong_kind_is_refused(field: str, value: object) -> None:
    data = Embedder(QWEN).space.to_json()
    del data["id"]
    with pytest.raises(ArgumentError, match=field):
        VectorSpace.from_json({**data, field: value})


@pytest.mark.parametrize(
    "change",
    [
        {"dim": "1024"}, {"dim": True}, {"dim": 0}, {"dim": -1}, {"dim": 10**9}, {"normalize": 1}, {"lexical": 0},
        {"model": True}, {"id": "es1-other"}, {"id": None}, {"id": []}, {"id": nested(5000)}, {"id": 10**5000},
        {"model": "Qwen/other"}, {"document_prompt": "\ud800"}, {"label": 7},
    ],
)  # fmt: skip
def test_damaged_json_is_refused(change: dict) -> None:
    with pytest.raises(ArgumentError):
        VectorSpace.from_json({**Embedder(QWEN).space.to_json(), **change})


@pytest.mark.parametrize("data", [None, [], "x", 7, [("model", "x")]])
def test_what_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(ArgumentTypeError, match="JSON object"):
        VectorSpace.from_json(data)


@pytest.mark.parametrize("field", ["model", "weights", "pooling", "document_prompt", "dim", "normalize"])
def test_a_missing_field_without_a_default_is_named(field: str) -> None:
    incomplete = Embedder(QWEN).space.to_json()
    del incomplete[field]
    with pytest.raises(ArgumentError, match=field):
        VectorSpace.from_json(incomplete)


def test_a_missing_field_means_its_default() -> None:
    """Another writer may leave out what is not true of its model."""
    space = Embedder(QWEN).space
    short = {key: value for key, value in space.to_json().items() if key not in ("lexical", "label")}
    assert VectorSpace.from_json(short) == space
    lexical = {**Embedder("embrief/hash").space.to_json()}
    del lexical["lexical"]
    with pytest.raises(ArgumentError, match="does not belong"):
        VectorSpace.from_json(lexical)


@pytest.mark.parametrize(
    "unknown",
    ["side", "", "x" * 10_000, "\ud800", 7, None, 10**5000, (1, 2)],
    ids=lambda key: type(key).__name__,
)
def test_an_unknown_field_was_written_by_a_newer_release(unknown: object) -> None:
    with pytest.raises(NewerFormatError, match=r"newer release.*upgrade"):
        VectorSpace.from_json({**Embedder(QWEN).space.to_json(), unknown: "x"})


def test_many_unknown_fields_make_no_long_message() -> None:
    data = {**Embedder(QWEN).space.to_json(), **{f"field {number}": 1 for number in range(10_000)}}
    with pytest.raises(NewerFormatError) as raised:
        VectorSpace.from_json(data)
    assert len(str(raised.value)) < 500


@dataclass(frozen=True, slots=True)
class GrownSpace(VectorSpace):
    """The space of some release to come, which tells more vectors apart."""

    quantity: int = 0
    side: str = ""


@pytest.mark.parametrize("model", [QWEN, "embrief/hash"])
def test_a_space_can_grow_without_a_new_id(model: str) -> None:
    space = Embedder(model).space
    grown = GrownSpace.from_json(space.to_json())
    assert (grown.quantity, grown.side) == (0, "")
    assert grown.id == space.id
    assert grown.to_json() == space.to_json()
    assert VectorSpace.from_json(grown.to_json()) == space


def test_a_grown_space_differs_where_the_new_field_does() -> None:
    space = Embedder(QWEN).space
    values = {key: value for key, value in space.to_json().items() if key != "id"}
    other = GrownSpace(**values, side="left")
    assert other.id != space.id
    assert GrownSpace.from_json(other.to_json()) == other
    assert "quantity" not in other.to_json()
    with pytest.raises(NewerFormatError, match="'side'"):
        VectorSpace.from_json(other.to_json())
    with pytest.raises(SpaceMismatchError, match=r"collection 'docs'.*newer release.*upgrade"):
        read_stamp(stamp(other), where="collection 'docs'")
    with pytest.raises(ArgumentError, match="quantity"):
        GrownSpace.from_json({**values, "quantity": True})


def test_the_guard_refuses_another_space_of_the_same_width() -> None:
    mine, other = Embedder(QWEN).space, Embedder("BAAI/bge-m3").space
    assert mine.dim == other.dim
    stored = read_stamp(stamp(mine), where="collection 'docs'")
    require_same(stored, mine, where="collection 'docs'")
    with pytest.raises(
        SpaceMismatchError,
        match=r"collection 'docs' holds .* stored: model='Qwen.*', this embedder: model='BAAI/bge-m3'",
    ):
        require_same(stored, other, where="collection 'docs'")


def test_a_store_without_a_stamp_is_let_through() -> None:
    assert read_stamp(None, where="x") is None
    assert read_stamp({}, where="x") is None
    require_same(None, Embedder(QWEN).space, where="x")


GOOD = stamp(Embedder(QWEN).space)[KEY]


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "{", "[]", "null", "7", "true", '"text"', "{}", "NaN", "\ufeff{}", "\0", "\ud800", GOOD[:-1], GOOD[1:],
        GOOD + GOOD, GOOD.replace("1024", "512"), GOOD.replace("1024", "true"), GOOD.replace("1024", "9" * 5000),
        GOOD.replace("1024", "1024.0"), GOOD.replace("es1-", "es2-"), "[" * 200_000, '{"a":' * 200_000, f"[{GOOD}]",
        json.dumps(GOOD), None, 7, True, 1.5, b"{}", GOOD.encode(), [], [GOOD], {}, json.loads(GOOD),
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!a}",
)  # fmt: skip
def test_a_stamp_that_cannot_be_read_never_counts_as_absent(value: object) -> None:
    with pytest.raises(SpaceMismatchError, match=r"collection 'docs' .* cannot be read.*embed the documents again"):
        read_stamp({KEY: value, "owner": "me"}, where="collection 'docs'")


@pytest.mark.parametrize("metadata", [GOOD, [KEY], [stamp(Embedder(QWEN).space)], 7, "", 0, False])
def test_metadata_that_is_no_mapping_cannot_be_read(metadata: object) -> None:
    with pytest.raises(SpaceMismatchError, match=r"collection 'docs' .* cannot be read"):
        read_stamp(metadata, where="collection 'docs'")


def test_fingerprints_are_finer_than_spaces() -> None:
    base = Embedder("embrief/hash")
    assert base.fingerprint == Embedder("embrief/hash", batch_tokens=5).fingerprint
    assert base.fingerprint == Embedder("embrief/hash", truncate="silent").fingerprint
    assert base.fingerprint != Embedder("embrief/hash", truncate="error").fingerprint
    assert base.fingerprint != Embedder("embrief/hash", max_tokens=10).fingerprint
    assert base.fingerprint != base.query_fingerprint
    from embrief.testing import FakeRuntime

    with FakeRuntime() as fake:
        one, told = Embedder(fake.qwen3), Embedder(fake.qwen3, instruction="x")
        assert one.fingerprint == told.fingerprint
        assert one.query_fingerprint != told.query_fingerprint
