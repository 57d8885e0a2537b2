"""`embeddings_cache` can never return another role's or another model's vector."""

from __future__ import annotations

import inspect

import pytest
from llama_index.core.storage.kvstore import SimpleKVStore

from embrief import ArgumentTypeError
from embrief.testing import FakeRuntime
from llama_index_embrief import GemmaEmbedding, Qwen3Embedding
from llama_index_embrief.base import EmbriefEmbedding


async def everything(embed_model: EmbriefEmbedding) -> list[list[float]]:
    """The vectors of one text by every way there is."""
    return [
        embed_model.get_query_embedding("Paris"),
        embed_model.get_text_embedding("Paris"),
        embed_model.get_text_embedding_batch(["Paris", "Rome"])[0],
        await embed_model.aget_query_embedding("Paris"),
        await embed_model.aget_text_embedding("Paris"),
        (await embed_model.aget_text_embedding_batch(["Paris", "Rome"]))[0],
    ]


async def test_roles_never_share_an_entry(fake: FakeRuntime) -> None:
    plain = await everything(Qwen3Embedding(fake.qwen3))
    assert plain[0] != plain[1]
    store = SimpleKVStore()
    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=store)
    assert await everything(cached) == plain
    assert await everything(cached) == plain  # now from the cache
    # In the other order, on a new store: the query comes after the document.
    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=SimpleKVStore())
    cached.get_text_embedding("Paris")
    assert cached.get_query_embedding("Paris") == plain[0]


async def test_the_second_time_the_model_is_not_called(fake: FakeRuntime) -> None:
    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=SimpleKVStore())
    await everything(cached)
    fake.runs.clear()
    await everything(cached)
    assert fake.runs == []


async def test_only_missing_texts_are_computed_in_one_call_and_order_is_kept(fake: FakeRuntime) -> None:
    texts = ["a", "b", "c", "d", "b"]
    expected = Qwen3Embedding(fake.qwen3).get_text_embedding_batch(texts)
    for asynchronous in (False, True):
        cached = Qwen3Embedding(fake.qwen3, embeddings_cache=SimpleKVStore())
        cached.get_text_embedding_batch(["c"])
        fake.runs.clear()
        if asynchronous:
            assert await cached.aget_text_embedding_batch(texts) == expected
        else:
            assert cached.get_text_embedding_batch(texts) == expected
        assert fake.runs == [3]


async def test_models_dims_and_instructions_on_one_store_never_mix(fake: FakeRuntime) -> None:
    store = SimpleKVStore()
    variants = [
        (Qwen3Embedding, fake.qwen3, {}),
        (Qwen3Embedding, fake.qwen3, {"dim": 16}),
        (Qwen3Embedding, fake.qwen3, {"normalize": False}),
        (Qwen3Embedding, fake.qwen3, {"instruction": "Find cities"}),
        (Qwen3Embedding, fake.qwen3, {"instruction": ""}),
        (Qwen3Embedding, fake.qwen3, {"task": "sentence_similarity"}),
        (GemmaEmbedding, fake.gemma, {}),
        (GemmaEmbedding, fake.gemma, {"task": "clustering"}),
    ]
    for _ in range(2):
        for kind, model, options in variants:
            expected = await everything(kind(model, **options))
            assert await everything(kind(model, embeddings_cache=store, **options)) == expected, options


async def test_an_instruction_per_call_has_its_own_entry(fake: FakeRuntime) -> None:
    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=SimpleKVStore())
    default = cached.get_query_embedding("Paris")
    other = cached.get_query_embedding("Paris", instruction="Find cities")
    assert other == Qwen3Embedding(fake.qwen3).get_query_embedding("Paris", instruction="Find cities")
    assert await cached.aget_query_embedding("Paris") == default
    assert other != default


async def test_what_llama_index_itself_stored_is_never_returned(fake: FakeRuntime) -> None:
    # A store filled by another class, whose key is the bare text.
    store = SimpleKVStore()
    store.put("Paris", {"some-uuid": [1.0, 2.0]}, collection="embeddings")
    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=store)
    assert len(cached.get_text_embedding("Paris")) == 64
    assert len(cached.get_query_embedding("Paris")) == 64
    assert len(cached.get_text_embedding_batch(["Paris"])[0]) == 64
    assert len(await cached.aget_text_embedding("Paris")) == 64
    assert len(await cached.aget_query_embedding("Paris")) == 64
    assert len((await cached.aget_text_embedding_batch(["Paris"]))[0]) == 64
    assert store.get("Paris", collection="embeddings") == {"some-uuid": [1.0, 2.0]}


@pytest.mark.parametrize(
    "damage",
    [
        {}, {"embedding": None}, {"embedding": []}, {"embedding": [0.5]}, {"embedding": "text"},
        {"embedding": ["a"] * 64}, {"embedding": [float("nan")] * 64}, [],
    ],
)  # fmt: skip
async def test_a_damaged_entry_is_computed_and_stored_again(damage: object, fake: FakeRuntime) -> None:
    store = SimpleKVStore()
    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=store)
    expected = cached.get_text_embedding("Paris")
    (key,) = store.get_all("embeddings")
    for again in (lambda: cached.get_text_embedding("Paris"), lambda: cached.aget_text_embedding("Paris")):
        store.put(key, damage, collection="embeddings")
        found = again()
        assert (await found if inspect.isawaitable(found) else found) == expected
        assert store.get(key, collection="embeddings") == {"embedding": expected}


def test_texts_are_not_readable_in_the_store(fake: FakeRuntime) -> None:
    store = SimpleKVStore()
    Qwen3Embedding(fake.qwen3, embeddings_cache=store).get_text_embedding_batch(["a secret", "another"])
    keys = list(store.get_all(collection="embeddings"))
    assert len(keys) == 2
    assert all(key.startswith("document-") and len(key) < 80 for key in keys)


def test_titles_have_their_own_entries(fake: FakeRuntime) -> None:
    from llama_index.core.schema import TextNode

    store = SimpleKVStore()
    cached = GemmaEmbedding(fake.gemma, embeddings_cache=store, title_metadata_key="title")
    mars, venus = (TextNode(text="a planet", metadata={"title": title}) for title in ("Mars", "Venus"))
    cached([mars, venus])
    assert mars.embedding != venus.embedding
    again = TextNode(text="a planet", metadata={"title": "Mars"})
    fake.runs.clear()
    cached([again])
    assert again.embedding == mars.embedding
    assert fake.runs == []


def test_changing_a_returned_vector_does_not_change_the_cache(fake: FakeRuntime) -> None:
    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=SimpleKVStore())
    expected = Qwen3Embedding(fake.qwen3).get_text_embedding("Paris")
    for _ in range(3):  # computed, then from the cache
        vector = cached.get_text_embedding("Paris")
        assert vector == expected
        vector[0] = 7.0
    assert cached.get_text_embedding("Paris") == expected


def test_views_and_copies_keep_the_cache(fake: FakeRuntime) -> None:
    store = SimpleKVStore()
    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=store)
    for view in (cached.with_dim(16), cached.model_copy(update={"dim": 16}), cached.model_copy()):
        assert view.embeddings_cache.store is store


def test_it_must_be_a_store(fake: FakeRuntime) -> None:
    with pytest.raises(ArgumentTypeError, match="BaseKVStore, not dict"):
        Qwen3Embedding(fake.qwen3, embeddings_cache={})


async def test_the_wrapper_passes_listing_and_deleting_to_the_store(fake: FakeRuntime) -> None:
    store = SimpleKVStore()
    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=store)
    cached.get_text_embedding_batch(["a", "b"])
    wrapper = cached.embeddings_cache
    first, second = wrapper.get_all()
    assert wrapper.delete(first)
    assert await wrapper.adelete(second)
    assert await wrapper.aget_all() == store.get_all(collection="embeddings") == {}


async def test_keys_are_made_off_the_loop(fake: FakeRuntime, monkeypatch) -> None:
    import threading

    from embrief import Embedder

    real = Embedder.fingerprint.fget
    threads: list[str] = []
    spy = property(lambda self: (threads.append(threading.current_thread().name), real(self))[1])
    monkeypatch.setattr(Embedder, "fingerprint", spy)
    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=SimpleKVStore())
    await cached.aget_query_embedding("a")
    await cached.aget_text_embedding_batch(["a"])
    assert len(threads) == 2
    assert threading.current_thread().name not in threads
