"""The identity of vector spaces, and the guard for stores."""

from __future__ import annotations

import json

import pytest

from embrief import ArgumentError, Embedder, SpaceMismatchError, VectorSpace
from embrief.stores import KEY, read_stamp, require_same, stamp

QWEN = "Qwen/Qwen3-Embedding-0.6B"


def test_ids_are_a_storage_format() -> None:
    """A changed id would orphan every stored collection: change these strings only with a release note."""
    assert Embedder(QWEN).space.id == "es1-b7e7524fbe6465938175a82451370dd9"
    assert Embedder("embrief/hash", dim=256).space.id == "es1-e53d34c7fcbc9e9f4337a64c1ca7df08"


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


@pytest.mark.parametrize(
    "change",
    [{"dim": "1024"}, {"dim": True}, {"extra": 1}, {"model": None}, {"id": "es1-other"}, {"normalize": 1}],
)
def test_damaged_json_is_refused(change: dict) -> None:
    with pytest.raises(ArgumentError):
        VectorSpace.from_json({**Embedder(QWEN).space.to_json(), **change})
    incomplete = Embedder(QWEN).space.to_json()
    del incomplete["pooling"]
    with pytest.raises(ArgumentError, match="pooling"):
        VectorSpace.from_json(incomplete)


def test_the_guard_refuses_another_space_of_the_same_width() -> None:
    mine, other = Embedder(QWEN).space, Embedder("BAAI/bge-m3").space
    assert mine.dim == other.dim
    stored = read_stamp(stamp(mine), where="collection 'docs'")
    require_same(stored, mine, where="collection 'docs'")
    with pytest.raises(SpaceMismatchError, match=r"collection 'docs' holds .* model: .*Qwen3.* is not 'BAAI/bge-m3'"):
        require_same(stored, other, where="collection 'docs'")


def test_a_store_without_a_stamp_is_let_through_and_a_damaged_one_is_not() -> None:
    assert read_stamp(None, where="x") is None
    assert read_stamp({}, where="x") is None
    require_same(None, Embedder(QWEN).space, where="x")
    for value in ("{", "[]", "null", 7):
        with pytest.raises(SpaceMismatchError, match="cannot be read"):
            read_stamp({KEY: value}, where="x")


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
