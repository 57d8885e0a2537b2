"""What may be asked of a cache, and how wrappers and stores treat it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chroma_embrief import Qwen3EmbeddingFunction
from embrief import (
    ArgumentError,
    ArgumentTypeError,
    Embedder,
    MemoryCache,
    Reranker,
    SqliteCache,
    load_config,
    use_config,
)
from embrief.stores import refuse_cache
from embrief.testing import FakeRuntime
from langchain_embrief import Qwen3Embeddings
from llama_index_embrief import Qwen3Embedding


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


def test_words_and_options() -> None:
    assert Embedder("embrief/hash", cache="memory").settings.cache == MemoryCache()
    assert Embedder("embrief/hash", cache=MemoryCache(ttl=5)).settings.cache == MemoryCache(ttl=5.0)
    assert SqliteCache(path=Path("x") / "y").path == str(Path("x") / "y")
    assert MemoryCache().max_bytes == 256 * 2**20
    assert SqliteCache().max_bytes == 2 * 2**30
    assert SqliteCache().path is SqliteCache().ttl is None


def test_true_does_not_say_which() -> None:
    with pytest.raises(ArgumentTypeError, match="cache=True does not say which cache; use False, 'memory', 'sqlite'"):
        Embedder("embrief/hash", cache=True)  # type: ignore[arg-type] # the mistake under test


def test_false_switches_a_configured_cache_off(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("yaml")
    file = tmp_path / "embrief.yaml"
    file.write_text("models:\n  mine: {provider: hash, dim: 64, cache: memory}\n", "utf-8")
    request.addfinalizer(lambda: use_config(None))
    use_config(load_config(file))
    assert Embedder("mine").settings.cache == Embedder("mine", cache=None).settings.cache == MemoryCache()
    assert Embedder("mine", cache=False).settings.cache is None
    assert Embedder("mine", cache=False).info()["cache"] is None
    assert Embedder("embrief/hash", cache=False).settings.cache is None
    assert facade(Qwen3Embeddings("mine", cache=False)).settings.cache is None


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        ("disk", ArgumentError, "cache='disk' is not known.*cache_dir="),
        ("/tmp/models", ArgumentError, "where downloads are kept is cache_dir="),
        (5, ArgumentTypeError, "cache=int does not say"),
        (MemoryCache, ArgumentTypeError, "instance of options, not their class"),
        ({"kind": "memory"}, ArgumentTypeError, "cache=dict does not say"),
    ],
)
def test_what_is_no_cache(value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Embedder("embrief/hash", cache=value)


@pytest.mark.parametrize("kind", [MemoryCache, SqliteCache])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_bytes": 0}, ArgumentError),
        ({"max_bytes": -1}, ArgumentError),
        ({"max_bytes": 1.5}, ArgumentTypeError),
        ({"max_bytes": True}, ArgumentTypeError),
        ({"max_bytes": "1GB"}, ArgumentTypeError),
        ({"ttl": 0}, ArgumentError),
        ({"ttl": -5}, ArgumentError),
        ({"ttl": float("nan")}, ArgumentError),
        ({"ttl": "1h"}, ArgumentTypeError),
        ({"ttl": True}, ArgumentTypeError),
    ],
    ids=str,
)
def test_values_that_cannot_be(kind: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"{kind.__name__}\({next(iter(options))}"):
        kind(**options)


@pytest.mark.parametrize(("path", "error"), [("", ArgumentError), (5, ArgumentTypeError), (b"x", ArgumentTypeError)])
def test_paths_that_cannot_be(path: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="path"):
        SqliteCache(path=path)


@pytest.mark.parametrize("path", ["\0", "a\0b", "\ud800", "~nobody-of-this-name/x", "x" * 5000])
def test_paths_that_no_file_can_have(path: str) -> None:
    with pytest.raises(ArgumentError, match="cannot be a path"):
        Embedder("embrief/hash", cache=SqliteCache(path=path))


def test_a_reranker_has_none() -> None:
    with pytest.raises(ArgumentTypeError, match="cache: here only embedders have one"):
        Reranker(cache="memory")  # type: ignore[call-arg] # the mistake under test
    with pytest.raises(ArgumentTypeError, match="use_cache: here it is cache="):
        Embedder("embrief/hash", use_cache=True)  # type: ignore[call-arg] # the mistake under test


WRAPPERS = [Qwen3Embeddings, Qwen3Embedding, Qwen3EmbeddingFunction]


def facade(wrapper: Any) -> Embedder:
    found: Embedder = wrapper.embedder
    return found


@pytest.mark.parametrize("kind", WRAPPERS)
def test_every_wrapper_takes_it(kind: Any, fake: FakeRuntime, tmp_path: Path) -> None:
    for cache, expected in (
        (None, None),
        ("memory", MemoryCache()),
        (SqliteCache(path=tmp_path / "x"), SqliteCache(path=str(tmp_path / "x"))),
    ):
        wrapper = kind(fake.qwen3, cache=cache)
        assert facade(wrapper).settings.cache == expected
        assert facade(kind(embedder=facade(wrapper))).settings.cache == expected
    assert facade(copy.deepcopy(wrapper)).settings.cache == expected


@pytest.mark.parametrize("kind", [Qwen3Embeddings, Qwen3Embedding])
def test_copies_have_it(kind: Any, fake: FakeRuntime) -> None:
    wrapper = kind(fake.qwen3, cache="memory")
    assert wrapper.cache == MemoryCache()
    assert wrapper.model_copy(update={"dim": 16}).embedder.settings.cache == MemoryCache()
    assert wrapper.with_dim(16).embedder.settings.cache == MemoryCache()


def test_no_store_says_where_vectors_are_kept(fake: FakeRuntime, tmp_path: Path) -> None:
    cache = SqliteCache(path=tmp_path / "secret-place")
    written = [
        Qwen3Embedding(fake.qwen3, cache=cache).to_json(),
        str(dict(Qwen3Embedding(fake.qwen3, cache=cache).to_dict())),
        Qwen3Embeddings(fake.qwen3, cache=cache).model_dump_json(),
        str(Qwen3EmbeddingFunction(fake.qwen3, cache=cache).get_config()),
    ]
    assert not [text for text in written if "secret-place" in text or "SqliteCache" in text]
    again = Qwen3Embedding.from_json(written[0])
    assert again.embedder.settings.cache is None
    given = Qwen3Embedding.from_json(written[0], cache=cache)
    assert given.embedder.settings.cache == cache
    assert str(given.to_dict()) == str(again.to_dict()), "the key of LlamaIndex's ingestion cache"


@pytest.mark.parametrize("cache", ["sqlite", "memory", {"path": "/etc/passwd"}])
def test_a_store_that_names_a_cache_is_refused(fake: FakeRuntime, cache: Any) -> None:
    data = {**Qwen3Embedding(fake.qwen3).to_dict(), "cache": cache}
    with pytest.raises(ArgumentError, match="names a cache, which no store decides; pass cache= yourself"):
        Qwen3Embedding.from_dict(data)
    with pytest.raises(ArgumentError):
        refuse_cache(cache, where="the store")
    config = {**Qwen3EmbeddingFunction(fake.qwen3).get_config(), "cache": cache}
    with pytest.raises(ArgumentError):
        Qwen3EmbeddingFunction.build_from_config(config)
